//! Open-loop load: requests are due at fixed times, whatever the answers do.
//!
//! A closed loop (wrk) waits for an answer before it asks again, so a stalled
//! proxy is asked less and its stall is counted once ("coordinated omission").
//! Here request *i* is due at `start + i / rate`, and its latency counts from
//! then, also when no connection was free to send it. One thread, one epoll;
//! it sleeps between requests, because it shares its core with the backend.
//! Never retries: a connection that breaks is an error, counted, and reopened.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use serde::{Deserialize, Serialize};

use crate::http_client::{self, Framing};

/// Load before the measured part: connections are opened, pools are warm.
pub const WARM_UP: Duration = Duration::from_millis(500);
/// How long answers may still come after the last request was due.
const GRACE: Duration = Duration::from_secs(3);
/// The highest latency told apart, µs.
const LATENCY_MAX_US: u64 = 60_000_000;

/// What to send, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The proxy's address.
    pub address: SocketAddr,
    /// Host header.
    #[arg(long)]
    pub host: String,
    /// Path.
    #[arg(long, default_value = "/12")]
    pub path: String,
    /// Requests due per second.
    #[arg(long)]
    pub rate: f64,
    /// Seconds measured.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Keepalive connections.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
}

/// What was seen; latencies count from when each request was due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests due in the measured part.
    pub due: u64,
    /// Those answered with 200.
    pub answered: u64,
    /// Broken connections, other statuses, and requests never answered.
    pub errors: u64,
    /// Latencies, µs.
    pub p50_us: u64,
    /// 99th percentile, µs.
    pub p99_us: u64,
    /// 99.9th percentile, µs.
    pub p999_us: u64,
    /// Highest, µs.
    pub max_us: u64,
}

/// Runs the load and prints the outcome as JSON.
pub fn run(options: &Options) -> Result<()> {
    // The kernel may round sleeps up by this much; the default 50 µs is longer than most gaps.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let outcome = Pacer::new(options)?.run()?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// One connection: at most one request in flight.
struct Lane {
    stream: TcpStream,
    /// When the request in flight was due, and whether it is measured.
    in_flight: Option<(Instant, bool)>,
    /// The answer's head so far, while not whole.
    head: Vec<u8>,
    /// Bytes of the answer still to come, once its head is whole.
    body_left: Option<usize>,
}

/// What a lane's readiness led to.
enum Progress {
    Waiting,
    Answered,
    Broken,
}

struct Pacer {
    address: SocketAddr,
    request: Vec<u8>,
    interval: Duration,
    warm_up_requests: u64,
    last_request: u64,
    poll: OwnedFd,
    lanes: Vec<Lane>,
    idle: Vec<usize>,
    scratch: Vec<u8>,
    latencies: Histogram<u64>,
    errors: u64,
}

impl Pacer {
    fn new(options: &Options) -> Result<Self> {
        if !(options.rate >= 1.0 && options.rate <= 1e6) || options.connections == 0 {
            bail!("rate must be 1 to 1,000,000 requests/s, connections at least 1");
        }
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut lanes = Vec::with_capacity(options.connections);
        for slot in 0..options.connections {
            lanes.push(Lane::open(options.address, &poll, slot)?);
        }
        let requests_in = |time: Duration| (time.as_secs_f64() * options.rate) as u64;
        Ok(Self {
            address: options.address,
            request: http_client::request(&options.host, &options.path).into_bytes(),
            interval: Duration::from_secs_f64(1.0 / options.rate),
            warm_up_requests: requests_in(WARM_UP),
            last_request: requests_in(WARM_UP + Duration::from_secs(options.seconds)),
            poll,
            idle: (0..lanes.len()).rev().collect(),
            lanes,
            scratch: vec![0; 64 * 1024],
            latencies: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
                .context("histogram bounds")?,
            errors: 0,
        })
    }

    fn run(mut self) -> Result<Outcome> {
        let start = Instant::now();
        let due_at = |interval: Duration, request: u64| {
            start + Duration::from_secs_f64(interval.as_secs_f64() * request as f64)
        };
        let end = due_at(self.interval, self.last_request) + GRACE;
        let mut next = 0_u64;
        let mut events = Vec::with_capacity(256);
        loop {
            let mut now = Instant::now();
            while next < self.last_request && due_at(self.interval, next) <= now {
                let Some(slot) = self.idle.pop() else { break };
                self.send(
                    slot,
                    due_at(self.interval, next),
                    next >= self.warm_up_requests,
                )?;
                next += 1;
            }
            let all_answered = next == self.last_request && self.idle.len() == self.lanes.len();
            if all_answered || now >= end {
                break;
            }
            now = Instant::now();
            let wake = if next < self.last_request && !self.idle.is_empty() {
                due_at(self.interval, next)
            } else {
                end
            };
            let timeout = Timespec::try_from(wake.saturating_duration_since(now))?;
            events.clear();
            match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting"),
            }
            for event in &events {
                let slot = usize::try_from(event.data.u64()).expect("a key must be a slot");
                self.progress(slot)?;
            }
        }
        Ok(self.outcome())
    }

    fn send(&mut self, slot: usize, due: Instant, measured: bool) -> Result<()> {
        let lane = &mut self.lanes[slot];
        lane.in_flight = Some((due, measured));
        // A request is far smaller than an idle socket's buffer: it is sent whole or the connection is dead.
        match lane.stream.write(&self.request) {
            Ok(sent) if sent == self.request.len() => Ok(()),
            _ => self.reopen(slot),
        }
    }

    fn progress(&mut self, slot: usize) -> Result<()> {
        let lane = &mut self.lanes[slot];
        match lane.read(&mut self.scratch) {
            Progress::Waiting => Ok(()),
            Progress::Broken => self.reopen(slot),
            Progress::Answered => {
                if let Some((due, true)) = lane.in_flight.take() {
                    let latency_us =
                        u64::try_from(due.elapsed().as_micros()).unwrap_or(LATENCY_MAX_US);
                    self.latencies.saturating_record(latency_us.max(1));
                }
                self.idle.push(slot);
                Ok(())
            }
        }
    }

    /// A broken connection: its request is an error, its lane starts anew.
    fn reopen(&mut self, slot: usize) -> Result<()> {
        match self.lanes[slot].in_flight {
            Some((_, true)) => self.errors += 1,
            Some((_, false)) => {}
            None => self.idle.retain(|&idle| idle != slot), // closed while idle: no request lost
        }
        self.lanes[slot] = Lane::open(self.address, &self.poll, slot)?;
        self.idle.push(slot);
        Ok(())
    }

    fn outcome(&self) -> Outcome {
        let due = self.last_request - self.warm_up_requests;
        let answered = self.latencies.len();
        Outcome {
            due,
            answered,
            errors: self.errors.max(due.saturating_sub(answered)),
            p50_us: self.latencies.value_at_quantile(0.50),
            p99_us: self.latencies.value_at_quantile(0.99),
            p999_us: self.latencies.value_at_quantile(0.999),
            max_us: self.latencies.max(),
        }
    }
}

impl Lane {
    fn open(address: SocketAddr, poll: &OwnedFd, slot: usize) -> Result<Self> {
        let stream = http_client::connect(address)?;
        stream.set_nonblocking(true)?;
        epoll::add(
            poll,
            &stream,
            EventData::new_u64(slot as u64),
            EventFlags::IN,
        )?;
        Ok(Self {
            stream,
            in_flight: None,
            head: Vec::new(),
            body_left: None,
        })
    }

    /// Reads once; epoll is level-triggered here and comes back if there is more.
    fn read(&mut self, scratch: &mut [u8]) -> Progress {
        let read = match self.stream.read(scratch) {
            Ok(0) => return Progress::Broken,
            Ok(read) => read,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Progress::Waiting;
            }
            Err(_) => return Progress::Broken,
        };
        if self.in_flight.is_none() {
            return Progress::Broken; // bytes nobody asked for
        }
        let left = match self.body_left {
            Some(left) => left.checked_sub(read),
            None => {
                self.head.extend_from_slice(&scratch[..read]);
                match Framing::of(&self.head) {
                    Ok(None) => return Progress::Waiting,
                    Ok(Some(framing)) if framing.status == 200 => {
                        framing.total_bytes().checked_sub(self.head.len())
                    }
                    _ => return Progress::Broken,
                }
            }
        };
        match left {
            Some(0) => {
                self.head.clear();
                self.body_left = None;
                Progress::Answered
            }
            Some(left) => {
                self.body_left = Some(left);
                Progress::Waiting
            }
            None => Progress::Broken, // more than was announced
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Answers `requests` requests on one connection, the first after `stall`.
    fn answering(stall: Duration, requests: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut chunk = [0_u8; 1024];
            for request in 0..requests {
                if stream.read(&mut chunk).unwrap() == 0 {
                    return;
                }
                if request == 0 {
                    thread::park_timeout(stall);
                }
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .unwrap();
            }
        });
        address
    }

    fn options(address: SocketAddr, rate: f64) -> Options {
        Options {
            address,
            host: "a.example".into(),
            path: "/12".into(),
            rate,
            seconds: 1,
            connections: 1,
        }
    }

    #[test]
    fn every_request_due_is_counted() {
        let outcome = Pacer::new(&options(answering(Duration::ZERO, 400), 200.0))
            .unwrap()
            .run()
            .unwrap();
        assert_eq!(
            (outcome.due, outcome.answered, outcome.errors),
            (200, 200, 0)
        );
        assert!(outcome.p50_us <= outcome.p99_us && outcome.p99_us <= outcome.max_us);
    }

    #[test]
    fn a_stall_counts_for_every_request_due_in_it() {
        // Half a second of warm-up, so this stall reaches half a second into the measured part.
        let outcome = Pacer::new(&options(answering(Duration::from_millis(1000), 400), 200.0))
            .unwrap()
            .run()
            .unwrap();
        assert_eq!(outcome.answered, 200);
        assert!(outcome.max_us > 300_000, "the stall must show: {outcome:?}");
        assert!(outcome.p50_us > 1, "{outcome:?}");
    }
}
