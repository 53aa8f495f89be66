//! What a person sees, event by event, and with each defect of the view.

use cutpoint_protocol::TurnId;
use cutpoint_protocol::session::{AbortReason, Event, EventMsg};
use tokio::sync::watch;

use super::support::{Reply, Rig, ToolStep};
use crate::{Defect, Transcript, TranscriptLine};

/// A view, and what was seen in it so far, each line in a few words.
struct Screen {
    transcript: Transcript,
    seen: Vec<String>,
}

impl Screen {
    fn new(defects: &[Defect]) -> Self {
        Self {
            transcript: Transcript::new(defects.iter().copied().collect()),
            seen: Vec::new(),
        }
    }

    fn take(&mut self, submission: &str, msg: EventMsg) -> &mut Self {
        let id = submission.into();
        let lines = self.transcript.take(&Event { id, msg });
        self.seen.extend(lines.iter().map(in_words));
        self
    }

    fn start(&mut self, turn: &str) -> &mut Self {
        let turn_id = turn.into();
        self.take(turn, EventMsg::TurnStarted { turn_id })
    }

    fn delta(&mut self, turn: &str, delta: &str) -> &mut Self {
        let (turn_id, delta) = (turn.into(), delta.to_owned());
        self.take(turn, EventMsg::AgentMessageDelta { turn_id, delta })
    }

    fn thinks(&mut self, turn: &str, delta: &str) -> &mut Self {
        let (turn_id, delta) = (turn.into(), delta.to_owned());
        self.take(turn, EventMsg::AgentReasoningDelta { turn_id, delta })
    }

    fn message(&mut self, turn: &str, message: &str) -> &mut Self {
        let (turn_id, message) = (turn.into(), message.to_owned());
        self.take(turn, EventMsg::AgentMessage { turn_id, message })
    }

    fn user(&mut self, turn: &str, message: &str) -> &mut Self {
        let (turn_id, message) = (turn.into(), message.to_owned());
        self.take(turn, EventMsg::UserMessage { turn_id, message })
    }

    fn aborted(&mut self, turn: &str, reason: AbortReason) -> &mut Self {
        let turn_id = turn.into();
        self.take(turn, EventMsg::TurnAborted { turn_id, reason })
    }

    fn command(&mut self, turn: &str, command: &[&str]) -> &mut Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let begin = EventMsg::ExecCommandBegin {
            turn_id: turn.into(),
            call_id: "c1".into(),
            command,
            pid: None,
        };
        self.take(turn, begin)
    }

    fn error(&mut self, submission: &str, message: &str) -> &mut Self {
        let message = message.to_owned();
        self.take(submission, EventMsg::Error { message })
    }

    fn failed(&mut self, turn: &str) -> &mut Self {
        let (turn_id, message) = (turn.into(), "over".to_owned());
        self.take(turn, EventMsg::TurnFailed { turn_id, message })
    }

    fn seen(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen)
    }
}

fn in_words(line: &TranscriptLine) -> String {
    let turn = |turn_id: &Option<TurnId>| turn_id.as_deref().unwrap_or("-").to_owned();
    match line {
        TranscriptLine::User { text } => format!("> {text}"),
        TranscriptLine::Message { turn_id, text } => format!("{}: {text}", turn(turn_id)),
        TranscriptLine::Reasoning { turn_id, text } => format!("{}~ {text}", turn(turn_id)),
        TranscriptLine::Command { text, .. } => format!("$ {text}"),
        TranscriptLine::Waiting { text, .. } => format!("? {text}"),
        TranscriptLine::Error { text, stopped } => format!("! {text}, stops {}", turn(stopped)),
        TranscriptLine::Status { text } => format!("# {text}"),
    }
}

/// A turn is cut while it thinks and writes, and the next one has started.
fn cut(defects: &[Defect]) -> Screen {
    let mut screen = Screen::new(defects);
    screen.start("t1").user("t1", "hi").thinks("t1", "Hm.");
    screen.aborted("t1", AbortReason::Interrupted);
    screen.start("t2").user("t2", "go on").delta("t2", "The ");
    screen.aborted("t2", AbortReason::Replaced).start("t3");
    screen
}

#[test]
fn a_turn_reads_in_order() {
    let mut screen = Screen::new(&[]);
    screen.start("t1").user("t1", "hi").thinks("t1", "Hm.");
    screen
        .delta("t1", "Hel")
        .delta("t1", "lo")
        .message("t1", "Hello");
    screen.command("t1", &["bash", "-lc", "ls -l"]);
    screen
        .delta("t1", "Wait")
        .user("t1", "quick")
        .message("t1", "Done.");
    let wanted = [
        "> hi",
        "t1~ Hm.",
        "t1: Hello",
        "$ ls -l",
        "t1: Wait",
        "> quick",
        "t1: Done.",
    ];
    assert_eq!(screen.seen(), wanted);
}

#[test]
fn a_cut_turn_leaves_what_was_seen_and_nothing_more() {
    let mut screen = cut(&[]);
    let interrupted = ["> hi", "t1~ Hm.", "# task interrupted"];
    let replaced = [
        "> go on",
        "t2: The ",
        "# task aborted: replaced by a new task",
    ];
    assert_eq!(screen.seen(), [interrupted, replaced].concat());
    screen
        .delta("t1", "x")
        .thinks("t2", "x")
        .message("t1", "x")
        .command("t2", &["x"]);
    screen.aborted("t1", AbortReason::Interrupted);
    screen.delta("t3", "Now").message("t3", "Now");
    assert_eq!(screen.seen(), ["t3: Now"]);
}

#[test]
fn pieces_that_come_between_turns_are_stale() {
    let mut screen = cut(&[]);
    screen.aborted("t3", AbortReason::Interrupted).seen();
    screen
        .delta("t3", "x")
        .message("t3", "x")
        .start("t4")
        .message("t4", "Now");
    assert_eq!(screen.seen(), ["t4: Now"]);
}

#[test]
fn errors_are_shown_and_stop_their_own_turn_only() {
    let mut screen = cut(&[]);
    screen.seen();
    screen
        .error("op", "no such op")
        .failed("t1")
        .error("t3", "disk full")
        .failed("t3");
    let wanted = [
        "! no such op, stops -",
        "! over, stops -",
        "! disk full, stops t3",
        "! over, stops t3",
    ];
    assert_eq!(screen.seen(), wanted);
}

#[test]
fn a_stream_that_is_tried_again_begins_a_new_message() {
    let mut screen = cut(&[]);
    screen.seen();
    let (turn_id, message) = ("t3".into(), "broken".to_owned());
    screen
        .delta("t3", "Hel")
        .take("t3", EventMsg::StreamError { turn_id, message });
    screen.delta("t3", "Hello").message("t3", "Hello");
    assert_eq!(screen.seen(), ["t3: Hel", "! broken, stops -", "t3: Hello"]);
}

#[test]
fn questions_are_shown_while_somebody_waits() {
    let mut screen = cut(&[]);
    screen.seen();
    for turn in ["t1", "t3", "t4"] {
        let asks = EventMsg::ExecApprovalRequest {
            turn_id: turn.into(),
            call_id: "c1".into(),
            command: vec!["rm".to_owned(), turn.to_owned()],
        };
        screen.take(turn, asks);
    }
    assert_eq!(screen.seen(), ["? run `rm t3`?", "? run `rm t4`?"]);
}

#[test]
fn each_defect_shows() {
    let after = |defect: Defect, then: &dyn Fn(&mut Screen)| {
        let mut screen = cut(&[defect]);
        then(&mut screen);
        screen.seen().pop().unwrap()
    };
    let says = |screen: &mut Screen| {
        screen.delta("t3", "Now").message("t3", "Now");
    };
    assert_eq!(after(Defect::ViewBuffersKept, &says), "t3: The Now");
    let thinks = |screen: &mut Screen| {
        screen
            .thinks("t3", "Hm.")
            .aborted("t3", AbortReason::Replaced);
        screen.start("t4").thinks("t4", "So.").message("t4", "");
    };
    assert_eq!(after(Defect::ViewReasoningKept, &thinks), "t4~ Hm.So.");
    let late = |screen: &mut Screen| {
        screen
            .delta("t1", "x")
            .delta("t3", "N")
            .delta("t1", "x")
            .message("t3", "N");
    };
    assert_eq!(after(Defect::ViewTakesStaleText, &late), "t3: xNx");
    assert_eq!(after(Defect::ViewTakesStalePiece, &late), "t3: xN");
    let runs = |screen: &mut Screen| {
        screen.command("t1", &["x"]);
    };
    assert_eq!(after(Defect::ViewShowsStaleCommand, &runs), "$ x");
    let stale = |screen: &mut Screen| {
        screen.message("t3", "N").failed("t1");
    };
    assert_eq!(after(Defect::ViewHidesStaleError, &stale), "t3: N");
    assert_eq!(
        after(Defect::ViewStopsOnStaleError, &stale),
        "! over, stops t3"
    );
    let fails = |screen: &mut Screen| {
        screen.failed("t3");
    };
    assert_eq!(after(Defect::ViewMissesFailure, &fails), "! over, stops -");
    let replaced = |screen: &mut Screen| {
        screen.aborted("t3", AbortReason::Replaced);
    };
    let text = after(Defect::ReplacedReadsInterrupted, &replaced);
    assert_eq!(text, "# task interrupted");
    let again = |screen: &mut Screen| {
        screen
            .message("t3", "N")
            .aborted("t1", AbortReason::Interrupted);
    };
    assert_eq!(after(Defect::AbortShownTwice, &again), "# task interrupted");
    let cuts = |screen: &mut Screen| {
        screen
            .message("t3", "N")
            .aborted("t3", AbortReason::Interrupted);
    };
    assert_eq!(after(Defect::AbortNotShown, &cuts), "t3: N");
}

fn said(events: &[EventMsg]) -> Vec<&str> {
    let texts = events.iter().filter_map(|msg| match msg {
        EventMsg::UserMessage { message, .. } => Some(message.as_str()),
        _ => None,
    });
    texts.collect()
}

#[tokio::test(start_paused = true)]
async fn the_client_is_told_when_its_words_are_taken() {
    let (open, gate) = watch::channel(false);
    let tools = vec![vec![ToolStep::Gate(gate), ToolStep::Exit(0)]];
    let replies = vec![Reply::shell("r1", &["c1"]), Reply::text("r2", "ok")];
    let rig = Rig::new(replies, tools);
    let mut client = rig.start().await;
    client.user("go").await;
    client.begin_of_tool().await;
    client.user("faster").await;
    // Nothing is announced before a request takes it along.
    assert_eq!(said(&client.rest().await), [""; 0]);
    open.send_replace(true);
    let events = client.until(EventMsg::is_terminal).await;
    let events: Vec<_> = events.into_iter().map(|event| event.msg).collect();
    assert_eq!(said(&events), ["faster"]);
}

/// Input that comes while the only answer streams, and how the turn goes on.
async fn steered(interrupted: bool) -> Vec<EventMsg> {
    let (open, gate) = watch::channel(false);
    let reply = Reply::text("r1", "hello").gated("response.output_text.delta", 1, gate);
    let rig = Rig::new(vec![reply], vec![]);
    let mut client = rig.start().await;
    client.user("hi").await;
    client.delta().await;
    client.user("wait").await;
    assert_eq!(client.rest().await, []);
    if interrupted {
        client.interrupt().await;
    } else {
        open.send_replace(true);
    }
    let events = client.until(EventMsg::is_terminal).await;
    assert_eq!(client.rest().await, [], "nothing follows the end");
    events.into_iter().map(|event| event.msg).collect()
}

#[tokio::test(start_paused = true)]
async fn words_that_miss_every_request_are_told_before_the_end() {
    for interrupted in [true, false] {
        assert_eq!(said(&steered(interrupted).await), ["wait"]);
    }
}
