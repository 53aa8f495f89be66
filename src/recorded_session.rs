//! Recorded sessions as scenarios: run once, and compared item by item.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutpoint_engine::driver::in_process::ReferenceDriver;
use cutpoint_engine::driver::{Driver, START_LIMIT};
use cutpoint_engine::lab;
use cutpoint_engine::recorded_scenario::{self, ReplySource};
use cutpoint_engine::runner::{Planned, RunConfig, Runner, WAIT_LIMIT};
use cutpoint_engine::server::case::RequestTally;
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_protocol::rollout::{LineContent, RolloutLine, split};
use cutpoint_protocol::{Item, marker};
use cutpoint_recording::session::SessionOutline;
use cutpoint_recording::{HistoryChange, Problem, Recording};
use cutpoint_scenario::ast::Scenario;
use cutpoint_trace::Observation;
use cutpoint_trace::case::{CaseResult, CaseStatus};

use crate::agent_spec::AgentSpec;
use crate::console::{complain, say};
use crate::exit_code::ExitCode;
use crate::run_dir::in_run_dir;
use crate::{Failure, runtime};
use cutpoint::executor::of_verdict;

/// Loads a recording; what is wrong with it is told.
pub fn load(path: &Path) -> Result<Recording, Failure> {
    let recording = Recording::load(path).map_err(|errors| {
        complain!("{errors}");
        Failure::usage("the recording cannot be read")
    })?;
    let problems = recording.validate();
    for problem in &problems {
        complain!("{problem}");
    }
    if problems.iter().any(Problem::is_error) {
        return Err(Failure::usage("the recording is not valid"));
    }
    Ok(recording)
}

/// The scenario in which a user does again what was recorded, as strictly as an import or a replay is
/// judged; the model answers from `recording`, a name or a path.
pub fn scenario(name: &str, about: &str, recording: &str, session: &SessionOutline) -> Scenario {
    let replies = ReplySource::ByContent(recording);
    Scenario {
        expectations: recorded_scenario::expected(session),
        ..recorded_scenario::scenario(name, about, replies, session)
    }
}

/// What a run of a recorded session came to.
pub struct Ran {
    /// The case.
    pub case: CaseResult,
    /// What became of the agent's requests.
    pub tally: RequestTally,
    /// The items of the rollout that the agent wrote.
    pub items: Vec<Item>,
}

/// Runs a recorded session once. The reference agent runs in the lab, where no command is executed.
/// Requests that differ from the recorded ones are answered all the same.
pub fn run(planned: &Planned, agent: &AgentSpec, recordings: &Path) -> Result<Ran, Failure> {
    let config = |dir: Option<PathBuf>| RunConfig {
        limit: WAIT_LIMIT,
        seed: 0,
        recordings: recordings.to_owned(),
        dir,
        rules_only: false,
        judge: cutpoint_check::judge,
    };
    let server = ServerConfig {
        drifts: true,
        ..ServerConfig::default()
    };
    let trouble = |error: &dyn std::fmt::Display| Failure::trouble(error.to_string());
    if *agent == AgentSpec::default() {
        let run = async {
            let server = Arc::new(ReplayServer::in_memory(server));
            let driver = Arc::new(ReferenceDriver::default());
            one(&Runner::new(server, driver, config(None)), planned).await
        };
        return lab::block_on(run).map_err(|error| trouble(&error));
    }
    runtime()?.block_on(in_run_dir(async |run_dir| {
        let driver: Arc<dyn Driver> = agent.driver(&run_dir.context(START_LIMIT, &[])).await?;
        let server = ReplayServer::start(server)
            .await
            .map_err(|error| trouble(&error))?;
        let dir = Some(run_dir.dir().join("agent-0"));
        let runner = Runner::new(Arc::new(server), driver.clone(), config(dir));
        let ran = one(&runner, planned).await;
        driver.close().await;
        Ok(ran)
    }))
}

async fn one(runner: &Runner, planned: &Planned) -> Ran {
    let case = runner.run(planned).await;
    let items = rollout_items(&case);
    Ran {
        tally: runner.tally(),
        items,
        case,
    }
}

/// The items of the rollout that was read last.
fn rollout_items(case: &CaseResult) -> Vec<Item> {
    let (mut known, mut content): (&str, Vec<u8>) = ("", Vec::new());
    for entry in &case.trace.entries {
        if let Observation::Rollout {
            path, from, text, ..
        } = &entry.observation
        {
            if path != known {
                content.clear();
                known = path;
            }
            content.truncate(usize::try_from(*from).unwrap_or(usize::MAX));
            content.extend_from_slice(text.as_bytes());
        }
    }
    let text = String::from_utf8_lossy(&content);
    let (lines, _) = split(&text);
    let item = |line: &&str| match RolloutLine::parse_any(line).ok()?.content() {
        LineContent::Item(item) => Some(item),
        _ => None,
    };
    lines.iter().filter_map(item).collect()
}

/// Tells how the new items differ from the recorded ones, item by item, and what became of the requests.
/// Markers don't count where the recorded agent left none at all.
pub fn tell(session: &SessionOutline, ran: &Ran) -> Result<ExitCode, Failure> {
    let note = ran.case.note.as_deref().unwrap_or("no reason was given");
    match ran.case.status {
        CaseStatus::Skipped => return Err(Failure::agent(format!("nothing was replayed: {note}"))),
        CaseStatus::Conforms | CaseStatus::Breach => {}
        status => complain!("the replay did not come to its end ({status:?}): {note}"),
    }
    let mut replayed = cutpoint_recording::portable(&ran.items);
    session.substitutes.undone(&mut replayed);
    if session.has_no_markers() {
        replayed.retain(|item| !marker::is_marker(item));
    }
    let changes = cutpoint_recording::diff(&session.items, &replayed);
    let counts = cutpoint_recording::count(&changes);
    if !counts.is_same() {
        say!("- as recorded, + as replayed")?;
        for change in &changes {
            match change {
                HistoryChange::Kept { .. } => {}
                change => say!("{change}")?,
            }
        }
    }
    for unmet in &ran.case.unmet {
        say!("{}: {}", unmet.text, unmet.found)?;
    }
    for verdict in ran.case.breaches(false) {
        for violation in of_verdict(verdict) {
            say!("{} {}", violation.rule, violation.message)?;
        }
    }
    say!("requests: {}", ran.tally)?;
    say!(
        "items: {} the same, {} lost, {} added, {} moved",
        counts.kept,
        counts.lost,
        counts.added,
        counts.moved
    )?;
    Ok(match ran.case.status {
        CaseStatus::Conforms | CaseStatus::Breach
            if !counts.is_same() || !ran.case.unmet.is_empty() =>
        {
            ExitCode::Breach
        }
        // What the rules say of the agent is told, and is no drift.
        CaseStatus::Conforms | CaseStatus::Breach => ExitCode::Conforms,
        status => ExitCode::of(status),
    })
}
