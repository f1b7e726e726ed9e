//! The backend every proxy proxies to: as little work per request as a socket allows.
//!
//! One thread, one epoll, edge-triggered: one read and one write per request.
//! Answers `GET /12`, `/10k` and `/1m` with bodies of 12 B, 10 KiB and 1 MiB,
//! made once. It shares its core with the load, so whatever it spends is load
//! that does not reach the proxy. Never an HTTP server for anything else:
//! requests with a body are not understood.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use memchr::memmem;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// A head longer than this ends the connection.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// Bytes read at once: above any head a proxy here sends.
const READ_BYTES: usize = 16 * 1024;
/// The listener's key among the connections' slots.
const LISTENER: u64 = u64::MAX;

/// The whole answers, head and body, made once.
struct Answers {
    small: Vec<u8>,
    medium: Vec<u8>,
    large: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let answer = |body: &[u8]| {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), body].concat()
        };
        Self {
            small: answer(b"hello world\n"),
            medium: answer(&[b'm'; 10 * 1024]),
            large: answer(&[b'l'; 1024 * 1024]),
        }
    }

    /// The answer to a head; whatever is not `/10k` or `/1m` is small.
    fn of(&self, head: &[u8]) -> &[u8] {
        match head.split(|&byte| byte == b' ').nth(1) {
            Some(b"/10k") => &self.medium,
            Some(b"/1m") => &self.large,
            _ => &self.small,
        }
    }
}

/// One proxy's connection.
struct Connection<'a> {
    stream: TcpStream,
    /// Bytes of heads not yet complete.
    pending: Vec<u8>,
    /// What is left to send.
    unsent: &'a [u8],
}

impl<'a> Connection<'a> {
    /// Reads and answers as far as the socket allows; false ends the connection.
    fn advance(&mut self, scratch: &mut [u8], answers: &'a Answers) -> bool {
        loop {
            if !self.flush() {
                return false;
            }
            if !self.unsent.is_empty() {
                return true; // writable again wakes us
            }
            if let Some(end) = memmem::find(&self.pending, b"\r\n\r\n") {
                self.unsent = answers.of(&self.pending);
                self.pending.drain(..end + 4);
                continue;
            }
            if self.pending.len() > HEAD_MAX_BYTES {
                return false;
            }
            match self.stream.read(scratch) {
                Ok(0) => return false,
                Ok(read) if self.pending.is_empty() && scratch[..read].ends_with(b"\r\n\r\n") => {
                    // The steady way: exactly one head, never copied. Pipelined heads
                    // in one read would be lost here, but no proxy pipelines upstream.
                    self.unsent = answers.of(&scratch[..read]);
                    if !self.flush() {
                        return false;
                    }
                    if read < scratch.len() {
                        return true; // a short read has drained the socket: epoll's edge wakes us
                    }
                }
                Ok(read) => self.pending.extend_from_slice(&scratch[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(self.unsent) {
                Ok(sent) => self.unsent = &self.unsent[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Serves until killed.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let listener =
        TcpListener::bind(listen).with_context(|| format!("backend: binding {listen}"))?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &poll,
        &listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let answers = Answers::new();
    let mut scratch = vec![0_u8; READ_BYTES];
    let mut connections: Vec<Option<Connection<'_>>> = Vec::new();
    let mut vacant: Vec<usize> = Vec::new();
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&poll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("backend: waiting"),
        }
        for event in &events {
            let key = event.data.u64();
            if key == LISTENER {
                accept(&listener, &poll, &mut connections, &mut vacant);
                continue;
            }
            let slot = usize::try_from(key).expect("a key must be a slot");
            let ended = connections[slot]
                .as_mut()
                .is_some_and(|open| !open.advance(&mut scratch, &answers));
            if ended {
                connections[slot] = None; // closing leaves the epoll set
                vacant.push(slot);
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &OwnedFd,
    connections: &mut Vec<Option<Connection<'_>>>,
    vacant: &mut Vec<usize>,
) {
    while let Ok((stream, _)) = listener.accept() {
        let prepared = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true));
        if prepared.is_err() {
            continue;
        }
        let slot = vacant.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        if epoll::add(poll, &stream, EventData::new_u64(slot as u64), flags).is_ok() {
            connections[slot] = Some(Connection {
                stream,
                pending: Vec::new(),
                unsent: &[],
            });
        } else {
            vacant.push(slot);
        }
    }
}
