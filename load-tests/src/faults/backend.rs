//! A backend that misbehaves on order: 5 ms a request, any number at once.
//!
//! One thread, one epoll, answers due on a heap: the 5 ms count from the
//! request's arrival and hold whatever else waits. Every request it reads is
//! recorded before anything else is done (`record`), so that what `kill -9`
//! interrupts is known. Orders are single bytes on a unix datagram socket. It
//! answers with the request's own number, so that an answer that reaches the
//! wrong client is seen. Never decides when to misbehave.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use memchr::memmem;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::sockopt::set_socket_linger;

use super::record::{self, Event, Record, now_us};

/// What every healthy request takes.
pub const SERVICE_US: u64 = 5_000;
/// What it takes on [`Behaviour::Slow`]: 100 times as long.
const SLOW_SERVICE_US: u64 = 100 * SERVICE_US;
/// A head or body longer than this ends the connection.
const REQUEST_MAX_BYTES: usize = 64 * 1024;
/// Connections the kernel may hold for us, as servers ask for.
const BACKLOG: i32 = 1024;
/// The listener's key among the connections' slots.
const LISTENER: u64 = u64::MAX;
/// The orders' key.
const ORDERS: u64 = u64::MAX - 1;

/// How it treats requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// 200 after 5 ms.
    Well,
    /// 503 at once: the kind of failure that attracts load.
    Refusing,
    /// Reads the whole request, then resets the connection.
    Resetting,
    /// 200 after 500 ms.
    Slow,
}

impl Behaviour {
    const ALL: [Self; 4] = [Self::Well, Self::Refusing, Self::Resetting, Self::Slow];

    /// The order's byte.
    pub fn order(self) -> u8 {
        match self {
            Self::Well => b'w',
            Self::Refusing => b'5',
            Self::Resetting => b'r',
            Self::Slow => b's',
        }
    }
}

/// Arguments of the hidden `fault-backend` subcommand.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where it listens.
    listen: SocketAddr,
    /// Its records' file, appended to.
    #[arg(long)]
    records: PathBuf,
    /// The unix datagram socket it makes, for orders.
    #[arg(long)]
    orders: PathBuf,
}

/// A request, understood as far as needed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    /// Its number; `None` is a health check, which is answered at once and not recorded.
    number: Option<u64>,
    /// Head and body together.
    bytes: usize,
    /// The client takes no other on this connection.
    last: bool,
}

impl Request {
    /// The request that `bytes` begin with; `None` while it is not whole.
    fn of(bytes: &[u8]) -> Option<Self> {
        let head_bytes = memmem::find(bytes, b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..head_bytes]);
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let path = words.nth(1).unwrap_or_default();
        let old = words.next() == Some("HTTP/1.0");
        let field = |name: &str| {
            let mut fields = lines.clone().filter_map(|line| line.split_once(':'));
            let found = fields.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
            Some(found.1.trim().to_ascii_lowercase())
        };
        let body_bytes: usize = field("content-length").map_or(0, |length| {
            length.parse().unwrap_or(REQUEST_MAX_BYTES) // what cannot be read is never whole
        });
        if bytes.len() < head_bytes + body_bytes {
            return None;
        }
        let connection = field("connection").unwrap_or_default();
        Some(Self {
            number: path.trim_start_matches('/').parse().ok(),
            bytes: head_bytes + body_bytes,
            last: connection.contains("close") || (old && !connection.contains("keep-alive")),
        })
    }
}

/// The answer's body to a request: its number, always 12 bytes, the last of them a line's end.
pub fn body(number: u64) -> String {
    format!("{number:011}\n")
}

/// One proxy's connection.
struct Connection {
    stream: TcpStream,
    /// Tells it from earlier ones in the same slot.
    generation: u64,
    /// What is read and not yet served.
    pending: Vec<u8>,
    /// The request being served.
    serving: Option<Request>,
}

/// An answer to come: when, and to whom (slot and generation).
type Due = Reverse<(u64, usize, u64)>;

struct Backend {
    listener: TcpListener,
    orders: UnixDatagram,
    poll: OwnedFd,
    records: File,
    behaviour: Behaviour,
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    accepted: u64,
    due: BinaryHeap<Due>,
    scratch: Vec<u8>,
}

/// Serves until killed.
pub fn serve(options: &Options) -> Result<()> {
    // The kernel may round sleeps up by this much; the default is 50 µs.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let mut backend = Backend::new(options)?;
    let mut events = Vec::with_capacity(256);
    loop {
        backend.answer_due()?;
        let wait = backend
            .due
            .peek()
            .map(|Reverse((at_us, _, _))| Duration::from_micros(at_us.saturating_sub(now_us())))
            .map(Timespec::try_from)
            .transpose()?;
        events.clear();
        match epoll::wait(&backend.poll, spare_capacity(&mut events), wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("backend: waiting"),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => backend.accept(),
                ORDERS => backend.obey()?,
                slot => backend.read(usize::try_from(slot).expect("a key must be a slot"))?,
            }
        }
    }
}

impl Backend {
    fn new(options: &Options) -> Result<Self> {
        let mut records = record::open(&options.records)?;
        // Left over by a life that was killed.
        let _ = std::fs::remove_file(&options.orders);
        let orders = UnixDatagram::bind(&options.orders).context("backend: socket of orders")?;
        orders.set_nonblocking(true)?;
        let listener = TcpListener::bind(options.listen)
            .with_context(|| format!("backend: binding {}", options.listen))?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &poll,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        epoll::add(&poll, &orders, EventData::new_u64(ORDERS), EventFlags::IN)?;
        Record::now(Event::Listening, 0).append(&mut records)?;
        Ok(Self {
            listener,
            orders,
            poll,
            records,
            behaviour: Behaviour::Well,
            connections: Vec::new(),
            vacant: Vec::new(),
            accepted: 0,
            due: BinaryHeap::new(),
            scratch: vec![0; 16 * 1024],
        })
    }

    fn obey(&mut self) -> Result<()> {
        let mut order = [0_u8; 8];
        while let Ok(1) = self.orders.recv(&mut order) {
            let known = Behaviour::ALL
                .into_iter()
                .find(|behaviour| behaviour.order() == order[0]);
            self.behaviour = known.with_context(|| format!("order {:?}", order[0]))?;
            Record::now(Event::Behaves, 0).append(&mut self.records)?;
        }
        Ok(())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let prepared = stream
                .set_nonblocking(true)
                .and_then(|()| stream.set_nodelay(true));
            if prepared.is_err() {
                continue;
            }
            let slot = self.vacant.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.accepted += 1;
            let key = EventData::new_u64(slot as u64);
            if epoll::add(&self.poll, &stream, key, EventFlags::IN).is_err() {
                self.vacant.push(slot);
                continue;
            }
            self.connections[slot] = Some(Connection {
                stream,
                generation: self.accepted,
                pending: Vec::new(),
                serving: None,
            });
        }
    }

    /// Level-triggered: reads once, and is called again if there is more.
    fn read(&mut self, slot: usize) -> Result<()> {
        let Some(connection) = &mut self.connections[slot] else {
            return Ok(()); // closed earlier in this round of events
        };
        match connection.stream.read(&mut self.scratch) {
            Ok(0) => self.close(slot),
            Ok(read) => {
                connection.pending.extend_from_slice(&self.scratch[..read]);
                if connection.pending.len() > REQUEST_MAX_BYTES {
                    self.close(slot);
                } else {
                    self.begin(slot)?;
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.close(slot),
        }
        Ok(())
    }

    /// Takes the next whole request, if none is being served.
    fn begin(&mut self, slot: usize) -> Result<()> {
        let Some(connection) = &mut self.connections[slot] else {
            return Ok(());
        };
        if connection.serving.is_some() {
            return Ok(());
        }
        let Some(request) = Request::of(&connection.pending) else {
            return Ok(());
        };
        connection.pending.drain(..request.bytes);
        connection.serving = Some(request);
        let generation = connection.generation;
        if let Some(number) = request.number {
            Record::now(Event::Began, number).append(&mut self.records)?;
        }
        let service_us = match (self.behaviour, request.number) {
            (Behaviour::Well, Some(_)) => SERVICE_US,
            (Behaviour::Slow, _) => SLOW_SERVICE_US,
            (Behaviour::Refusing, _) => return self.answer(slot, 503),
            (Behaviour::Resetting, _) => {
                set_socket_linger(&connection.stream, Some(Duration::ZERO))?;
                self.close(slot);
                return Ok(());
            }
            (Behaviour::Well, None) => return self.answer(slot, 200),
        };
        self.due
            .push(Reverse((now_us() + service_us, slot, generation)));
        Ok(())
    }

    fn answer_due(&mut self) -> Result<()> {
        while let Some(Reverse((at_us, slot, generation))) = self.due.peek().copied() {
            if at_us > now_us() {
                break;
            }
            self.due.pop();
            let open = self.connections[slot].as_ref();
            if open.is_some_and(|connection| connection.generation == generation) {
                self.answer(slot, 200)?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, slot: usize, status: u16) -> Result<()> {
        let Some(connection) = &mut self.connections[slot] else {
            return Ok(());
        };
        let Some(request) = connection.serving.take() else {
            return Ok(());
        };
        let body = body(request.number.unwrap_or(0));
        let reason = if status == 200 {
            "OK"
        } else {
            "Service Unavailable"
        };
        let last = if request.last {
            "Connection: close\r\n"
        } else {
            ""
        };
        let answer = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\n{last}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if let (200, Some(number)) = (status, request.number) {
            Record::now(Event::Answered, number).append(&mut self.records)?;
        }
        // Far smaller than an idle socket's buffer: it goes whole, or nobody listens.
        let sent = connection.stream.write(answer.as_bytes());
        if !matches!(sent, Ok(sent) if sent == answer.len()) || request.last {
            self.close(slot);
            return Ok(());
        }
        self.begin(slot)
    }

    /// Closing leaves the epoll set; what is due to it finds another generation.
    fn close(&mut self, slot: usize) {
        self.connections[slot] = None;
        self.vacant.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_its_body() {
        let post = b"POST /42 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET";
        assert_eq!(Request::of(&post[..post.len() - 4]), None);
        let request = Request::of(post).unwrap();
        assert_eq!((request.number, request.last), (Some(42), false));
        assert_eq!(&post[request.bytes..], b"GET");
    }

    #[test]
    fn health_checks_have_no_number_and_old_clients_no_next_request() {
        let check = Request::of(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!((check.number, check.last), (None, true));
        let asked = Request::of(b"GET /1 HTTP/1.1\r\nConnection: Close\r\n\r\n").unwrap();
        assert!(asked.last);
        let kept = Request::of(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        assert!(!kept.last);
    }

    #[test]
    fn bodies_have_one_length() {
        assert_eq!(body(1).len(), body(99_999_999_999).len());
    }
}
