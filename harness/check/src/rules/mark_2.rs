//! MARK-2: the marker is on stable storage before the client hears of the abort.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Change, LineKind, Read, RolloutFile, Turn, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{Feature, Observation, ReadTrigger, StoreOp};

pub(super) struct MarkerIsDurable;

const NOT_SYNCED: Clause = Clause {
    kind: "not-synced",
    text: "turn {turn} was aborted, and its marker was written but not synced",
};

impl Invariant for MarkerIsDurable {
    fn id(&self) -> &'static str {
        "MARK-2"
    }

    fn level(&self) -> Level {
        Level::Should
    }

    fn sentence(&self) -> &'static str {
        "When the client receives the abort of an interrupted turn, the turn's marker survives a \
         power loss: its write, and a sync of the file after that write, have returned."
    }

    fn source(&self) -> &'static str {
        "Codex's task lifecycle waits for a flush; observed in Codex 0.169: written, and never synced"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Rollout, Feature::Marker, Feature::StoreLog]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A marker that is not in the file when the abort is received is for MARK-1 to judge.",
            "A file that was not only appended to is for ROLL-2 to judge: nothing can be said \
             about its bytes.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "the rollout has the turn's marker when it is read after the abort of an interrupted turn"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[NOT_SYNCED]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for turn in view.turns.iter().filter(|turn| turn.killed.is_none()) {
            let Some(ending) = turn.ending().filter(|ending| ending.interrupted()) else {
                continue;
            };
            for file in &view.rollouts {
                let Some((read, marker_end)) = marker(file, turn, ending.at) else {
                    continue;
                };
                let (unsynced, last_sync) = unsynced(view, file.path, read.at);
                // What a sync that came after the event covers does not count.
                let late = last_sync.is_some_and(|at| at > ending.at);
                findings.exercised += 1;
                let durable = (read.length as u64).saturating_sub(unsynced);
                if late || last_sync.is_none() || durable < marker_end as u64 {
                    let fault = NOT_SYNCED.with("turn", turn.id);
                    let mut shown_by: Vec<At> = vec![ending.at, read.at];
                    shown_by.extend(last_sync);
                    findings.breach(view, fault, &shown_by);
                }
            }
        }
        findings
    }
}

/// The read that was made because a turn had ended, and the end of the newest marker that it shows,
/// if the turn has added one.
fn marker<'f, 'a>(
    file: &'f RolloutFile<'a>,
    turn: &Turn<'_>,
    ended: At,
) -> Option<(&'f Read<'a>, usize)> {
    let appended = |read: &Read<'_>| {
        !matches!(
            read.change,
            Change::Rewritten { .. } | Change::Gap { .. } | Change::Outside
        )
    };
    let next = file.reads.partition_point(|read| read.at < ended);
    let read = file.reads.get(next)?;
    // A fork's file has older turns' markers, and is read first at the end of a turn of its own.
    let because = match &read.trigger {
        ReadTrigger::TurnEnded { turn_id } => turn_id.as_ref().is_none_or(|id| id == turn.id),
        _ => false,
    };
    let before = file.reads[..next]
        .iter()
        .rev()
        .find(|read| read.at < turn.begun);
    let before = before.map_or(0, |read| read.markers);
    if !because || read.markers <= before || !file.reads.iter().all(appended) {
        return None;
    }
    let mut markers = file
        .lines
        .iter()
        .filter(|line| line.kind == LineKind::Marker);
    Some((read, markers.nth(read.markers - 1)?.end))
}

/// How many bytes had been written after the last sync when a file was read, and that sync.
fn unsynced(view: &View<'_>, file: &str, until: At) -> (u64, Option<At>) {
    let mut bytes = 0;
    let entries = view.trace.entries[..until].iter().enumerate().rev();
    for (at, entry) in entries {
        match &entry.observation {
            Observation::Stored { path, done } if path == file => match done {
                StoreOp::Written { bytes: more } => bytes += more,
                StoreOp::Synced => return (bytes, Some(at)),
            },
            _ => {}
        }
    }
    (bytes, None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, is_idle, keeps, marker};
    use cutpoint_trace::{AgentEvent, TurnEnd};

    /// A turn whose marker is in the file, without what is done to store it.
    fn marked() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "hi").written().synced().interrupt();
        t.wrote(&marker());
        t
    }

    #[test]
    fn a_synced_marker_passes() {
        keeps(
            "MARK-2",
            marked().written().synced().aborted("t1").read_at_end("t1"),
            1,
        );
        let mut t = marked();
        t.written()
            .synced()
            .wrote_line("event_msg", &json!({"type": "x"}))
            .written();
        keeps("MARK-2", t.aborted("t1").read_at_end("t1"), 1);
    }

    #[test]
    fn a_marker_that_is_only_written_is_a_breach() {
        let breach = breaks(
            "MARK-2/not-synced",
            marked().written().aborted("t1").read_at_end("t1"),
        );
        assert!(breach.text().contains("not synced"));
    }

    #[test]
    fn a_sync_before_the_write_is_a_breach() {
        let mut t = marked();
        breaks(
            "MARK-2/not-synced",
            t.synced().written().aborted("t1").read_at_end("t1"),
        );
    }

    #[test]
    fn half_a_marker_that_is_synced_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi").written().wrote(&marker());
        let whole = t.file().to_owned();
        let cut = whole.len() - 20;
        t.set_file(&whole[..cut])
            .written()
            .synced()
            .set_file(&whole)
            .written();
        let reason = None;
        t.interrupt().event(AgentEvent::TurnEnded {
            turn_id: Some("t1".into()),
            end: TurnEnd::Aborted { reason },
        });
        breaks("MARK-2/not-synced", t.read_at_end("t1"));
    }

    #[test]
    fn no_sync_at_all_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi").interrupt().wrote(&marker()).written();
        breaks("MARK-2/not-synced", t.aborted("t1").read_at_end("t1"));
    }

    #[test]
    fn a_file_that_is_read_for_another_turn_says_nothing() {
        let mut t = marked();
        t.written()
            .aborted("t1")
            .start("t2", "go on")
            .completed("t2");
        is_idle("MARK-2", t.read_at_end("t2"));
    }

    #[test]
    fn a_marker_that_is_missing_is_another_matter() {
        let mut t = Tracer::new();
        t.start("t1", "hi")
            .interrupt()
            .aborted("t1")
            .read_at_end("t1");
        is_idle("MARK-2", &t);
    }
}
