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

            /// Where such a bug was seen, or that it is invented.
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
    WrongKindOfOutput = "wrong-kind-of-output", "CALL-1",
        "An aborted call of a custom tool is answered with a function's output.",
        "openai/codex #1610 (custom tool calls have an output of their own), reversed";
    OrphanOutput = "orphan-output", "CALL-2",
        "An aborted call is dropped from the history, but its output is kept.",
        "openai/codex #1019";
    AnsweredTwice = "answered-twice", "CALL-2",
        "A call that had ended when its turn was aborted is answered as aborted as well.",
        "openai/codex #1387 rules it out";
    ClaimsSuccess = "claims-success", "CALL-3",
        "The output of an aborted call says that it completed with exit code 0.",
        "observed in a released agent (qwen-code)";
    ExecutedCallVanishes = "executed-call-vanishes", "CALL-4",
        "An aborted call that was running is dropped from the history together with its output.",
        "openai/codex #5134, #5253, PR 5543";
    DisconnectForgetsCalls = "disconnect-forgets-calls", "CALL-4",
        "When a stream breaks, the calls that it had brought are forgotten, though they ran.",
        "openai/codex #28641";
    HalfCallInvented = "half-call-invented", "CALL-5",
        "A call that was cut off in its arguments is put into the history as if it were whole.",
        "observed in a released agent (opencode)";
    PartialOutputLost = "partial-output-lost", "CALL-6",
        "What an aborted command had printed is withheld from the model.",
        "openai/codex #35735";
    NoRecovery = "no-recovery", "CALL-7",
        "A 400 that names an unanswered call ends the turn instead of being answered.",
        "openai/codex #93, before #1610";
    RecoveryIsSilent = "recovery-is-silent", "CALL-7",
        "A 400 that names an unanswered call is answered without a word to the client.",
        "openai/codex #1610 tells the client";
    RecoversFunctionsOnly = "recovers-functions-only", "CALL-7",
        "A 400 that names a call is answered for functions, and not for custom tools.",
        "openai/codex #1610 reads both kinds";
    RecoversJsonOnly = "recovers-json-only", "CALL-7",
        "A 400 that names a call is understood as JSON only, not as plain text.",
        "openai/codex #1610 reads both forms";
    RecoversAgain = "recovers-again", "CALL-7",
        "A call is answered whenever a 400 names it, however often that has not helped.",
        "openai/codex #93 (every request refused), with a recovery on top";
    RecoverySpendsRetries = "recovery-spends-retries", "CALL-7",
        "Answering a 400 that names a call costs one of the request's retries.",
        "openai/codex #1610 rules it out";
    DebtSettledOnSend = "debt-settled-on-send", "CALL-8",
        "Outputs count as delivered once they were sent: a request that fails loses them.",
        "openai/codex #1387 rules it out";
    DebtSettledByHeaders = "debt-settled-by-headers", "CALL-8",
        "Outputs count as delivered with a response's headers: one that breaks off there loses them.",
        "openai/codex #1387 waits for response.created";
    UserOutputLost = "user-output-lost", "CALL-6",
        "What a command of the user's had printed when it was interrupted is withheld from the model.",
        "openai/codex #35735, applied to commands of the user's";
    CompactsAfterAbort = "compacts-after-abort", "CALL-4",
        "A compaction that was interrupted replaces the history all the same.",
        "behaviour of Codex's task lifecycle, reversed";
    MessageVanishes = "message-vanishes", "CALL-9",
        "What the model finished before an interrupt is dropped from the history.",
        "openai/codex #2759";
    TerminalTwice = "terminal-twice", "TURN-1",
        "Every abort emits its terminal event twice.",
        "openai/codex PR 4173";
    AbortedByBoth = "aborted-by-both", "TURN-1",
        "A turn whose work ends in the moment of its abort reports the abort once more.",
        "openai/codex PR 4173: plausible, as finish and abort both see the turn's end";
    CompletesAlthoughAborted = "completes-although-aborted", "TURN-1",
        "A turn that finishes while it is being aborted is reported as complete and as aborted.",
        "openai/codex PR 4173";
    ReplacedCompletesToo = "replaced-completes-too", "TURN-1",
        "A replaced turn is reported as aborted, and then as complete.",
        "openai/codex PR 4173";
    InterruptLostAtStart = "interrupt-lost-at-start", "TURN-2",
        "An interrupt that arrives before the turn's first request was sent is ignored.",
        "openai/codex #17143, PR 18078";
    WrongReason = "wrong-reason", "TURN-2",
        "An interrupted turn is reported as replaced.",
        "openai/codex #38376, #20383 (the reason of an abort is not the true one)";
    ReplacedSilently = "replaced-silently", "TURN-3",
        "A replaced turn ends without a terminal event.",
        "invented";
    ReplacedTooLate = "replaced-too-late", "TURN-3",
        "The end of a replaced turn is reported after the start of the new one.",
        "invented: the new turn is more urgent than the old one's farewell";
    LateDelta = "late-delta", "TURN-4",
        "A piece of the aborted message is emitted after the terminal event.",
        "openai/codex #1610 (stale deltas)";
    IdleInterruptAborts = "idle-interrupt-aborts", "TURN-5",
        "An interrupt without an active turn aborts the last turn once more.",
        "openai/codex PR 4173";
    IdleInterruptUnanswered = "idle-interrupt-unanswered", "TURN-5",
        "An interrupt request is not answered while no turn is active.",
        "openai/codex PR 18392, #12478";
    AbortWaitsForTool = "abort-waits-for-tool", "TURN-6",
        "An abort waits for the running command to end by itself.",
        "openai/codex #28499";
    AbortWaitsForStream = "abort-waits-for-stream", "TURN-6",
        "An abort waits up to three seconds for the response under way to end.",
        "openai/codex #30526, #33372";
    AbortTwice = "abort-twice", "TURN-7",
        "A second interrupt of the same turn emits a second TurnAborted.",
        "openai/codex #2365 rules it out";
    WrongTurnId = "wrong-turn-id", "TURN-8",
        "The terminal event of an aborted turn carries an unknown id.",
        "openai/codex #36926, PR 10821";
    PhantomTurnOnRetry = "phantom-turn-on-retry", "TURN-8",
        "A retry announces a turn of its own, which never ends.",
        "openai/codex PR 10821";
    PhantomTurn = "phantom-turn", "TURN-8",
        "Input that joins a running turn is answered with the id of a turn that never starts.",
        "openai/codex PR 10821";
    UncheckedId = "unchecked-id", "TURN-9",
        "An id that a origin supplies is taken as it is, whether it is a UUID or not.",
        "invented";
    RespelledDuplicate = "respelled-duplicate", "TURN-9",
        "An id that is in use is accepted once more if it is spelled in another way.",
        "invented";
    RespelledAtTheEnd = "respelled-at-the-end", "TURN-9",
        "The terminal event of an aborted turn spells the turn's id without hyphens.",
        "invented";
    MarkerAfterEvent = "marker-after-event", "MARK-1",
        "TurnAborted is emitted first and the marker written afterwards.",
        "openai/codex PR 9043 puts the flush first";
    MarkerNotAwaited = "marker-not-awaited", "MARK-1",
        "TurnAborted is emitted when the marker waits for its writer, not when it is written.",
        "openai/codex PR 9043 awaits the flush";
    NoSync = "no-sync", "MARK-2",
        "A flush writes but does not sync, so the marker may not survive a power loss.",
        "observed in Codex 0.169";
    SyncsLockFile = "syncs-lock-file", "MARK-2",
        "A flush syncs the lock file beside the rollout, and not the rollout.",
        "invented: two open files, one mistaken for the other";
    SyncsOnceASecond = "syncs-once-a-second", "MARK-2",
        "A flush within a second of the last sync is taken to be covered by it.",
        "invented: what databases offer as syncing every second";
    MarkerMissing = "marker-missing", "MARK-3",
        "The marker is in the rollout, but not in the history.",
        "openai/codex #9042";
    MarkerTwice = "marker-twice", "MARK-3",
        "An interrupt leaves two markers.",
        "invented";
    MarkerBehindInput = "marker-behind-input", "MARK-3",
        "The marker gets into the history after the next user message.",
        "invented";
    HalfMarker = "half-marker", "MARK-3",
        "The marker has lost its closing tag, so that it reads as the user's own words.",
        "invented: a text cut to a limit";
    MarkerOnce = "marker-once", "MARK-3",
        "A history that has a marker gets no other: only the first interrupt reaches the model.",
        "invented: markers taken for duplicates of each other";
    OutputBehindInput = "output-behind-input", "MARK-3",
        "The outputs of aborted calls get into the history after the marker and the next message.",
        "openai/codex #1387 puts them before any newer message";
    MarkerOnReplace = "marker-on-replace", "MARK-4",
        "A replaced turn leaves a marker although it was not interrupted.",
        "openai/codex #38376, #20383";
    MarkerOnIdle = "marker-on-idle", "MARK-4",
        "An interrupt without an active turn leaves a marker.",
        "invented";
    MarkerOnFailure = "marker-on-failure", "MARK-4",
        "A turn that fails leaves a marker, as if the user had stopped it.",
        "openai/codex #38376, #20383 (aborted by the user, without a user)";
    MarkerLostOnResume = "marker-lost-on-resume", "MARK-5",
        "A resumed session's history has no markers, though the rollout does.",
        "openai/codex #9042, applied to a resumed session";
    ResumeDropsTail = "resume-drops-tail", "MARK-5",
        "A resume takes the user messages at the end, the marker among them, for unsent ones.",
        "openai/codex #9042, applied to a resumed session";
    TornTailKept = "torn-tail-kept", "ROLL-1",
        "A resumed session appends to a torn last line instead of dropping it.",
        "openai/codex #24425, #45150";
    TornTailLosesLine = "torn-tail-loses-line", "ROLL-3",
        "A torn last line takes the last whole item with it when the session is resumed.",
        "invented";
    ForkWithoutMarker = "fork-without-marker", "ROLL-7",
        "A fork in mid-turn has no marker for the turn that it cuts.",
        "openai/codex PR 15239";
    ForkLeavesCallOpen = "fork-leaves-call-open", "ROLL-7",
        "The calls of a forked conversation have no outputs.",
        "openai/codex PR 15239 closes the turn that a fork cuts";
    RollbackLeavesOutput = "rollback-leaves-output", "ROLL-7",
        "A rollback takes the calls out of the history and leaves their outputs.",
        "openai/codex #1019, applied to rollbacks";
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
    OrdinalsRestart = "ordinals-restart", "ROLL-4",
        "A resumed session counts the lines of its rollout from 0 again.",
        "openai/codex #38341";
    ResumedAsRunning = "resumed-as-running", "ROLL-4",
        "A turn that a crash cut off stays open in the rollout when the session is resumed.",
        "openai/codex #12382, #15849";
    ItemAfterRequest = "item-after-request", "ROLL-5",
        "The outputs of calls are written to the rollout only when their turn is complete.",
        "openai/codex #40805, #34599 (accepted and never persisted)";
    ResumedAsComplete = "resumed-as-complete", "ROLL-6",
        "A turn that a crash cut off is closed as complete when the session is resumed.",
        "openai/codex #13379, #20392, PR 14125";
    AbortedTurnUnanswered = "aborted-turn-unanswered", "REQ-1",
        "An interrupt request that names a turn which was aborted before is not answered.",
        "openai/codex #36926, #34711";
    LastInterruptUnanswered = "last-interrupt-unanswered", "REQ-1",
        "Of several interrupt requests that wait for one abort the last is not answered.",
        "openai/codex #36926, #34711";
    AnswerBeforeAbort = "answer-before-abort", "REQ-1",
        "An interrupt request is answered at once instead of after TurnAborted.",
        "openai/codex before #2365";
    AnswerMisnamesReason = "answer-misnames-reason", "REQ-1",
        "The answer to an interrupt request gives another reason than TurnAborted.",
        "invented";
    InterruptAnsweredTwice = "interrupt-answered-twice", "REQ-1",
        "An interrupt request gets a second answer.",
        "invented";
    QueuedBehindOp = "queued-behind-op", "REQ-1",
        "An interrupt request begins to wait only when its op was submitted, and may miss the abort.",
        "openai/codex #2365 queues it first";
    RequestAfterAbort = "request-after-abort", "REQ-2",
        "One more model request is sent after TurnAborted.",
        "openai/codex PR 13874";
    RequestOnResume = "request-on-resume", "REQ-2",
        "Resuming a session sends a model request without any input.",
        "observed in a released agent (mistral-vibe)";
    RetriesAtOnce = "retries-at-once", "REQ-3",
        "A failed request is tried again without any delay.",
        "invented";
    RetriesSixtyTimes = "retries-sixty-times", "REQ-3",
        "A failed request is tried again sixty times, every 25 ms.",
        "invented: a loop whose bound is no bound";
    RetryAfterIgnored = "retry-after-ignored", "REQ-3",
        "The pause that a server asks for is not made.",
        "invented: the header is read for one status and not for the other";
    RetryOutlivesAbort = "retry-outlives-abort", "REQ-3",
        "A retry that waits for its time is sent although its turn was aborted meanwhile.",
        "openai/codex PR 13874";
    StreamLeftOpen = "stream-left-open", "REQ-4",
        "The response to an aborted turn is not given up: its connection stays open.",
        "invented";
    SteerLost = "steer-lost", "REQ-5",
        "Input that was accepted while a turn ran is lost when the turn ends first.",
        "openai/codex #40805, #34599";
    PromptLost = "prompt-lost", "REQ-5",
        "A prompt whose turn is interrupted before its first request is dropped.",
        "openai/codex #38395, #38896";
    AbortClearsQueue = "abort-clears-queue", "REQ-5",
        "What was said while a turn was being aborted is dropped with the turn.",
        "openai/codex #40805, #34599";
    CompactionOverwrites = "compaction-overwrites", "REQ-5",
        "What the user says while the history is compacted is lost.",
        "openai/codex #13946";
    UserCommandForgotten = "user-command-forgotten", "REQ-5",
        "A command of the user's that was interrupted leaves nothing in the history.",
        "openai/codex #5134, #5253, applied to commands of the user's";
    StaleTurnHeader = "stale-turn-header", "REQ-6",
        "Requests of a later turn carry the routing header of an earlier one.",
        "behaviour of Codex's turn-scoped headers, reversed";
    HeaderOutlivesAbort = "header-outlives-abort", "REQ-6",
        "The routing header of a turn is cleared when it completes, and not when it is aborted.",
        "behaviour of Codex's turn-scoped headers, reversed";
    ApprovalClearedFirst = "approval-cleared-first", "APPR-1",
        "Pending approvals are dropped before the cancellation, so the model reads of a rejection.",
        "openai/codex PR 14000, #14102";
    ApprovalSurvives = "approval-survives", "APPR-2",
        "An approval outlives its aborted turn, and a late answer runs the command.",
        "behaviour of Codex's task lifecycle, reversed";
    LateAbortInterrupts = "late-abort-interrupts", "APPR-2",
        "An abort as the answer to a dead turn's approval interrupts the turn that runs now.",
        "openai/codex #38376, #20383 (aborted by the user, without a user)";
    AbortIsDenial = "abort-is-denial", "APPR-4",
        "An approval answered with abort counts as denied, and the turn goes on.",
        "behaviour of Codex's approvals, reversed";
    QuestionMadeUp = "question-made-up", "APPR-3",
        "A question that was pending at an interrupt is answered with yes in the user's name.",
        "behaviour of Codex's questions, reversed";
    QuestionDeclined = "question-declined", "APPR-3",
        "Of a question that was pending at an interrupt the model reads that the user declined.",
        "openai/codex PR 14000, applied to questions";
    AnswerLost = "answer-lost", "APPR-3",
        "What the user answers to a question does not reach the model.",
        "invented";
    QuestionHoldsAbort = "question-holds-abort", "TURN-2",
        "An abort waits for the answer to a pending question.",
        "openai/codex #28499, applied to questions";
    PatchOnInterrupt = "patch-on-interrupt", "APPR-1",
        "A patch that waits for approval is applied when its turn is interrupted.",
        "invented";
    SubAgentOutlives = "sub-agent-outlives", "SUB-1",
        "A sub-agent goes on when the turn that started it is interrupted.",
        "openai/codex #15732, PR 13850";
    CloseWaits = "close-waits", "SUB-1",
        "Closing a sub-agent waits for its shutdown however long that takes.",
        "openai/codex #34653";
    CloseEndsParent = "close-ends-parent", "SUB-1",
        "Closing a sub-agent aborts the turn that started it.",
        "invented";
    SubApprovalForwarded = "sub-approval-forwarded", "SUB-2",
        "The approval request of a sub-agent's call goes to the consumer of its events as well.",
        "behaviour of Codex's delegate, reversed";
    DecisionMisdirected = "decision-misdirected", "SUB-2",
        "The user's decision goes to the sub-agent's call that asked first, whichever it is for.",
        "invented";
    ForwardIgnoresCancel = "forward-ignores-cancel", "SUB-3",
        "A sub-agent whose event waits for room in the client's queue does not see the cancellation.",
        "openai/codex #31036, #24389";
    OneShotLingers = "one-shot-lingers", "SUB-4",
        "A one-shot sub-agent is not shut down when its turn has ended.",
        "behaviour of Codex's delegate, reversed";
    OneShotTakesInput = "one-shot-takes-input", "SUB-4",
        "A one-shot sub-agent takes further input and goes on.",
        "behaviour of Codex's delegate, reversed";
    ReviewIgnoresInterrupt = "review-ignores-interrupt", "TURN-6",
        "A review can't be interrupted as the turn that the client knows.",
        "openai/codex #22815, #23160";
    ToolSurvives = "tool-survives", "PROC-1",
        "The running command of an aborted turn is not killed.",
        "openai/codex #4337, PR 5258, #7985";
    GrandchildSurvives = "grandchild-survives", "PROC-1",
        "An abort kills the process that was started for a command, and not its children.",
        "openai/codex #4337, PR 5258, #5931, #7985";
    TermOnly = "term-only", "PROC-1",
        "An abort asks a command to end with SIGTERM, and leaves one that does not.",
        "openai/codex #4721, PR 10519";
    UserCommandSurvives = "user-command-survives", "PROC-1",
        "A command of the user's is not killed when it is interrupted.",
        "openai/codex #4337, #7985, applied to commands of the user's";
    ToolSurvivesShutdown = "tool-survives-shutdown", "PROC-2",
        "A command that runs when the session is shut down is not killed.",
        "openai/codex #21994";
    ViewBuffersKept = "view-buffers-kept", "VIEW-1",
        "The view keeps what an aborted turn had streamed, and the next turn's message begins with it.",
        "openai/codex #1610 clears the buffers at a turn's start";
    ViewReasoningKept = "view-reasoning-kept", "VIEW-1",
        "The view keeps the reasoning that an aborted turn had streamed, and clears its answer only.",
        "openai/codex #1610 clears both buffers";
    ViewTakesStaleText = "view-takes-stale-text", "VIEW-1",
        "The view takes pieces of text whichever turn they belong to.",
        "openai/codex #1610 (stale deltas)";
    ViewTakesStalePiece = "view-takes-stale-piece", "VIEW-1",
        "The view takes the first piece of a message whichever turn it belongs to.",
        "openai/codex #1610 (stale deltas), let through once";
    ViewShowsStaleCommand = "view-shows-stale-command", "VIEW-1",
        "The view shows a command of a turn that has ended as if the running turn had begun it.",
        "openai/codex #1610 drops tool calls of other turns";
    ViewHidesStaleError = "view-hides-stale-error", "VIEW-2",
        "The view drops an error that is not the active turn's.",
        "openai/codex #1610 always shows errors";
    ViewStopsOnStaleError = "view-stops-on-stale-error", "VIEW-2",
        "An error that is not the active turn's marks that turn as stopped.",
        "openai/codex #1610 rules it out";
    ViewMissesFailure = "view-misses-failure", "VIEW-2",
        "The view shows why the active turn failed, but takes it for running on.",
        "invented";
    ShownTextLost = "shown-text-lost", "VIEW-3",
        "Text of an unfinished message that the user was shown is dropped.",
        "openai/codex #2759";
    ReplacedReadsInterrupted = "replaced-reads-interrupted", "VIEW-4",
        "A replaced turn is shown as interrupted.",
        "openai/codex #2365 tells the reasons apart";
    AbortShownTwice = "abort-shown-twice", "VIEW-4",
        "An abort whose event comes a second time is shown a second time.",
        "openai/codex PR 4173, as a person sees it";
    AbortNotShown = "abort-not-shown", "VIEW-4",
        "The abort of a turn that had nothing half written on the screen is not shown.",
        "invented";
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
pub struct DefectSet(u128);

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
        assert!(Defect::ALL.len() <= 128, "a set is a word of 128 bits");
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
