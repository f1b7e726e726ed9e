//! Limits on the router's own flows: they always exist, under reserved names,
//! and let everything pass unless an operator says otherwise.
//!
//! Owns the flows of an edge. `changes`, the flow of control's own, is held
//! where changes are sent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;

use super::counted;
use super::limit::pace;
use crate::feed::messages::{LimitRecord, Sample};
use crate::policy::limit::own::{ACCESS_LOG, PROBES, RETRIES, is_own};
use crate::policy::limit::{Meter, Pace};

/// A flow of the router's own.
#[derive(Debug, Default)]
pub struct Flow {
    is_limited: AtomicBool,
    pace: ArcSwapOption<Pace>,
    meter: Meter,
    admitted: AtomicU64,
    refused: AtomicU64,
}

impl Flow {
    /// Whether one more may go, at `now_us`. Without a limit this is one
    /// relaxed load.
    #[inline]
    pub fn take(&self, now_us: u64) -> bool {
        !self.is_limited.load(Relaxed) || self.take_limited(now_us)
    }

    fn take_limited(&self, now_us: u64) -> bool {
        let Some(pace) = self.pace.load_full() else {
            return true;
        };
        let may = self.meter.take(*pace, now_us.saturating_mul(1_000)).is_ok();
        let cell = if may { &self.admitted } else { &self.refused };
        cell.fetch_add(1, Relaxed);
        may
    }

    fn set(&self, pace: Option<Pace>, now_ns: u64) {
        if let Some(pace) = pace {
            self.meter.settle(pace, now_ns);
        }
        self.pace.store(pace.map(Into::into));
        self.is_limited.store(pace.is_some(), Relaxed);
    }

    fn samples(&self, name: &str) -> [Sample; 2] {
        counted(
            name,
            self.admitted.load(Relaxed),
            self.refused.load(Relaxed),
        )
    }
}

/// The flows of an edge.
#[derive(Debug, Default)]
pub struct Flows {
    /// Lines of the access log.
    pub access_log: Flow,
    /// Active probes.
    pub probes: Flow,
    /// Retries and hedges.
    pub retries: Flow,
}

impl Flows {
    /// Whether this is the name of a flow of the router's own.
    pub(super) fn is_own(name: &str) -> bool {
        is_own(name)
    }

    fn each(&self) -> [(&'static str, &Flow); 3] {
        [
            (ACCESS_LOG, &self.access_log),
            (PROBES, &self.probes),
            (RETRIES, &self.retries),
        ]
    }

    /// Goes by these from here on; a flow that they do not name is not limited.
    pub(super) fn install(&self, records: &[LimitRecord], now_ns: u64) {
        for (name, flow) in self.each() {
            let record = records.iter().find(|record| record.name == name);
            flow.set(record.and_then(|record| pace(record.rate?)), now_ns);
        }
    }

    pub(super) fn samples(&self) -> impl Iterator<Item = Sample> {
        let each = self.each().into_iter();
        each.flat_map(|(name, flow)| flow.samples(name))
    }
}
