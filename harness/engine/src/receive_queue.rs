//! How much of what was sent over a local TCP connection has not been read at its other end.
//!
//! The kernel is asked for that one socket (`sock_diag(7)`), in microseconds. `/proc/net/tcp` tells
//! the same but walks the hash table of all connections for it, which takes milliseconds on a machine
//! with a lot of memory.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::server::Endpoints;

/// `SOCK_DIAG_BY_FAMILY`: the request, and the answer to it.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `AF_INET` and `AF_INET6`, in the one byte that the request has for them.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// The protocol number of TCP.
const TCP: u8 = 6;
/// Length of the header of a message, `nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Length of the request with its header, `inet_diag_req_v2`.
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// Where the answer, `inet_diag_msg`, has the socket's state.
const STATE_AT: usize = HEADER_BYTES + 1;
/// Where it has the length of the receive queue.
const QUEUE_AT: usize = HEADER_BYTES + 56;
/// `TCP_LISTEN`: the kernel names a listener on the port where the connection itself is gone.
const LISTENS: u8 = 10;

/// How many bytes wait in the client's receive queue; `None` if its socket is gone.
pub fn unread_bytes(ends: Endpoints) -> Option<u64> {
    // A kernel that can't be asked says the same as one that knows no such socket; the table tells
    // them apart.
    asked(ends).or_else(|| tabled(ends))
}

fn asked(ends: Endpoints) -> Option<u64> {
    let socket: OwnedFd = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )
    .ok()?;
    // The kernel answers before `send` returns, so nothing here waits.
    send(&socket, &request(ends), SendFlags::DONTWAIT).ok()?;
    let mut answer = [0; 1024];
    let (_, length) = recv(&socket, &mut answer, RecvFlags::DONTWAIT).ok()?;
    let answer = answer.get(..length)?;
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != BY_FAMILY || *answer.get(STATE_AT)? == LISTENS {
        return None;
    }
    let queue = answer.get(QUEUE_AT..QUEUE_AT + 4)?;
    Some(u32::from_ne_bytes(queue.try_into().ok()?).into())
}

/// Asks for the client's socket: the one whose own end is the client's.
fn request(ends: Endpoints) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REQUEST_BYTES);
    let length = u32::try_from(REQUEST_BYTES).unwrap_or_default();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    // Number and sender, which matter only where several requests are under way.
    bytes.extend([0; 8]);
    let family = match ends.client {
        SocketAddr::V4(_) => IPV4,
        SocketAddr::V6(_) => IPV6,
    };
    // No extensions, padding; sockets in any state.
    bytes.extend([family, TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(ends.client.port().to_be_bytes());
    bytes.extend(ends.server.port().to_be_bytes());
    for end in [ends.client, ends.server] {
        let mut address = [0; 16];
        match end.ip() {
            IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => address.copy_from_slice(&ip.octets()),
        }
        bytes.extend(address);
    }
    // Any interface, and no cookie, which is all ones.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

fn tabled(ends: Endpoints) -> Option<u64> {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// A connection to itself, and its ends; nothing where the machine has no such address.
    pub(crate) async fn connection(address: &str) -> Option<(TcpStream, TcpStream, Endpoints)> {
        let listener = TcpListener::bind(address).await.ok()?;
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let ends = Endpoints {
            client: server.peer_addr().unwrap(),
            server: server.local_addr().unwrap(),
        };
        Some((client, server, ends))
    }

    #[tokio::test]
    async fn both_ways_see_what_is_unread_and_what_is_gone() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Some((mut client, mut server, ends)) = connection(address).await else {
                continue;
            };
            let both = || (asked(ends), tabled(ends));
            assert_eq!(both(), (Some(0), Some(0)), "{address}");
            server.write_all(b"hello").await.unwrap();
            client.readable().await.unwrap();
            assert_eq!(both(), (Some(5), Some(5)), "{address}");
            let mut read = [0; 5];
            client.read_exact(&mut read).await.unwrap();
            assert_eq!(both(), (Some(0), Some(0)), "{address}");
            // A reset leaves no socket in the table; an orderly end would stay for a while.
            client.set_zero_linger().unwrap();
            drop(client);
            assert_eq!(unread_bytes(ends), None, "{address}");
        }
    }
}
