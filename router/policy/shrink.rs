//! The shrink guard: whether a whole table may take another's place.
//!
//! Owns the rule alone. A table shrinks because things were removed from it,
//! and removals are counted where they are made. What vanishes beyond that
//! count nobody asked for: a store restored from an old backup, half of a
//! snapshot, a bug. Up to a share of what is held that is taken for noise;
//! above it the table held is better than the one offered, until a person says
//! otherwise. Never knows where a table came from.

use std::fmt;

use crate::feed::messages::{Removed, Totals};

/// More of the apps than this may not vanish unexplained, in hundredths.
const APPS_PERCENT: u64 = 5;
/// So few apps may always.
const APPS_MIN: u64 = 10;
/// More of the backends than this may not vanish unexplained, in hundredths.
const BACKENDS_PERCENT: u64 = 20;
/// So few backends may always.
const BACKENDS_MIN: u64 = 20;
/// An import may not drop more of all backends than this, in hundredths.
const IMPORT_PERCENT: u64 = 20;
/// So few backends an import may always drop.
const IMPORT_MIN: u64 = 100;

/// A number of apps and of backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Apps.
    pub apps: u64,
    /// Backends, of all of them.
    pub backends: u64,
}

impl Tally {
    /// What is in this and not in the other, by number.
    #[must_use]
    pub fn less(self, other: Tally) -> Tally {
        Tally {
            apps: self.apps.saturating_sub(other.apps),
            backends: self.backends.saturating_sub(other.backends),
        }
    }
}

impl From<Removed> for Tally {
    fn from(removed: Removed) -> Tally {
        Tally {
            apps: removed.apps,
            backends: removed.backends,
        }
    }
}

impl From<Totals> for Tally {
    fn from(totals: Totals) -> Tally {
        Tally {
            apps: totals.apps,
            backends: totals.backends,
        }
    }
}

/// A table that lacks more than can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrink {
    /// What the table held has.
    pub held: Tally,
    /// What the one offered has.
    pub offered: Tally,
    /// What would vanish without having been removed.
    pub unexplained: Tally,
}

impl fmt::Display for Shrink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shrink {
            held,
            offered,
            unexplained,
        } = self;
        write!(
            f,
            "{} apps with {} backends are held, {} with {} offered: {} apps and {} backends would vanish that \
             nobody removed",
            held.apps,
            held.backends,
            offered.apps,
            offered.backends,
            unexplained.apps,
            unexplained.backends
        )
    }
}

/// Judges a whole table against the one held. `removed` is by how much the
/// count of removals rose from the one to the other. `None`: it is plausible.
pub fn implausible(held: Tally, offered: Tally, removed: Tally) -> Option<Shrink> {
    let unexplained = held.less(offered).less(removed);
    let is_much = |lost: u64, of: u64, percent: u64, min: u64| {
        lost > min && u128::from(lost) * 100 > u128::from(of) * u128::from(percent)
    };
    let is_implausible = is_much(unexplained.apps, held.apps, APPS_PERCENT, APPS_MIN)
        || is_much(
            unexplained.backends,
            held.backends,
            BACKENDS_PERCENT,
            BACKENDS_MIN,
        );
    is_implausible.then_some(Shrink {
        held,
        offered,
        unexplained,
    })
}

/// Whether one import that leaves `dropped` fewer of `registered` backends is
/// more likely a mistake than meant.
pub fn is_hasty_import(registered: u64, dropped: u64) -> bool {
    dropped > IMPORT_MIN
        && u128::from(dropped) * 100 > u128::from(registered) * u128::from(IMPORT_PERCENT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(apps: u64, backends: u64) -> Tally {
        Tally { apps, backends }
    }

    #[test]
    fn more_than_the_share_and_the_least_number_is_implausible() {
        let held = tally(1_000, 2_000);
        let judge = |apps, backends| implausible(held, tally(apps, backends), tally(0, 0));
        assert_eq!(judge(1_000, 2_000), None);
        assert_eq!(judge(950, 2_000), None, "5 % of the apps");
        assert!(judge(949, 2_000).is_some());
        assert_eq!(judge(1_000, 1_600), None, "20 % of the backends");
        assert!(judge(1_000, 1_599).is_some());
        assert!(judge(0, 0).is_some());
    }

    #[test]
    fn a_small_table_may_lose_a_few() {
        assert_eq!(implausible(tally(10, 20), tally(0, 0), tally(0, 0)), None);
        assert!(implausible(tally(11, 20), tally(0, 0), tally(0, 0)).is_some());
        assert!(implausible(tally(10, 21), tally(0, 0), tally(0, 0)).is_some());
    }

    #[test]
    fn what_was_removed_is_explained() {
        let (held, offered) = (tally(1_000, 2_000), tally(100, 200));
        assert_eq!(implausible(held, offered, tally(900, 1_800)), None);
        assert_eq!(implausible(held, offered, tally(850, 1_600)), None);
        let shrink = implausible(held, offered, tally(849, 1_800)).expect("51 of 1,000");
        assert_eq!(shrink.unexplained, tally(51, 0));
        assert!(
            shrink.to_string().contains("51 apps and 0 backends"),
            "{shrink}"
        );
    }

    #[test]
    fn an_import_may_drop_a_hundred_or_a_fifth() {
        assert!(!is_hasty_import(100, 100));
        assert!(is_hasty_import(101, 101));
        assert!(!is_hasty_import(1_000, 200));
        assert!(is_hasty_import(1_000, 201));
    }

    proptest! {
        /// Whatever is put and removed one by one explains itself.
        #[test]
        fn no_explicit_change_is_ever_implausible(
            held in (0u64..100_000, 0u64..100_000),
            added in (0u64..100_000, 0u64..100_000),
            removed in (0u64..100_000, 0u64..100_000),
        ) {
            let removed = tally(removed.0.min(held.0 + added.0), removed.1.min(held.1 + added.1));
            let offered = tally(held.0 + added.0 - removed.apps, held.1 + added.1 - removed.backends);
            prop_assert_eq!(implausible(tally(held.0, held.1), offered, removed), None);
        }

        /// A table that grows, or loses less, is never worse off.
        #[test]
        fn more_offered_or_explained_is_never_less_plausible(
            held in any::<(u64, u64)>(),
            offered in any::<(u64, u64)>(),
            removed in any::<(u64, u64)>(),
            more in any::<(u32, u32)>(),
        ) {
            let judge = |offered: (u64, u64), removed: (u64, u64)| {
                implausible(tally(held.0, held.1), tally(offered.0, offered.1), tally(removed.0, removed.1))
            };
            let add = |a: (u64, u64)| (a.0.saturating_add(more.0.into()), a.1.saturating_add(more.1.into()));
            if judge(offered, removed).is_none() {
                prop_assert_eq!(judge(add(offered), removed), None);
                prop_assert_eq!(judge(offered, add(removed)), None);
            }
        }
    }
}
