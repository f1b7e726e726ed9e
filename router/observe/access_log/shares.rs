//! Whose lines are kept while the writer is behind.
//!
//! Owns a count of bytes for each app, in a table of fixed size that apps are
//! hashed into. An app may have at most as many bytes waiting as are left for
//! the others (Choudhury and Hahne, "Dynamic queue length thresholds", 1998): so
//! one that logs a lot fills half of what there is, two such have a third each,
//! and whoever logs little finds room. Two apps that fall on one count have one
//! share together, until the next shortage: it hashes in another way.

use ahash::RandomState;

/// Counts there are: a kibibyte for each thread.
const COUNTS: usize = 256;

/// What each app has had in the present shortage.
#[derive(Debug)]
pub(super) struct Shares {
    had: [u32; COUNTS],
    hash: RandomState,
    shortage: u64,
}

/// Where an app is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(usize);

impl Shares {
    pub(super) fn new() -> Shares {
        Shares {
            had: [0; COUNTS],
            hash: RandomState::new(),
            shortage: 0,
        }
    }

    /// A shortage begins: nobody has had anything.
    pub(super) fn begin(&mut self) {
        self.had = [0; COUNTS];
        self.shortage += 1;
    }

    pub(super) fn slot(&self, app: &str) -> Slot {
        let hash = self.hash.hash_one((self.shortage, app));
        Slot((hash % COUNTS as u64) as usize)
    }

    /// Whether it may have more, where so many bytes are left for all.
    pub(super) fn may(&self, slot: Slot, left: usize) -> bool {
        (self.had[slot.0] as usize) < left
    }

    pub(super) fn took(&mut self, slot: Slot, bytes: usize) {
        let had = &mut self.had[slot.0];
        *had = had.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}
