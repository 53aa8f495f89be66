//! The rule book. A rule is one file of this directory and one line of the list below.

use crate::invariant::Invariant;

macro_rules! book {
    ($($file:ident::$rule:ident,)*) => {
        $(mod $file;)*
        static RULES: &[&dyn Invariant] = &[$(&$file::$rule,)*];
    };
}

book! {
    call_1::EveryCallIsAnswered,
    call_2::EveryOutputHasItsCall,
    call_3::CutCallsSaySo,
    call_4::BegunCallsStay,
    call_5::NoInventedCalls,
    call_6::PartialOutputIsKept,
    call_7::NamedCallsAreAnswered,
    call_8::DebtOutlivesTheAbort,
    call_9::FinishedItemsStay,
    turn_1::OneEndPerTurn,
    turn_2::InterruptEndsTurn,
    turn_3::ReplacedTurnEndsFirst,
    turn_4::NothingAfterTheEnd,
    turn_5::IdleInterruptIsHarmless,
    turn_6::AbortIsPrompt,
    turn_7::AbortedOnce,
    turn_8::OneIdPerTurn,
    turn_9::CallersIdsAreKept,
    mark_1::MarkerBeforeAbort,
    mark_2::MarkerIsDurable,
    mark_3::OneMarkerInItsPlace,
    mark_4::NoMarkerWithoutInterrupt,
    mark_5::MarkerSurvivesCrash,
    roll_1::WholeLinesAreReadable,
    roll_2::AppendOnly,
    roll_3::CutRolloutsResume,
    roll_4::TurnsAreBracketed,
    roll_5::RecordedBeforeSent,
    roll_6::CutTurnsAreInterrupted,
    roll_7::ForksAndRollbacksArePaired,
    req_1::InterruptsAreAnswered,
    req_2::RequestsHaveCauses,
    req_3::RetriesAreBounded,
    req_4::StreamIsClosed,
    req_5::InputIsKept,
    req_6::TurnHeadersEndWithTheTurn,
    appr_1::PendingApprovalIsAborted,
    appr_2::LateApprovalIsHarmless,
    appr_3::PendingQuestionHasNoAnswer,
    appr_4::AbortAnswerInterrupts,
    sub_1::SubAgentsEndWithTheTurn,
    sub_2::ParentsAskForThem,
    sub_3::NobodyReadsNothingHangs,
    sub_4::OneShotsEndByThemselves,
    proc_1::ToolsEndWithTheTurn,
    proc_2::NothingOutlivesTheAgent,
    view_1::TextStaysInItsTurn,
    view_2::ErrorsAreShown,
    view_3::ShownTextIsKept,
    view_4::AbortReadsAsItWas,
}

/// Every rule, in the order of the book.
pub fn rules() -> &'static [&'static dyn Invariant] {
    RULES
}

/// The rule of that id.
pub fn rule(id: &str) -> Option<&'static dyn Invariant> {
    RULES.iter().copied().find(|rule| rule.id() == id)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::map::HashSet;

    #[test]
    fn every_rule_explains_itself() {
        let ids: HashSet<&str> = rules().iter().map(|rule| rule.id()).collect();
        assert_eq!(ids.len(), rules().len());
        for rule in rules() {
            let texts = [rule.sentence(), rule.source(), rule.exercised_when()];
            let races = rule.legal_races().iter().copied();
            for text in texts.into_iter().chain(races) {
                assert!(
                    !text.is_empty() && !text.contains("  "),
                    "{}: {text}",
                    rule.id()
                );
            }
            assert!(rule.sentence().ends_with('.'), "{}", rule.id());
            assert_eq!(
                super::rule(rule.id()).map(|rule| rule.id()),
                Some(rule.id())
            );
        }
        assert!(super::rule("NONE-1").is_none());
    }

    #[test]
    fn every_file_is_in_the_book() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/rules"));
        assert_eq!(files.unwrap().count(), rules().len());
    }
}
