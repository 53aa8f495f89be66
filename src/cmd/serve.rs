//! `cutpoint serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cutpoint_engine::server::body::Pace;
use cutpoint_engine::server::case::{CaseConfig, RecordedCalls, Script};
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_recording::Recording;

use crate::console::{complain, say};
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupts;
use crate::{Failure, Outcome, recorded_session, runtime};

/// Arguments of `cutpoint serve`.
#[derive(clap::Args)]
#[command(
    after_help = "Requests are matched by their history, so a client can run the recorded conversation as
often as it likes, from several connections at once. A request that matches nothing gets a 500 that
shows the nearest recorded one as a diff."
)]
pub struct Arguments {
    /// A recording: a folder, or one .sse file as `curl -N` prints it.
    recording: PathBuf,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Allow an address that other machines can reach.
    #[arg(long)]
    beyond_loopback: bool,
    /// Keep the recorded timing between events.
    #[arg(long)]
    timed: bool,
}

/// Serves until interrupted.
pub fn run(arguments: &Arguments) -> Outcome {
    let recording = recorded_session::load(&arguments.recording)?;
    runtime()?.block_on(serve(arguments, recording))
}

async fn serve(arguments: &Arguments, recording: Recording) -> Outcome {
    let mut interrupts = Interrupts::new()?;
    let config = ServerConfig {
        address: arguments.listen,
        beyond_loopback: arguments.beyond_loopback,
        ..ServerConfig::default()
    };
    let server = ReplayServer::start(config)
        .await
        .map_err(|error| Failure::usage(error.to_string()))?;
    let case = server.add(
        "/v1",
        CaseConfig {
            script: Script::Recording(Arc::new(recording)),
            side_conversations: Arc::default(),
            gates: Vec::new(),
            tracer: None,
            on_request: None,
            asks_approval: false,
            timed: arguments.timed,
            recorded_calls: RecordedCalls::AsRecorded,
            pace: Pace::Flushed,
            fallback: None,
        },
    );
    say!("{}", server.base_url("/v1"))?;
    interrupts.next().await;
    complain!("{}", case.tally());
    Ok(ExitCode::Conforms)
}
