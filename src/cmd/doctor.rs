//! `cutpoint doctor`

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use cutpoint_engine::driver::agents::AGENTS;
use cutpoint_engine::runner::{Planned, RunConfig, Runner};
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_trace::case::{CaseResult, CaseStatus};

use crate::agent_spec::AgentSpec;
use crate::console::say;
use crate::exit_code::ExitCode;
use crate::run_dir::in_run_dir;
use crate::{Failure, Outcome, runtime};

/// Upper bound of each wait of a trial run.
const LIMIT: Duration = Duration::from_secs(10);

/// One turn, without a tool: an agent that gets through it can be run.
const TRIAL: &str = r#"scenario "doctor" {
    model {
        reply { text "Hello." }
    }
    user "hello"
    await turn-complete
}
"#;

/// Arguments of `cutpoint doctor`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint doctor                      this machine, and all agents that are found here
  cutpoint doctor stdio:./my-agent     one agent; the exit code is 3 if it can't be run")]
pub struct Arguments {
    /// Agents to try, as --agent takes them; all that are found here by default.
    #[arg(value_name = "AGENT")]
    agents: Vec<AgentSpec>,
}

/// Checks what cutpoint needs of this machine, and tries which agents can be run.
pub fn run(arguments: &Arguments) -> Outcome {
    let mut code = ExitCode::Conforms;
    say!("This machine:")?;
    for (what, checked) in [
        ("loopback can be bound", bind_loopback()),
        ("temporary files can be written", write_temporary_file()),
    ] {
        match checked {
            Ok(()) => report(true, what, "")?,
            Err(error) => {
                report(false, what, &error.to_string())?;
                code = ExitCode::Trouble;
            }
        }
    }
    if code == ExitCode::Conforms {
        code = runtime()?.block_on(try_agents(&arguments.agents))?;
    }
    Ok(code)
}

fn bind_loopback() -> io::Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop)
}

fn write_temporary_file() -> io::Result<()> {
    io::Write::write_all(&mut tempfile::NamedTempFile::new()?, b"cutpoint\n")
}

fn report(good: bool, what: &str, details: &str) -> Result<(), Failure> {
    let mark = if good { "ok" } else { "--" };
    say!("  {mark}  {what:20} {details}")
}

async fn try_agents(named: &[AgentSpec]) -> Outcome {
    say!("Agents:")?;
    let mut code = ExitCode::Conforms;
    let found = AGENTS.iter().flat_map(|kind| {
        let choices = kind.found().into_iter();
        choices.map(|choice| AgentSpec::new(*kind, choice))
    });
    let agents = if named.is_empty() {
        found.collect()
    } else {
        named.to_vec()
    };
    for agent in &agents {
        match try_agent(agent).await {
            Ok(who) => report(true, &agent.to_string(), &who)?,
            Err(why) => {
                let how = agent.declaration().how_to_get;
                report(false, &agent.to_string(), &format!("{why}; {how}"))?;
                if !named.is_empty() {
                    code = ExitCode::AgentFailed;
                }
            }
        }
    }
    let missing = AGENTS.iter().filter(|kind| kind.found().is_empty());
    for kind in missing.filter(|_| named.is_empty()) {
        let declaration = kind.declaration();
        report(false, declaration.name, declaration.how_to_get)?;
    }
    Ok(code)
}

/// Runs the trial on an agent. Gives who it is, or why it can't be run.
async fn try_agent(agent: &AgentSpec) -> Result<String, String> {
    let tried = in_run_dir(async |run_dir| {
        let driver = agent.driver(&run_dir.context(LIMIT, &[])).await?;
        let server = ReplayServer::start(ServerConfig::default())
            .await
            .map_err(|error| Failure::trouble(error.to_string()))?;
        let config = RunConfig {
            limit: LIMIT,
            seed: 0,
            recordings: "recordings".into(),
            dir: Some(run_dir.dir().join("cases")),
            rules_only: false,
            judge: cutpoint_check::judge,
        };
        let runner = Runner::new(Arc::new(server), driver.clone(), config);
        let case = runner.run(&trial()?).await;
        driver.close().await;
        Ok(case)
    });
    let case = tried.await.map_err(|failure| failure.message)?;
    let who = &case.agent;
    match case.status {
        CaseStatus::Conforms | CaseStatus::Breach => {
            Ok(format!("{} {} ({})", who.name, who.version, who.driver))
        }
        _ => Err(why(&case)),
    }
}

fn trial() -> Result<Planned, Failure> {
    let parsed = cutpoint_scenario::parse("doctor", TRIAL)
        .map_err(|error| Failure::trouble(error.to_string()))?;
    let scenario = parsed.scenarios.into_iter().next();
    let scenario = scenario.ok_or_else(|| Failure::trouble("there is no trial".to_owned()))?;
    Ok(Planned {
        scenario,
        file: "doctor".to_owned(),
    })
}

/// Why the trial did not get to its end, in one line.
fn why(case: &CaseResult) -> String {
    let note = case.note.as_deref().and_then(|note| note.lines().next());
    note.map_or_else(|| format!("{:?}", case.status), str::to_owned)
}
