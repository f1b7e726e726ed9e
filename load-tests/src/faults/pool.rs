//! The backends as the harness holds them: processes it starts, crashes,
//! freezes and orders about, each with an address for all its lives.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::backend::Behaviour;
use super::record::{self, Event, Record, now_us};
use crate::child::{OWN_PROGRAM, Plan, Running, StopSignal};
use crate::interrupt;

/// How long a backend may take to listen, at first.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Lowest port tried by any harness.
const PORT_FIRST: u16 = 20_000;
/// Ports a harness tries before those of another that runs beside it.
const PORTS_APART: u32 = 20;

/// What is done to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL.
    Crash,
    /// Started anew on the same port.
    Return,
    /// SIGSTOP: its sockets stay open and its kernel still accepts.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// An order.
    Behave(Behaviour),
}

/// What was done to a backend, and when it was so.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Which.
    pub backend: usize,
    /// What.
    pub action: Action,
    /// CLOCK_MONOTONIC when it was asked for, µs.
    pub at_us: u64,
    /// CLOCK_MONOTONIC when the kernel had done it, µs; after a crash, its sockets are closed.
    pub done_us: u64,
}

/// One backend over all its lives.
struct Backend {
    address: SocketAddr,
    folder: PathBuf,
    name: String,
    life: Option<Running>,
}

/// All backends of a run; ended when dropped.
pub struct Pool {
    backends: Vec<Backend>,
    core: Option<usize>,
    /// What was done, in order.
    pub done: Vec<Done>,
}

impl Pool {
    /// Starts `count` backends, with their files in `folder`; returns once all listen.
    pub fn start(count: usize, folder: &Path, core: Option<usize>) -> Result<Self> {
        let mut pool = Self {
            backends: Vec::new(),
            core,
            done: Vec::new(),
        };
        let mut port = first_port(std::process::id());
        for number in 0..count {
            let address = free_address_from(&mut port)?;
            pool.backends.push(Backend {
                address,
                folder: folder.to_owned(),
                name: format!("backend-{number}"),
                life: None,
            });
            let started = pool.begin_life(number)?;
            pool.backends[number].life = Some(started);
        }
        interrupt::poll_until("backends listening", READY_TIMEOUT, || {
            pool.backends.iter().all(|backend| {
                record::read(&backend.records()).is_ok_and(|records| !records.is_empty())
            })
        })?;
        Ok(pool)
    }

    /// Where they listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.backends
            .iter()
            .map(|backend| backend.address)
            .collect()
    }

    /// Does it to one backend.
    pub fn act(&mut self, backend: usize, action: Action) -> Result<()> {
        let at_us = now_us();
        match action {
            Action::Crash => self.living(backend)?.crash()?,
            Action::Return => {
                let life = self.begin_life(backend)?;
                self.backends[backend].life = Some(life);
            }
            Action::Freeze | Action::Thaw => {
                let signal = if action == Action::Freeze {
                    Signal::STOP
                } else {
                    Signal::CONT
                };
                let life = self.backends[backend].life.as_ref();
                life.context("a dead backend cannot be frozen")?
                    .signal(signal)?;
            }
            Action::Behave(behaviour) => {
                UnixDatagram::unbound()?
                    .send_to(&[behaviour.order()], self.backends[backend].orders())
                    .context("ordering a backend")?;
            }
        }
        self.done.push(Done {
            backend,
            action,
            at_us,
            done_us: now_us(),
        });
        Ok(())
    }

    /// What each has recorded.
    pub fn records(&self) -> Result<Vec<Vec<Record>>> {
        self.backends
            .iter()
            .map(|backend| record::read(&backend.records()))
            .collect()
    }

    /// An error if one that should be alive has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        for backend in &mut self.backends {
            if let Some(life) = &mut backend.life {
                life.check_alive()?;
            }
        }
        Ok(())
    }

    fn living(&mut self, backend: usize) -> Result<Running> {
        let life = self.backends[backend].life.take();
        life.context("a dead backend cannot crash")
    }

    fn begin_life(&self, number: usize) -> Result<Running> {
        let backend = &self.backends[number];
        if backend.life.is_some() {
            bail!("{} is still alive", backend.name);
        }
        Running::start(&Plan {
            name: "fault-backend",
            command: vec![
                OWN_PROGRAM.into(),
                "fault-backend".into(),
                backend.address.to_string().into(),
                "--records".into(),
                backend.records().into(),
                "--orders".into(),
                backend.orders().into(),
            ],
            core: self.core,
            stop: StopSignal::Kill,
            stdout: backend.folder.join(format!("{}.out", backend.name)),
            stderr: backend.folder.join(format!("{}.err", backend.name)),
        })
    }
}

impl Backend {
    fn records(&self) -> PathBuf {
        self.folder.join(format!("{}.records", self.name))
    }

    fn orders(&self) -> PathBuf {
        self.folder.join(format!("{}.orders", self.name))
    }
}

/// When a backend listened again after `since_us`.
pub fn listened_after(records: &[Record], since_us: u64) -> Option<u64> {
    records
        .iter()
        .find(|record| record.event == Event::Listening && record.at_us >= since_us)
        .map(|record| record.at_us)
}

/// Where a harness begins to look: apart from others at the same time, whose
/// backends' ports look free while these are down.
fn first_port(process: u32) -> u16 {
    let apart = process % 500 * PORTS_APART;
    PORT_FIRST + u16::try_from(apart).expect("10,000 ports must fit")
}

/// A free port below those the kernel gives to outgoing connections: while a
/// backend is down, no connection of anybody's may take its port, nor connect
/// to itself by chance.
fn free_address_from(port: &mut u16) -> Result<SocketAddr> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first_outgoing = range
        .split_whitespace()
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or(32_768);
    while *port < first_outgoing {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        *port += 1;
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port from {PORT_FIRST} to {first_outgoing}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_below_the_outgoing_ones() {
        assert!(first_port(499) < 30_000 && first_port(1) - first_port(0) == 20);
        let mut port = 31_000;
        let first = free_address_from(&mut port).unwrap();
        let second = free_address_from(&mut port).unwrap();
        assert!(first.port() < second.port() && second.port() < 32_768);
        assert!(free_address_from(&mut u16::MAX.clone()).is_err());
    }

    #[test]
    fn a_return_is_the_first_time_it_listens_after_it() {
        let listening = |at_us| Record {
            at_us,
            event: Event::Listening,
            request: 0,
        };
        let lives = [listening(10), listening(50)];
        assert_eq!(listened_after(&lives, 11), Some(50));
        assert_eq!(listened_after(&lives, 51), None);
    }
}
