//! The share of a backend's recent tries that failed.
//!
//! Owns which tries are recent: the last twenty, whatever time they took, so
//! that a busy backend is judged within twenty requests and a quiet one at all.
//! Costs a success nothing: only failures are noted, each with the number of
//! tries finished by then. Never compares with the peers.

/// Tries looked at.
const RECENT: u32 = 20;

/// Failures among them that are too many: half.
const TOO_MANY: usize = 10;

/// The failures among the last [`RECENT`] tries, at most [`TOO_MANY`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recent {
    /// Tries finished when each failed, the low 32 bits; a ring.
    failed_at: [u32; TOO_MANY],
    next: u8,
    len: u8,
    /// Tries finished when it was last cleared.
    from: u32,
}

impl Recent {
    /// Notes a failure, `tries` being finished with it.
    pub(super) fn fail(&mut self, tries: u64) {
        self.failed_at[usize::from(self.next)] = tries as u32;
        self.next = (self.next + 1) % TOO_MANY as u8;
        self.len = (self.len + 1).min(TOO_MANY as u8);
    }

    /// Forgets everything, `tries` being finished.
    pub(super) fn clear(&mut self, tries: u64) {
        *self = Recent {
            from: tries as u32,
            ..Recent::default()
        };
    }

    /// Failures among the recent tries (at most half are counted), and how many
    /// these are, `tries` being finished.
    pub(super) fn of(&self, tries: u64) -> (u32, u32) {
        let tries = tries as u32;
        let known = tries.wrapping_sub(self.from).min(RECENT);
        let failed = self.failed_at[..usize::from(self.len)]
            .iter()
            .filter(|&&at| tries.wrapping_sub(at) < known);
        (failed.count() as u32, known)
    }

    /// Whether enough is known, and half of it failed.
    pub(super) fn is_too_many(&self, tries: u64) -> bool {
        let (failed, known) = self.of(tries);
        known >= RECENT && failed as usize >= TOO_MANY
    }
}
