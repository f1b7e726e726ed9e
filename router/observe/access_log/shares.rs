//! Whose lines are kept while the writer is behind.
//!
//! Owns a count of bytes for each app, in a table of fixed size that apps are
//! hashed into. An app may have at most as many bytes waiting as are left for
//! the others (Choudhury and Hahne, "Dynamic queue length thresholds", 1998): so
//! one that logs a lot fills half of what there is, two such have a third each,
//! and whoever logs little finds room.
//!
//! An app is counted in each of [`ROWS`] rows and has had what its smallest count
//! says (a count-min sketch with conservative update: Cormode and Muthukrishnan,
//! 2005; Estan and Varghese, 2002). So it pays for others only where they fall on
//! its counts in every row: beside one that logs a lot in one shortage of
//! 17 million, beside ten in one of 2,000, and in the next it hashes in another
//! way.

use ahash::RandomState;

/// Rows of counts, each with a hash of its own.
const ROWS: usize = 4;
/// Counts in a row: a kibibyte in all for each thread.
const COUNTS: usize = 64;

/// What each app has had in the present shortage.
#[derive(Debug)]
pub(super) struct Shares {
    had: [[u32; COUNTS]; ROWS],
    hash: RandomState,
    shortage: u64,
}

/// Where an app is counted, in each row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot([usize; ROWS]);

impl Shares {
    pub(super) fn new() -> Shares {
        Shares {
            had: [[0; COUNTS]; ROWS],
            hash: RandomState::new(),
            shortage: 0,
        }
    }

    /// A shortage begins: nobody has had anything.
    pub(super) fn begin(&mut self) {
        self.had = [[0; COUNTS]; ROWS];
        self.shortage += 1;
    }

    pub(super) fn slot(&self, app: &str) -> Slot {
        let hash = self.hash.hash_one((self.shortage, app));
        // Each row has six bits of its own.
        Slot(std::array::from_fn(|row| {
            (hash >> (row as u32 * COUNTS.ilog2())) as usize % COUNTS
        }))
    }

    /// Whether it may have more, where so many bytes are left for all.
    pub(super) fn may(&self, slot: Slot, left: usize) -> bool {
        (self.had(slot) as usize) < left
    }

    pub(super) fn took(&mut self, slot: Slot, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let has = self.had(slot).saturating_add(bytes);
        for (row, at) in self.had.iter_mut().zip(slot.0) {
            row[at] = row[at].max(has);
        }
    }

    fn had(&self, slot: Slot) -> u32 {
        let counts = self.had.iter().zip(slot.0).map(|(row, at)| row[at]);
        counts.min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that each of two apps may have.
    const LEFT: usize = 1_000;

    #[test]
    fn who_has_had_little_pays_for_nobody_who_had_much() {
        // Of 10,000 shortages with one count for each app, 39 were unjust.
        let mut shares = Shares::new();
        let unjust = (0..10_000).filter(|_| {
            shares.begin();
            let (noisy, quiet) = (shares.slot("noisy"), shares.slot("quiet"));
            shares.took(quiet, 100);
            shares.took(noisy, LEFT);
            assert!(!shares.may(noisy, LEFT), "what it had is never forgotten");
            !shares.may(quiet, LEFT)
        });
        assert!(unjust.count() <= 1);
    }

    #[test]
    fn a_crowd_that_logs_much_costs_few_of_the_others() {
        let mut shares = Shares::new();
        shares.begin();
        for app in 0..10 {
            shares.took(shares.slot(&format!("noisy{app}")), LEFT);
        }
        let others = (0..10_000).map(|app| format!("quiet{app}"));
        let unjust = others.filter(|app| !shares.may(shares.slot(app), LEFT));
        // Five are expected where the ten stand apart.
        assert!(unjust.count() < 60);
    }
}
