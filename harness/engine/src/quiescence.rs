//! Waits until an agent has taken in what it was sent.
//!
//! A gate is reached when its bytes have left the server. The agent may not have read them yet, and
//! an interrupt that overtakes them cuts at an earlier point than the scenario says. So the harness
//! looks until the agent's end of the connection has nothing left to read and no thread of the agent
//! runs, three times in a row. This is a heuristic for agents in other processes; it held in all
//! trials it was measured in, and the rules accept both outcomes where a race remains.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::server::Ends;

/// How many looks in a row must find the agent quiet.
const LOOKS: u32 = 3;
/// Time between two looks.
const PAUSE: Duration = Duration::from_micros(500);
/// After this the action is done all the same: an agent may be busy for reasons of its own.
const LIMIT: Duration = Duration::from_millis(250);

/// Waits until the client's end has read everything and `pid`, if given, has no running thread.
pub async fn wait(ends: Option<Ends>, pid: Option<u32>) {
    let deadline = Instant::now() + LIMIT;
    let mut quiet = 0;
    while quiet < LOOKS && Instant::now() < deadline {
        let unread = ends.is_some_and(|ends| unread_bytes(ends).is_some_and(|bytes| bytes > 0));
        let busy = unread || pid.is_some_and(has_running_thread);
        quiet = if busy { 0 } else { quiet + 1 };
        tokio::time::sleep(PAUSE).await;
    }
}

/// How many bytes wait in the client's receive queue; `None` if its socket is gone.
fn unread_bytes(ends: Ends) -> Option<u64> {
    let table = match ends.client {
        SocketAddr::V4(_) => "/proc/net/tcp",
        SocketAddr::V6(_) => "/proc/net/tcp6",
    };
    let (client, server) = (kernel_form(ends.client), kernel_form(ends.server));
    let table = fs::read_to_string(table).ok()?;
    let row = table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let mut rows =
        row.filter(|fields| fields.len() > 4 && fields[1] == client && fields[2] == server);
    let queues = rows.next()?[4].to_owned();
    u64::from_str_radix(queues.split_once(':')?.1, 16).ok()
}

/// An address as `/proc/net/tcp` writes it: the address's words in host order, then the port.
fn kernel_form(address: SocketAddr) -> String {
    let words: Vec<u32> = match address.ip() {
        IpAddr::V4(ip) => vec![u32::from_ne_bytes(ip.octets())],
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let word = |at: usize| [octets[at], octets[at + 1], octets[at + 2], octets[at + 3]];
            (0..16)
                .step_by(4)
                .map(|at| u32::from_ne_bytes(word(at)))
                .collect()
        }
    };
    let words: String = words.iter().map(|word| format!("{word:08X}")).collect();
    format!("{words}:{:04X}", address.port())
}

fn has_running_thread(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.filter_map(Result::ok).any(|task| {
        fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| {
            // The name in parentheses may hold anything, so the state is counted from its end.
            stat.rfind(')')
                .and_then(|at| stat[at + 1..].trim_start().chars().next())
                == Some('R')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn unread_bytes_are_seen_and_waited_for() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else {
                continue;
            };
            let mut client = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let ends = Ends {
                client: server.peer_addr().unwrap(),
                server: server.local_addr().unwrap(),
            };
            assert_eq!(unread_bytes(ends), Some(0), "{address}");
            server.write_all(b"hello").await.unwrap();
            client.readable().await.unwrap();
            assert_eq!(unread_bytes(ends), Some(5), "{address}");
            let mut read = [0; 5];
            let (_, ()) = tokio::join!(client.read_exact(&mut read), wait(Some(ends), None));
            assert_eq!(unread_bytes(ends), Some(0), "{address}");
        }
    }

    #[test]
    fn a_process_that_is_gone_is_quiet() {
        assert!(!has_running_thread(u32::MAX));
    }
}
