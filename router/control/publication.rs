//! How far the table may go out: the limit `changes` on the router's own flow.
//!
//! Owns the bound that edges and the table on disk are brought up to, and its
//! pace. Without the limit there is none. What is beyond it is durable all the
//! same, and goes out when the limit is raised or removed. Never holds back a
//! limit, and never leaves an edge without a table: one that needs the whole
//! gets it as it is now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::limits::Limits;
use super::registry::Registry;
use crate::policy::limit::own::CHANGES;
use crate::policy::limit::{Meter, Pace, Rate};

/// Where the table stands, and up to which revision it may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The last durable revision.
    pub head: u64,
    /// The last one that may go out; `u64::MAX`: whatever there is.
    pub until: u64,
}

impl Outgoing {
    /// Whether something is held back.
    pub fn is_held(&self) -> bool {
        self.until < self.head
    }
}

/// The pace at which revisions go out.
#[derive(Debug)]
pub struct Publication {
    registry: Arc<Registry>,
    origin: Instant,
    meter: Meter,
    pace: Option<Pace>,
    /// What went out.
    until: u64,
}

impl Publication {
    /// Revisions up to `shown` went out in an earlier life.
    pub fn new(registry: Arc<Registry>, shown: u64) -> Publication {
        let mut publication = Publication {
            registry,
            origin: Instant::now(),
            meter: Meter::default(),
            pace: None,
            until: shown,
        };
        publication.turn();
        publication
    }

    /// Keeps the bound, for as long as it is polled.
    pub async fn keep(mut self) {
        let mut limits = self.registry.limits().follow();
        let mut head = self.registry.head();
        loop {
            limits.mark_unchanged();
            head.mark_unchanged();
            let wait = self.turn();
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let is_over = tokio::select! {
                moved = limits.changed() => moved.is_err(),
                moved = head.changed() => moved.is_err(),
                () = again => false,
            };
            if is_over {
                return;
            }
        }
    }

    /// Moves the bound as far as the limit lets it; for how long it then stands.
    fn turn(&mut self) -> Option<Duration> {
        let head = self.registry.revision();
        let now_ns = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let pace = self.rate();
        if self.pace != pace
            && let Some(pace) = pace
        {
            self.meter.settle(pace, now_ns);
        }
        self.pace = pace;
        let Some(pace) = pace else {
            self.until = head;
            self.registry.let_out(u64::MAX);
            return None;
        };
        let mut wait = None;
        self.until = self.until.min(head);
        while self.until < head && wait.is_none() {
            match self.meter.take(pace, now_ns) {
                Ok(()) => self.until += 1,
                Err(early) => wait = Some(Duration::from_nanos(early.0)),
            }
        }
        self.registry.let_out(self.until);
        wait
    }

    /// The limit, if there is one.
    fn rate(&self) -> Option<Pace> {
        let holding = self.registry.limits().follow();
        let rate = Limits::own_rate(&holding.borrow(), CHANGES)?;
        let per = crate::policy::limit::Period::of_seconds(rate.seconds)?;
        let count = rate.count;
        Some(Pace::new(Rate { count, per }, rate.burst))
    }
}

/// What followers of the table wait for.
pub type Following = watch::Receiver<Outgoing>;
