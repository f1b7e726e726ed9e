//! Whether an edge may stand by. Pure: the setting and the memory come in.
//!
//! A standby costs as much memory as the edge that serves, since both hold
//! the table, and a machine that runs out of memory loses more than a
//! takeover is worth.

use crate::settings::Standby;

/// What stays free beside a standby, in bytes, at least.
const MARGIN_BYTES: u64 = 256 << 20;

/// What is known of memory, in bytes; `None` where the system does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// What could still be taken.
    pub available: Option<u64>,
    /// What the edge that serves holds.
    pub serving: Option<u64>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One may stand by.
    Allowed,
    /// The settings say no.
    Off,
    /// There is too little memory for it.
    TooLittle {
        /// Bytes there are.
        available: u64,
        /// Bytes there would have to be.
        needed: u64,
    },
    /// Nobody knows how much memory there is, or would be taken.
    Unknown,
}

/// Judges. One that is there is dismissed below half of what another needs to
/// be started: the memory it takes itself must not decide against it.
pub(super) fn judge(setting: Standby, stands_by: bool, memory: Memory) -> Verdict {
    match (setting, memory.available, memory.serving) {
        (Standby::On, ..) => Verdict::Allowed,
        (Standby::Off, ..) => Verdict::Off,
        (Standby::Auto, Some(available), Some(serving)) => {
            let to_start = serving.saturating_mul(2).saturating_add(MARGIN_BYTES);
            let needed = if stands_by { to_start / 2 } else { to_start };
            match available >= needed {
                true => Verdict::Allowed,
                false => Verdict::TooLittle { available, needed },
            }
        }
        (Standby::Auto, ..) => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn memory(available: u64, serving: u64) -> Memory {
        Memory {
            available: Some(available * MIB),
            serving: Some(serving * MIB),
        }
    }

    #[test]
    fn the_setting_goes_first() {
        let none = memory(0, 1000);
        assert_eq!(judge(Standby::On, false, none), Verdict::Allowed);
        assert_eq!(judge(Standby::Off, true, memory(9999, 1)), Verdict::Off);
    }

    #[test]
    fn twice_the_edge_and_a_margin_start_one() {
        let auto = |stands_by, available| judge(Standby::Auto, stands_by, memory(available, 300));
        assert_eq!(auto(false, 856), Verdict::Allowed);
        assert_eq!(
            auto(false, 855),
            Verdict::TooLittle {
                available: 855 * MIB,
                needed: 856 * MIB
            }
        );
    }

    #[test]
    fn what_it_takes_itself_does_not_dismiss_it() {
        let auto = |stands_by, available| judge(Standby::Auto, stands_by, memory(available, 300));
        assert_eq!(auto(true, 856 - 300), Verdict::Allowed);
        assert_eq!(auto(true, 428), Verdict::Allowed);
        assert!(matches!(auto(true, 427), Verdict::TooLittle { .. }));
    }

    #[test]
    fn what_is_not_known_is_not_assumed() {
        let blind = Memory {
            available: None,
            serving: Some(1),
        };
        assert_eq!(judge(Standby::Auto, false, blind), Verdict::Unknown);
        assert_eq!(judge(Standby::On, false, blind), Verdict::Allowed);
        let nobody = Memory {
            serving: None,
            ..memory(9999, 0)
        };
        assert_eq!(judge(Standby::Auto, false, nobody), Verdict::Unknown);
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let huge = memory(1, u64::MAX / MIB);
        assert!(matches!(
            judge(Standby::Auto, true, huge),
            Verdict::TooLittle { .. }
        ));
    }
}
