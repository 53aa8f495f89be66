//! The planted defects: historical or plausible bugs, each switched on at run time and one line at
//! its place in the code. To add one, add its row here and its line there.

use std::fmt;
use std::str::FromStr;

macro_rules! defects {
    ($($variant:ident = $name:literal, $rule:literal, $about:literal, $provenance:literal;)*) => {
        /// A planted defect.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Defect {
            $(#[doc = $about] $variant,)*
        }

        impl Defect {
            /// Every defect.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The defect's name, in kebab-case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The rule that it breaks.
            pub const fn rule(self) -> &'static str {
                match self { $(Self::$variant => $rule,)* }
            }

            /// What goes wrong, in one sentence.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }

            /// Where such a bug was seen, or that it is thought up.
            pub const fn provenance(self) -> &'static str {
                match self { $(Self::$variant => $provenance,)* }
            }
        }
    };
}

defects! {
    ForgetOutput = "forget-output", "CALL-1",
        "An aborted call gets no output, so the next request leaves it unanswered.",
        "openai/codex #93, #394, #825, #1244";
    OrphanOutput = "orphan-output", "CALL-2",
        "An aborted call is dropped from the history, but its output is kept.",
        "openai/codex #1019";
    ClaimsSuccess = "claims-success", "CALL-3",
        "The output of an aborted call says that it completed with exit code 0.",
        "observed in a released agent (qwen-code)";
    ExecutedCallVanishes = "executed-call-vanishes", "CALL-4",
        "An aborted call that was running is dropped from the history together with its output.",
        "openai/codex #5134, #5253, PR 5543";
    HalfCallInvented = "half-call-invented", "CALL-5",
        "A call that was cut off in its arguments is put into the history as if it were whole.",
        "observed in a released agent (opencode)";
    PartialOutputLost = "partial-output-lost", "CALL-6",
        "What an aborted command had printed is not told to the model.",
        "openai/codex #35735";
    NoRecovery = "no-recovery", "CALL-7",
        "A 400 that names an unanswered call ends the turn instead of being answered.",
        "openai/codex #93, before #1610";
    DebtSettledOnSend = "debt-settled-on-send", "CALL-8",
        "Outputs count as delivered once they were sent: a request that fails loses them.",
        "openai/codex #1387 rules it out";
    MessageVanishes = "message-vanishes", "CALL-9",
        "What the model finished before an interrupt is dropped from the history.",
        "openai/codex #2759";
    TerminalTwice = "terminal-twice", "TURN-1",
        "Every abort emits its terminal event twice.",
        "openai/codex PR 4173";
    InterruptLostAtStart = "interrupt-lost-at-start", "TURN-2",
        "An interrupt that arrives before the turn's first request was sent is ignored.",
        "openai/codex #17143, PR 18078";
    ReplacedSilently = "replaced-silently", "TURN-3",
        "A replaced turn ends without a terminal event.",
        "thought up";
    LateDelta = "late-delta", "TURN-4",
        "A piece of the aborted message is emitted behind the terminal event.",
        "openai/codex #1610 (stale deltas)";
    IdleInterruptAborts = "idle-interrupt-aborts", "TURN-5",
        "An interrupt without an active turn aborts the last turn once more.",
        "openai/codex PR 4173";
    AbortWaitsForTool = "abort-waits-for-tool", "TURN-6",
        "An abort waits for the running command to end by itself.",
        "openai/codex #28499";
    AbortTwice = "abort-twice", "TURN-7",
        "A second interrupt of the same turn emits a second TurnAborted.",
        "openai/codex #2365 rules it out";
    WrongTurnId = "wrong-turn-id", "TURN-8",
        "The terminal event of an aborted turn carries an id that nobody knows.",
        "openai/codex #36926, PR 10821";
    MarkerAfterEvent = "marker-after-event", "MARK-1",
        "TurnAborted is emitted first and the marker written afterwards.",
        "openai/codex PR 9043 puts the flush first";
    NoSync = "no-sync", "MARK-2",
        "A flush writes but does not sync, so the marker may not survive a power loss.",
        "observed in Codex 0.169";
    MarkerMissing = "marker-missing", "MARK-3",
        "The marker is in the rollout, but not in the history.",
        "openai/codex #9042";
    MarkerTwice = "marker-twice", "MARK-3",
        "An interrupt leaves two markers.",
        "thought up";
    MarkerBehindInput = "marker-behind-input", "MARK-3",
        "The marker gets into the history behind the next user message.",
        "thought up";
    MarkerOnReplace = "marker-on-replace", "MARK-4",
        "A replaced turn leaves a marker although nobody interrupted it.",
        "openai/codex #38376, #20383";
    MarkerOnIdle = "marker-on-idle", "MARK-4",
        "An interrupt without an active turn leaves a marker.",
        "thought up";
    MarkerLostOnResume = "marker-lost-on-resume", "MARK-5",
        "A resumed session's history has no markers, though the rollout does.",
        "openai/codex #9042, carried on to a resumed session";
    TornLine = "torn-line", "ROLL-1",
        "An abort leaves out the line break between two lines of the rollout.",
        "openai/codex #24425, #45150";
    RewritesRollout = "rewrites-rollout", "ROLL-2",
        "An abort writes the rollout anew in place, with other timestamps.",
        "openai/codex #13946";
    OrdinalSkips = "ordinal-skips", "ROLL-4",
        "An abort skips an ordinal.",
        "openai/codex #38341";
    TerminalLineMissing = "terminal-line-missing", "ROLL-4",
        "An aborted turn has no terminal line in the rollout.",
        "openai/codex #12382, #15849";
    ItemAfterRequest = "item-after-request", "ROLL-5",
        "The outputs of calls are written to the rollout only when their turn is complete.",
        "openai/codex #40805, #34599 (accepted and never persisted)";
    ResumedAsComplete = "resumed-as-complete", "ROLL-6",
        "A turn that a crash cut off is closed as complete when the session is resumed.",
        "openai/codex #13379, #20392, PR 14125";
    RequestAfterAbort = "request-after-abort", "REQ-2",
        "One more model request is sent behind TurnAborted.",
        "openai/codex PR 13874";
    RequestOnResume = "request-on-resume", "REQ-2",
        "Resuming a session sends a model request that nobody asked for.",
        "observed in a released agent (mistral-vibe)";
    RetriesAtOnce = "retries-at-once", "REQ-3",
        "A failed request is tried again without any delay.",
        "thought up";
    StreamLeftOpen = "stream-left-open", "REQ-4",
        "The response to an aborted turn is not given up: its connection stays open.",
        "thought up";
    SteerLost = "steer-lost", "REQ-5",
        "Input that was accepted while a turn ran is lost when the turn ends first.",
        "openai/codex #40805, #34599";
    StaleTurnHeader = "stale-turn-header", "REQ-6",
        "Requests of a later turn carry the routing header of an earlier one.",
        "behaviour of Codex's turn-scoped headers, turned round";
    ApprovalClearedFirst = "approval-cleared-first", "APPR-1",
        "Pending approvals are dropped before the cancellation, so the model reads of a rejection.",
        "openai/codex PR 14000, #14102";
    ApprovalSurvives = "approval-survives", "APPR-2",
        "An approval outlives its aborted turn, and a late answer runs the command.",
        "behaviour of Codex's task lifecycle, turned round";
    AbortIsDenial = "abort-is-denial", "APPR-4",
        "An approval answered with abort counts as denied, and the turn goes on.",
        "behaviour of Codex's approvals, turned round";
    ToolSurvives = "tool-survives", "PROC-1",
        "The running command of an aborted turn is not killed.",
        "openai/codex #4337, PR 5258, #7985";
    ToolSurvivesShutdown = "tool-survives-shutdown", "PROC-2",
        "A command that runs when the session is shut down is not killed.",
        "openai/codex #21994";
    ShownTextLost = "shown-text-lost", "VIEW-3",
        "Text of an unfinished message that the user was shown is dropped.",
        "openai/codex #2759";
}

/// No defect has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no planted defect is called `{0}`")]
pub struct UnknownDefect(pub String);

impl FromStr for Defect {
    type Err = UnknownDefect;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|defect| defect.name() == name);
        found.copied().ok_or_else(|| UnknownDefect(name.to_owned()))
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The defects that are switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DefectSet(u64);

impl DefectSet {
    /// Switches a defect on.
    pub fn insert(&mut self, defect: Defect) {
        self.0 |= 1 << defect as u32;
    }

    /// Whether the defect is on.
    pub const fn contains(self, defect: Defect) -> bool {
        self.0 & (1 << defect as u32) != 0
    }

    /// Whether the agent is free of planted defects.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The defects that are on.
    pub fn iter(self) -> impl Iterator<Item = Defect> {
        Defect::ALL
            .iter()
            .copied()
            .filter(move |defect| self.contains(*defect))
    }
}

impl FromIterator<Defect> for DefectSet {
    fn from_iter<I: IntoIterator<Item = Defect>>(defects: I) -> Self {
        let mut set = Self::default();
        defects.into_iter().for_each(|defect| set.insert(defect));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        assert!(Defect::ALL.len() <= 64, "a set is a word of 64 bits");
        for defect in Defect::ALL {
            assert_eq!(defect.name().parse(), Ok(*defect));
            assert!(
                defect
                    .name()
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '-')
            );
            assert!(defect.about().ends_with('.') && !defect.provenance().is_empty());
        }
        assert!("no-such-defect".parse::<Defect>().is_err());
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: DefectSet = [Defect::TornLine, Defect::ShownTextLost]
            .into_iter()
            .collect();
        assert!(set.contains(Defect::TornLine) && !set.contains(Defect::ForgetOutput));
        assert_eq!(set.iter().count(), 2);
        assert!(DefectSet::default().is_empty());
    }
}
