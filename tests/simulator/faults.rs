//! What goes wrong with backends, and when.
//!
//! Owns the schedule of a run: a list of changes, written out beforehand.

use fastrand::Rng;

use crate::engine::{MILLISECOND, Micros, SECOND};

/// How a backend behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As it should.
    Up,
    /// No process: connections are refused, those it had are closed.
    Down,
    /// Its host is gone: nothing comes back, not even a refusal.
    Unreachable,
    /// Reads a request, then closes the connection.
    Resetting,
    /// Answers this status at once, whatever is asked.
    Answering(u16),
    /// Answers 503 with `Retry-After`.
    AskingForRest(Micros),
    /// Takes so many times as long.
    Slow(u64),
    /// Has so many workers.
    Workers(usize),
    /// Stopped: the kernel still accepts connections, nobody reads.
    Frozen,
}

impl Mode {
    /// Whether a connection to it is opened.
    pub fn accepts(self) -> bool {
        !matches!(self, Mode::Down | Mode::Unreachable)
    }
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at_us: Micros,
    /// Whose.
    pub backend: usize,
    /// To what.
    pub mode: Mode,
}

/// All that goes wrong in a run.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// In no order.
    pub changes: Vec<Change>,
}

impl Schedule {
    /// `backend` is in `mode` for a while, then up again.
    pub fn outage(mut self, backend: usize, from_us: Micros, until_us: Micros, mode: Mode) -> Self {
        self.change(backend, from_us, mode);
        self.change(backend, until_us, Mode::Up);
        self
    }

    /// `backend` is in `mode` and up by turns, each for `turn_us`.
    pub fn flapping(
        mut self,
        backend: usize,
        from_us: Micros,
        until_us: Micros,
        turn_us: Micros,
        mode: Mode,
    ) -> Self {
        let mut at_us = from_us;
        while at_us < until_us {
            self.change(backend, at_us, mode);
            self.change(backend, at_us + turn_us, Mode::Up);
            at_us += 2 * turn_us;
        }
        self
    }

    /// All of them at once.
    pub fn everywhere(
        mut self,
        backends: usize,
        from_us: Micros,
        until_us: Micros,
        mode: Mode,
    ) -> Self {
        for backend in 0..backends {
            self = self.outage(backend, from_us, until_us, mode);
        }
        self
    }

    /// One after the other goes down for `down_us`, the next `between_us` after
    /// the last came back.
    pub fn rolling_restart(
        mut self,
        backends: usize,
        from_us: Micros,
        down_us: Micros,
        between_us: Micros,
    ) -> Self {
        for backend in 0..backends {
            let at_us = from_us + backend as u64 * (down_us + between_us);
            self = self.outage(backend, at_us, at_us + down_us, Mode::Down);
        }
        self
    }

    /// Up to three outages of any kind for each of some of the backends, all
    /// over by `until_us`.
    pub fn random(backends: usize, until_us: Micros, random: &mut Rng) -> Self {
        let mut schedule = Schedule::default();
        for backend in 0..backends {
            let mut at_us = random.u64(0..until_us);
            for _ in 0..random.usize(..=3) {
                let length_us = random.u64(50 * MILLISECOND..6 * SECOND);
                if at_us + length_us >= until_us {
                    break;
                }
                let mode = any_fault(random);
                schedule = if random.u8(..4) == 0 {
                    let turn_us = random.u64(20 * MILLISECOND..2 * SECOND).min(length_us / 2);
                    // Whole turns, the last one over in time.
                    let turns_us = length_us / (2 * turn_us) * 2 * turn_us;
                    schedule.flapping(backend, at_us, at_us + turns_us, turn_us, mode)
                } else {
                    schedule.outage(backend, at_us, at_us + length_us, mode)
                };
                at_us += length_us + random.u64(..4 * SECOND);
            }
        }
        schedule
    }

    fn change(&mut self, backend: usize, at_us: Micros, mode: Mode) {
        self.changes.push(Change {
            at_us,
            backend,
            mode,
        });
    }
}

fn any_fault(random: &mut Rng) -> Mode {
    match random.u8(..12) {
        0..=3 => Mode::Down,
        4 => Mode::Unreachable,
        5 => Mode::Resetting,
        6 => Mode::Answering(503),
        7 => Mode::Answering(502),
        8 => Mode::Answering(500),
        9 => Mode::AskingForRest(random.u64(..5) * SECOND),
        10 => Mode::Slow(random.u64(2..200)),
        _ => Mode::Frozen,
    }
}
