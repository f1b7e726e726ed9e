//! As many requests as a core can send: what makes the edge itself the bottleneck.
//!
//! Leaner than the client, because beside it the backends need their share of
//! the same core: bytes made once, a thousand connections, on each up to eight
//! requests written ahead of their answers, or one, where each is to have a
//! connection of its own. At a stated rate it is an open loop:
//! requests become due at fixed times, and those that find every connection full
//! count as offered and not taken, for they wait in front of the edge. Without a
//! rate every connection is kept full. Gives way to whatever else is on its core.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::client;
use crate::faults::record::now_us;
use crate::http_client::Framing;
use crate::machine;

const CONNECTIONS: usize = 1_000;
/// Requests written ahead on a connection that is kept.
pub const AHEAD: usize = 8;
/// Requests due within this are sent together, µs.
const TICK_US: u64 = 500;
/// How far it gives way to others: what `nice` takes.
const NICE: i32 = 5;

/// What to send.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The proxy's address.
    pub address: SocketAddr,
    /// Every request's bytes.
    pub request: Vec<u8>,
    /// How many are written ahead on a connection.
    pub ahead: usize,
    /// Requests due per second; `None`: as many as are answered.
    pub rate: Option<f64>,
    /// For how long.
    pub ms: u64,
    /// The core it runs on.
    pub core: Option<usize>,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Requests due.
    pub offered: u64,
    /// Of them written to a connection.
    pub sent: u64,
    /// Answered with 200.
    pub answered: u64,
    /// Answered with anything else.
    pub refused: u64,
    /// Connections that broke.
    pub broken: u64,
    /// How long it was.
    pub ms: u64,
}

impl Outcome {
    /// A count as a rate.
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 * 1e3 / self.ms as f64
    }
}

/// One connection.
struct Lane {
    stream: TcpStream,
    in_flight: usize,
    /// The beginning of an answer whose end is not there.
    partial: Vec<u8>,
}

/// The flood; [`run`](Self::run) is its whole life.
pub struct Flood<'a> {
    flow: &'a Flow,
    /// The request as often as is written ahead.
    requests: Vec<u8>,
    poll: OwnedFd,
    lanes: Vec<Lane>,
    opened: u32,
    scratch: Vec<u8>,
    outcome: Outcome,
}

impl<'a> Flood<'a> {
    /// Opens the connections.
    pub fn new(flow: &'a Flow) -> Result<Self> {
        let mut flood = Self {
            flow,
            requests: flow.request.repeat(flow.ahead),
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            lanes: Vec::with_capacity(CONNECTIONS),
            opened: 0,
            scratch: vec![0; 16 * 1024],
            outcome: Outcome {
                ms: flow.ms,
                ..Outcome::default()
            },
        };
        for slot in 0..CONNECTIONS {
            let lane = flood.open(slot)?;
            flood.lanes.push(lane);
        }
        Ok(flood)
    }

    /// Sends until the time is over, or early if interrupted.
    pub fn run(mut self, interrupted: &AtomicBool) -> Result<Outcome> {
        machine::settle_thread(self.flow.core, NICE)?;
        let start_us = now_us();
        let mut events = Vec::with_capacity(CONNECTIONS);
        let mut next_lane = 0;
        loop {
            let elapsed_us = now_us() - start_us;
            if elapsed_us >= self.flow.ms * 1_000 || interrupted.load(Ordering::Relaxed) {
                return Ok(self.outcome);
            }
            let due = match self.flow.rate {
                Some(rate) => (elapsed_us as f64 * rate / 1e6) as u64 - self.outcome.offered,
                None => (CONNECTIONS * self.flow.ahead) as u64,
            };
            let sent = self.send(usize::try_from(due)?, &mut next_lane)?;
            self.outcome.sent += sent;
            self.outcome.offered += if self.flow.rate.is_some() { due } else { sent };
            let wait = Timespec::try_from(Duration::from_micros(TICK_US))?;
            events.clear();
            match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("flood: waiting"),
            }
            for event in &events {
                self.read(usize::try_from(event.data.u64()).context("a slot")?)?;
            }
        }
    }

    /// Writes up to `due` requests, the same number on each connection with room, in turn.
    fn send(&mut self, due: usize, next_lane: &mut usize) -> Result<u64> {
        let mut left = due;
        // A few on each rather than all on one: the load of many clients.
        let ahead = self.flow.ahead;
        let each = due.div_ceil(CONNECTIONS).clamp(1, ahead);
        for _ in 0..CONNECTIONS {
            if left == 0 {
                break;
            }
            let slot = *next_lane;
            *next_lane = (slot + 1) % CONNECTIONS;
            let lane = &mut self.lanes[slot];
            let count = each.min(ahead - lane.in_flight).min(left);
            if count == 0 {
                continue;
            }
            let bytes = &self.requests[..count * self.flow.request.len()];
            // Far smaller than a socket's buffer: it goes whole, or not at all.
            match lane.stream.write(bytes) {
                Ok(sent) if sent == bytes.len() => {
                    lane.in_flight += count;
                    left -= count;
                }
                Err(error) if client::is_not_yet(&error) => {}
                _ => self.reopen(slot)?,
            }
        }
        Ok((due - left) as u64)
    }

    /// Level-triggered: reads once and counts the answers that are whole.
    fn read(&mut self, slot: usize) -> Result<()> {
        let lane = &mut self.lanes[slot];
        let read = match lane.stream.read(&mut self.scratch) {
            Ok(0) => return self.reopen(slot),
            Ok(read) => read,
            Err(error) if client::is_not_yet(&error) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(_) => return self.reopen(slot),
        };
        let joined = !lane.partial.is_empty();
        if joined {
            lane.partial.extend_from_slice(&self.scratch[..read]);
        }
        let bytes = if joined {
            &lane.partial[..]
        } else {
            &self.scratch[..read]
        };
        let mut used = 0;
        let mut closes = false;
        while used < bytes.len() && !closes {
            match Framing::of(&bytes[used..]) {
                Ok(Some(framing)) if bytes.len() - used >= framing.total_bytes() => {
                    used += framing.total_bytes();
                    closes = framing.closes;
                    lane.in_flight = lane.in_flight.saturating_sub(1);
                    if framing.status == 200 {
                        self.outcome.answered += 1;
                    } else {
                        self.outcome.refused += 1;
                    }
                }
                Ok(_) => break,
                Err(_) => closes = true,
            }
        }
        if closes {
            return self.reopen(slot);
        }
        if joined {
            lane.partial.drain(..used);
        } else {
            lane.partial.extend_from_slice(&self.scratch[used..read]);
        }
        Ok(())
    }

    /// A connection is over, and what was in flight on it.
    fn reopen(&mut self, slot: usize) -> Result<()> {
        if self.lanes[slot].in_flight > 0 {
            self.outcome.broken += 1;
        }
        self.lanes[slot] = self.open(slot)?;
        Ok(())
    }

    fn open(&mut self, slot: usize) -> Result<Lane> {
        self.opened += 1;
        let stream = client::connect(self.flow.address, self.opened)?;
        let key = EventData::new_u64(slot as u64);
        epoll::add(&self.poll, &stream, key, EventFlags::IN)?;
        Ok(Lane {
            stream,
            in_flight: 0,
            partial: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn answers_are_counted_wherever_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut chunk = [0_u8; 4096];
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    // Answers each request in two writes.
                    while let Ok(read) = stream.read(&mut chunk)
                        && read > 0
                    {
                        let requests = memchr::memmem::find_iter(&chunk[..read], b"\r\n\r\n");
                        for _ in requests {
                            let _ = stream.write_all(&answer[..20]);
                            let _ = stream.write_all(&answer[20..]);
                        }
                    }
                });
            }
        });
        let flow = Flow {
            address,
            request: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            ahead: AHEAD,
            rate: Some(2_000.0),
            ms: 500,
            core: None,
        };
        let flood = Flood::new(&flow).unwrap();
        let outcome = flood.run(&AtomicBool::new(false)).unwrap();
        assert!((900..=1_000).contains(&outcome.offered), "{outcome:?}");
        assert_eq!((outcome.broken, outcome.refused), (0, 0));
        assert!(outcome.answered > 500, "{outcome:?}");
    }
}
