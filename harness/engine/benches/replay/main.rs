//! What the replay server costs, measured in one run side by side with a bare hyper server that
//! streams the same bytes from a prebuilt list and knows nothing of cases, gates or requests.
//!
//! `cargo bench -p cutpoint-engine --bench replay -- [--short] [--check]`. Only the servers' own
//! threads are counted. With `--check` a missed goal is an error.

mod bare;
mod client;
mod counted;
mod serve;

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::time::Duration;

use cutpoint_bench::{Goals, HotPath, Options, median, micros, resident_kib};
use cutpoint_engine::server::body::Pace;

use crate::client::{BUFFER_BYTES, Client};
use crate::serve::{CLIENT_CORE, Running, STREAM_EVENTS, keep_to_core, request};

/// CPU of the replay server by that of the bare one, flushing every event.
const FLUSHED_GOAL: f64 = 1.15;
/// The same, handing over as many events as the connection takes.
const BURST_GOAL: f64 = 1.5;
/// How much the process may grow between the first and the last look at it.
const GROWTH_GOAL_KIB: i64 = 1024;
/// The resident memory of the process at any time.
const RESIDENT_GOAL_KIB: i64 = 15 << 10;

/// How much is measured.
struct Effort {
    rounds: usize,
    streams_per_round: usize,
    /// Requests of the smallest size; of larger ones there are fewer.
    requests: usize,
}

fn main() -> ExitCode {
    let hot_path = HotPath {
        name: "replay-100-streams-of-100-events",
        prepare: counted::prepare,
    };
    cutpoint_bench::run(Some(hot_path), measure)
}

/// glibc's setting of the size from which it takes blocks from the kernel one by one.
const MMAP_THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";

/// Starts this program again with a fixed threshold. Unless it is fixed, glibc raises it to the size of
/// the largest block that was freed and keeps such blocks: the resident memory would show the allocator's
/// habits and not what the server holds.
fn fix_mmap_threshold() {
    if std::env::var_os(MMAP_THRESHOLD).is_some() {
        return;
    }
    let program = std::env::current_exe().expect("the path of this program");
    let mut again = std::process::Command::new(program);
    again.args(std::env::args_os().skip(1));
    panic!("{}", again.env(MMAP_THRESHOLD, "131072").exec());
}

fn measure(options: &Options, goals: &mut Goals) {
    fix_mmap_threshold();
    let effort = Effort {
        rounds: options.rounds(11, 41),
        streams_per_round: options.rounds(50, 100),
        requests: options.rounds(9_000, 200_000),
    };
    keep_to_core(CLIENT_CORE);
    // First, while the process is small.
    memory(&effort, goals);
    for (name, pace, goal) in [
        ("flushed one by one", Pace::Flushed, FLUSHED_GOAL),
        ("in a burst", Pace::Burst, BURST_GOAL),
    ] {
        compare(&effort, (name, pace, goal), goals);
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
    let waits: Vec<Duration> = (0..streams).map(|_| client.stream()).collect();
    let cpu = server.cpu() - before;
    Round {
        cpu: cpu / u32::try_from(streams).unwrap_or(u32::MAX),
        first_event: median(waits),
    }
}

/// Runs the servers in turns, so that whatever else the machine does meets all of them alike.
fn compare(effort: &Effort, (name, pace, goal): (&str, Pace, f64), goals: &mut Goals) {
    let servers = [
        Running::bare(pace),
        Running::replay(pace),
        Running::traced(pace),
    ];
    let mut clients = servers
        .each_ref()
        .map(|server| Client::connect(server.address, request(0)));
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
    let of =
        |at: usize, look: fn(&Round) -> Duration| median(rounds[at].iter().map(look).collect());
    let ratio = |at: usize| {
        let pairs = rounds[at].iter().zip(&rounds[0]);
        let mut ratios: Vec<f64> = pairs
            .map(|(ours, bare)| ours.cpu.as_secs_f64() / bare.cpu.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
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
    goals.ratio("replay by bare", ratio(1), goal);
}

/// Sends many requests of several sizes, all different, and watches the process.
fn memory(effort: &Effort, goals: &mut Goals) {
    println!("\nresident memory, requests without a trace");
    let server = Running::short();
    for (name, text_bytes, requests) in [
        ("small", 0, effort.requests),
        ("of 4 KiB", 4 << 10, effort.requests / 5),
        ("of 30 KiB", 30 << 10, effort.requests / 20),
        ("of 1 MiB", 1 << 20, effort.requests / 500),
    ] {
        let request = request(text_bytes);
        // The client is part of this process and holds these.
        let clients_kib = ((request.len() + BUFFER_BYTES) >> 10) as i64;
        let mut client = Client::connect(server.address, request);
        let mut looks = Vec::new();
        // The first part fills what is kept.
        for part in 0..3 {
            for number in 0..requests / 3 {
                client.stream_numbered(part * requests + number);
            }
            looks.push(resident_kib() - clients_kib);
        }
        println!("{requests} {name}: {looks:?} KiB after each third, without the client's buffers");
        let (most, grown) = (looks.iter().max(), looks[2] - looks[1]);
        goals.at_most("grown by KiB", grown as f64, GROWTH_GOAL_KIB as f64);
        goals.at_most(
            "at most KiB",
            most.map_or(0.0, |most| *most as f64),
            RESIDENT_GOAL_KIB as f64,
        );
    }
}
