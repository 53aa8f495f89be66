//! `cutpoint agent`

use std::path::PathBuf;

use cutpoint_agent::{Config, Defect, Endpoint, HistoryMode, serve_jsonrpc, serve_stdio};
use cutpoint_engine::process::MODEL_VARIABLE;

use crate::exit_code::ExitCode;
use crate::{Failure, Outcome, runtime};

/// Arguments of `cutpoint agent`.
#[derive(clap::Args)]
#[command(after_help = "Reads submissions such as
  {\"id\":\"1\",\"op\":{\"type\":\"user_input\",\"items\":[{\"type\":\"text\",\"text\":\"hi\"}]}}
  {\"id\":\"2\",\"op\":{\"type\":\"interrupt\"}}
one per line, and writes events such as
  {\"id\":\"1\",\"msg\":{\"type\":\"turn_started\",\"turn_id\":\"…\"}}
With --jsonrpc it speaks JSON-RPC, one message per line without the `jsonrpc` member:
  {\"id\":0,\"method\":\"initialize\",\"params\":{}}
  {\"id\":1,\"method\":\"thread/start\",\"params\":{}}
  {\"id\":2,\"method\":\"turn/start\",\"params\":{\"threadId\":\"…\",\"input\":[{\"type\":\"text\",\"text\":\"hi\"}]}}
  {\"id\":3,\"method\":\"turn/interrupt\",\"params\":{\"threadId\":\"…\"}}
The end of stdin ends the session. CUTPOINT_MODEL in the environment names the model to ask for.")]
pub struct Arguments {
    /// Where the model is: an http URL without `/responses`, such as http://127.0.0.1:1234/v1.
    #[arg(long)]
    base_url: String,
    /// Where the rollout file is written.
    #[arg(long, default_value = ".")]
    rollout_dir: PathBuf,
    /// Continue the session of this rollout file.
    #[arg(long)]
    resume: Option<PathBuf>,
    /// Speak JSON-RPC: several conversations, answers to requests, ids that a caller may choose.
    #[arg(long, conflicts_with = "resume")]
    jsonrpc: bool,
    /// Send `previous_response_id` and what is new, instead of the whole history.
    #[arg(long)]
    server_history: bool,
    /// The seed of ids and of the jitter between retries.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Switch on a planted defect (see `cutpoint defects`).
    #[arg(long = "defect", value_name = "NAME", value_parser = super::defects::named)]
    defects: Vec<Defect>,
}

/// Runs the agent until its input ends.
pub fn run(arguments: &Arguments) -> Outcome {
    let endpoint =
        Endpoint::parse(&arguments.base_url).map_err(|error| Failure::usage(error.to_string()))?;
    let cwd = std::env::current_dir()
        .map_err(|error| Failure::usage(format!("no working directory: {error}")))?;
    std::fs::create_dir_all(&arguments.rollout_dir)
        .map_err(|error| Failure::agent(format!("{}: {error}", arguments.rollout_dir.display())))?;
    let mut config = Config::new(endpoint, arguments.rollout_dir.clone(), cwd);
    config.resume = arguments.resume.clone();
    config.seed = arguments.seed;
    config.defects = arguments.defects.iter().copied().collect();
    if arguments.server_history {
        config.history = HistoryMode::Server;
    }
    if let Ok(model) = std::env::var(MODEL_VARIABLE) {
        config.model = model;
    }
    let runtime = runtime()?;
    let (stdin, stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let served = if arguments.jsonrpc {
        runtime.block_on(serve_jsonrpc(config, stdin, stdout))
    } else {
        runtime.block_on(serve_stdio(config, stdin, stdout))
    };
    // Reading stdin blocks a thread that nothing can wake.
    runtime.shutdown_background();
    served.map_err(|error| Failure::agent(error.to_string()))?;
    Ok(ExitCode::Conforms)
}
