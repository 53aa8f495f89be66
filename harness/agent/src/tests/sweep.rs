//! Every op at every point that a turn passes, one run each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cutpoint_protocol::compose::ItemContent;
use cutpoint_protocol::session::{
    AbortReason, Decision, Event, EventMsg, InputItem, Op, Submission,
};
use tokio::sync::{mpsc, watch};

use super::support::{Reply, Rig, ToolStep, is_aborted, soon};
use crate::{PointFuture, Probe, Services, Session};

/// Longer than anything takes that a run does; the clock is paused.
const PAUSE: Duration = Duration::from_secs(5);

/// Holds the agent at the n-th point it passes until the gate is open.
struct Stop {
    at: usize,
    passed: AtomicUsize,
    reached: watch::Sender<bool>,
    gate: watch::Sender<bool>,
}

impl Stop {
    fn new(at: usize) -> Arc<Self> {
        Arc::new(Self {
            at,
            passed: AtomicUsize::new(0),
            reached: watch::Sender::new(false),
            gate: watch::Sender::new(false),
        })
    }
}

impl Probe for Stop {
    fn point(&self, _: &'static str) -> Option<PointFuture> {
        if self.passed.fetch_add(1, Ordering::SeqCst) != self.at {
            return None;
        }
        self.reached.send_replace(true);
        let mut gate = self.gate.subscribe();
        Some(Box::pin(async move {
            let _ = gate.wait_for(|open| *open).await;
        }))
    }
}

fn rig(event_queue: usize) -> Rig {
    rig_with(Reply::shell("r1", &["c1", "c2"]), event_queue)
}

/// Both calls wait for approval.
fn asking(event_queue: usize) -> Rig {
    let calls = [("c1", "run"), ("c2", "run")];
    rig_with(Reply::asking("r1", &calls), event_queue)
}

/// A sub-agent runs a command that waits for approval.
fn delegating(event_queue: usize) -> Rig {
    let call = ItemContent::Function {
        call_id: "c0",
        name: "delegate",
        arguments: r#"{"task":"look"}"#,
        chunks: 2,
    };
    let first = Reply::compose("r1", &[call]);
    let rig = rig_with(first.clone(), event_queue);
    let mut replies = vec![first, Reply::asking("s1", &[("c1", "run")])];
    replies.extend((0..8).map(|_| Reply::text("r", "ok")));
    rig.model.replace(replies);
    rig
}

fn rig_with(first: Reply, event_queue: usize) -> Rig {
    let replies = vec![first, Reply::text("r2", "hello")];
    let tool = vec![
        ToolStep::Print("some"),
        ToolStep::Print("more"),
        ToolStep::Exit(0),
    ];
    let mut rig = Rig::new(replies, vec![tool.clone(), tool]);
    rig.config.event_queue = event_queue;
    (0..6).for_each(|_| rig.model.push(Reply::text("r", "ok")));
    rig
}

fn say(text: &str) -> Vec<InputItem> {
    vec![InputItem::Text {
        text: text.to_owned(),
    }]
}

fn answer(call_id: &str, decision: Decision) -> Op {
    Op::ExecApproval {
        call_id: call_id.into(),
        decision,
    }
}

async fn submit(session: &Session, id: &str, op: Op) {
    let submission = Submission { id: id.into(), op };
    soon(session.submit(submission)).await.unwrap();
}

/// Starts a session and its first turn; nothing if the stop comes before there is a session.
async fn begin(rig: &Rig, stop: &Arc<Stop>) -> Option<(Session, mpsc::Receiver<Event>)> {
    let probe = Some(Arc::clone(stop) as Arc<dyn Probe>);
    let services = Services {
        probe,
        ..rig.services()
    };
    let mut reached = stop.reached.subscribe();
    let start = async {
        let (session, events) = Session::start(rig.config.clone(), services).await.unwrap();
        submit(
            &session,
            "first",
            Op::UserTurn {
                items: say("go"),
                turn_id: None,
            },
        )
        .await;
        (session, events)
    };
    tokio::select! {
        biased;
        started = start => Some(started),
        _ = reached.wait_for(|reached| *reached) => None,
    }
}

/// Whether the stop is reached before long.
async fn is_reached(stop: &Stop) -> bool {
    let mut reached = stop.reached.subscribe();
    tokio::time::timeout(PAUSE, reached.wait_for(|reached| *reached))
        .await
        .is_ok()
}

/// What a run has shown.
struct Seen {
    /// Whether the stop was reached.
    stopped: bool,
    events: Vec<EventMsg>,
}

/// Runs a session up to the stop, does `act` there, waits a little, lets the agent go, asks a last
/// question and shuts down. Nothing if the stop comes before there is a session.
async fn run(rig: &Rig, at: usize, yields: usize, act: &Op) -> Option<Seen> {
    let stop = Stop::new(at);
    let (session, events) = begin(rig, &stop).await?;
    let reading = tokio::spawn(read(events));
    let stopped = is_reached(&stop).await;
    if stopped {
        submit(&session, "second", act.clone()).await;
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
    }
    stop.gate.send_replace(true);
    tokio::time::sleep(PAUSE).await;
    submit(
        &session,
        "last",
        Op::UserTurn {
            items: say("last"),
            turn_id: None,
        },
    )
    .await;
    tokio::time::sleep(PAUSE).await;
    // The calls of the last turn, if it has come to ask for approval. Nobody else may hear of it.
    for call_id in ["c1", "c2"] {
        submit(&session, "no", answer(call_id, Decision::Denied)).await;
    }
    tokio::time::sleep(PAUSE).await;
    submit(&session, "end", Op::Shutdown).await;
    let events = soon(reading).await.unwrap();
    Some(Seen { stopped, events })
}

async fn read(mut events: mpsc::Receiver<Event>) -> Vec<EventMsg> {
    let mut seen = Vec::new();
    while let Some(event) = events.recv().await {
        seen.push(event.msg);
    }
    seen
}

/// What must hold whatever was done where.
fn check(rig: &Rig, events: &[EventMsg], label: &str) {
    let mut open: Option<&str> = None;
    for msg in events {
        match msg {
            EventMsg::TurnStarted { turn_id } => {
                assert_eq!(open.replace(turn_id), None, "{label}: two turns at once");
            }
            msg if msg.turn_id().is_some() => {
                assert_eq!(
                    msg.turn_id().map(|id| id.as_str()),
                    open,
                    "{label}: {msg:?} outside of its turn"
                );
            }
            _ => {}
        }
        if msg.is_terminal() {
            open = None;
        }
    }
    assert_eq!(open, None, "{label}: a turn without end");
    assert_eq!(events.last(), Some(&EventMsg::ShutdownComplete), "{label}");
    for at in 0..rig.requests() {
        assert_eq!(rig.request(at).faults(), [], "{label}: request {at}");
    }
    let interrupted = events
        .iter()
        .filter(|msg| is_aborted(msg, AbortReason::Interrupted))
        .count();
    let outline = rig.request(rig.requests() - 1).outline();
    let markers = outline.iter().filter(|item| *item == "marker").count();
    assert_eq!(markers, interrupted, "{label}: {outline:?}");
    let Some(EventMsg::SessionConfigured { rollout_path, .. }) = events.first() else {
        panic!("{label}: no greeting")
    };
    let lines = rig.store.outline(rollout_path.as_ref());
    let count = |name: &str| lines.iter().filter(|line| *line == name).count();
    let ends = count("turn_complete") + count("turn_aborted") + count("turn_failed");
    assert_eq!(count("turn_started"), ends, "{label}");
    assert_eq!(rig.tools.alive(), 0, "{label}");
}

async fn sweep(act: Op, wanted: &str) {
    let passed = sweep_of(rig, act, wanted).await;
    assert!(passed > 50, "only {passed} points were passed");
}

/// Returns how many points were passed in the shortest of the runs.
async fn sweep_of(rig: fn(usize) -> Rig, act: Op, wanted: &str) -> usize {
    let mut fewest = usize::MAX;
    for event_queue in [1, 64] {
        for yields in [0, 3] {
            let mut at = 0;
            loop {
                let rig = rig(event_queue);
                let seen = run(&rig, at, yields, &act).await;
                at += 1;
                let Some(Seen { stopped, events }) = seen else {
                    continue;
                };
                if !stopped {
                    break;
                }
                let label = format!("point {at}, queue {event_queue}, {yields} yields");
                check(&rig, &events, &label);
                let outline = rig.request(rig.requests() - 1).outline();
                for text in ["u:go", "u:last", wanted] {
                    let times = outline.iter().filter(|item| item.starts_with(text)).count();
                    assert!(
                        times == 1 || text.is_empty(),
                        "{label}: {text} in {outline:?}"
                    );
                }
            }
            fewest = fewest.min(at);
        }
    }
    fewest
}

#[tokio::test(start_paused = true)]
async fn interrupts_everywhere() {
    sweep(Op::Interrupt, "").await;
}

#[tokio::test(start_paused = true)]
async fn steering_everywhere() {
    sweep(
        Op::UserInput {
            items: say("steer"),
            turn_id: None,
        },
        "u:steer",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn replacing_everywhere() {
    sweep(
        Op::UserTurn {
            items: say("other"),
            turn_id: None,
        },
        "u:other",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn commands_and_compactions_everywhere() {
    let command = "make".to_owned();
    sweep(Op::UserShell { command }, "u:<user_shell_command>").await;
    // Where the model answers with calls there is no summary, and nothing is replaced.
    sweep(Op::Compact, "").await;
}

#[tokio::test(start_paused = true)]
async fn forks_everywhere() {
    for at in 0.. {
        let mut rig = rig(64);
        let Some(Seen { stopped, events }) = run(&rig, at, 3, &Op::Fork).await else {
            continue;
        };
        if !stopped {
            assert!(at > 50, "only {at} points were passed");
            return;
        }
        let label = format!("forked at point {at}");
        check(&rig, &events, &label);
        let forked = events.iter().find_map(|msg| match msg {
            EventMsg::Forked { rollout_path, .. } => Some(rollout_path.into()),
            _ => None,
        });
        rig.config.resume = Some(forked.expect("the fork is done"));
        let asked = rig.requests();
        let seen = run(&rig, usize::MAX, 0, &Op::Interrupt).await.unwrap();
        let Some(EventMsg::SessionConfigured { rollout_path, .. }) = seen.events.first() else {
            panic!("{label}: no greeting")
        };
        let lines = rig.store.outline(rollout_path.as_ref());
        let cut = lines.iter().filter(|line| *line == "turn_aborted").count();
        let outline = rig.request(asked).outline();
        let markers = outline.iter().filter(|item| *item == "marker").count();
        assert!(
            markers <= 1 && markers == cut,
            "{label}: {outline:?} of {lines:?}"
        );
        assert_eq!(rig.request(asked).faults(), [], "{label}");
    }
}

#[tokio::test(start_paused = true)]
async fn interrupts_and_answers_around_approvals() {
    let answers = [
        Decision::Approved,
        Decision::ApprovedForSession,
        Decision::Denied,
        Decision::Abort,
    ];
    let acts = answers.map(|decision| answer("c1", decision));
    for act in acts.into_iter().chain([Op::Interrupt]) {
        let passed = sweep_of(asking, act, "").await;
        assert!(passed > 30, "only {passed} points were passed");
    }
}

#[tokio::test(start_paused = true)]
async fn interrupts_and_answers_around_sub_agents() {
    let acts = [Decision::Approved, Decision::Denied, Decision::Abort];
    let acts = acts.map(|decision| answer("c1", decision));
    let replace = Op::UserTurn {
        items: say("other"),
        turn_id: None,
    };
    for act in acts.into_iter().chain([Op::Interrupt, replace]) {
        let passed = sweep_of(delegating, act, "").await;
        assert!(passed > 50, "only {passed} points were passed");
    }
}

#[tokio::test(start_paused = true)]
async fn kills_everywhere() {
    let mut at = 0;
    loop {
        let mut rig = rig(64);
        let stop = Stop::new(at);
        at += 1;
        let Some((session, events)) = begin(&rig, &stop).await else {
            continue;
        };
        let stopped = is_reached(&stop).await;
        rig.config.resume = Some(session.rollout_path().to_owned());
        session.kill();
        drop(events);
        if !stopped {
            break;
        }
        let seen = run(&rig, usize::MAX, 0, &Op::Interrupt).await.unwrap();
        check(&rig, &seen.events, &format!("killed at point {at}"));
    }
    assert!(at > 50, "only {at} points were passed");
}
