//! The brackets of turns in a file, and the markers within them.

use super::{MARK_3, MARK_4, Position, ROLL_4, ROLL_6, Report};

/// How a turn ended, as far as the marker is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Completed,
    Failed,
    Interrupted,
    Replaced,
    /// Aborted for a reason of which the rules say nothing.
    OtherAbort,
}

impl Ended {
    fn in_words(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Interrupted => "was interrupted",
            Self::Replaced => "was replaced",
            Self::OtherAbort => "was aborted",
        }
    }
}

/// The turns of a file, one at a time.
#[derive(Debug, Default)]
pub(super) struct Turns {
    open: Option<OpenTurn>,
    started: bool,
    /// Whether a bracket may have stood on a line that could not be read.
    unsure: bool,
    region: Region,
}

#[derive(Debug)]
struct OpenTurn {
    id: Option<Box<str>>,
    line: u64,
    /// The `session_meta` line that opened the session again.
    reopened: Option<u64>,
}

/// The lines from a turn's start to the next one's.
#[derive(Debug, Default)]
struct Region {
    ended: Option<(Ended, Position, String)>,
    markers: u64,
    first: Position,
    second: Position,
    /// An item of the turn after its marker.
    after: Option<Position>,
    /// Whether a bracket or a marker may have stood on a line that could not be read.
    unsure: bool,
}

fn name(id: Option<&str>) -> String {
    id.map_or_else(|| "a turn".to_owned(), |id| format!("turn {id}"))
}

impl Turns {
    /// Whether a line that starts a turn was seen: older generations have none.
    pub(super) fn any_started(&self) -> bool {
        self.started
    }

    pub(super) fn start(&mut self, id: Option<&str>, at: Position, report: &mut Report) {
        self.settle(report);
        report.exercised(ROLL_4);
        self.started = true;
        let open = OpenTurn {
            id: id.map(Into::into),
            line: at.line,
            reopened: None,
        };
        let before = self.open.replace(open);
        let unsure = std::mem::take(&mut self.unsure);
        let Some(before) = before.filter(|_| !unsure) else {
            return;
        };
        let (this, other, since) = (name(id), name(before.id.as_deref()), before.line);
        match before.reopened {
            Some(reopened) => {
                report.exercised(ROLL_6);
                let message = format!(
                    "{this} starts, while {other} of line {since}, which was open when line {reopened} \
                     opened the session again, has not ended as interrupted"
                );
                report.breach(ROLL_6, "not-interrupted", at, message);
            }
            None => {
                let message =
                    format!("{this} starts, while {other} of line {since} has no terminal line");
                report.breach(ROLL_4, "overlap", at, message);
            }
        }
    }

    /// A turn ends; it may have been started in another file.
    pub(super) fn end(
        &mut self,
        id: Option<&str>,
        ended: Ended,
        elsewhere: bool,
        at: Position,
        report: &mut Report,
    ) {
        let this = name(id);
        let unsure = std::mem::take(&mut self.unsure);
        match self.open.take() {
            Some(open) => {
                let differ = matches!((&open.id, id), (Some(open), Some(id)) if **open != *id);
                if differ && !unsure {
                    let other = name(open.id.as_deref());
                    let message =
                        format!("{this} ends, while {other} of line {} is open", open.line);
                    report.breach(ROLL_4, "other-turn-open", at, message);
                }
                if let Some(reopened) = open.reopened {
                    report.exercised(ROLL_6);
                    if ended == Ended::Completed {
                        let message = format!(
                            "{this} was open when line {reopened} opened the session again, and ends as \
                             completed"
                        );
                        report.breach(ROLL_6, "recorded-complete", at, message);
                    }
                }
            }
            None => {
                // Generations that write aborts and no other lines of turns, and forks of an open turn.
                let aborted = !matches!(ended, Ended::Completed | Ended::Failed);
                let legal = !self.started && (aborted || elsewhere);
                if !legal && !unsure {
                    let message = format!("{this} ends without being open");
                    report.breach(ROLL_4, "not-open", at, message);
                }
            }
        }
        self.region.ended = Some((ended, at, this));
    }

    /// A `session_meta` line: within a turn it says that the session was opened again.
    pub(super) fn reopened(&mut self, at: Position) {
        if let Some(open) = &mut self.open {
            open.reopened.get_or_insert(at.line);
        }
    }

    pub(super) fn marker(&mut self, at: Position) {
        let region = &mut self.region;
        region.markers += 1;
        match region.markers {
            1 => region.first = at,
            2 => region.second = at,
            _ => {}
        }
    }

    /// Any item but a message of the user.
    pub(super) fn item(&mut self, at: Position) {
        if self.region.markers > 0 && self.region.ended.is_none() {
            self.region.after.get_or_insert(at);
        }
    }

    pub(super) fn rolled_back(&mut self) {
        self.region = Region::default();
    }

    pub(super) fn lost_a_line(&mut self) {
        self.unsure = true;
        self.region.unsure = true;
    }

    /// Judges the markers on the lines since the last start.
    pub(super) fn settle(&mut self, report: &mut Report) {
        let region = std::mem::take(&mut self.region);
        // A turn that is still open, or was cut off by a crash, may have a marker or none.
        let Some((ended, at, turn)) = region.ended.filter(|_| !region.unsure) else {
            return;
        };
        match ended {
            Ended::Interrupted => {
                report.exercised(MARK_3);
                if region.markers == 0 {
                    let message =
                        format!("{turn} was interrupted, or cut off by a crash, and has no marker");
                    report.warning(MARK_3, "no-marker", at, message);
                } else if region.markers > 1 {
                    let message =
                        format!("{turn} was interrupted and has {} markers", region.markers);
                    report.breach(MARK_3, "too-many-markers", region.second, message);
                } else if let Some(after) = region.after {
                    let line = region.first.line;
                    let message = format!("an item of {turn} follows its marker of line {line}");
                    report.breach(MARK_3, "marker-too-early", after, message);
                }
            }
            Ended::Completed | Ended::Failed | Ended::Replaced => {
                report.exercised(MARK_4);
                if region.markers > 0 {
                    let message = format!("a marker for {turn}, which {}", ended.in_words());
                    report.breach(MARK_4, "ended-turn", region.first, message);
                }
            }
            Ended::OtherAbort => {}
        }
    }
}
