//! The load: requests due at fixed times by a [`Shape`], each with a deadline,
//! at up to tens of thousands a second from part of one core.
//!
//! Open loop as in `faults`: latency counts from when a request was due, at its
//! deadline its client leaves (the connection is closed), nothing is ever sent
//! twice. Leaner than there: every request is the same bytes, connections of
//! answered and of refused requests are used again (the longest idle first, so
//! that every thread of a proxy gets its share), and requests due within a
//! fraction of a millisecond are sent together. Connections come from many
//! addresses, because many clients do: and so their ports suffice.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::shape::{Schedule, Shape};
use crate::faults::client::{End, Exchange};
use crate::faults::record::now_us;
use crate::http_client::Framing;
use crate::machine;

/// How often an interruption is looked for, at least.
const INTERRUPTION_POLL_US: u64 = 50_000;
/// Before others, where that is allowed: load that is late is another load.
const NICE: i32 = -5;
/// Addresses that connections come from.
const SOURCES: u32 = 250;

/// What to send, and when.
#[derive(Clone, Debug)]
pub struct Load {
    /// The proxy's address.
    pub address: SocketAddr,
    /// Every request's bytes.
    pub request: Vec<u8>,
    /// How many when.
    pub shape: Shape,
    /// When the shape begins: CLOCK_MONOTONIC, µs.
    pub start_us: u64,
    /// How long a client waits, from when its request was due, µs.
    pub deadline_us: u64,
    /// Requests due within this are sent together, µs: fewer wakes, more precision lost.
    pub together_us: u64,
    /// Connections opened before the first request is due.
    pub connections_first: usize,
    /// The core it runs on; `None` leaves it to the scheduler.
    pub core: Option<usize>,
}

/// One connection.
struct Lane {
    stream: TcpStream,
    /// Told from earlier ones in the same slot.
    generation: u32,
    /// The number of the request in flight.
    in_flight: Option<usize>,
    /// It is not sent: the connection is not yet there to take it.
    unsent: bool,
    /// The answer so far, while not whole.
    answer: Vec<u8>,
}

/// A connection by slot and generation.
type Place = (usize, u32);

/// The client; [`run`](Self::run) is its whole life.
pub struct Client<'a> {
    load: &'a Load,
    schedule: Schedule,
    poll: OwnedFd,
    lanes: Vec<Option<Lane>>,
    vacant: Vec<usize>,
    /// Connections that wait for a request; those closed since are skipped.
    idle: VecDeque<Place>,
    /// Requests in flight, oldest first, with their slots; ended ones are skipped.
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
            schedule: load.shape.schedule(),
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            lanes: Vec::new(),
            vacant: Vec::new(),
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            opened: 0,
            scratch: vec![0; 16 * 1024],
            exchanges: Vec::with_capacity(load.shape.requests() + 16),
        };
        for _ in 0..load.connections_first {
            // One that is refused is not there when its turn comes: that is seen then.
            if let Ok(place) = client.open() {
                client.idle.push_back(place);
            }
        }
        Ok(client)
    }

    /// Sends everything when it is due; returns what became of each, or early if interrupted.
    pub fn run(mut self, interrupted: &AtomicBool) -> Result<Vec<Exchange>> {
        machine::settle_thread(self.load.core, NICE)?;
        let mut events = Vec::with_capacity(1024);
        loop {
            self.send_due()?;
            self.give_up_overdue();
            let next_due = self.schedule.next_us().map(|at| self.load.start_us + at);
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
            let wait_us = wake_us
                .saturating_sub(now_us())
                .clamp(self.load.together_us, INTERRUPTION_POLL_US);
            let wait = Timespec::try_from(Duration::from_micros(wait_us))?;
            events.clear();
            match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("client: waiting"),
            }
            for event in &events {
                let (slot, generation) = unkeyed(event.data.u64());
                let open = self.lanes[slot].as_ref();
                if open.is_some_and(|lane| lane.generation == generation) {
                    self.progress(slot);
                }
            }
        }
    }

    fn send_due(&mut self) -> Result<()> {
        let now = now_us();
        while let Some(at_us) = self.schedule.next_us() {
            let due_us = self.load.start_us + at_us;
            if due_us > now {
                break;
            }
            self.schedule.advance();
            let number = self.exchanges.len();
            self.exchanges.push(Exchange {
                due_us,
                sent_us: now_us(),
                ended_us: 0,
                end: End::Deadline,
            });
            let slot = match self.open_idle() {
                Some(slot) => slot,
                None => match self.open() {
                    Ok((slot, _)) => slot,
                    Err(_) => {
                        self.end(number, End::NotConnected);
                        continue;
                    }
                },
            };
            let lane = self.lanes[slot].as_mut().context("a lane must be open")?;
            lane.in_flight = Some(number);
            lane.unsent = true;
            self.waiting.push_back((number, slot));
            self.write(slot);
        }
        Ok(())
    }

    /// An idle connection that is not known to be closed: what every client
    /// looks at before it sends, as its own events may be behind.
    fn open_idle(&mut self) -> Option<usize> {
        while let Some((slot, generation)) = self.idle.pop_front() {
            let lane = self.lanes[slot].as_mut();
            let Some(lane) = lane.filter(|lane| lane.generation == generation) else {
                continue;
            };
            match lane.stream.read(&mut self.scratch) {
                Err(error) if is_not_yet(&error) => return Some(slot),
                _ => self.close(slot),
            }
        }
        None
    }

    /// Sends what is unsent, if the connection is there. A request is far
    /// smaller than a socket's buffer: it goes whole.
    fn write(&mut self, slot: usize) {
        let Some(lane) = self.lanes[slot].as_mut().filter(|lane| lane.unsent) else {
            return;
        };
        match lane.stream.write(&self.load.request) {
            Ok(sent) if sent == self.load.request.len() => lane.unsent = false,
            Err(error) if is_not_yet(&error) => {}
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
                    self.judge(slot, read);
                    if read < self.scratch.len() {
                        return; // a short read has drained the socket: the next edge wakes us
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_not_yet(&error) => return,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.break_off(slot, End::NotConnected);
                }
                Err(_) => self.break_off(slot, End::Broken),
            }
        }
    }

    /// Ends the request in flight if, with what was just read, its answer is whole.
    fn judge(&mut self, slot: usize, read: usize) {
        let Some(lane) = &mut self.lanes[slot] else {
            return;
        };
        let Some(number) = lane.in_flight else {
            return self.break_off(slot, End::Broken); // bytes nobody asked for
        };
        let new = &self.scratch[..read];
        let answer = if lane.answer.is_empty() {
            new // the usual way: whole at once, never copied
        } else {
            lane.answer.extend_from_slice(new);
            &lane.answer
        };
        let framing = match Framing::of(answer) {
            Ok(Some(framing)) if answer.len() >= framing.total_bytes() => framing,
            Ok(_) => {
                if lane.answer.is_empty() {
                    lane.answer.extend_from_slice(new);
                }
                return;
            }
            Err(_) => return self.break_off(slot, End::Broken),
        };
        let end = match framing.status {
            _ if answer.len() > framing.total_bytes() => End::Broken,
            200 => End::Answered,
            status => End::Status(status),
        };
        lane.answer.clear();
        lane.in_flight = None;
        if framing.closes || end == End::Broken {
            self.close(slot);
        } else {
            self.idle.push_back((slot, lane.generation));
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
        if let Some(number) = in_flight {
            self.end(number, end);
        }
    }

    /// An answer that came after its client's time is one too late.
    fn end(&mut self, number: usize, end: End) {
        let exchange = &mut self.exchanges[number];
        exchange.ended_us = now_us();
        let late = exchange.ended_us > exchange.due_us + self.load.deadline_us;
        exchange.end = if late && end == End::Answered {
            End::Deadline
        } else {
            end
        };
    }

    fn close(&mut self, slot: usize) {
        if self.lanes[slot].take().is_some() {
            self.vacant.push(slot);
        }
    }

    /// Opens a connection without waiting for it.
    fn open(&mut self) -> Result<Place> {
        self.opened += 1;
        let stream = connect(self.load.address, self.opened)?;
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.lanes.push(None);
            self.lanes.len() - 1
        });
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        let key = EventData::new_u64(keyed(slot, self.opened));
        epoll::add(&self.poll, &stream, key, flags)?;
        self.lanes[slot] = Some(Lane {
            stream,
            generation: self.opened,
            in_flight: None,
            unsent: false,
            answer: Vec::new(),
        });
        Ok((slot, self.opened))
    }
}

/// A connection under way, from one of many addresses, by `number` in turn.
pub fn connect(address: SocketAddr, number: u32) -> Result<TcpStream> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    let last = u8::try_from(number % SOURCES + 1).context("a source's address")?;
    let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, last), 0);
    rustix::net::bind(&socket, &source).context("binding a source")?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error).context("connecting"),
    }
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Nothing to read, or no room to write, or not connected: all come later.
pub fn is_not_yet(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}

/// An event's key: slot and generation.
pub fn keyed(slot: usize, generation: u32) -> u64 {
    (slot as u64) << 32 | u64::from(generation)
}

/// The place of an event's key.
pub fn unkeyed(key: u64) -> Place {
    let slot = usize::try_from(key >> 32).expect("a slot must fit");
    let generation = u32::try_from(key & 0xffff_ffff).expect("32 bits must fit");
    (slot, generation)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
