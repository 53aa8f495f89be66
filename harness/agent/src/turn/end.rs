//! How a turn ends by itself, and what every end that comes too early must save.

use std::sync::Arc;

use cutpoint_protocol::Item;
use cutpoint_protocol::item::CallKind;
use cutpoint_protocol::session::{AbortReason, EventMsg};

use super::TurnFailure;
use super::tool_tasks::ToolTasks;
use crate::defect::{Defect, DefectSet};
use crate::history;
use crate::lock;
use crate::rollout::LineDraft;
use crate::session_core::{ActiveCall, ActiveTurn, CallOrigin, SessionCore, SessionState, Turn};
use crate::tools::call_text;

/// Finishes a turn that ran to its end, unless an abort was quicker.
pub(super) async fn complete(core: &Arc<SessionCore>, turn: &Turn) {
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
        let progress = lock(&turn.progress);
        (
            progress.last_message.clone(),
            (progress.input_tokens, progress.output_tokens),
        )
    };
    let recorded = core
        .record(|state| {
            let mut drafts = std::mem::take(&mut lock(&turn.progress).late);
            drafts.extend(leave(core.config.defects, state, active));
            drafts.push(LineDraft::token_count(&turn.id, used.0, used.1));
            drafts.push(LineDraft::turn_complete(&turn.id, message.as_deref()));
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
async fn tell_aborted(core: &SessionCore, turn: &Turn) {
    let (turn_id, reason) = (turn.id.clone(), AbortReason::Interrupted);
    let msg = EventMsg::TurnAborted { turn_id, reason };
    core.events.emit(&turn.submission, msg).await;
}

/// Tells the client that the turn is complete.
pub(crate) async fn tell_complete(core: &SessionCore, turn: &Turn, message: Option<String>) {
    let msg = EventMsg::TurnComplete {
        turn_id: turn.id.clone(),
        last_agent_message: message,
    };
    core.events.emit(&turn.submission, msg).await;
}

/// Ends a turn with its error, unless an abort was quicker.
pub(super) async fn fail(
    core: &Arc<SessionCore>,
    turn: &Turn,
    tool_tasks: &ToolTasks,
    failure: TurnFailure,
) {
    let Some(active) = core.take(turn) else {
        return;
    };
    turn.token.cancel();
    let _ = tokio::time::timeout(core.config.grace, tool_tasks.drive_out()).await;
    // What has not ended by now is dropped, so that nothing of the turn follows its end.
    tool_tasks.dismiss();
    failed(core, active, failure.0).await;
}

/// Records and tells the failure of a turn that was taken out of the session.
pub(crate) async fn failed(core: &SessionCore, active: ActiveTurn, message: String) {
    let turn = Arc::clone(&active.turn);
    turn.agents.wind_up().await;
    let recorded = core
        .record(|state| {
            let mut drafts = save(DefectSet::default(), state, &turn);
            drafts.extend(leave(core.config.defects, state, active));
            if core.has(Defect::MarkerOnFailure) {
                drafts.extend(push_all(state, vec![history::marker()]));
            }
            drafts.push(LineDraft::turn_failed(&turn.id, &message));
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
    // The turn's calls are gone by now, so this rejects none of them.
    lock(&core.state).approvals.clear();
}

/// Saves what an aborted turn had in hand: texts that the user was shown, outputs that calls are
/// owed, input that had not joined a request yet.
pub(crate) fn wind_down(
    core: &SessionCore,
    state: &mut SessionState,
    active: ActiveTurn,
) -> Vec<LineDraft> {
    let turn = Arc::clone(&active.turn);
    if core.has(Defect::HeaderOutlivesAbort) {
        state.stale_header = lock(&turn.progress).routing.clone();
    }
    if core.has(Defect::PromptLost) && !turn.was_requested() {
        state.history.drop_behind(turn.history_start, |_| true);
    }
    let mut drafts = save(core.config.defects, state, &turn);
    drafts.extend(leave(core.config.defects, state, active));
    drafts
}

fn save(defects: DefectSet, state: &mut SessionState, turn: &Turn) -> Vec<LineDraft> {
    let (texts, calls, half) = {
        let mut progress = lock(&turn.progress);
        (
            std::mem::take(&mut progress.texts),
            std::mem::take(&mut progress.calls),
            progress.half_call.take(),
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
fn output_of(defects: DefectSet, state: &mut SessionState, call: ActiveCall) -> Option<Item> {
    if let Some(output) = &call.output {
        return Some(call.item(output));
    }
    if let CallOrigin::User(_) = call.origin {
        if defects.contains(Defect::UserCommandForgotten) {
            return None;
        }
        let loses_output = defects.contains(Defect::UserOutputLost);
        let reported = if loses_output {
            call_text::aborted(call.started, "")
        } else {
            call.output_now()
        };
        return Some(call.item(&reported));
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
        call_text::completed(Some(0), &printed)
    } else {
        call_text::aborted(call.started, &printed)
    };
    if let CallOrigin::Model(CallKind::Custom) = call.origin
        && defects.contains(Defect::WrongKindOfOutput)
    {
        return Some(Item::output(CallKind::Function, &call.call_id, &output));
    }
    Some(call.item(&output))
}

/// What a running turn would leave in the history if it were stopped now, without stopping it.
pub(crate) fn in_hand(active: &ActiveTurn) -> Vec<Item> {
    let progress = lock(&active.turn.progress);
    let shown = progress.texts.iter().filter(|(_, text)| !text.is_empty());
    let texts = shown.filter_map(|(_, text)| history::assistant_text(text));
    let calls = progress
        .calls
        .iter()
        .map(|call| call.item(&call.output_now()));
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
fn leave(defects: DefectSet, state: &mut SessionState, active: ActiveTurn) -> Vec<LineDraft> {
    if defects.contains(Defect::StaleTurnHeader) {
        state.stale_header = lock(&active.turn.progress).routing.clone();
    }
    if defects.contains(Defect::SteerLost) {
        return Vec::new();
    }
    let mut drafts = Vec::new();
    for item in active.input {
        drafts.extend(LineDraft::user_input(&active.turn.id, &item));
        active.turn.joined(&item);
        state.history.push(item);
    }
    drafts
}

fn push_all(state: &mut SessionState, items: Vec<Item>) -> Vec<LineDraft> {
    let drafts = items.iter().map(LineDraft::item).collect();
    items.into_iter().for_each(|item| state.history.push(item));
    drafts
}
