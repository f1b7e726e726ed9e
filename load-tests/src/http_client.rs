//! As much of an HTTP/1.1 client as the harness needs.
//!
//! Owns the reading of an answer's framing (a Content-Length; peers and backend
//! send nothing else here), a blocking one-request call for readiness and for
//! the idle scenario. Never reads chunked answers: it says so instead.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use memchr::memmem;

/// Longest answer head understood.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// How an answer is framed, once its head is whole, and whether another may follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// The status.
    pub status: u16,
    /// Bytes of the head, its empty line included.
    pub head_bytes: usize,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// The connection ends after it: HTTP/1.0, or `Connection: close`.
    pub closes: bool,
}

impl Framing {
    /// Of the answer that `bytes` begin with; `None` while its head is not whole.
    pub fn of(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            if bytes.len() > HEAD_MAX_BYTES {
                bail!("an answer's head is over {HEAD_MAX_BYTES} B");
            }
            return Ok(None);
        };
        let head = std::str::from_utf8(&bytes[..end]).context("an answer's head is not text")?;
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("not an answer: {status_line:?}"))?;
        let fields = || lines.clone().filter_map(|line| line.split_once(':'));
        let closes = status_line.starts_with("HTTP/1.0")
            || fields().any(|(name, value)| {
                name.eq_ignore_ascii_case("connection")
                    && value.trim().eq_ignore_ascii_case("close")
            });
        let length = fields().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let Some((_, length)) = length else {
            bail!("an answer without Content-Length: {head:?}")
        };
        let body_bytes = length
            .trim()
            .parse()
            .with_context(|| format!("Content-Length {length:?}"))?;
        Ok(Some(Self {
            status,
            head_bytes: end + 4,
            body_bytes,
            closes,
        }))
    }

    /// Bytes of head and body together.
    pub fn total_bytes(&self) -> usize {
        self.head_bytes + self.body_bytes
    }
}

/// The request all load here sends.
pub fn request(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// The same, the last on its connection.
pub fn last_request(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// Connects, with a deadline on everything that follows.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let limit = Duration::from_secs(5);
    let stream = TcpStream::connect_timeout(&address, limit)
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request and its whole answer on an open connection; the status and the body's length.
pub fn exchange(stream: &mut TcpStream, request: &str) -> Result<Framing> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::with_capacity(1024);
    let mut chunk = [0_u8; 4096];
    loop {
        let read = stream.read(&mut chunk).context("reading an answer")?;
        if read == 0 {
            bail!("closed before a whole answer");
        }
        answer.extend_from_slice(&chunk[..read]);
        if let Some(framing) = Framing::of(&answer)?
            && answer.len() >= framing.total_bytes()
        {
            return Ok(framing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_needs_a_whole_head() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 12\r\n\r\nhello";
        assert_eq!(Framing::of(&answer[..20]).unwrap(), None);
        let framing = Framing::of(answer).unwrap().unwrap();
        assert_eq!(
            framing,
            Framing {
                status: 200,
                head_bytes: 39,
                body_bytes: 12,
                closes: false
            }
        );
        assert_eq!(framing.total_bytes(), 51);
    }

    #[test]
    fn an_answer_says_whether_it_is_the_connections_last() {
        let last = |answer: &[u8]| Framing::of(answer).unwrap().unwrap().closes;
        assert!(last(
            b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        ));
        assert!(last(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!last(
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
        ));
    }

    #[test]
    fn what_it_cannot_frame_is_an_error() {
        assert!(Framing::of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(Framing::of(b"SSH-2.0\r\n\r\n").is_err());
        assert!(Framing::of(&vec![b'a'; HEAD_MAX_BYTES + 1]).is_err());
    }
}
