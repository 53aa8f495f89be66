//! Whatever is drawn is a scenario file, and a line that names it.

use cutpoint_explore::{Injection, Schedule, Token, fingerprint, strategy};
use proptest::collection::vec;
use proptest::prelude::*;

fn injections() -> impl Strategy<Value = Vec<Injection>> {
    let labels = [
        "abort.take",
        "approval.asked",
        "question.asked",
        "request.send",
    ];
    let points = labels.map(|label| (label.to_owned(), 2));
    let one = (strategy::injection(points.into()), 0_usize..99);
    let one = one.prop_map(|(injection, lost_bytes)| Injection {
        lost_bytes,
        ..injection
    });
    vec(one, 0..4)
}

proptest! {
    #[test]
    fn every_schedule_is_a_scenario_that_reads_back(
        scenario in strategy::scenario(),
        injections in injections(),
    ) {
        let applied = Schedule { injections }.applied_to(&scenario);
        let printed = applied.to_string();
        match cutpoint_scenario::parse("drawn.kdl", &printed) {
            Ok(file) => prop_assert_eq!(&file.scenarios, &[applied]),
            Err(error) => prop_assert!(false, "{}\n{}", printed, error),
        }
    }

    #[test]
    fn every_schedule_has_a_token_that_reads_back(
        scenario in strategy::scenario(),
        injections in injections(),
        seed in any::<u64>(),
    ) {
        let token = Token {
            scenario: fingerprint(&scenario),
            seed,
            schedule: Schedule { injections },
        };
        prop_assert_eq!(token.to_string().parse(), Ok(token));
    }
}
