//! ROLL-4: a rollout brackets each turn once, in order.

use crate::fast_hash::HashMap;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Bracket, FileLine, LineKind, Read, RolloutFile, Turn, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{Feature, ReadTrigger};

pub(super) struct TurnsAreBracketed;

const ORDINAL_GAP: Clause = Clause {
    kind: "ordinal-gap",
    text: "line {line} of {file} has ordinal {ordinal} after {previous}",
};
const NOT_CLOSED: Clause = Clause {
    kind: "not-closed",
    text: "{file}: {turn}, started on line {line}, has no terminal line",
};
const OVERLAP: Clause = Clause {
    kind: "overlap",
    text: "{file}: {turn} starts on line {line}, while {open} of line {open_line} has no terminal \
           line",
};
const STARTED_TWICE: Clause = Clause {
    kind: "started-twice",
    text: "{file}: {turn} starts again on line {line}",
};
const NOT_OPEN: Clause = Clause {
    kind: "not-open",
    text: "{file}: {turn} ends on line {line} without being open",
};
const OTHER_TURN_OPEN: Clause = Clause {
    kind: "other-turn-open",
    text: "{file}: {turn} ends on line {line}, while {open} is open",
};
const NOT_STARTED: Clause = Clause {
    kind: "not-started",
    text: "no rollout has a line that starts turn {turn}",
};

impl Invariant for TurnsAreBracketed {
    fn id(&self) -> &'static str {
        "ROLL-4"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A rollout has one started line and one terminal line per turn, in order and without \
         overlap, and ordinals, where its lines have them, grow by one."
    }

    fn source(&self) -> &'static str {
        "openai/codex #12382 (a resumed session shows an aborted turn as running), #45150 (bad \
         ordinals)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Rollout, Feature::RolloutTurns]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A turn that was cut by a kill may lack its terminal line until the session is \
             resumed.",
            "The terminal line of the last turn may be missing from a read that was made when \
             its terminal event came, or earlier: the line may follow.",
            "A fork's rollout may end a turn that starts in the rollout it was forked from.",
            "A line that the harness tore off the file may be missing; a terminal line may be \
             missing until the session is resumed.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "the last read of a rollout shows a turn"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            ORDINAL_GAP,
            NOT_CLOSED,
            OVERLAP,
            STARTED_TWICE,
            NOT_OPEN,
            OTHER_TURN_OPEN,
            NOT_STARTED,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut announced: HashMap<&str, Vec<&Turn<'_>>> = HashMap::default();
        for turn in &view.turns {
            announced.entry(turn.id).or_default().push(turn);
        }
        for file in &view.rollouts {
            let Some(last) = file.reads.last() else {
                continue;
            };
            check_ordinals(view, file, &mut findings);
            let mut brackets = Brackets {
                view,
                file,
                last,
                announced: &announced,
                open: None,
                started: HashMap::default(),
                findings: &mut findings,
            };
            brackets.check();
        }
        check_missing(view, &mut findings);
        findings
    }
}

fn check_ordinals(view: &View<'_>, file: &RolloutFile<'_>, findings: &mut Findings) {
    let numbered = file.lines.iter().enumerate();
    let numbered = numbered.filter_map(|(at, line)| Some((at + 1, line.ordinal?, line.read_at)));
    let mut previous: Option<u64> = None;
    for (number, ordinal, read) in numbered {
        if let Some(before) = previous
            && before.checked_add(1) != Some(ordinal)
        {
            let fault = ORDINAL_GAP.with("line", number).with("file", file.path);
            let fault = fault.with("ordinal", ordinal).with("previous", before);
            findings.breach(view, fault, &[read]);
        }
        previous = Some(ordinal);
    }
}

/// Follows the brackets of one file.
struct Brackets<'c, 'a> {
    view: &'c View<'a>,
    file: &'c RolloutFile<'a>,
    last: &'c Read<'a>,
    announced: &'c HashMap<&'a str, Vec<&'c Turn<'a>>>,
    /// The line that started the turn which is open, with its number.
    open: Option<(usize, &'c FileLine, &'c Bracket)>,
    /// How many lines started the turn of each id.
    started: HashMap<&'c str, usize>,
    findings: &'c mut Findings,
}

impl<'c> Brackets<'c, '_> {
    fn check(&mut self) {
        let file = self.file;
        for (at, line) in file.lines.iter().enumerate() {
            let LineKind::Turn(bracket) = &line.kind else {
                continue;
            };
            match bracket.end {
                None => self.start(at + 1, line, bracket),
                Some(_) => self.end(at + 1, line, bracket),
            }
        }
        if let Some((number, line, bracket)) = self.open
            && !self.may_be_open(bracket.turn_id.as_deref())
        {
            let fault = NOT_CLOSED.with("turn", name(bracket)).with("line", number);
            self.breach(fault, &[line.read_at, self.last.at]);
        }
    }

    fn start(&mut self, number: usize, line: &'c FileLine, bracket: &'c Bracket) {
        self.findings.exercised += 1;
        if let Some((open, _, of)) = self.open.replace((number, line, bracket)) {
            let fault = OVERLAP.with("turn", name(bracket)).with("line", number);
            let fault = fault.with("open", name(of)).with("open_line", open);
            self.breach(fault, &[line.read_at]);
        }
        let Some(id) = bracket.turn_id.as_deref() else {
            return;
        };
        let count = self.started.entry(id).or_default();
        *count += 1;
        // Agents that count their turns from 0 in each session use an id again.
        let announced = self.announced.get(id).map_or(1, Vec::len);
        if *count == announced + 1 {
            let fault = STARTED_TWICE
                .with("turn", name(bracket))
                .with("line", number);
            self.breach(fault, &[line.read_at]);
        }
    }

    fn end(&mut self, number: usize, line: &FileLine, bracket: &Bracket) {
        let name = name(bracket);
        let Some((_, _, open)) = self.open.take() else {
            if self.is_closed_in_a_fork(bracket) {
                return;
            }
            let fault = NOT_OPEN.with("turn", name).with("line", number);
            self.breach(fault, &[line.read_at]);
            return;
        };
        let differ = open.turn_id.is_some() && bracket.turn_id.is_some();
        if differ && open.turn_id != bracket.turn_id {
            let fault = OTHER_TURN_OPEN.with("turn", name).with("line", number);
            let fault = fault.with("open", self::name(open));
            self.breach(fault, &[line.read_at]);
        }
    }

    /// Whether the file is that of a fork, which closes a turn that the first file starts.
    fn is_closed_in_a_fork(&self, bracket: &Bracket) -> bool {
        let starts = |line: &FileLine| match &line.kind {
            LineKind::Turn(other) => other.end.is_none() && other.turn_id == bracket.turn_id,
            _ => false,
        };
        let mut others = self.view.rollouts.iter();
        let elsewhere =
            others.any(|other| other.path != self.file.path && other.lines.iter().any(starts));
        elsewhere && !self.view.forks.is_empty()
    }

    /// Whether the turn that the file leaves open may be so.
    fn may_be_open(&self, id: Option<&str>) -> bool {
        let (view, read) = (self.view, self.last);
        let is_final = matches!(read.trigger, ReadTrigger::End | ReadTrigger::Exit);
        let named = id
            .and_then(|id| self.announced.get(id))
            .and_then(|turns| turns.last());
        let newest = || {
            let begun = view.turns.partition_point(|turn| turn.begun < read.at);
            begun.checked_sub(1).and_then(|last| view.turns.get(last))
        };
        // A file whose turn ids were never announced belongs to a sub-agent.
        let turn = match id {
            Some(_) => named.copied(),
            None => newest(),
        };
        let Some(turn) = turn else {
            let killed = view.kills.iter().rev().find(|kill| **kill < read.at);
            let cut = killed.is_some_and(|kill| !view.resumed_between(*kill, read.at));
            return cut || !is_final;
        };
        if let Some(killed) = turn.killed {
            return !view.resumed_between(killed, read.at);
        }
        match turn.ending() {
            Some(ending) => ending.at > read.at || !is_final || self.lost_its_end(id),
            None => !is_final,
        }
    }

    /// Whether the harness tore a turn's terminal line off, and no agent had the file since.
    fn lost_its_end(&self, id: Option<&str>) -> bool {
        let ends = |line: &FileLine| match &line.kind {
            LineKind::Turn(bracket) => bracket.end.is_some() && bracket.turn_id.as_deref() == id,
            _ => false,
        };
        let tear = self.view.last_tear(self.last.at);
        let untouched = tear.is_some_and(|tear| !self.view.resumed_between(tear, self.last.at));
        untouched && self.file.torn.iter().any(ends)
    }

    fn breach(&mut self, fault: Fault, shown_by: &[At]) {
        let fault = fault.with("file", self.file.path);
        self.findings.breach(self.view, fault, shown_by);
    }
}

/// Looks for turns of which no file has a started line, if the lines identify turns by the ids that
/// the events have.
fn check_missing(view: &View<'_>, findings: &mut Findings) {
    let lines = view.rollouts.iter().flat_map(|file| &file.lines);
    let mut written: HashMap<&str, usize> = HashMap::default();
    for line in lines {
        if let LineKind::Turn(Bracket {
            turn_id: Some(id),
            end: None,
        }) = &line.kind
        {
            *written.entry(id).or_default() += 1;
        }
    }
    if !view.turns.iter().any(|turn| written.contains_key(turn.id)) {
        return;
    }
    let last = view.rollouts.iter().filter_map(|file| file.reads.last());
    let last = last.filter(|read| matches!(read.trigger, ReadTrigger::End | ReadTrigger::Exit));
    let Some(read) = last.map(|read| read.at).max() else {
        return;
    };
    for turn in &view.turns {
        let over = turn.ending_before(read).filter(|_| turn.started.is_some());
        let torn = view.last_tear(read).is_some_and(|tear| tear > turn.begun);
        if let Some(ending) = over.filter(|_| !torn)
            && !written.contains_key(turn.id)
        {
            let fault = NOT_STARTED.with("turn", turn.id);
            findings.breach(view, fault, &[turn.begun, ending.at, read]);
        }
    }
}

fn name(bracket: &Bracket) -> String {
    match &bracket.turn_id {
        Some(id) => format!("turn {id}"),
        None => "a turn".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, interrupted_tool, keeps, long_session};
    use cutpoint_trace::ReadTrigger::{End, Exit};
    use cutpoint_trace::{AgentEvent, ClientOp, Observation, TurnEnd};

    fn line(t: &mut Tracer, event: &str, id: Option<&str>) {
        t.wrote_line("event_msg", &json!({"type": event, "turn_id": id}));
    }

    #[test]
    fn bracketed_turns_pass() {
        keeps("ROLL-4", &interrupted_tool(), 2);
        keeps("ROLL-4", &long_session(), 5);
        let mut t = Tracer::new();
        for event in [
            "task_started",
            "turn_aborted",
            "task_started",
            "task_complete",
        ] {
            line(&mut t, event, None);
        }
        keeps("ROLL-4", t.read(End), 2);
    }

    #[test]
    fn a_turn_without_a_terminal_line_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi").event(AgentEvent::TurnEnded {
            turn_id: Some("t1".into()),
            end: TurnEnd::Complete,
        });
        keeps("ROLL-4", t.read_at_end("t1"), 1);
        breaks("ROLL-4/not-closed", t.read(End));
    }

    #[test]
    fn a_killed_turn_may_be_open_until_it_is_resumed() {
        let mut t = Tracer::new();
        t.start("t1", "hi").kill();
        keeps("ROLL-4", t.read(End), 1);
        breaks("ROLL-4/not-closed", t.resume().read(End));
    }

    #[test]
    fn overlaps_and_strays_are_breaches() {
        let lines = |lines: &[(&str, &str)]| {
            let mut t = Tracer::new();
            for (event, id) in lines {
                line(&mut t, event, Some(id));
            }
            t.read(End);
            t
        };
        let (a, b) = (("task_started", "a"), ("task_started", "b"));
        let end_b = ("task_complete", "b");
        let overlap = breaks("ROLL-4/overlap", &lines(&[a, b, end_b]));
        assert!(overlap.text().contains("while turn a of line 1"));
        breaks("ROLL-4/not-open", &lines(&[b, end_b, end_b]));
        breaks("ROLL-4/other-turn-open", &lines(&[a, end_b]));
    }

    #[test]
    fn a_turn_that_starts_twice_is_a_breach() {
        let mut t = Tracer::new();
        for event in [
            "task_started",
            "turn_aborted",
            "task_started",
            "task_complete",
        ] {
            line(&mut t, event, Some("a"));
        }
        breaks("ROLL-4/started-twice", t.read(End));
    }

    #[test]
    fn a_turn_that_was_never_written_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi").completed("t1");
        t.event(AgentEvent::TurnStarted {
            turn_id: "t2".into(),
        });
        t.event(AgentEvent::TurnEnded {
            turn_id: Some("t2".into()),
            end: TurnEnd::Complete,
        });
        t.op(ClientOp::Shutdown).exit();
        assert!(
            breaks("ROLL-4/not-started", t.read(End))
                .text()
                .contains("starts turn t2")
        );
    }

    #[test]
    fn a_fork_may_end_the_turn_that_the_first_rollout_starts() {
        let ended = |id: &str| {
            let mut t = Tracer::new();
            t.start("t1", "hi")
                .read(Exit)
                .forked("f.jsonl")
                .kill()
                .resume();
            let line = json!({"type": "turn_aborted", "turn_id": id});
            let line = json!({"timestamp": "t", "type": "event_msg", "payload": line});
            t.push(Observation::Rollout {
                trigger: End,
                path: "f.jsonl".into(),
                from: 0,
                text: format!("{line}\n"),
            });
            t
        };
        keeps("ROLL-4", &ended("t1"), 1);
        breaks("ROLL-4/not-open", &ended("t0"));
    }

    #[test]
    fn what_was_torn_off_is_not_missed() {
        let mut t = Tracer::new();
        t.start("t0", "one")
            .completed("t0")
            .start("t1", "hi")
            .completed("t1");
        t.kill().read(Exit);
        let last_two: usize = t
            .file()
            .lines()
            .rev()
            .take(2)
            .map(|line| line.len() + 1)
            .sum();
        t.tear(last_two)
            .resume()
            .start("t2", "next")
            .completed("t2");
        keeps("ROLL-4", t.read(End), 2);
    }

    #[test]
    fn a_terminal_line_that_was_torn_off_is_missed_when_the_session_was_resumed() {
        let torn = |written: bool| {
            let mut t = Tracer::new();
            if written {
                t.start("t1", "hi").completed("t1");
            } else {
                t.start("t1", "hi").event(AgentEvent::TurnEnded {
                    turn_id: Some("t1".into()),
                    end: TurnEnd::Complete,
                });
                t.wrote_line("x", &json!({}));
            }
            t.kill().read(Exit).tear(3);
            t
        };
        keeps("ROLL-4", torn(true).read(End), 1);
        breaks("ROLL-4/not-closed", torn(true).resume().read(End));
        breaks("ROLL-4/not-closed", torn(false).read(End));
    }

    #[test]
    fn ordinals_grow_by_one() {
        let mut t = interrupted_tool();
        t.wrote_raw("{\"timestamp\":\"t\",\"ordinal\":99,\"type\":\"x\",\"payload\":{}}\n");
        assert!(
            breaks("ROLL-4/ordinal-gap", t.read(End))
                .text()
                .contains("ordinal 99")
        );
    }
}
