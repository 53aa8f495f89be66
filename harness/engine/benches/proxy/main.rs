//! How much later an event reaches a client through the recording proxy than without it.
//!
//! `cargo bench -p cutpoint-engine --bench proxy -- [--short] [--check]`. A server writes an event every
//! half a millisecond, with the time in it; a client notes when each has come, in turns from the
//! server itself and through the proxy. With `--check` a missed goal is an error.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cutpoint_bench::{Goals, Options};
use cutpoint_engine::proxy::{CaptureLimits, Proxy, ProxyConfig};
use cutpoint_recording::Redactor;

/// What the proxy may add to an event's way, in the middle of all events.
const GOAL: Duration = Duration::from_millis(1);
const EVENTS: usize = 1000;
/// How long the server waits between events.
const GAP: Duration = Duration::from_micros(500);
/// What fills an event up to the size of a usual delta.
const FILLER_BYTES: usize = 160;

fn main() -> ExitCode {
    cutpoint_bench::run(None, measure)
}

fn measure(options: &Options, goals: &mut Goals) {
    let epoch = Instant::now();
    let server = serve(epoch);
    let proxy = proxy(server);
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds(3, 15) {
        direct.extend(stream(server, epoch));
        through.extend(stream(proxy, epoch));
    }
    println!("{} events each way:", direct.len());
    println!("             median      99 %    slowest");
    let direct = print("direct", direct);
    let through = print("through", through);
    let added = through.saturating_sub(direct);
    let text = format!("added in the middle: {added:.1?}, goal below {GOAL:?}");
    goals.note(added < GOAL, &text);
}

/// Prints how long events took, and gives the median.
fn print(name: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000];
    println!(
        "{name:>8} {:>10.1?} {:>9.1?} {:>10.1?}",
        at(500),
        at(990),
        at(1000)
    );
    at(500)
}

/// A server of any number of streams, one after the other, on a thread of its own.
fn serve(epoch: Instant) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            send(stream.expect("a connection"), epoch);
        }
    });
    address
}

fn send(mut stream: TcpStream, epoch: Instant) {
    stream.set_nodelay(true).expect("a socket option");
    let mut request = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut line = String::new();
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        request.read_line(&mut line).expect("a request");
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    request.read_exact(&mut vec![0; length]).expect("a body");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("a reader");
    let filler = "x".repeat(FILLER_BYTES);
    for _ in 0..EVENTS {
        std::thread::sleep(GAP);
        let sent = epoch.elapsed().as_nanos();
        let event = format!("data: {sent} {filler}\n\n");
        stream.write_all(event.as_bytes()).expect("a reader");
    }
}

/// The proxy in front of a server, on a runtime of its own as the command line has it.
fn proxy(server: SocketAddr) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let config = ProxyConfig {
                upstream: format!("http://{server}/v1"),
                ca: None,
                redactor: Redactor::new(&[]).expect("no patterns, none wrong"),
                limits: CaptureLimits::default(),
            };
            let proxy = Proxy::start(config).await.expect("a free port");
            let _ = tell.send(proxy.address());
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("the proxy started")
}

/// How long each event of a stream took from the server's write to here.
fn stream(address: SocketAddr, epoch: Instant) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).expect("a server");
    let request = "POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    stream
        .write_all(request.as_bytes())
        .expect("a server that reads");
    let mut times = Vec::with_capacity(EVENTS);
    for line in BufReader::new(stream).lines() {
        let line = line.expect("text");
        let come = epoch.elapsed();
        let Some(event) = line.strip_prefix("data: ") else {
            continue;
        };
        let sent = event.split(' ').next().and_then(|sent| sent.parse().ok());
        times.push(come.saturating_sub(Duration::from_nanos(sent.expect("a time"))));
        if times.len() == EVENTS {
            break;
        }
    }
    assert_eq!(times.len(), EVENTS, "the stream was cut off");
    times
}
