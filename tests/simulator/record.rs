//! What was seen of a run, and the rules that hold at every moment of it.
//!
//! Owns the counts and the checks that need nothing else: each panics with
//! what it saw, and the seed is named by [`seeds`](super::seeds).

use portico::policy::health::Verdict;

use crate::engine::{MILLISECOND, Micros};
use crate::journey::Request;

/// Why the router answered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    QueueFull,
    Shed,
    QueueTimedOut,
    NoneLeft,
    Closed,
    Unconnected,
    Silent,
    ClientLeft,
}

/// A request that failed.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "all of it is told in the text of a failure")]
pub struct Failed {
    pub at_us: Micros,
    pub arrived_us: Micros,
    pub router: usize,
    /// What it ended with: the router's own reason or a passed-on status.
    pub ending: Result<u16, Failure>,
    pub repeatable: bool,
    /// No try was left.
    pub tries_spent: bool,
    /// The budget had nothing left for it.
    pub over_budget: bool,
    /// Backends with room that had been well since before it arrived.
    pub well: usize,
}

/// A request that was served.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    pub at_us: Micros,
    pub router: usize,
    /// From its arrival.
    pub took_us: u32,
    /// From its sending: what the backend took.
    pub inside_us: u32,
}

/// A decision.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    pub at_us: Micros,
    pub router: usize,
    pub backend: usize,
    pub verdict: Verdict,
}

/// Width of the cells that arrivals and withdrawals are counted in.
pub const CELL_US: Micros = 100 * MILLISECOND;

/// Counts in cells of time.
#[derive(Clone, Debug, Default)]
pub struct Cells(Vec<u64>);

impl Cells {
    fn count(&mut self, at_us: Micros) {
        let cell = (at_us / CELL_US) as usize;
        if self.0.len() <= cell {
            self.0.resize(cell + 1, 0);
        }
        self.0[cell] += 1;
    }

    /// Those from one moment until before another.
    pub fn between(&self, from_us: Micros, until_us: Micros) -> u64 {
        let until = ((until_us / CELL_US) as usize).min(self.0.len());
        let from = ((from_us / CELL_US) as usize).min(until);
        self.0[from..until].iter().sum()
    }

    /// How many before each of so many cells, and before the end.
    pub fn sums(&self, cells: usize) -> Vec<u64> {
        let mut sum = 0;
        let mut sums = vec![0];
        for cell in 0..cells {
            sum += self.0.get(cell).unwrap_or(&0);
            sums.push(sum);
        }
        sums
    }

    /// Cells up to the last that has any.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Whether each request might be repeated, by serial number.
    pub repeatable: Vec<bool>,
    /// Requests that ended with an answer of the app's other than 502–504.
    pub passed: u64,
    pub failed: Vec<Failed>,
    /// Each of those that passed, in order.
    pub served: Vec<Served>,
    /// From arrival to end, of those that passed.
    pub latencies_us: Vec<u32>,
    pub decided: Vec<Decided>,
    pub executions: u64,
    pub retries: u64,
    pub hedges: u64,
    /// Tries on kept connections that were dead.
    pub stale: u64,
    pub probes: u64,
    pub waited: u64,
    pub events: u64,
    /// Requests of each router.
    pub arrivals: Vec<Cells>,
    /// Retries and hedges of each router.
    pub withdrawn: Vec<Cells>,
    /// Tries on each backend, by each router.
    pub tries: Vec<Vec<Cells>>,
}

impl Record {
    pub fn new(routers: usize, backends: usize) -> Self {
        Record {
            arrivals: vec![Cells::default(); routers],
            withdrawn: vec![Cells::default(); routers],
            tries: vec![vec![Cells::default(); backends]; routers],
            ..Record::default()
        }
    }

    /// A request's serial number.
    pub(super) fn arrived(&mut self, now_us: Micros, router: usize, repeatable: bool) -> u64 {
        self.arrivals[router].count(now_us);
        self.repeatable.push(repeatable);
        self.repeatable.len() as u64 - 1
    }

    pub(super) fn tried(&mut self, now_us: Micros, router: usize, backend: usize) {
        self.tries[router][backend].count(now_us);
    }

    pub(super) fn withdrew(&mut self, now_us: Micros, router: usize) {
        self.withdrawn[router].count(now_us);
    }

    pub(super) fn verdict(
        &mut self,
        at_us: Micros,
        router: usize,
        backend: usize,
        verdict: Verdict,
    ) {
        self.decided.push(Decided {
            at_us,
            router,
            backend,
            verdict,
        });
    }

    /// A request ended; `well` backends could have served it: up without a
    /// break since it arrived, in rotation, with room, not tried for it.
    ///
    /// **Rule**: it does not fail beside one of these if it may be tried again,
    /// that is, it may be repeated or no backend ever had it. Excused is who
    ///
    /// - used up its tries ([`retries`](portico::table::Policy::retries));
    /// - found the budget empty: what protects the backends that are left;
    /// - waited for an answer that never came, of a backend that answers
    ///   others, or because nobody else had room when its patience was over,
    ///   or because the app does not hedge.
    pub(super) fn ended(
        &mut self,
        now_us: Micros,
        request: &Request,
        ending: Result<u16, Failure>,
        (well, may_hedge): (usize, bool),
    ) {
        if ending.is_ok_and(|status| !(502..=504).contains(&status)) {
            self.passed += 1;
            let took_us = now_us - request.arrived_us;
            self.latencies_us.push(took_us as u32);
            self.served.push(Served {
                at_us: now_us,
                router: request.router,
                took_us: took_us as u32,
                inside_us: request.inside_us,
            });
            return;
        }
        let failed = Failed {
            at_us: now_us,
            arrived_us: request.arrived_us,
            router: request.router,
            ending,
            repeatable: request.repeatable || !request.sent,
            tries_spent: request.retries_left == 0,
            over_budget: request.over_budget,
            well,
        };
        let unheard = failed.ending == Err(Failure::Silent) && (request.alone || !may_hedge);
        let unheard = unheard || failed.ending == Err(Failure::ClientLeft);
        let excused = unheard || !failed.repeatable || failed.tries_spent || failed.over_budget;
        assert!(
            excused || well == 0,
            "a request failed beside {well} healthy backends: {failed:?}\n{}",
            self.story(failed.router)
        );
        self.failed.push(failed);
    }

    /// Whether from a moment on so many backends were in rotation at every
    /// router, going by what its events told.
    pub fn never_fewer_than(&self, from_us: Micros, backends: usize) -> bool {
        let told = self.decided.iter();
        let told = told.filter(|decided| decided.at_us >= from_us);
        told.map(|decided| decided.verdict)
            .all(|verdict| match verdict {
                Verdict::Ejected { left, .. } => left as usize >= backends,
                Verdict::Spared { routable, .. } => routable as usize == backends,
                _ => true,
            })
    }

    /// The last decisions of a router, for whoever reads a failure.
    pub fn story(&self, router: usize) -> String {
        let decided = self.decided.iter().rev();
        let mut lines: Vec<String> = decided
            .filter(|decided| decided.router == router)
            .take(12)
            .map(|decided| {
                let Decided {
                    at_us,
                    backend,
                    verdict,
                    ..
                } = decided;
                format!("{at_us} µs, backend {backend}: {verdict}")
            })
            .collect();
        lines.reverse();
        lines.join("\n")
    }

    /// For runs in which no request may fail.
    pub fn assert_none_failed(&self) {
        let first = &self.failed[..self.failed.len().min(3)];
        assert!(first.is_empty(), "{} failed: {first:?}", self.failed.len());
    }

    /// Requests that came.
    pub fn requests(&self) -> u64 {
        self.repeatable.len() as u64
    }

    /// Tries on a backend by all routers.
    pub fn tries_on(&self, backend: usize, from_us: Micros, until_us: Micros) -> u64 {
        let each = self.tries.iter();
        each.map(|router| router[backend].between(from_us, until_us))
            .sum()
    }
}
