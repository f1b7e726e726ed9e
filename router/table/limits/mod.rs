//! The named limits in force, as every data thread goes by them.
//!
//! Owns the published set, what each limit has counted and holds, and the
//! question whether a request may pass. Never decides what a limit is: records
//! come from the feed; never knows HTTP: it asks a [`Subject`].
//!
//! A limit that changes keeps what it has counted, its time and those inside:
//! what is new is the number. Where no limit is configured, a request pays for
//! one relaxed load.
//!
//! **Invariant**: a request that one limit refuses has used up nothing of the
//! others, and whoever was let in leaves, whatever way the request ends.

mod flows;
mod limit;
#[cfg(test)]
mod tests;

pub use self::flows::{Flow, Flows};
pub use self::limit::{Hold, Subject};

use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use self::limit::{Charge, Limit};
use crate::feed::messages::{LimitSet, Sample};
use crate::observe::limits as rows;
use crate::observe::metrics::sample;
use crate::policy::limit::Wait;

/// Limits that an edge takes at most.
pub const LIMITS_MAX: usize = 1_000;

/// Limits with an allowance for each client or header value that an edge takes
/// at most: each takes 1 or 2 MiB.
pub const KEYED_MAX: usize = 32;

/// A request that may not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The limit's name.
    pub name: Arc<str>,
    /// Seconds after which it may try again.
    pub retry_after: u32,
}

/// The limits of a process. Shared by all threads.
#[derive(Debug, Default)]
pub struct Limits {
    any: AtomicBool,
    set: ArcSwap<Set>,
    /// The router's own flows.
    pub flows: Flows,
    installing: Mutex<()>,
    seed: ahash::RandomState,
}

/// One edition of them.
#[derive(Debug, Default)]
struct Set {
    /// Every one, by name.
    all: Vec<Arc<Limit>>,
    /// Those of no app.
    general: Vec<Arc<Limit>>,
    by_app: HashMap<Box<str>, Vec<Arc<Limit>>, ahash::RandomState>,
}

impl Set {
    fn find(&self, name: &str) -> Option<&Arc<Limit>> {
        let found = self.all.binary_search_by(|limit| (*limit.name).cmp(name));
        found.ok().map(|at| &self.all[at])
    }

    fn of_app(&self, app: Option<&str>) -> &[Arc<Limit>] {
        let found = app.and_then(|app| self.by_app.get(app));
        found.map_or(&[], Vec::as_slice)
    }
}

impl Limits {
    /// Whether there is any limit on requests.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Lets a request pass all limits that are for it, or none. What it gives
    /// is to be kept until the request has ended.
    ///
    /// # Errors
    /// A limit refuses it.
    pub fn admit(&self, subject: &impl Subject, now_ns: u64) -> Result<Vec<Hold>, Refused> {
        let set = self.set.load();
        let of_app = set.of_app(subject.app());
        let mut charges: Vec<Charge<'_>> = Vec::new();
        let mut holds = Vec::new();
        for limit in set.general.iter().chain(of_app) {
            if !limit.is_for(subject) {
                continue;
            }
            let charge = limit.charge(subject, &self.seed);
            match charge.take(now_ns) {
                Ok(hold) => holds.extend(hold),
                Err(wait) => {
                    limit.count_refused();
                    charges.iter().for_each(Charge::give_back);
                    return Err(refused(limit, wait));
                }
            }
            charges.push(charge);
        }
        charges.iter().for_each(Charge::count_admitted);
        Ok(holds)
    }

    /// Goes by these from here on, on every thread; gives the names of those
    /// that could not be used, whose earlier edition stands.
    pub fn install(&self, set: &LimitSet, now_ns: u64) -> Vec<String> {
        let _one = self
            .installing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = self.set.load_full();
        let (mut next, mut unused, mut keyed) = (Set::default(), Vec::new(), 0);
        self.flows.install(&set.limits, now_ns);
        for record in &set.limits {
            if Flows::is_own(&record.name) {
                continue;
            }
            let known = before.find(&record.name);
            let is_room =
                next.all.len() < LIMITS_MAX && (record.per.is_none() || keyed < KEYED_MAX);
            let made = is_room.then(|| Limit::of(record, known, now_ns)).flatten();
            if made.is_none() {
                unused.push(record.name.clone());
            }
            if let Some(limit) = made.map(Arc::new).or_else(|| known.cloned()) {
                keyed += usize::from(record.per.is_some());
                next.take(limit);
            }
        }
        next.all.sort_by(|a, b| a.name.cmp(&b.name));
        let any = !next.all.is_empty();
        self.set.store(Arc::new(next));
        self.any.store(any, Release);
        unused
    }

    /// What they counted, for the feed's report.
    pub fn samples(&self) -> Vec<Sample> {
        // Pairs with the store in `install`: what is any is there.
        let _ = self.any.load(Acquire);
        let set = self.set.load();
        let each = set.all.iter().flat_map(|limit| limit.samples());
        each.chain(self.flows.samples()).collect()
    }

    /// Bytes of their tables.
    pub fn bytes(&self) -> usize {
        self.set.load().all.iter().map(|limit| limit.bytes()).sum()
    }
}

impl Set {
    fn take(&mut self, limit: Arc<Limit>) {
        match &limit.app {
            None => self.general.push(Arc::clone(&limit)),
            Some(app) => {
                let of_app = self.by_app.entry(app.clone());
                of_app.or_default().push(Arc::clone(&limit));
            }
        }
        self.all.push(limit);
    }
}

fn refused(limit: &Limit, wait: Wait) -> Refused {
    Refused {
        name: Arc::clone(&limit.name),
        retry_after: wait.seconds(),
    }
}

/// One series of a limit.
fn series(row: &'static crate::observe::metrics::Row, name: &str, value: u64) -> Sample {
    sample(row, &[name], value as f64)
}

/// The series of a limit.
fn counted(name: &str, admitted: u64, refused: u64) -> [Sample; 2] {
    [
        series(&rows::ADMITTED, name, admitted),
        series(&rows::REFUSED, name, refused),
    ]
}
