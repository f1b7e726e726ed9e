//! The load: requests due at fixed times, each with a number, a deadline, and
//! an end that is written down.
//!
//! Open loop as in [`crate::open_loop`], but connections are opened as needed:
//! a proxy that holds a thousand requests gets a thousand connections, and none
//! waits for a free one. At its deadline a client leaves: its connection is
//! closed. Idle connections take turns, so that every thread of a proxy gets
//! its share. Never retries: what one client sees is what counts.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::backend;
use super::catalogue::Method;
use super::record::now_us;
use crate::http_client::Framing;

/// Connections opened before the first request is due.
const CONNECTIONS_FIRST: usize = 64;
/// How often an interruption is looked for, at least.
const INTERRUPTION_POLL: Duration = Duration::from_millis(50);

/// What to send, and when.
#[derive(Clone, Debug)]
pub struct Load {
    /// The proxy's address.
    pub address: SocketAddr,
    /// Host headers, one after the other.
    pub hosts: Vec<String>,
    /// What is asked.
    pub method: Method,
    /// Requests due per second.
    pub rate: u64,
    /// All requests, those of the warm-up included.
    pub requests: usize,
    /// When the first is due: CLOCK_MONOTONIC, µs.
    pub start_us: u64,
    /// How long a client waits, from when its request was due, µs.
    pub deadline_us: u64,
}

impl Load {
    /// When request `number` is due.
    fn due_us(&self, number: usize) -> u64 {
        self.start_us + number as u64 * 1_000_000 / self.rate
    }

    fn request(&self, number: usize) -> String {
        let host = &self.hosts[number % self.hosts.len()];
        match self.method {
            Method::Get => format!("GET /{number} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Method::Post => {
                let body = backend::body(number as u64);
                let length = body.len();
                format!(
                    "POST /{number} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
                )
            }
        }
    }
}

/// How a request ended, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// 200 with its own number.
    Answered,
    /// The proxy did not accept the connection.
    NotConnected,
    /// Another status.
    Status(u16),
    /// The client's deadline passed.
    Deadline,
    /// The connection broke, or the answer is not one, or not to this request.
    Broken,
}

/// One request. Times are CLOCK_MONOTONIC, µs.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// When it was due.
    pub due_us: u64,
    /// When it was sent.
    pub sent_us: u64,
    /// When it ended.
    pub ended_us: u64,
    /// How.
    pub end: End,
}

/// One connection.
struct Lane {
    stream: TcpStream,
    /// Told from earlier ones in the same slot.
    generation: u32,
    /// The number of the request in flight.
    in_flight: Option<usize>,
    /// Its bytes, while the connection is not yet there to take them.
    unsent: Option<String>,
    /// The answer so far.
    answer: Vec<u8>,
}

/// The client; [`run`](Self::run) is its whole life.
pub struct Client<'a> {
    load: &'a Load,
    poll: OwnedFd,
    lanes: Vec<Option<Lane>>,
    vacant: Vec<usize>,
    idle: VecDeque<usize>,
    /// Requests in flight, oldest first, with their lanes; ended ones are skipped.
    waiting: VecDeque<(usize, usize)>,
    opened: u32,
    scratch: Vec<u8>,
    /// One per request sent; `ended_us` 0 while it has not ended.
    exchanges: Vec<Exchange>,
}

impl<'a> Client<'a> {
    /// Opens the first connections.
    pub fn new(load: &'a Load) -> Result<Self> {
        let mut client = Self {
            load,
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            lanes: Vec::new(),
            vacant: Vec::new(),
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            opened: 0,
            scratch: vec![0; 16 * 1024],
            exchanges: Vec::with_capacity(load.requests),
        };
        for _ in 0..CONNECTIONS_FIRST {
            // One that is refused is not there when its turn comes: that is seen then.
            if let Ok(slot) = client.open() {
                client.idle.push_back(slot);
            }
        }
        Ok(client)
    }

    /// Sends everything when it is due; returns what became of each, or early if interrupted.
    pub fn run(mut self, interrupted: &AtomicBool) -> Result<Vec<Exchange>> {
        // The kernel may round sleeps up by this much; the default is 50 µs.
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        let mut events = Vec::with_capacity(256);
        loop {
            self.send_due()?;
            self.give_up_overdue();
            let next = self.exchanges.len();
            let next_due = (next < self.load.requests).then(|| self.load.due_us(next));
            let next_overdue = self
                .waiting
                .front()
                .map(|(number, _)| self.exchanges[*number].due_us + self.load.deadline_us);
            let Some(wake_us) = next_due.into_iter().chain(next_overdue).min() else {
                return Ok(self.exchanges);
            };
            if interrupted.load(Ordering::Relaxed) {
                return Ok(self.exchanges);
            }
            let wait = Duration::from_micros(wake_us.saturating_sub(now_us()));
            let wait = Timespec::try_from(wait.min(INTERRUPTION_POLL))?;
            events.clear();
            match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("client: waiting"),
            }
            for event in &events {
                let key = event.data.u64();
                let slot = usize::try_from(key >> 32).expect("a slot must fit");
                if self.lanes[slot]
                    .as_ref()
                    .is_some_and(|lane| u64::from(lane.generation) == key & 0xffff_ffff)
                {
                    self.progress(slot);
                }
            }
        }
    }

    fn send_due(&mut self) -> Result<()> {
        loop {
            let number = self.exchanges.len();
            let now = now_us();
            if number == self.load.requests || self.load.due_us(number) > now {
                return Ok(());
            }
            self.exchanges.push(Exchange {
                due_us: self.load.due_us(number),
                sent_us: now,
                ended_us: 0,
                end: End::Deadline,
            });
            let slot = match self.open_idle() {
                Some(slot) => slot,
                None => match self.open() {
                    Ok(slot) => slot,
                    Err(_) => {
                        self.end(number, End::NotConnected);
                        continue;
                    }
                },
            };
            let lane = self.lanes[slot].as_mut().context("a lane must be open")?;
            lane.in_flight = Some(number);
            lane.unsent = Some(self.load.request(number));
            self.waiting.push_back((number, slot));
            self.write(slot);
        }
    }

    /// An idle connection that is not known to be closed: what every client
    /// looks at before it sends, as its own events may be behind.
    fn open_idle(&mut self) -> Option<usize> {
        while let Some(slot) = self.idle.pop_front() {
            let lane = self.lanes[slot].as_mut()?;
            match lane.stream.read(&mut self.scratch) {
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    return Some(slot);
                }
                _ => self.close(slot),
            }
        }
        None
    }

    /// Sends what is unsent, if the connection is there. A request is far
    /// smaller than a socket's buffer: it goes whole.
    fn write(&mut self, slot: usize) {
        let Some(lane) = &mut self.lanes[slot] else {
            return;
        };
        let Some(request) = &lane.unsent else {
            return;
        };
        match lane.stream.write(request.as_bytes()) {
            Ok(sent) if sent == request.len() => lane.unsent = None,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::NotConnected
                ) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                self.break_off(slot, End::NotConnected);
            }
            _ => self.break_off(slot, End::Broken),
        }
    }

    /// Edge-triggered: writes what is unsent and reads until there is no more.
    fn progress(&mut self, slot: usize) {
        self.write(slot);
        while let Some(lane) = &mut self.lanes[slot] {
            match lane.stream.read(&mut self.scratch) {
                Ok(0) => self.break_off(slot, End::Broken),
                Ok(read) => {
                    lane.answer.extend_from_slice(&self.scratch[..read]);
                    self.judge(slot);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    return;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.break_off(slot, End::NotConnected);
                }
                Err(_) => self.break_off(slot, End::Broken),
            }
        }
    }

    /// Ends the request in flight if its answer is whole.
    fn judge(&mut self, slot: usize) {
        let Some(lane) = &mut self.lanes[slot] else {
            return;
        };
        let Some(number) = lane.in_flight else {
            return self.break_off(slot, End::Broken); // bytes nobody asked for
        };
        let framing = match Framing::of(&lane.answer) {
            Ok(Some(framing)) if lane.answer.len() >= framing.total_bytes() => framing,
            Ok(_) => return,
            Err(_) => return self.break_off(slot, End::Broken),
        };
        let body = &lane.answer[framing.head_bytes..];
        let end = match framing.status {
            200 if body == backend::body(number as u64).as_bytes() => End::Answered,
            200 => End::Broken,
            status => End::Status(status),
        };
        lane.answer.clear();
        lane.in_flight = None;
        if framing.closes || end == End::Broken {
            self.close(slot);
        } else {
            self.idle.push_back(slot);
        }
        self.end(number, end);
    }

    /// The oldest requests whose deadline has passed: their clients leave.
    fn give_up_overdue(&mut self) {
        let now = now_us();
        while let Some((number, slot)) = self.waiting.front().copied() {
            let exchange = &self.exchanges[number];
            let ended = exchange.ended_us > 0;
            if !ended && exchange.due_us + self.load.deadline_us > now {
                break;
            }
            self.waiting.pop_front();
            if !ended {
                self.break_off(slot, End::Deadline);
            }
        }
    }

    /// A connection is over: its request, if it had one, has ended so.
    fn break_off(&mut self, slot: usize, end: End) {
        let in_flight = self.lanes[slot].as_ref().and_then(|lane| lane.in_flight);
        self.close(slot);
        match in_flight {
            Some(number) => self.end(number, end),
            None => self.idle.retain(|idle| *idle != slot), // closed while idle: nothing lost
        }
    }

    fn end(&mut self, number: usize, end: End) {
        let exchange = &mut self.exchanges[number];
        exchange.ended_us = now_us();
        exchange.end = end;
    }

    fn close(&mut self, slot: usize) {
        self.lanes[slot] = None;
        self.vacant.push(slot);
    }

    /// Opens a connection without waiting for it; returns its slot.
    fn open(&mut self) -> Result<usize> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        match rustix::net::connect(&socket, &self.load.address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("connecting"),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.lanes.push(None);
            self.lanes.len() - 1
        });
        self.opened += 1;
        let key = (slot as u64) << 32 | u64::from(self.opened);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&self.poll, &stream, EventData::new_u64(key), flags)?;
        self.lanes[slot] = Some(Lane {
            stream,
            generation: self.opened,
            in_flight: None,
            unsent: None,
            answer: Vec::new(),
        });
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Answers each connection's requests by `answers`, in turn; then closes it.
    fn answering(answers: fn(usize) -> Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut chunk = [0_u8; 1024];
                    while let Ok(read) = stream.read(&mut chunk)
                        && read > 0
                    {
                        let head = String::from_utf8_lossy(&chunk[..read]).into_owned();
                        let number = head.split([' ', '/']).nth(2).unwrap().parse().unwrap();
                        if stream.write_all(&answers(number)).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn ends(address: SocketAddr, method: Method) -> Vec<End> {
        let load = Load {
            address,
            hosts: vec!["a.example".into()],
            method,
            rate: 100,
            requests: 5,
            start_us: now_us(),
            deadline_us: 100_000,
        };
        let exchanges = Client::new(&load)
            .unwrap()
            .run(&AtomicBool::new(false))
            .unwrap();
        exchanges.iter().map(|exchange| exchange.end).collect()
    }

    fn ok(body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    }

    #[test]
    fn each_request_ends_as_it_was_answered() {
        let address = answering(|number| match number {
            1 => b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
            2 => ok(&backend::body(77)), // somebody else's answer
            3 => Vec::new(),             // none
            number => ok(&backend::body(number as u64)),
        });
        for method in [Method::Get, Method::Post] {
            assert_eq!(
                ends(address, method),
                [
                    End::Answered,
                    End::Status(503),
                    End::Broken,
                    End::Deadline,
                    End::Answered
                ]
            );
        }
    }

    #[test]
    fn nobody_listening_is_not_connected() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let ends = ends(address, Method::Get);
        assert_eq!(ends, [End::NotConnected; 5]);
    }
}
