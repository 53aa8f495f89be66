//! Every schedule that is drawn is a scenario file, and has a token that names it.

use cutpoint_explore::{Place, Schedule, ScheduledAct, Token, fingerprint, strategy};
use proptest::collection::vec;
use proptest::prelude::*;

fn schedules() -> impl Strategy<Value = Schedule> {
    let labels = [
        "abort.take",
        "approval.asked",
        "question.asked",
        "request.send",
    ];
    let points = labels.map(|label| (label.to_owned(), 2));
    let act = (strategy::scheduled_act(points.into()), 0_usize..99);
    let act = act.prop_map(|(mut act, lost): (ScheduledAct, usize)| {
        if let Place::Point { lost_bytes, .. } = &mut act.at {
            *lost_bytes = lost;
        }
        act
    });
    vec(act, 0..4).prop_map(|acts| Schedule { acts })
}

proptest! {
    #[test]
    fn every_schedule_is_a_scenario_that_reads_back(
        scenario in strategy::scenario(),
        schedule in schedules(),
    ) {
        let applied = schedule.applied_to(&scenario).scenario;
        let printed = applied.to_string();
        match cutpoint_scenario::parse("drawn.kdl", &printed) {
            Ok(file) => prop_assert_eq!(&file.scenarios, &[applied]),
            Err(error) => prop_assert!(false, "{}\n{}", printed, error),
        }
    }

    #[test]
    fn every_schedule_has_a_token_that_reads_back(
        scenario in strategy::scenario(),
        schedule in schedules(),
        seed in any::<u64>(),
    ) {
        let token = Token {
            scenario: fingerprint(&scenario),
            seed,
            schedule,
        };
        prop_assert_eq!(token.to_string().parse(), Ok(token));
    }
}
