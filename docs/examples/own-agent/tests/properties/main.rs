//! The rules hold for every stream and every time of an interrupt.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod driver;

use std::sync::Arc;
use std::time::Duration;

use cutpoint_engine::runner::{Planned, RunConfig, Runner};
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_explore::strategy;
use cutpoint_scenario::ast::{
    Action, Await, CutPoint, ModelScript, Reply, ReplyBody, ReplyPart, Scenario, Span, Step,
};
use cutpoint_trace::verdict::Verdict;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use driver::OwnDriver;

/// A part of a model's answer: one of cutpoint's that this agent knows, or a call of its own tool.
fn part() -> impl Strategy<Value = ReplyPart> {
    let known =
        |part: &ReplyPart| matches!(part, ReplyPart::Text { .. } | ReplyPart::Reasoning { .. });
    let nap = (prop::sample::select(vec![1_u64, 60_000]), 1_usize..4);
    let nap = nap.prop_map(|(ms, chunks)| ReplyPart::Function {
        call: String::new(),
        name: "nap".to_owned(),
        arguments: format!("{{\"ms\":{ms}}}"),
        chunks,
    });
    prop_oneof![1 => strategy::part().prop_filter("a message", known), 1 => nap]
}

/// A turn that is interrupted at some point, and the next one.
fn scenario() -> impl Strategy<Value = Scenario> {
    let places = prop_oneof![
        Just(CutPoint::Request { reply: 1 }),
        Just(CutPoint::Headers { reply: 1 }),
        (1_usize..4).prop_map(|event| CutPoint::StreamEvent { reply: 1, event }),
        Just(CutPoint::End { reply: 1 }),
    ];
    (vec(part(), 1..4), strategy::end(), places).prop_map(|(mut parts, end, place)| {
        for (number, part) in parts.iter_mut().enumerate() {
            if let ReplyPart::Function { call, .. } = part {
                *call = format!("call_{}", number + 1);
            }
        }
        let step = |at: Option<CutPoint>, action| Step {
            at,
            yields: None,
            action,
            span: Span::default(),
        };
        let said = |text: &str| {
            let text = text.to_owned();
            let (id, refused) = (None, false);
            step(None, Action::User { text, id, refused })
        };
        let ended = || step(None, Action::Await(Await::TurnEnded));
        let interrupt = step(Some(place), Action::Interrupt { id: None });
        let steps = [said("go"), interrupt, ended(), said("and now?"), ended()];
        let reply = Reply {
            body: ReplyBody::Stream { parts, end },
            lenient: false,
            span: Span::default(),
        };
        Scenario {
            name: "drawn".to_owned(),
            model: ModelScript {
                replies: vec![reply],
                ..ModelScript::default()
            },
            steps: steps.into(),
            ..Scenario::default()
        }
    })
}

/// Runs the agent through a scenario and returns its breaches, one per line.
fn breaches(forgets_calls: bool, scenario: &Scenario) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = RunConfig {
        limit: Duration::from_secs(1),
        seed: 0,
        recordings: dir.path().to_owned(),
        dir: Some(dir.path().to_owned()),
        // Only the rules judge; a request beyond the scenario's replies gets a plain one.
        rules_only: true,
        judge: cutpoint_check::judge,
    };
    let planned = Planned {
        scenario: scenario.clone(),
        file: "drawn.kdl".to_owned(),
    };
    let case = runtime.block_on(async {
        let server = ReplayServer::start(ServerConfig::default()).await.unwrap();
        let driver = Arc::new(OwnDriver { forgets_calls });
        let runner = Runner::new(Arc::new(server), driver, config);
        runner.run(&planned).await
    });
    assert_eq!(case.note, None, "the scenario could not be run");
    let lines = case.breaches(false).flat_map(|verdict| {
        let breaches = match &verdict.verdict {
            Verdict::Fail { breaches, .. } => breaches.clone(),
            _ => Vec::new(),
        };
        let rule = &verdict.rule;
        breaches
            .into_iter()
            .map(move |breach| format!("{rule}/{}: {}", breach.kind, breach.text()))
    });
    lines.collect()
}

/// Draws scenarios until one fails, and shrinks it. The message has the seed.
fn search(forgets_calls: bool, cases: u32, seed: u64) -> Result<(), String> {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let found = TestRunner::new_with_rng(config, rng).run(&scenario(), |scenario| {
        let breaches = breaches(forgets_calls, &scenario);
        prop_assert!(breaches.is_empty(), "{}", breaches.join("\n"));
        Ok(())
    });
    found.map_err(|error| match error {
        TestError::Fail(why, scenario) => format!("{why}\n\n{scenario}\n\nOWN_AGENT_SEED={seed}"),
        TestError::Abort(why) => format!("{why}; OWN_AGENT_SEED={seed}"),
    })
}

/// `OWN_AGENT_SEED=7 cargo test -p own-agent` draws the same scenarios as the run that printed that seed.
#[test]
fn the_rules_hold() {
    let seed = std::env::var("OWN_AGENT_SEED").map_or(1, |seed| seed.parse().unwrap());
    search(false, 40, seed).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_bug_is_found() {
    let failure = search(true, 100, 1).expect_err("the bug was not found");
    assert!(failure.contains("CALL-1"), "{failure}");
    // The failure is shown as a scenario file.
    let scenario = failure.split_once("\n\n").unwrap().1;
    let scenario = scenario.rsplit_once("\n\n").unwrap().0;
    let file = cutpoint_scenario::parse("shown.kdl", scenario).unwrap();
    let [shown] = &file.scenarios[..] else {
        panic!("{failure}")
    };
    assert!(!breaches(true, shown).is_empty(), "{failure}");
    assert_eq!(breaches(false, shown), Vec::<String>::new());
}
