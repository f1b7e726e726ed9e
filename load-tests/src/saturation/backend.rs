//! Backends that serve so many requests at once and queue the rest inside
//! themselves, as apps with a pool of workers do: first in, first out, without
//! bound, and without looking whether anybody still waits for the answer.
//!
//! One thread, one epoll, several backends, one address each. What a request
//! takes is changed by an order, a number of ms on a unix datagram socket; what
//! is being served then ends as it began. A service of 0 ms answers at once.
//! Never refuses, never measures: that a queue is too long is the proxy's to see.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
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

use crate::faults::record::now_us;
use crate::machine;

/// A longer head ends the connection.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// Connections the kernel may hold for us: a backend that queues accepts everybody.
const BACKLOG: i32 = 4096;
/// How far an instant backend gives way: as far as the flood that it answers.
const NICE: i32 = 5;
/// Keys from here on are listeners; below, connections.
const LISTENERS: u64 = u64::MAX - 1024;
/// The orders' key.
const ORDERS: u64 = u64::MAX;
/// The answer to every request.
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello world\n";
/// The same, to who takes no other on this connection.
const LAST_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 12\r\n\r\nhello world\n";

/// Arguments of the hidden `saturation-backend` subcommand.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Requests each backend serves at once.
    #[arg(long)]
    slots: usize,
    /// What each takes, ms.
    #[arg(long)]
    service_ms: u64,
    /// The unix datagram socket it makes, for orders.
    #[arg(long)]
    orders: PathBuf,
    /// Where the backends listen.
    #[arg(required = true)]
    listen: Vec<SocketAddr>,
}

/// One proxy's connection.
struct Connection {
    stream: TcpStream,
    /// Tells it from earlier ones in the same slot.
    generation: u64,
    /// Which backend's.
    backend: usize,
    /// What is read and not yet begun.
    pending: Vec<u8>,
    /// Bytes of a body still to come; they are thrown away.
    body_left: usize,
    /// Its request's head is there and its body is not: no worker is kept waiting for it.
    awaits_body: bool,
    /// A request of it is queued or served.
    busy: bool,
    /// The client takes no other on this connection.
    last: bool,
}

/// Who gets an answer: slot and generation.
type Client = (usize, u64);

/// One backend's workers and queue.
#[derive(Default)]
struct Workers {
    busy: usize,
    queue: VecDeque<Client>,
}

struct Backends {
    slots: usize,
    service_us: u64,
    orders: UnixDatagram,
    listeners: Vec<TcpListener>,
    workers: Vec<Workers>,
    poll: OwnedFd,
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    accepted: u64,
    /// Ends of service: when, which backend's worker, to whom.
    due: BinaryHeap<Reverse<(u64, usize, Client)>>,
    scratch: Vec<u8>,
}

/// Serves until killed.
pub fn serve(options: &Options) -> Result<()> {
    // Those that answer at once are there to flood a proxy: they give way to others.
    machine::settle_thread(None, if options.service_ms == 0 { NICE } else { 0 })?;
    let mut backends = Backends::new(options)?;
    let mut events = Vec::with_capacity(256);
    loop {
        backends.answer_due();
        let until = |Reverse((at_us, _, _)): &Reverse<(u64, usize, Client)>| {
            Timespec::try_from(Duration::from_micros(at_us.saturating_sub(now_us())))
        };
        let wait = backends.due.peek().map(until).transpose()?;
        events.clear();
        match epoll::wait(&backends.poll, spare_capacity(&mut events), wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("backend: waiting"),
        }
        for event in &events {
            match event.data.u64() {
                ORDERS => backends.obey()?,
                key if key >= LISTENERS => {
                    backends.accept(usize::try_from(key - LISTENERS).context("a backend")?);
                }
                slot => backends.read(usize::try_from(slot).context("a slot")?),
            }
        }
    }
}

impl Backends {
    fn new(options: &Options) -> Result<Self> {
        let orders = UnixDatagram::bind(&options.orders).context("backend: socket of orders")?;
        orders.set_nonblocking(true)?;
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &orders, EventData::new_u64(ORDERS), EventFlags::IN)?;
        let mut listeners = Vec::new();
        for (number, address) in options.listen.iter().enumerate() {
            let listener = TcpListener::bind(address)
                .with_context(|| format!("backend: binding {address}"))?;
            rustix::net::listen(&listener, BACKLOG)?;
            listener.set_nonblocking(true)?;
            let key = EventData::new_u64(LISTENERS + number as u64);
            epoll::add(&poll, &listener, key, EventFlags::IN)?;
            listeners.push(listener);
        }
        Ok(Self {
            slots: options.slots,
            service_us: options.service_ms * 1_000,
            orders,
            workers: listeners.iter().map(|_| Workers::default()).collect(),
            listeners,
            poll,
            connections: Vec::new(),
            vacant: Vec::new(),
            accepted: 0,
            due: BinaryHeap::new(),
            scratch: vec![0; 16 * 1024],
        })
    }

    /// Takes the newest order.
    fn obey(&mut self) -> Result<()> {
        let mut order = [0_u8; 16];
        while let Ok(length) = self.orders.recv(&mut order) {
            let words = std::str::from_utf8(&order[..length])?;
            let ms: u64 = words
                .parse()
                .with_context(|| format!("the order {words:?}"))?;
            self.service_us = ms * 1_000;
        }
        Ok(())
    }

    fn accept(&mut self, backend: usize) {
        while let Ok((stream, _)) = self.listeners[backend].accept() {
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
            let key = EventData::new_u64(slot as u64);
            if epoll::add(&self.poll, &stream, key, EventFlags::IN).is_err() {
                self.vacant.push(slot);
                continue;
            }
            self.accepted += 1;
            self.connections[slot] = Some(Connection {
                stream,
                generation: self.accepted,
                backend,
                pending: Vec::new(),
                body_left: 0,
                awaits_body: false,
                busy: false,
                last: false,
            });
        }
    }

    /// Level-triggered: reads once, and is called again if there is more.
    fn read(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else {
            return; // closed earlier in this round of events
        };
        match connection.stream.read(&mut self.scratch) {
            Ok(0) => self.close(slot),
            Ok(read) => {
                let skipped = read.min(connection.body_left);
                connection.body_left -= skipped;
                let new = &self.scratch[skipped..read];
                connection.pending.extend_from_slice(new);
                if connection.awaits_body && connection.body_left == 0 {
                    connection.awaits_body = false;
                    self.take(slot);
                } else if connection.pending.len() > HEAD_MAX_BYTES {
                    self.close(slot);
                } else {
                    self.begin(slot);
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.close(slot),
        }
    }

    /// Takes the connection's next request, if it is there and none is under way.
    fn begin(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else {
            return;
        };
        if connection.busy || connection.awaits_body {
            return;
        }
        let Some(head) = Head::of(&connection.pending) else {
            return;
        };
        let there = connection.pending.len().min(head.bytes + head.body_bytes);
        connection.body_left = head.bytes + head.body_bytes - there;
        connection.pending.drain(..there);
        connection.last = head.last;
        if connection.body_left > 0 {
            connection.awaits_body = true;
        } else {
            self.take(slot);
        }
    }

    /// A request is whole: a worker takes it, or the queue.
    fn take(&mut self, slot: usize) {
        if self.service_us == 0 {
            return self.answer(slot);
        }
        let Some(connection) = &mut self.connections[slot] else {
            return;
        };
        connection.busy = true;
        let (backend, client) = (connection.backend, (slot, connection.generation));
        if self.workers[backend].busy < self.slots {
            self.workers[backend].busy += 1;
            self.serve(backend, client);
        } else {
            self.workers[backend].queue.push_back(client);
        }
    }

    /// A worker takes a request.
    fn serve(&mut self, backend: usize, client: Client) {
        let ends_us = now_us() + self.service_us;
        self.due.push(Reverse((ends_us, backend, client)));
    }

    fn answer_due(&mut self) {
        while let Some(Reverse((at_us, backend, client))) = self.due.peek().copied() {
            if at_us > now_us() {
                return;
            }
            self.due.pop();
            match self.workers[backend].queue.pop_front() {
                Some(next) => self.serve(backend, next),
                None => self.workers[backend].busy -= 1,
            }
            let (slot, generation) = client;
            let open = self.connections[slot].as_mut();
            if let Some(connection) = open.filter(|open| open.generation == generation) {
                connection.busy = false;
                self.answer(slot);
            }
        }
    }

    fn answer(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else {
            return;
        };
        let last = connection.last;
        let answer = if last { LAST_ANSWER } else { ANSWER };
        // Far smaller than an idle socket's buffer: it goes whole, or nobody listens.
        let sent = connection.stream.write(answer);
        if !matches!(sent, Ok(sent) if sent == answer.len()) || last {
            return self.close(slot);
        }
        self.begin(slot);
    }

    /// Closing leaves the epoll set. What is queued for it is served all the
    /// same: a worker finds out when it answers.
    fn close(&mut self, slot: usize) {
        self.connections[slot] = None;
        self.vacant.push(slot);
    }
}

/// A request's head, understood as far as needed here.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    bytes: usize,
    body_bytes: usize,
    last: bool,
}

impl Head {
    /// The head that `bytes` begin with; `None` while it is not whole.
    fn of(bytes: &[u8]) -> Option<Self> {
        let length = memmem::find(bytes, b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..length]).to_ascii_lowercase();
        let mut lines = head.split("\r\n");
        let old = lines.next().unwrap_or_default().ends_with("http/1.0");
        let field = |name: &str| {
            let mut fields = lines.clone().filter_map(|line| line.split_once(':'));
            fields.find(|(found, _)| *found == name)
        };
        let connection = field("connection").map_or("", |(_, value)| value);
        Some(Self {
            bytes: length,
            body_bytes: field("content-length")
                .and_then(|(_, value)| value.trim().parse().ok())
                .unwrap_or(0),
            last: connection.contains("close") || (old && !connection.contains("keep-alive")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_what_follows() {
        let post = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(Head::of(&post[..20]), None);
        let head = Head::of(post).unwrap();
        assert_eq!((head.body_bytes, head.last), (3, false));
        assert_eq!(&post[head.bytes..], b"abc");
        assert!(Head::of(b"GET / HTTP/1.0\r\n\r\n").unwrap().last);
        assert!(
            Head::of(b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n")
                .unwrap()
                .last
        );
    }
}
