//! Hostile clients: thousands of connections on which next to nothing happens.
//!
//! One thread visits each connection once a second. Who drips writes one byte;
//! who leaves or resets does so a second after it has got into its state, and
//! comes again. A connection that the proxy ends, by an answer or by closing, is
//! opened anew at its next visit: the attack goes on for as long as it lasts.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use rustix::net::sockopt::set_socket_linger;
use rustix::thread::{ClockId, clock_nanosleep_relative};
use rustix::time::Timespec;

use super::client;

/// Visits of all connections take a second, in so many parts.
const PARTS: usize = 100;
/// Bytes that a dripped body is said to have.
const BODY_BYTES: usize = 100_000;

/// How a client gets into the state that it leaves, or stays in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Connected, nothing sent.
    Silent,
    /// Half a head.
    Head,
    /// A head and a part of its body.
    Body,
    /// A whole request, whose answer it does not wait for.
    Waiting,
}

/// What it does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Goes on, a byte a second.
    Drips,
    /// Does nothing more.
    Stays,
    /// Says that it will send no more, a second later.
    Closes,
    /// Resets, a second later.
    Resets,
}

/// Who attacks: state, manner, how many.
const CROWD: &[(State, Manner, usize)] = &[
    (State::Head, Manner::Drips, 5_000),
    (State::Body, Manner::Drips, 1_000),
    (State::Silent, Manner::Stays, 200),
    (State::Silent, Manner::Closes, 50),
    (State::Head, Manner::Closes, 50),
    (State::Body, Manner::Closes, 50),
    (State::Silent, Manner::Resets, 50),
    (State::Head, Manner::Resets, 50),
    (State::Body, Manner::Resets, 50),
    (State::Waiting, Manner::Resets, 50),
];

/// What the attackers saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections opened.
    pub opened: u64,
    /// Open at once, at most.
    pub open_most: u64,
    /// Ended by the proxy.
    pub ended: u64,
}

/// The attack.
#[derive(Debug)]
pub struct Drip {
    address: SocketAddr,
    host: String,
}

/// One client.
struct Hostile {
    state: State,
    manner: Manner,
    stream: Option<TcpStream>,
    /// It is in its state: what it opens with is sent.
    arrived: bool,
}

impl Drip {
    /// On this proxy's app.
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
        }
    }

    /// Attacks until told that it is over.
    pub fn run(&self, over: &AtomicBool) -> Result<Seen> {
        let mut crowd: Vec<Hostile> = Vec::new();
        for (state, manner, count) in CROWD {
            crowd.extend((0..*count).map(|_| Hostile {
                state: *state,
                manner: *manner,
                stream: None,
                arrived: false,
            }));
        }
        let mut seen = Seen::default();
        let pause = Timespec::try_from(Duration::from_millis(1_000 / PARTS as u64))?;
        for part in (0..PARTS).cycle() {
            if over.load(Ordering::Relaxed) {
                break;
            }
            for hostile in crowd.iter_mut().skip(part).step_by(PARTS) {
                self.visit(hostile, &mut seen);
            }
            let open = crowd.iter().filter(|one| one.stream.is_some()).count();
            seen.open_most = seen.open_most.max(open as u64);
            // An early wake is only an early visit.
            let _ = clock_nanosleep_relative(ClockId::Monotonic, &pause);
        }
        Ok(seen)
    }

    /// What one client does in its second.
    fn visit(&self, hostile: &mut Hostile, seen: &mut Seen) {
        let Some(stream) = &mut hostile.stream else {
            seen.opened += 1;
            let number = u32::try_from(seen.opened).unwrap_or(0);
            hostile.stream = client::connect(self.address, number).ok();
            hostile.arrived = false;
            return;
        };
        // An answer, or the end: whichever it is, the proxy is done with this one.
        let ended = match stream.read(&mut [0_u8; 2048]) {
            Err(error) => !client::is_not_yet(&error),
            Ok(_) => true,
        };
        let done = ended
            || match hostile.manner {
                _ if !hostile.arrived => {
                    hostile.arrived = true;
                    stream.write_all(&self.opening(hostile.state)).is_err()
                }
                Manner::Drips => stream.write_all(b"a").is_err(),
                Manner::Stays => false,
                Manner::Closes => {
                    // Fails where the proxy was faster.
                    let _ = stream.shutdown(Shutdown::Write);
                    true
                }
                Manner::Resets => {
                    let _ = set_socket_linger(&*stream, Some(Duration::ZERO));
                    true
                }
            };
        seen.ended += u64::from(ended);
        if done {
            hostile.stream = None;
        }
    }

    /// What it takes to get into a state.
    fn opening(&self, state: State) -> Vec<u8> {
        let host = &self.host;
        let words = match state {
            State::Silent => String::new(),
            State::Head => format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Slow: "),
            State::Body => {
                format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {BODY_BYTES}\r\n\r\na")
            }
            State::Waiting => format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        };
        words.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn whoever_is_ended_comes_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let drip = Drip::new(listener.local_addr().unwrap(), "a");
        let mut hostile = Hostile {
            state: State::Head,
            manner: Manner::Drips,
            stream: None,
            arrived: false,
        };
        let mut seen = Seen::default();
        drip.visit(&mut hostile, &mut seen);
        let (mut accepted, _) = listener.accept().unwrap();
        drip.visit(&mut hostile, &mut seen);
        drip.visit(&mut hostile, &mut seen);
        let mut read = [0_u8; 256];
        let mut all = Vec::new();
        while !all.ends_with(b": a") {
            let length = accepted.read(&mut read).unwrap();
            all.extend_from_slice(&read[..length]);
        }
        drop(accepted);
        while seen.ended == 0 {
            drip.visit(&mut hostile, &mut seen);
        }
        drip.visit(&mut hostile, &mut seen);
        assert_eq!((seen.opened, hostile.arrived), (2, false));
        assert!(hostile.stream.is_some());
    }
}
