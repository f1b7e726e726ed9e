//! Who may have one request more of a server that several apps share.
//!
//! Owns the rule. Never counts and never learns: how many requests a server can
//! have at once is [`super::concurrency`]'s, which also sees to it that a server
//! that several apps use is kept a little below that.
//!
//! An app that has less than its fair share of the server's limit gets what it
//! asks for; what is left over goes to whoever comes, up to the limit. So an app
//! that wants more than there is fills the server but for one place, which those
//! who want little find free when they come: *trunk reservation*, as telephone
//! networks keep a line for calls that must not be lost (Kelly, *Loss networks*,
//! 1991).
//!
//! **Invariant**: an app that may not have one more has one there already, so one of
//! its own answers makes it look again, if not the clock before: no app need be
//! woken for another's. Where there are more apps than places each may have one, and
//! the limit bounds nothing.

/// What each of so many apps may have of a server, that works on so many requests
/// at once, whatever the others do.
pub fn fair_share(served: u32, apps: u32) -> u32 {
    (served / apps.max(1)).max(1)
}

/// Requests that one app may have at once which has `own` and whatever the others
/// do `share`, where all together have `all` and may have `limit`.
#[inline]
pub fn allowance(own: u32, share: u32, all: u32, limit: u32) -> u32 {
    let free = limit.saturating_sub(all.max(own));
    share.max(own.saturating_add(free))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn alone_it_may_have_all() {
        assert_eq!(fair_share(10, 1), 10);
        assert_eq!(allowance(0, 10, 0, 10), 10);
        assert_eq!(allowance(10, 10, 10, 10), 10);
        // The limit has sunk below what it has.
        assert_eq!(allowance(12, 10, 12, 10), 12);
    }

    #[test]
    fn who_has_little_gets_its_share_and_who_has_much_what_is_left() {
        let share = fair_share(10, 2);
        assert_eq!(share, 5);
        // Nine of ten are the noisy one's: it may have the tenth too.
        assert_eq!(allowance(9, share, 9, 10), 10);
        assert_eq!(allowance(9, share, 10, 10), 9);
        assert_eq!(allowance(1, share, 10, 10), 5);
        assert_eq!(allowance(0, share, 30, 10), 5);
        // More apps than places: one each all the same.
        assert_eq!(fair_share(10, 40), 1);
    }

    proptest! {
        #[test]
        fn who_may_not_have_one_more_has_one(
            own in 0..1_000u32, others in 0..1_000u32, limit in 1..1_000u32, apps in 0..50u32,
        ) {
            let may = allowance(own, fair_share(limit, apps), own + others, limit);
            prop_assert!(may > own || own > 0);
        }

        #[test]
        fn all_but_one_leave_a_place_for_the_last(limit in 2..1_000u32, apps in 2..50u32) {
            prop_assume!(apps <= limit);
            prop_assert!((apps - 1) * fair_share(limit, apps) < limit);
        }

        #[test]
        fn nobody_has_more_than_its_share_once_all_have_the_limit(
            own in 0..1_000u32, others in 0..1_000u32, limit in 1..1_000u32, apps in 1..50u32,
        ) {
            let all = own + others;
            let share = fair_share(limit, apps);
            let may = allowance(own, share, all, limit);
            prop_assert!(may <= own || own < share || all < limit);
        }
    }
}
