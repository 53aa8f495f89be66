//! MARK-1: the marker is in the rollout before the client hears of the abort.

use crate::fast_hash::HashMap;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Ending, RolloutFile, Turn, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{Feature, Observation, ReadTrigger};

pub(super) struct MarkerBeforeAbort;

const UNREADABLE: Clause = Clause {
    kind: "unreadable",
    text: "turn {turn} was aborted, and its rollout could not be read: {error}",
};
const NO_MARKER: Clause = Clause {
    kind: "no-marker",
    text: "turn {turn} was aborted, and its rollout then had {found} of {wanted} whole markers",
};
const NO_NEW_MARKER: Clause = Clause {
    kind: "no-new-marker",
    text: "turn {turn} was aborted, and its rollout then had no marker that was not there before",
};

impl Invariant for MarkerBeforeAbort {
    fn id(&self) -> &'static str {
        "MARK-1"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "When the client receives the abort of an interrupted turn, the turn's marker is in the \
         rollout file, whole and readable by another process."
    }

    fn source(&self) -> &'static str {
        "Codex's task lifecycle: the marker is recorded and flushed before the abort is emitted"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Rollout, Feature::Marker]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A marker that was written after the event, but before the harness read the file, \
             passes: the read cannot distinguish the two.",
            "A turn that was cut by a kill and closed after a resume is not judged: the client \
             did not interrupt it.",
            "A fork's rollout need not have the markers of turns that began after the fork was \
             requested, that had been rolled back before, or that a compaction had replaced with \
             a summary.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "the rollout is read right after the abort of an interrupted turn"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[UNREADABLE, NO_MARKER, NO_NEW_MARKER]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let index = TurnEndReads::new(view);
        let mut interrupted: Vec<(Ending<'_>, &Turn<'_>)> = view
            .turns
            .iter()
            .filter(|turn| turn.killed.is_none())
            .filter_map(|turn| turn.ending().map(|ending| (ending, turn)))
            .filter(|(ending, _)| ending.interrupted())
            .collect();
        interrupted.sort_by_key(|(ending, _)| ending.at);
        let ends = interrupted.iter().map(|(ending, turn)| InterruptedTurn {
            at: ending.at,
            begun: turn.begun,
            lineage: turn.lineage,
            rolled_back: turn.rolled_back,
        });
        let ends: Vec<InterruptedTurn> = ends.collect();
        for (ending, turn) in interrupted {
            let Some(read) = index.read_after(ending.at, turn.id) else {
                continue;
            };
            findings.exercised += 1;
            if let Some(fault) = index.fault(view, turn, read, ending.at, &ends) {
                let fault = fault.with("turn", turn.id);
                findings.breach(view, fault, &[ending.at, read]);
            }
        }
        findings
    }
}

/// An interrupted turn, and its place among the others.
struct InterruptedTurn {
    at: At,
    begun: At,
    lineage: usize,
    rolled_back: Option<At>,
}

/// Where the rollout was read because a turn had ended.
struct TurnEndReads<'v, 'a> {
    files: HashMap<&'a str, &'v RolloutFile<'a>>,
    reads: HashMap<Option<&'a str>, Vec<At>>,
}

impl<'v, 'a> TurnEndReads<'v, 'a> {
    fn new(view: &'v View<'a>) -> Self {
        let mut reads: HashMap<Option<&str>, Vec<At>> = HashMap::default();
        let read = view.rollouts.iter().flat_map(|file| &file.reads);
        let read = read.map(|read| (read.at, read.trigger));
        let unreadable = view.unreadable.iter().map(|read| (read.at, read.trigger));
        for (at, trigger) in read.chain(unreadable) {
            if let ReadTrigger::TurnEnded { turn_id } = trigger {
                reads.entry(turn_id.as_deref()).or_default().push(at);
            }
        }
        reads.values_mut().for_each(|reads| reads.sort_unstable());
        let files = view.rollouts.iter().map(|file| (file.path, file));
        Self {
            files: files.collect(),
            reads,
        }
    }

    /// The first read after the end of a turn that the end triggered.
    fn read_after(&self, at: At, id: &str) -> Option<At> {
        let first = |id: Option<&str>| {
            let reads = self.reads.get(&id)?;
            reads.get(reads.partition_point(|read| *read < at)).copied()
        };
        first(Some(id)).into_iter().chain(first(None)).min()
    }

    /// Looks for the marker in the files that were read together from there on.
    fn fault(
        &self,
        view: &View<'_>,
        turn: &Turn<'_>,
        from: At,
        ended: At,
        ends: &[InterruptedTurn],
    ) -> Option<Fault> {
        let mut last = None;
        for (at, entry) in view.trace.entries.iter().enumerate().skip(from) {
            match &entry.observation {
                Observation::Rollout {
                    trigger: ReadTrigger::TurnEnded { .. },
                    path,
                    ..
                } => {
                    let Some(file) = self.files.get(path.as_str()) else {
                        continue;
                    };
                    last = Some(fault_in(view, file, turn, at, ended, ends)?);
                }
                Observation::RolloutUnreadable {
                    trigger: ReadTrigger::TurnEnded { .. },
                    error,
                    ..
                } => last = Some(UNREADABLE.with("error", error.as_str())),
                _ => break,
            }
        }
        last
    }
}

fn fault_in(
    view: &View<'_>,
    file: &RolloutFile<'_>,
    turn: &Turn<'_>,
    at: At,
    ended: At,
    ends: &[InterruptedTurn],
) -> Option<Fault> {
    let count_at = |next: usize| match next.checked_sub(1).and_then(|last| file.reads.get(last)) {
        Some(read) => read.markers,
        None => 0,
    };
    let found = count_at(file.reads.partition_point(|read| read.at <= at));
    let before = count_at(file.reads.partition_point(|read| read.at < turn.begun));
    // What the harness tore is owed no longer.
    let since = known_since(view, file, at).max(view.last_tear(at).unwrap_or(0));
    let first = file.reads.first().map_or(0, |read| read.at);
    let compacted = |ended: At| {
        let next = view.compactions.partition_point(|at| *at < ended);
        view.compactions.get(next).is_some_and(|at| *at < first)
    };
    let wanted = ends
        .iter()
        .take_while(|end| end.at <= ended)
        // A fork has no part of what had been taken back, or compacted.
        .filter(|end| end.rolled_back.is_none_or(|gone| gone > first))
        .filter(|end| !compacted(end.at))
        .filter(|end| end.at >= since && end.lineage == turn.lineage)
        // A fork has no part of what was begun after the request for it.
        .filter(|end| !view.forked_away(end.begun, ended))
        .count();
    if found < wanted {
        return Some(NO_MARKER.with("found", found).with("wanted", wanted));
    }
    // A marker too many from before must not stand in for the one that is missing.
    (found <= before).then(|| NO_NEW_MARKER.into())
}

/// From where on a file owes markers: a session that continues in a file of its own need not repeat
/// what the earlier file has.
fn known_since(view: &View<'_>, file: &RolloutFile<'_>, at: At) -> At {
    let first = file.reads.first().map_or(0, |read| read.at);
    let resumed = view
        .starts
        .iter()
        .rev()
        .find(|start| start.resumed && start.at < at);
    let Some(resumed) = resumed.filter(|start| start.at < first) else {
        return 0;
    };
    let earlier = |other: &RolloutFile<'_>| {
        let read = other.reads.first();
        read.is_some_and(|read| read.at < resumed.at)
    };
    match view.rollouts.iter().any(earlier) {
        true => resumed.at,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{
        ROLLOUT, Tracer, breaks, interrupted_tool, is_idle, keeps, long_session, marker,
    };
    use cutpoint_trace::{AgentEvent, ClientOp, Observation, ReadTrigger, TaskKind};

    fn interrupting() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "hi").interrupt();
        t
    }

    #[test]
    fn a_marker_before_the_event_passes() {
        keeps("MARK-1", &interrupted_tool(), 1);
        keeps("MARK-1", &long_session(), 1);
        is_idle("MARK-1", interrupting().aborted("t1"));
    }

    #[test]
    fn a_marker_after_the_event_is_a_breach() {
        let mut t = interrupting();
        t.aborted("t1").read_at_end("t1").wrote(&marker());
        t.read(ReadTrigger::End);
        let breach = breaks("MARK-1/no-marker", &t);
        assert!(breach.text().contains("0 of 1"));
        assert_eq!(breach.evidence, [5, 6]);
    }

    #[test]
    fn half_a_marker_is_a_breach() {
        let mut t = interrupting();
        t.wrote(&marker());
        let torn = t.file().trim_end().to_owned();
        t.set_file(&torn).event(AgentEvent::TurnEnded {
            turn_id: Some("t1".into()),
            end: cutpoint_trace::TurnEnd::Aborted { reason: None },
        });
        breaks("MARK-1/no-marker", t.read_at_end("t1"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_breach() {
        let mut t = interrupting();
        let turn_id = Some("t1".into());
        t.aborted("t1").push(Observation::RolloutUnreadable {
            trigger: ReadTrigger::TurnEnded { turn_id },
            path: ROLLOUT.into(),
            error: "no such file".into(),
        });
        breaks("MARK-1/unreadable", &t);
    }

    #[test]
    fn a_fork_lacks_the_marker_of_what_came_after_it() {
        let forked = |after: bool| {
            let mut t = Tracer::new();
            t.start("t0", "zero").completed("t0");
            if after {
                t.op(ClientOp::Fork).forked("f.jsonl");
            }
            t.start("t1", "one").interrupted("t1");
            if !after {
                t.op(ClientOp::Fork).forked("f.jsonl");
            }
            t.kill().resume().set_file("").goes_on_in("f.jsonl");
            t.start("t2", "two").completed("t2").read_at_end("t2");
            t.kill().read(ReadTrigger::Exit).resume();
            t.start("t3", "three").interrupted("t3");
            t
        };
        keeps("MARK-1", &forked(true), 2);
        assert!(
            breaks("MARK-1/no-marker", &forked(false))
                .text()
                .contains("1 of 2")
        );
    }

    /// A turn, and in a session after it one that is interrupted, with its marker or without.
    fn interrupted_later(mut t: Tracer, marked: bool) -> Tracer {
        t.start("t2", "two").completed("t2").read_at_end("t2");
        t.kill()
            .read(ReadTrigger::Exit)
            .resume()
            .start("t3", "three");
        if marked {
            t.interrupted("t3");
        } else {
            t.interrupt().aborted("t3").read_at_end("t3");
        }
        t
    }

    #[test]
    fn a_fork_lacks_the_marker_of_what_had_been_taken_back() {
        let forked = |taken_back: bool, marked: bool| {
            let mut t = Tracer::new();
            t.start("t1", "one").interrupted("t1");
            if taken_back {
                let undo = ClientOp::Rollback { turns: 1 };
                t.op(undo).event(AgentEvent::RolledBack { turns: 1 });
            }
            t.op(ClientOp::Fork).forked("f.jsonl");
            t.kill().resume().set_file("").goes_on_in("f.jsonl");
            interrupted_later(t, marked)
        };
        keeps("MARK-1", &forked(true, true), 2);
        breaks("MARK-1/no-marker", &forked(true, false));
        breaks("MARK-1/no-marker", &forked(false, true));
    }

    #[test]
    fn a_fork_lacks_the_marker_of_what_had_been_compacted() {
        let forked = |compacted: bool, forks: bool, marked: bool| {
            let mut t = Tracer::new();
            t.start("t0", "zero").completed("t0").read_at_end("t0");
            t.start("t1", "one").interrupt().aborted("t1");
            if compacted {
                let turn_id = Some("c".into());
                t.task(TaskKind::Compact, "").started("c");
                t.event(AgentEvent::Compacted { turn_id }).completed("c");
            }
            if forks {
                t.op(ClientOp::Fork).forked("f.jsonl");
                t.kill().resume().set_file("").goes_on_in("f.jsonl");
            }
            interrupted_later(t, marked)
        };
        keeps("MARK-1", &forked(true, true, true), 1);
        breaks("MARK-1/no-marker", &forked(false, true, true));
        breaks("MARK-1/no-marker", &forked(true, false, true));
        breaks("MARK-1/no-marker", &forked(true, true, false));
    }

    #[test]
    fn an_older_marker_does_not_stand_in() {
        let mut t = Tracer::new();
        t.wrote(&marker()).read(ReadTrigger::End);
        t.start("t1", "hi").interrupt().aborted("t1");
        let breach = breaks("MARK-1/no-new-marker", t.read_at_end("t1"));
        assert!(breach.text().contains("not there before"));
    }
}
