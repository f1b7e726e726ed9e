//! A thread's connections that nobody would miss, the longest waiting first.
//!
//! Owns two lists: connections idle between requests, and those whose client
//! has yet to send what a backend is asked with. A connection enters and leaves in a few
//! stores. Who closes one of them for the sake of others is the
//! [`door`](super::door)'s and the thread's business.

use std::cell::RefCell;

const NONE: u32 = u32::MAX;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The next request; it has answered one.
    Request,
    /// The first, or the rest of a head, or of a body before a backend is asked.
    Head,
}

#[derive(Clone, Copy)]
struct Link {
    list: Option<Awaits>,
    before: u32,
    after: u32,
    /// It is to be closed.
    is_dismissed: bool,
}

const UNLINKED: Link = Link {
    list: None,
    before: NONE,
    after: NONE,
    is_dismissed: false,
};

#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

struct Lists {
    links: Vec<Link>,
    idle: Ends,
    heads: Ends,
}

/// Connections by the slots of their deadlines.
pub struct Roster(RefCell<Lists>);

impl Default for Roster {
    fn default() -> Self {
        let empty = Ends {
            first: NONE,
            last: NONE,
        };
        Roster(RefCell::new(Lists {
            links: Vec::new(),
            idle: empty,
            heads: empty,
        }))
    }
}

impl Roster {
    /// This connection waits from now on, behind all others that do.
    pub fn enter(&self, slot: u32, awaits: Awaits) {
        let mut lists = self.0.borrow_mut();
        let index = slot as usize;
        if index >= lists.links.len() {
            lists.links.resize(index + 1, UNLINKED);
        }
        lists.unlink(slot);
        let last = std::mem::replace(&mut lists.ends(awaits).last, slot);
        match last {
            NONE => lists.ends(awaits).first = slot,
            last => lists.links[last as usize].after = slot,
        }
        lists.links[index] = Link {
            list: Some(awaits),
            before: last,
            after: NONE,
            is_dismissed: false,
        };
    }

    /// It waits no more.
    pub fn leave(&self, slot: u32) {
        let mut lists = self.0.borrow_mut();
        if (slot as usize) < lists.links.len() {
            lists.unlink(slot);
        }
    }

    /// How many heads and bodies are awaited. Looks at all connections.
    pub fn heads(&self) -> usize {
        let lists = self.0.borrow();
        let is_head = |link: &&Link| link.list == Some(Awaits::Head);
        lists.links.iter().filter(is_head).count()
    }

    /// Whether it was dismissed since it entered.
    pub fn is_dismissed(&self, slot: u32) -> bool {
        let lists = self.0.borrow();
        let link = lists.links.get(slot as usize);
        link.is_some_and(|link| link.is_dismissed)
    }

    /// The connection that has waited longest for this; it is dismissed.
    pub fn dismiss(&self, awaits: Awaits) -> Option<u32> {
        let mut lists = self.0.borrow_mut();
        let first = lists.ends(awaits).first;
        if first == NONE {
            return None;
        }
        lists.unlink(first);
        lists.links[first as usize].is_dismissed = true;
        Some(first)
    }
}

impl Lists {
    fn ends(&mut self, awaits: Awaits) -> &mut Ends {
        match awaits {
            Awaits::Request => &mut self.idle,
            Awaits::Head => &mut self.heads,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let link = std::mem::replace(&mut self.links[slot as usize], UNLINKED);
        let Some(list) = link.list else {
            return;
        };
        match link.before {
            NONE => self.ends(list).first = link.after,
            before => self.links[before as usize].after = link.after,
        }
        match link.after {
            NONE => self.ends(list).last = link.before,
            after => self.links[after as usize].before = link.before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Empties a list, oldest first.
    fn rest(roster: &Roster, awaits: Awaits) -> Vec<u32> {
        std::iter::from_fn(|| roster.dismiss(awaits)).collect()
    }

    #[test]
    fn the_longest_waiting_goes_first() {
        let roster = Roster::default();
        for slot in [5, 0, 3] {
            roster.enter(slot, Awaits::Request);
        }
        roster.enter(4, Awaits::Head);
        // It had a request since.
        roster.leave(5);
        roster.enter(5, Awaits::Request);
        assert_eq!(roster.dismiss(Awaits::Request), Some(0));
        assert!(roster.is_dismissed(0) && !roster.is_dismissed(3));
        assert_eq!(rest(&roster, Awaits::Request), [3, 5]);
        assert_eq!(rest(&roster, Awaits::Head), [4]);
    }

    #[test]
    fn any_of_them_may_leave_at_any_time() {
        for gone in 0..4 {
            let roster = Roster::default();
            (0..4).for_each(|slot| roster.enter(slot, Awaits::Head));
            roster.leave(gone);
            roster.leave(gone);
            let left: Vec<u32> = (0..4).filter(|slot| *slot != gone).collect();
            assert_eq!(rest(&roster, Awaits::Head), left);
        }
        let roster = Roster::default();
        roster.leave(9);
        assert!(!roster.is_dismissed(9));
        assert_eq!(roster.dismiss(Awaits::Request), None);
    }

    #[test]
    fn a_slots_next_owner_inherits_nothing() {
        let roster = Roster::default();
        roster.enter(0, Awaits::Head);
        assert_eq!(roster.dismiss(Awaits::Head), Some(0));
        roster.enter(0, Awaits::Request);
        roster.enter(0, Awaits::Head);
        assert!(!roster.is_dismissed(0));
        assert_eq!(roster.dismiss(Awaits::Request), None);
        assert_eq!(rest(&roster, Awaits::Head), [0]);
    }
}
