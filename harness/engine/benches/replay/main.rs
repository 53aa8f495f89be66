//! What the replay server costs, measured in one run side by side with a bare hyper server that
//! streams the same bytes from a prebuilt list and knows nothing of cases, gates or requests.
//!
//! `cargo bench -p cutpoint-engine --bench replay -- [--quick] [--check]`. Only the servers' own
//! threads are counted. With `--check` a missed goal is an error.

mod bare;
mod client;
mod serve;

use std::process::ExitCode;
use std::time::Duration;

use cutpoint_engine::server::body::Pace;

use crate::client::Client;
use crate::serve::{CLIENT_CORE, Running, STREAM_EVENTS, keep_to_core};

/// CPU of the replay server by that of the bare one, flushing every event.
const FLUSHED_GOAL: f64 = 1.15;
/// The same, handing over as many events as the connection takes.
const BURST_GOAL: f64 = 1.5;
/// How much the process may grow between the first and the last look at it.
const GROWTH_GOAL_KIB: i64 = 1024;

/// How much is measured.
struct Effort {
    rounds: usize,
    streams_per_round: usize,
    requests: usize,
}

const FULL: Effort = Effort {
    rounds: 41,
    streams_per_round: 100,
    requests: 200_000,
};
const QUICK: Effort = Effort {
    rounds: 11,
    streams_per_round: 50,
    requests: 20_000,
};

fn main() -> ExitCode {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let effort = if has("--quick") { QUICK } else { FULL };
    keep_to_core(CLIENT_CORE);
    // First, while the process is small.
    let mut met = memory(&effort);
    for (name, pace, goal) in [
        ("flushed one by one", Pace::Flushed, FLUSHED_GOAL),
        ("in a burst", Pace::Burst, BURST_GOAL),
    ] {
        met &= compare(&effort, name, pace, goal);
    }
    if has("--check") && !met {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What one round of one server showed.
struct Round {
    /// Of the server's thread, per stream.
    cpu: Duration,
    /// The median from the request to the first bytes of the body.
    first_event: Duration,
}

fn round(server: &Running, client: &mut Client, streams: usize) -> Round {
    server.renew();
    // The first of a case is not like the others: what is read once is read then.
    client.stream();
    let before = server.cpu();
    let mut waits: Vec<Duration> = (0..streams).map(|_| client.stream()).collect();
    let cpu = server.cpu() - before;
    Round {
        cpu: cpu / u32::try_from(streams).unwrap_or(u32::MAX),
        first_event: median(&mut waits),
    }
}

/// Runs the servers in turns, so that whatever else the machine does meets all of them alike.
fn compare(effort: &Effort, name: &str, pace: Pace, goal: f64) -> bool {
    let servers = [
        Running::bare(pace),
        Running::replay(pace),
        Running::traced(pace),
    ];
    let mut clients = servers
        .each_ref()
        .map(|server| Client::connect(server.address, server.request()));
    let bytes = clients.each_mut().map(|client| {
        client.stream();
        client.received
    });
    assert!(
        bytes[1] == bytes[0] && bytes[2] == bytes[0],
        "the servers send different streams: {bytes:?}"
    );
    let mut rounds: [Vec<Round>; 3] = Default::default();
    for _ in 0..effort.rounds {
        for (at, server) in servers.iter().enumerate() {
            rounds[at].push(round(server, &mut clients[at], effort.streams_per_round));
        }
    }
    let of = |at: usize, look: fn(&Round) -> Duration| {
        median(&mut rounds[at].iter().map(look).collect::<Vec<_>>())
    };
    let ratio = |at: usize| {
        let pairs = rounds[at].iter().zip(&rounds[0]);
        let mut ratios: Vec<f64> = pairs
            .map(|(ours, bare)| ours.cpu.as_secs_f64() / bare.cpu.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    println!(
        "\n{STREAM_EVENTS} events ({} bytes with chunk framing) {name}, {} rounds of {} streams, medians",
        bytes[0], effort.rounds, effort.streams_per_round
    );
    println!(
        "{:22}{:>16}{:>10}{:>24}",
        "", "CPU per stream", "ratio", "time to first event"
    );
    for (at, label) in ["bare hyper", "replay", "replay with a trace"]
        .iter()
        .enumerate()
    {
        let (cpu, first) = (of(at, |round| round.cpu), of(at, |round| round.first_event));
        println!(
            "{label:22}{:>13.1} µs{:>10.3}{:>21.1} µs",
            micros(cpu),
            ratio(at),
            micros(first)
        );
    }
    verdict(
        ratio(1) <= goal,
        &format!("replay / bare = {:.3}, goal ≤ {goal}", ratio(1)),
    )
}

/// Sends many requests, each of a conversation of its own, and watches the process grow.
fn memory(effort: &Effort) -> bool {
    let server = Running::short();
    let mut client = Client::connect(server.address, server.request());
    // Until all that is kept is kept as often as its bounds allow.
    for number in 0..effort.requests / 10 {
        client.stream_numbered(number);
    }
    let start = resident_kib();
    let mut looks = Vec::new();
    for number in 0..effort.requests {
        client.stream_numbered(number);
        if (number + 1) % (effort.requests / 2) == 0 {
            looks.push(resident_kib());
        }
    }
    let (middle, end) = (looks[0], looks[1]);
    println!(
        "\nresident memory over {} requests without a trace",
        effort.requests
    );
    println!("start {start} KiB, middle {middle} KiB, end {end} KiB");
    verdict(
        end - start <= GROWTH_GOAL_KIB,
        &format!("grown by {} KiB, goal ≤ {GROWTH_GOAL_KIB} KiB", end - start),
    )
}

fn verdict(met: bool, text: &str) -> bool {
    println!("{} {text}", if met { "met:   " } else { "MISSED:" });
    met
}

fn median(durations: &mut [Duration]) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

/// The process's resident memory.
fn resident_kib() -> i64 {
    const PAGE_KIB: i64 = 4;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc/self/statm");
    let pages = statm
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<i64>().ok());
    pages.expect("statm's second field is a number") * PAGE_KIB
}
