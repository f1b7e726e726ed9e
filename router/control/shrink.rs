//! What waits for an operator's word: a store that lacks more than the table
//! beside it can explain, and edges that did not take the table they were sent.
//!
//! Owns whether tables go out at all, and the confirmation. The rule is
//! [`policy::shrink`](crate::policy::shrink). Changes through the API are never
//! held up: what is withheld is the table as a whole.
//!
//! **Invariant**: while a store is doubted nothing of it reaches an edge or the
//! table on disk, so whatever the right table is, it is still there.

use tokio::sync::watch;

use super::fleet::Fleet;
use super::refusal::Refusal;
use super::registry::Registry;
use crate::feed::messages::{Doubt, Removed};
use crate::policy::shrink::{Shrink, Tally};

/// What to do about a doubt; ends a sentence.
pub const REMEDY: &str = "if that is meant, confirm it with `portico confirm-shrink`";

/// Whether tables go out.
#[derive(Debug)]
pub struct ShrinkGuard(watch::Sender<Standing>);

/// How things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The store is doubted: no table of it goes out.
    pub withheld: Option<Shrink>,
    /// How often an operator has confirmed.
    pub confirmations: u64,
}

/// What was confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// What may be gone, at most.
    pub vanished: Tally,
    /// Whether the store was doubted.
    pub was_withheld: bool,
    /// Edges that had refused a table.
    pub edges: usize,
}

impl ShrinkGuard {
    /// With a store that is doubted, or not.
    pub fn new(withheld: Option<Shrink>) -> ShrinkGuard {
        ShrinkGuard(watch::Sender::new(Standing {
            withheld,
            confirmations: 0,
        }))
    }

    /// How things stand.
    pub fn standing(&self) -> Standing {
        *self.0.borrow()
    }

    /// Announces each confirmation.
    pub fn follow(&self) -> watch::Receiver<Standing> {
        self.0.subscribe()
    }

    fn confirm(&self) {
        self.0.send_modify(|standing| {
            standing.withheld = None;
            standing.confirmations += 1;
        });
    }
}

impl Default for ShrinkGuard {
    fn default() -> ShrinkGuard {
        ShrinkGuard::new(None)
    }
}

/// How much an edge would have lost.
pub fn vanishing(doubt: &Doubt) -> Tally {
    let held = Tally {
        apps: doubt.apps_held,
        backends: doubt.backends_held,
    };
    held.less(Tally {
        apps: doubt.apps_offered,
        backends: doubt.backends_offered,
    })
}

/// Confirms whatever is doubted now: what vanished counts as removed, durably,
/// and tables go out. `None`: nothing is doubted.
///
/// # Errors
/// It could not be made durable; everything is as it was.
pub async fn confirm(registry: &Registry, fleet: &Fleet) -> Result<Option<Confirmed>, Refusal> {
    let withheld = registry.guard().standing().withheld;
    let doubts = fleet.doubts();
    if withheld.is_none() && doubts.is_empty() {
        return Ok(None);
    }
    let losses = doubts.iter().map(vanishing);
    let losses = losses.chain(withheld.map(|shrink| shrink.unexplained));
    let vanished = losses.fold(Tally::default(), |most, loss| Tally {
        apps: most.apps.max(loss.apps),
        backends: most.backends.max(loss.backends),
    });
    let removed = Removed {
        apps: vanished.apps,
        backends: vanished.backends,
    };
    let change = registry.change(move |staging| {
        staging.confirm_removed(removed);
        Ok(())
    });
    change.await?;
    registry.guard().confirm();
    Ok(Some(Confirmed {
        vanished,
        was_withheld: withheld.is_some(),
        edges: doubts.len(),
    }))
}
