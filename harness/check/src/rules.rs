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
    turn_1::OneEndPerTurn,
    turn_2::InterruptEndsTurn,
    turn_3::ReplacedTurnEndsFirst,
    turn_4::NothingAfterTheEnd,
    turn_5::IdleInterruptIsHarmless,
    turn_7::AbortedOnce,
    turn_8::OneIdPerTurn,
    mark_1::MarkerBeforeAbort,
    mark_3::OneMarkerInItsPlace,
    mark_4::NoMarkerWithoutInterrupt,
    roll_1::WholeLinesAreReadable,
    roll_2::AppendOnly,
    roll_4::TurnsAreBracketed,
    req_2::RequestsHaveCauses,
}

/// Every rule, in the order of the book.
pub fn rules() -> &'static [&'static dyn Invariant] {
    RULES
}

/// The rule of that id.
pub fn rule(id: &str) -> Option<&'static dyn Invariant> {
    RULES.iter().copied().find(|rule| rule.id() == id)
}
