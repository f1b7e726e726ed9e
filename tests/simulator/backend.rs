//! A backend of a run: a queue that may be in a fault.
//!
//! Owns what it does with a connection and a request in each of its modes.
//! Knows nothing of routers.

use fastrand::Rng;

use crate::arena::Id;
use crate::engine::{MILLISECOND, Micros};
use crate::faults::Mode;
use crate::load::Service;
use crate::server::{Begun, Server};

/// A request as a backend sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Job {
    /// Who waits for the answer.
    pub attempt: Id,
    /// Which request it is: the same for each of its tries.
    pub serial: u64,
}

/// What a backend does with a request that reached it.
pub enum Receipt {
    /// Nobody was there: the connection is reset.
    Reset,
    /// Read, then the connection was closed.
    ReadThenClosed,
    /// Nothing ever comes back.
    Lost,
    /// Waits for a worker.
    Queued,
    /// A worker took it.
    Begun(Begun<Job>),
    /// Read and answered at once.
    Answered(Reply),
}

/// An answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its `Retry-After`, if any.
    pub rest_us: Option<Micros>,
}

impl Reply {
    /// All is well.
    pub const OK: Reply = Reply {
        status: 200,
        rest_us: None,
    };
}

/// How long an answer takes that needs no work.
pub const AT_ONCE_US: Micros = MILLISECOND / 2;

/// One instance of the app.
pub struct Backend {
    /// How it behaves now.
    pub mode: Mode,
    /// Since when it has been up without a break; `None` while it is not.
    up_since_us: Option<Micros>,
    workers: usize,
    server: Server<Job>,
}

impl Backend {
    /// One that is up.
    pub fn new(service: Service, workers: usize) -> Self {
        Backend {
            mode: Mode::Up,
            up_since_us: Some(0),
            workers,
            server: Server::new(service, workers),
        }
    }

    /// Whether it has been up without a break since then.
    pub fn has_been_up_since(&self, since_us: Micros) -> bool {
        self.up_since_us.is_some_and(|up_us| up_us <= since_us)
    }

    /// A request arrives on an open connection.
    pub fn receive(&mut self, job: Job, now_us: Micros, random: &mut Rng) -> Receipt {
        match self.mode {
            Mode::Down => Receipt::Reset,
            Mode::Unreachable => Receipt::Lost,
            Mode::Resetting => Receipt::ReadThenClosed,
            Mode::Answering(status) => Receipt::Answered(Reply {
                status,
                rest_us: None,
            }),
            Mode::AskingForRest(rest_us) => Receipt::Answered(Reply {
                status: 503,
                rest_us: Some(rest_us),
            }),
            Mode::Up | Mode::Slow(_) | Mode::Workers(_) | Mode::Frozen => {
                match self.server.accept(job, now_us, random) {
                    Some(begun) => Receipt::Begun(begun),
                    None => Receipt::Queued,
                }
            }
        }
    }

    /// A worker is done; whether that still holds, and who is next.
    pub fn finish(
        &mut self,
        begun: Begun<Job>,
        now_us: Micros,
        random: &mut Rng,
    ) -> (bool, Option<Begun<Job>>) {
        if !self.server.finish(begun.job, begun.epoch) {
            return (false, None);
        }
        (true, self.server.next(now_us, random))
    }

    /// Changes its mode: told are the requests that died with it, and those
    /// that are served from now on with the times they will be done at.
    pub fn change(
        &mut self,
        mode: Mode,
        now_us: Micros,
        random: &mut Rng,
    ) -> (Vec<Job>, Vec<Begun<Job>>) {
        self.mode = mode;
        self.up_since_us = (mode == Mode::Up).then_some(now_us);
        self.server.slow_down(match mode {
            Mode::Slow(times) => times,
            _ => 1,
        });
        self.server.staff(match mode {
            Mode::Workers(workers) => workers,
            _ => self.workers,
        });
        match mode {
            Mode::Down => (self.server.crash(), Vec::new()),
            Mode::Frozen => {
                self.server.freeze(now_us);
                (Vec::new(), Vec::new())
            }
            _ => {
                let mut begun = self.server.thaw(now_us, random);
                while let Some(next) = self.server.next(now_us, random) {
                    begun.push(next);
                }
                (Vec::new(), begun)
            }
        }
    }
}
