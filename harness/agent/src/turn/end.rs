//! How a turn ends by itself, and what every end that comes too early must save.

use std::sync::Arc;

use cutpoint_protocol::Item;
use cutpoint_protocol::item::CallKind;
use cutpoint_protocol::session::{AbortReason, EventMsg};

use super::Failure;
use super::crew::Crew;
use crate::defect::{Defect, DefectSet};
use crate::history;
use crate::lock;
use crate::rollout::Draft;
use crate::shared::{Active, Caller, Core, LiveCall, State, Turn};
use crate::tools::parse;

/// Finishes a turn that ran to its end, unless an abort was quicker.
pub(super) async fn complete(core: &Arc<Core>, turn: &Turn) {
    let Some(active) = core.take(turn) else {
        if core.has(Defect::CompletesAlthoughAborted) {
            tell_complete(core, turn, None).await;
        }
        if core.has(Defect::AbortedByBoth) {
            tell_aborted(core, turn).await;
        }
        return;
    };
    core.hooks.point("turn.taken").await;
    let (message, used) = {
        let live = lock(&turn.live);
        (
            live.last_message.clone(),
            (live.input_tokens, live.output_tokens),
        )
    };
    let recorded = core
        .record(|state| {
            let mut drafts = std::mem::take(&mut lock(&turn.live).late);
            drafts.extend(leave(core.config.defects, state, active));
            drafts.push(Draft::token_count(&turn.id, used.0, used.1));
            drafts.push(Draft::turn_complete(&turn.id, message.as_deref()));
            drafts
        })
        .await;
    core.report(&turn.submission, recorded).await;
    // A client that has seen the end must not find the turn open again after a crash.
    let flushed = core.recorder.flush().await;
    core.report(&turn.submission, flushed).await;
    core.tell_joined(turn).await;
    turn.agents.tell_ends(core, turn).await;
    tell_complete(core, turn, message).await;
}

/// For a planted defect: the turn's own end says that it was aborted.
async fn tell_aborted(core: &Core, turn: &Turn) {
    let (turn_id, reason) = (turn.id.clone(), AbortReason::Interrupted);
    let msg = EventMsg::TurnAborted { turn_id, reason };
    core.events.emit(&turn.submission, msg).await;
}

/// Tells the client that the turn is complete.
pub(crate) async fn tell_complete(core: &Core, turn: &Turn, message: Option<String>) {
    let msg = EventMsg::TurnComplete {
        turn_id: turn.id.clone(),
        last_agent_message: message,
    };
    core.events.emit(&turn.submission, msg).await;
}

/// Ends a turn with its error, unless an abort was quicker.
pub(super) async fn fail(core: &Arc<Core>, turn: &Turn, crew: &Crew, failure: Failure) {
    let Some(active) = core.take(turn) else {
        return;
    };
    turn.token.cancel();
    let _ = tokio::time::timeout(core.config.grace, crew.drive_out()).await;
    // What has not ended by now is dropped, so that nothing of the turn follows its end.
    crew.dismiss();
    failed(core, active, failure.0).await;
}

/// Records and tells the failure of a turn that was taken out of the session.
pub(crate) async fn failed(core: &Core, active: Active, message: String) {
    let turn = Arc::clone(&active.turn);
    turn.agents.wind_up().await;
    let recorded = core
        .record(|state| {
            let mut drafts = save(DefectSet::default(), state, &turn);
            drafts.extend(leave(core.config.defects, state, active));
            if core.has(Defect::MarkerOnFailure) {
                drafts.extend(push_all(state, vec![history::marker()]));
            }
            drafts.push(Draft::turn_failed(&turn.id, &message));
            drafts
        })
        .await;
    let flushed = core.recorder.flush().await;
    // When the disk is what the turn failed of, saying so once more tells nothing new.
    let fault = recorded.and(flushed).err();
    if let Some(fault) = fault.filter(|fault| fault.to_string() != message) {
        core.report(&turn.submission, Err(fault)).await;
    }
    core.tell_joined(&turn).await;
    turn.agents.tell_ends(core, &turn).await;
    let turn_id = turn.id.clone();
    core.events
        .emit(&turn.submission, EventMsg::TurnFailed { turn_id, message })
        .await;
    // The turn's calls are gone by now, so nobody is told of a rejection.
    lock(&core.state).approvals.clear();
}

/// Saves what an aborted turn had in hand: texts that the user was shown, outputs that calls are
/// owed, input that had not joined a request yet.
pub(crate) fn wind_down(core: &Core, state: &mut State, active: Active) -> Vec<Draft> {
    let turn = Arc::clone(&active.turn);
    if core.has(Defect::HeaderOutlivesAbort) {
        state.stale_header = lock(&turn.live).routing.clone();
    }
    if core.has(Defect::PromptLost) && !turn.was_requested() {
        state.history.drop_behind(turn.history_start, |_| true);
    }
    let mut drafts = save(core.config.defects, state, &turn);
    drafts.extend(leave(core.config.defects, state, active));
    drafts
}

fn save(defects: DefectSet, state: &mut State, turn: &Turn) -> Vec<Draft> {
    let (texts, calls, half) = {
        let mut live = lock(&turn.live);
        (
            std::mem::take(&mut live.texts),
            std::mem::take(&mut live.calls),
            live.half_call.take(),
        )
    };
    let mut items = Vec::new();
    if !defects.contains(Defect::ShownTextLost) {
        let shown = texts.iter().filter(|(_, text)| !text.is_empty());
        items.extend(shown.filter_map(|(_, text)| history::assistant_text(text)));
    }
    if defects.contains(Defect::HalfCallInvented) {
        items.extend(half.and_then(invented).into_iter().flatten());
    }
    if defects.contains(Defect::MessageVanishes) {
        let finished = |item: &Item| item.role() == Some("assistant");
        state.history.drop_behind(turn.history_start, finished);
    }
    for call in calls {
        if defects.contains(Defect::AnsweredTwice) && call.output.is_some() {
            items.push(call.item(history::ABORTED));
        }
        items.extend(output_of(defects, state, call));
    }
    if defects.contains(Defect::ForgetOutput) {
        state.history.forget_debt();
    }
    push_all(state, items)
}

/// The output of a call that was cut off, or the real one if it had ended.
fn output_of(defects: DefectSet, state: &mut State, call: LiveCall) -> Option<Item> {
    if let Some(output) = &call.output {
        return Some(call.item(output));
    }
    if let Caller::User(_) = call.caller {
        if defects.contains(Defect::UserCommandForgotten) {
            return None;
        }
        let untold = defects.contains(Defect::UserOutputLost);
        let told = if untold {
            parse::aborted(call.started, "")
        } else {
            call.output_now()
        };
        return Some(call.item(&told));
    }
    if defects.contains(Defect::ForgetOutput) || defects.contains(Defect::OutputBehindInput) {
        return None;
    }
    if defects.contains(Defect::ExecutedCallVanishes) && call.started {
        state.history.drop_call(&call.call_id);
        return None;
    }
    if defects.contains(Defect::OrphanOutput) {
        state.history.drop_call(&call.call_id);
    }
    let mut printed = call.printed.text();
    if defects.contains(Defect::PartialOutputLost) {
        printed.clear();
    }
    let output = if defects.contains(Defect::ClaimsSuccess) {
        parse::completed(Some(0), &printed)
    } else {
        parse::aborted(call.started, &printed)
    };
    if let Caller::Model(CallKind::Custom) = call.caller
        && defects.contains(Defect::WrongKindOfOutput)
    {
        return Some(Item::output(CallKind::Function, &call.call_id, &output));
    }
    Some(call.item(&output))
}

/// What a running turn would leave in the history if it were stopped now, without stopping it.
pub(crate) fn in_hand(active: &Active) -> Vec<Item> {
    let live = lock(&active.turn.live);
    let shown = live.texts.iter().filter(|(_, text)| !text.is_empty());
    let texts = shown.filter_map(|(_, text)| history::assistant_text(text));
    let calls = live.calls.iter().map(|call| call.item(&call.output_now()));
    let input = active.input.iter().cloned();
    texts.chain(calls).chain(input).collect()
}

/// For a planted defect: a call made whole from the half of it that had come.
fn invented((call, text): (Item, String)) -> Option<[Item; 2]> {
    let kind = call.call_kind()?;
    let call_id = call.call_id()?.to_owned();
    let mut value = call.into_value();
    for field in ["arguments", "input"] {
        if value.get(field).is_some() {
            value[field] = serde_json::Value::String(text.clone());
        }
    }
    let call = Item::from_value(value).ok()?;
    Some([call, Item::output(kind, &call_id, history::ABORTED)])
}

/// Records the input that came too late for the turn, and what planted defects take along.
fn leave(defects: DefectSet, state: &mut State, active: Active) -> Vec<Draft> {
    if defects.contains(Defect::StaleTurnHeader) {
        state.stale_header = lock(&active.turn.live).routing.clone();
    }
    if defects.contains(Defect::SteerLost) {
        return Vec::new();
    }
    let mut drafts = Vec::new();
    for item in active.input {
        drafts.extend(Draft::user_input(&active.turn.id, &item));
        active.turn.joined(&item);
        state.history.push(item);
    }
    drafts
}

fn push_all(state: &mut State, items: Vec<Item>) -> Vec<Draft> {
    let drafts = items.iter().map(Draft::item).collect();
    items.into_iter().for_each(|item| state.history.push(item));
    drafts
}
