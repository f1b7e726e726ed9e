//! One probe: a connection, and where the app says so a request on it.
//!
//! Owns what is sent and when an answer is good enough. Reads no more than a
//! head, and of that no more than a probe's answer can need; a backend that
//! sends garbage, or never stops, costs its time limit and a small buffer.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::edge::buffer::Buffer;
use crate::edge::http1::head::Limits;
use crate::edge::http1::response::{ResponseHead, parse_response};
use crate::edge::http1::scan::Scan;
use crate::edge::upstream;
use crate::observe::Counter;
use crate::table::Probe;

/// What an answer to a probe may be at most, interim heads included.
const LIMITS: Limits = Limits {
    start_line_bytes: 8_192,
    header_line_bytes: 16 * 1024,
    headers: 256,
    head_bytes: 64 * 1024,
};

/// The buffer an answer is read with at first: enough for nearly all.
const FIRST_BYTES: usize = 4 * 1024;

/// How long a probe waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the connection.
    pub(super) connect: Duration,
    /// For everything.
    pub(super) whole: Duration,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// All is as it should be.
    Well,
    /// Nobody listens, or no way leads there.
    Refused,
    /// It took too long.
    TimedOut,
    /// It closed or reset the connection before the end of its answer's head.
    Closed,
    /// It answered with a status that does not pass.
    Status(u16),
    /// What it answered is not HTTP, or over a limit: what was wrong.
    Malformed(&'static str),
    /// The router had no descriptor or port left: says nothing of the backend.
    Exhausted,
}

impl Finding {
    /// Whether the probe passed; `None` if it says nothing of the backend.
    pub(super) fn passed(self) -> Option<bool> {
        match self {
            Finding::Well => Some(true),
            Finding::Exhausted => None,
            _ => Some(false),
        }
    }

    /// Where it is counted.
    pub(super) fn counter(self) -> Counter {
        match self {
            Finding::Well => Counter::ProbePassed,
            Finding::Refused => Counter::ProbeRefused,
            Finding::TimedOut => Counter::ProbeTimedOut,
            Finding::Closed => Counter::ProbeClosed,
            Finding::Status(_) => Counter::ProbeStatus,
            Finding::Malformed(_) => Counter::ProbeMalformed,
            Finding::Exhausted => Counter::ProbeExhausted,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Well => f.write_str("passed"),
            Finding::Refused => f.write_str("the connection was refused"),
            Finding::TimedOut => f.write_str("nothing in time"),
            Finding::Closed => f.write_str("closed without an answer"),
            Finding::Status(status) => write!(f, "answered {status}"),
            Finding::Malformed(cause) => write!(f, "a bad answer ({cause})"),
            Finding::Exhausted => f.write_str("not sent for want of descriptors or ports"),
        }
    }
}

/// Asks the backend at `address`, as `probe` says; without one, a connection
/// that opens is enough.
pub(super) async fn ask(address: SocketAddr, probe: Option<&Probe>, patience: Patience) -> Finding {
    let asked = async {
        let stream = match timeout(patience.connect, upstream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return unconnected(&error),
            Err(_) => return Finding::TimedOut,
        };
        match probe.and_then(|probe| Some((probe, probe.path.as_deref()?))) {
            Some((probe, path)) => converse(stream, address, probe, path).await,
            None => Finding::Well,
        }
    };
    timeout(patience.whole, asked)
        .await
        .unwrap_or(Finding::TimedOut)
}

fn unconnected(error: &io::Error) -> Finding {
    match error.kind() {
        _ if upstream::is_own_want(error) => Finding::Exhausted,
        io::ErrorKind::TimedOut => Finding::TimedOut,
        _ => Finding::Refused,
    }
}

async fn converse(
    mut stream: TcpStream,
    address: SocketAddr,
    probe: &Probe,
    path: &str,
) -> Finding {
    let sent = match &probe.host {
        Some(host) => request(path, host),
        None => request(path, &address.to_string()),
    };
    if stream.write_all(&sent).await.is_err() {
        return Finding::Closed;
    }
    match status(&mut stream).await {
        Ok(status) if probe.statuses.contains(status) => Finding::Well,
        Ok(status) => Finding::Status(status),
        Err(finding) => finding,
    }
}

fn request(path: &str, host: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: portico-probe/{version}\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// The answer's status, interim answers passed over.
async fn status(stream: &mut TcpStream) -> Result<u16, Finding> {
    let mut buffer = Buffer::with_room(FIRST_BYTES);
    let mut head = ResponseHead::default();
    let mut scan = Scan::default();
    let mut interim_bytes = 0;
    loop {
        let parsed = parse_response(buffer.data(), &mut scan, &LIMITS, false, &mut head);
        match parsed.map_err(|defect| Finding::Malformed(defect.cause))? {
            Some(_) if !head.interim() => return Ok(head.status),
            Some(bytes) => {
                buffer.consume(bytes);
                scan = Scan::default();
                interim_bytes += bytes;
                if interim_bytes > LIMITS.head_bytes {
                    return Err(Finding::Malformed("interim answers without end"));
                }
                continue;
            }
            None => {}
        }
        if buffer.room() == 0 {
            buffer.compact();
            // Room above the limit, for the parser to see that it is passed.
            let larger = (2 * buffer.capacity()).min(LIMITS.head_bytes + FIRST_BYTES);
            buffer.grow(larger);
        }
        let room = buffer.room();
        match poll_fn(|cx| buffer.poll_read(cx, stream, room)).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(Finding::Closed),
        }
    }
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
