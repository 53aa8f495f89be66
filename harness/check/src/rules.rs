//! The rule book. A rule is one file of this directory, its `mod` line and its line in the list.

use crate::invariant::Invariant;

mod appr_1;
mod appr_2;
mod appr_3;
mod appr_4;
mod call_1;
mod call_2;
mod call_3;
mod call_4;
mod call_5;
mod call_6;
mod call_7;
mod call_8;
mod call_9;
mod mark_1;
mod mark_2;
mod mark_3;
mod mark_4;
mod mark_5;
mod proc_1;
mod proc_2;
mod req_1;
mod req_2;
mod req_3;
mod req_4;
mod req_5;
mod req_6;
mod roll_1;
mod roll_2;
mod roll_3;
mod roll_4;
mod roll_5;
mod roll_6;
mod roll_7;
mod sub_1;
mod sub_2;
mod sub_3;
mod sub_4;
mod turn_1;
mod turn_2;
mod turn_3;
mod turn_4;
mod turn_5;
mod turn_6;
mod turn_7;
mod turn_8;
mod turn_9;
mod view_1;
mod view_2;
mod view_3;
mod view_4;

static RULES: &[&dyn Invariant] = &[
    &call_1::EveryCallIsAnswered,
    &call_2::EveryOutputHasItsCall,
    &call_3::CutCallsSaySo,
    &call_4::BegunCallsStay,
    &call_5::NoInventedCalls,
    &call_6::PartialOutputIsKept,
    &call_7::NamedCallsAreAnswered,
    &call_8::DebtOutlivesTheAbort,
    &call_9::FinishedItemsStay,
    &turn_1::OneEndPerTurn,
    &turn_2::InterruptEndsTurn,
    &turn_3::ReplacedTurnEndsFirst,
    &turn_4::NothingAfterTheEnd,
    &turn_5::IdleInterruptIsHarmless,
    &turn_6::AbortIsPrompt,
    &turn_7::AbortedOnce,
    &turn_8::OneIdPerTurn,
    &turn_9::CallersIdsAreKept,
    &mark_1::MarkerBeforeAbort,
    &mark_2::MarkerIsDurable,
    &mark_3::OneMarkerInItsPlace,
    &mark_4::NoMarkerWithoutInterrupt,
    &mark_5::MarkerSurvivesCrash,
    &roll_1::WholeLinesAreReadable,
    &roll_2::AppendOnly,
    &roll_3::CutRolloutsResume,
    &roll_4::TurnsAreBracketed,
    &roll_5::RecordedBeforeSent,
    &roll_6::CutTurnsAreInterrupted,
    &roll_7::ForksAndRollbacksArePaired,
    &req_1::InterruptsAreAnswered,
    &req_2::RequestsHaveCauses,
    &req_3::RetriesAreBounded,
    &req_4::StreamIsClosed,
    &req_5::InputIsKept,
    &req_6::TurnHeadersEndWithTheTurn,
    &appr_1::PendingApprovalIsAborted,
    &appr_2::LateApprovalIsHarmless,
    &appr_3::PendingQuestionHasNoAnswer,
    &appr_4::AbortAnswerInterrupts,
    &sub_1::SubAgentsEndWithTheTurn,
    &sub_2::ParentsAskForThem,
    &sub_3::NobodyReadsNothingHangs,
    &sub_4::OneShotsEndByThemselves,
    &proc_1::ToolsEndWithTheTurn,
    &proc_2::NothingOutlivesTheAgent,
    &view_1::TextStaysInItsTurn,
    &view_2::ErrorsAreShown,
    &view_3::ShownTextIsKept,
    &view_4::AbortReadsAsItWas,
];

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
    use crate::fast_hash::HashSet;

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
    fn every_clause_has_a_kind_of_its_own() {
        for rule in rules() {
            let kinds: HashSet<&str> = rule.clauses().iter().map(|clause| clause.kind).collect();
            assert_eq!(kinds.len(), rule.clauses().len(), "{}", rule.id());
            assert!(!kinds.is_empty(), "{}", rule.id());
            for clause in rule.clauses() {
                let mut words = clause.kind.split('-');
                let lower = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase());
                let is_slug = words.all(|word| !word.is_empty() && lower(word));
                assert!(is_slug, "{}/{}", rule.id(), clause.kind);
                assert!(!clause.text.contains("  "), "{}", clause.text);
            }
        }
    }

    #[test]
    fn a_test_breaks_every_clause() {
        for rule in rules() {
            let file = rule.id().to_lowercase().replace('-', "_");
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/rules");
            let source = std::fs::read_to_string(format!("{dir}/{file}.rs")).unwrap();
            for clause in rule.clauses() {
                let name = format!("{}/{}", rule.id(), clause.kind);
                assert!(
                    source.contains(&format!("\"{name}\"")),
                    "no test breaks {name}"
                );
            }
        }
    }

    #[test]
    fn every_file_is_in_the_book() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/rules"));
        assert_eq!(files.unwrap().count(), rules().len());
    }
}
