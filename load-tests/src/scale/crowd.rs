//! The clients of a scenario: requests at a fixed rate over many hosts, and
//! WebSockets that stay.
//!
//! Requests are the open loop of the fault scenarios. Each WebSocket sends a
//! frame of its own every few seconds and wants it back; between frames it
//! reads, so that a close is seen when it comes. Nothing is ever reconnected:
//! what is cut is cut, and counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::backend::{SOCKET_ACCEPT, SOCKET_KEY, mask};
use crate::faults::catalogue::Method;
use crate::faults::client::{Client, Exchange, Load};
use crate::faults::record::now_us;
use crate::interrupt;

/// From the start of the clients to the first request.
const HEAD_START_US: u64 = 50_000;
/// Between two frames of a WebSocket.
const FRAME_INTERVAL: Duration = Duration::from_secs(4);
/// How long an echo may take.
const ECHO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long opening one WebSocket may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// WebSockets being opened at once.
const OPENING: usize = 50;

/// Requests at a fixed rate, on a thread of their own.
#[derive(Debug)]
pub struct Traffic {
    over: Arc<AtomicBool>,
    client: Option<JoinHandle<Result<Vec<Exchange>>>>,
}

impl Traffic {
    /// Begins; `limit` bounds it if nobody ends it.
    pub fn start(
        address: SocketAddr,
        hosts: Vec<String>,
        rate: u64,
        limit: Duration,
    ) -> Result<Self> {
        let start_us = now_us() + HEAD_START_US;
        let load = Load {
            address,
            hosts,
            method: Method::Get,
            rate,
            requests: usize::try_from(limit.as_secs() * rate)?,
            start_us,
            deadline_us: 5_000_000,
        };
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let client = thread::spawn(move || Client::new(&load)?.run(&told));
        Ok(Self {
            over,
            client: Some(client),
        })
    }

    /// Ends it; what became of each request.
    pub fn end(mut self) -> Result<Vec<Exchange>> {
        self.over.store(true, Ordering::Relaxed);
        let client = self.client.take().context("it must have been running")?;
        match client.join() {
            Ok(exchanges) => exchanges,
            Err(_) => bail!("the client panicked"),
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(client) = self.client.take() {
            let _ = client.join();
        }
    }
}

/// What became of the WebSockets.
#[derive(Debug, Default)]
pub struct SocketCounts {
    /// Open now.
    pub open: AtomicU64,
    /// Frames that came back.
    pub echoes: AtomicU64,
    /// Ended by the other side, or without an echo in time.
    pub cut: AtomicU64,
}

/// WebSockets, on a thread of their own.
#[derive(Debug)]
pub struct Sockets {
    /// What became of them so far.
    pub counts: Arc<SocketCounts>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<Mutex<Option<String>>>,
}

impl Sockets {
    /// Opens `count` of them; returns once all are open.
    pub fn open(address: SocketAddr, hosts: &[String], count: usize) -> Result<Self> {
        let counts = Arc::new(SocketCounts::default());
        let over = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(Mutex::new(None));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let (shared, told, fault) = (counts.clone(), over.clone(), failed.clone());
        let hosts = hosts.to_vec();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let turns = Arc::new(tokio::sync::Semaphore::new(OPENING));
                for number in 0..count {
                    let host = hosts[number % hosts.len()].clone();
                    let (shared, turns, fault) = (shared.clone(), turns.clone(), fault.clone());
                    tokio::spawn(async move {
                        let turn = turns.acquire().await;
                        let opened = timeout(OPEN_TIMEOUT, handshake(address, &host)).await;
                        drop(turn);
                        match opened.map_err(Into::into).flatten() {
                            Ok(stream) => live(stream, number, &shared).await,
                            Err(error) => note(&fault, &error),
                        }
                    });
                }
                while !told.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        });
        let sockets = Self {
            counts,
            over,
            thread: Some(thread),
            failed,
        };
        interrupt::poll_until("open WebSockets", Duration::from_secs(60), || {
            sockets.counts.open.load(Ordering::Relaxed) == count as u64
                || sockets.failure().is_some()
        })?;
        match sockets.failure() {
            Some(failure) => bail!("opening a WebSocket: {failure}"),
            None => Ok(sockets),
        }
    }

    fn failure(&self) -> Option<String> {
        self.failed.lock().ok()?.clone()
    }

    /// Cut so far, and frames that came back.
    pub fn cut_and_echoes(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.counts.cut), read(&self.counts.echoes))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn note(place: &Mutex<Option<String>>, error: &anyhow::Error) {
    if let Ok(mut place) = place.lock() {
        place.get_or_insert_with(|| format!("{error:#}"));
    }
}

async fn handshake(address: SocketAddr, host: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {SOCKET_KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while memmem::find(&answer, b"\r\n\r\n").is_none() {
        ensure!(stream.read_buf(&mut answer).await? > 0, "closed");
    }
    let answer = String::from_utf8_lossy(&answer);
    ensure!(
        answer.starts_with("HTTP/1.1 101") && answer.contains(SOCKET_ACCEPT),
        "not switched: {answer:?}"
    );
    Ok(stream)
}

/// One WebSocket's life: frames out, the same frames back, until it is cut.
async fn live(mut stream: TcpStream, number: usize, counts: &SocketCounts) {
    counts.open.fetch_add(1, Ordering::Relaxed);
    // The first frames are spread over one interval.
    let share = u32::try_from(number % 1_000).unwrap_or(0);
    let mut pause = FRAME_INTERVAL * share / 1_000;
    let mut frames = 0_u64;
    loop {
        let mut unexpected = [0_u8; 16];
        if timeout(pause, stream.read(&mut unexpected)).await.is_ok() {
            break; // closed, reset, or bytes nobody sent
        }
        pause = FRAME_INTERVAL;
        let payload = format!("socket {number} frame {frames}");
        frames += 1;
        match timeout(ECHO_TIMEOUT, echoed(&mut stream, payload.as_bytes())).await {
            Ok(Ok(())) => counts.echoes.fetch_add(1, Ordering::Relaxed),
            _ => break,
        };
    }
    counts.open.fetch_sub(1, Ordering::Relaxed);
    counts.cut.fetch_add(1, Ordering::Relaxed);
}

/// Sends a text frame and reads it back: unmasked, the same payload.
async fn echoed(stream: &mut TcpStream, payload: &[u8]) -> Result<()> {
    stream
        .write_all(&mask(payload, [0x11, 0x22, 0x33, 0x44]))
        .await?;
    let mut frame = vec![0_u8; 2 + payload.len()];
    stream.read_exact(&mut frame).await?;
    ensure!(
        frame[0] == 0x81 && usize::from(frame[1]) == payload.len() && &frame[2..] == payload,
        "not its echo"
    );
    Ok(())
}
