//! Changes through the registration API: backends swapped by PUT, at a fixed
//! rate, over several keepalive connections.
//!
//! Open loop: change *i* is due at `start + i / rate`, and its latency counts
//! from then. A connection that breaks is opened again; a change without an
//! answer is not acknowledged, and is not sent again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::faults::record::now_us;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Before a connection that could not be opened is tried again.
const REOPEN_PAUSE: Duration = Duration::from_millis(5);

/// One change as it is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// `/v1/apps/…/backends/…`
    pub path: String,
    /// The JSON sent.
    pub body: String,
}

/// What is asked, how often, of whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The API.
    pub address: SocketAddr,
    /// The operator's.
    pub token: String,
    /// Changes due per second.
    pub rate: u64,
    /// All changes.
    pub count: usize,
    /// Keepalive connections.
    pub connections: usize,
}

/// What became of one.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Which.
    pub number: usize,
    /// When it was due: CLOCK_MONOTONIC, µs.
    pub due_us: u64,
    /// When it was answered, or failed.
    pub ended_us: u64,
    /// The status; `None` if there was no answer.
    pub status: Option<u16>,
}

impl Change {
    /// It was said to be done.
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.status, Some(200 | 201))
    }
}

/// Changes under way.
#[derive(Debug)]
pub struct Registrations {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Change>>>,
}

impl Registrations {
    /// Begins; `wanted` says what change a number is.
    pub fn start(plan: Plan, wanted: impl Fn(usize) -> Wanted + Send + Sync + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let wanted: Wants = Arc::new(wanted);
            run(plan, &wanted, &told)
        });
        Self { over, thread }
    }

    /// Whether every change has had its end.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Begins no further change; what became of each.
    pub fn end(self) -> Result<Vec<Change>> {
        self.over.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(changes) => changes,
            Err(_) => bail!("the registering client panicked"),
        }
    }
}

type Wants = Arc<dyn Fn(usize) -> Wanted + Send + Sync>;

fn run(plan: Plan, wanted: &Wants, over: &Arc<AtomicBool>) -> Result<Vec<Change>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let start_us = now_us();
    runtime.block_on(async {
        let plan = Arc::new(plan);
        let lanes: Vec<_> = (0..plan.connections)
            .map(|first| {
                let lane = lane(first, start_us, plan.clone(), wanted.clone(), over.clone());
                tokio::spawn(lane)
            })
            .collect();
        let mut changes = Vec::with_capacity(plan.count);
        for lane in lanes {
            changes.extend(lane.await?);
        }
        changes.sort_by_key(|change| change.number);
        Ok(changes)
    })
}

/// One connection: every so many-th change, each when it is due or as soon as the last one is done.
async fn lane(
    first: usize,
    start_us: u64,
    plan: Arc<Plan>,
    wanted: Wants,
    over: Arc<AtomicBool>,
) -> Vec<Change> {
    let mut stream = None;
    let mut changes = Vec::new();
    for number in (first..plan.count).step_by(plan.connections) {
        let due_us = start_us + number as u64 * 1_000_000 / plan.rate;
        sleep(Duration::from_micros(due_us.saturating_sub(now_us()))).await;
        if over.load(Ordering::Relaxed) {
            break;
        }
        let asked = timeout(ANSWER_TIMEOUT, put(&mut stream, &plan, &wanted(number))).await;
        let status = asked.ok().and_then(Result::ok);
        if status.is_none() {
            stream = None;
            sleep(REOPEN_PAUSE).await;
        }
        changes.push(Change {
            number,
            due_us,
            ended_us: now_us(),
            status,
        });
    }
    changes
}

/// One PUT; its status. Opens the connection if there is none.
async fn put(stream: &mut Option<TcpStream>, plan: &Plan, wanted: &Wanted) -> Result<u16> {
    let stream = match stream {
        Some(stream) => stream,
        None => {
            let opened = TcpStream::connect(plan.address).await?;
            opened.set_nodelay(true)?;
            stream.insert(opened)
        }
    };
    let Wanted { path, body } = wanted;
    let (address, token, length) = (plan.address, &plan.token, body.len());
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        ensure!(stream.read_buf(&mut answer).await? > 0, "closed");
        let Some(end) = memmem::find(&answer, b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).context("no length")?;
        let length: usize = length.lines().next().unwrap_or_default().trim().parse()?;
        if answer.len() >= end + 4 + length {
            let status = head.split(' ').nth(1).context("no status")?;
            return Ok(status.parse()?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn changes_without_an_answer_are_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for (turn, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut chunk = [0_u8; 2048];
                // The first connection is cut after one answer.
                while stream.read(&mut chunk).is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}";
                    if stream.write_all(answer).is_err() || turn == 0 {
                        break;
                    }
                }
            }
        });
        let plan = Plan {
            address,
            token: "t".into(),
            rate: 1_000,
            count: 4,
            connections: 1,
        };
        let wanted = |number| Wanted {
            path: format!("/v1/apps/app-{number}/backends/web.1"),
            body: "{}".into(),
        };
        let started = Registrations::start(plan, wanted);
        while !started.is_over() {
            thread::yield_now();
        }
        let changes = started.end().unwrap();
        let acknowledged: Vec<bool> = changes.iter().map(Change::is_acknowledged).collect();
        assert_eq!(acknowledged, [true, false, true, true]);
    }
}
