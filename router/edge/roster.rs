//! A thread's connections that nobody would miss, the longest waiting first.
//!
//! Owns two lists: connections idle between requests, and those whose client
//! has yet to send what a backend is asked with. A connection enters and leaves in a few
//! stores. Who closes one of them for the sake of others is the
//! [`door`](super::door)'s and the thread's business. Where memory is short it is
//! the body's whose app holds much of it, which only its request knows: it is
//! asked, and one that stays enters anew, behind the others.

use std::cell::RefCell;

const NONE: u32 = u32::MAX;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The next request; it has answered one.
    Request,
    /// The first, or the rest of a head.
    Head,
    /// The rest of a body, before a backend is asked: in one list with heads.
    Body,
}

/// What a connection that waits was told since it entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nothing: it stays.
    None,
    /// It is to go if its app holds its share of the memory.
    Asked,
    /// It is to go.
    Dismissed,
}

#[derive(Clone, Copy)]
struct Link {
    list: Option<Awaits>,
    before: u32,
    after: u32,
    notice: Notice,
}

const UNLINKED: Link = Link {
    list: None,
    before: NONE,
    after: NONE,
    notice: Notice::None,
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
            notice: Notice::None,
        };
    }

    /// It waits no more.
    pub fn leave(&self, slot: u32) {
        let mut lists = self.0.borrow_mut();
        if (slot as usize) < lists.links.len() {
            lists.unlink(slot);
        }
    }

    /// Presses a quarter of those whose bodies are awaited, and of those whose
    /// heads are if they are to go as well: the longest waiting, which have sent
    /// the most. Gives their slots. Looks at all connections.
    pub fn press(&self, heads_go: bool) -> Vec<u32> {
        let mut lists = self.0.borrow_mut();
        let is_pressed = |link: &Link| match link.list {
            Some(Awaits::Head) => heads_go,
            Some(Awaits::Body) => true,
            Some(Awaits::Request) | None => false,
        };
        let all = lists.links.iter().filter(|link| is_pressed(link)).count();
        let mut pressed = Vec::with_capacity(all.div_ceil(4));
        let mut slot = lists.heads.first;
        while slot != NONE && pressed.len() < all.div_ceil(4) {
            let link = lists.links[slot as usize];
            if is_pressed(&link) {
                pressed.push(slot);
                if link.list == Some(Awaits::Body) {
                    lists.links[slot as usize].notice = Notice::Asked;
                } else {
                    lists.dismiss(slot);
                }
            }
            slot = link.after;
        }
        pressed
    }

    /// What it was told since it entered.
    pub fn notice(&self, slot: u32) -> Notice {
        let lists = self.0.borrow();
        let link = lists.links.get(slot as usize);
        link.map_or(Notice::None, |link| link.notice)
    }

    /// Whether it was dismissed since it entered.
    pub fn is_dismissed(&self, slot: u32) -> bool {
        self.notice(slot) == Notice::Dismissed
    }

    /// The connection that has waited longest for this; it is dismissed.
    pub fn dismiss(&self, awaits: Awaits) -> Option<u32> {
        let mut lists = self.0.borrow_mut();
        let first = lists.ends(awaits).first;
        if first == NONE {
            return None;
        }
        lists.dismiss(first);
        Some(first)
    }
}

impl Lists {
    fn ends(&mut self, awaits: Awaits) -> &mut Ends {
        match awaits {
            Awaits::Request => &mut self.idle,
            Awaits::Head | Awaits::Body => &mut self.heads,
        }
    }

    fn dismiss(&mut self, slot: u32) {
        self.unlink(slot);
        self.links[slot as usize].notice = Notice::Dismissed;
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
    fn a_quarter_is_pressed_and_bodies_only_asked() {
        let roster = Roster::default();
        (0..4).for_each(|slot| roster.enter(slot, Awaits::Head));
        (4..9).for_each(|slot| roster.enter(slot, Awaits::Body));
        roster.enter(9, Awaits::Request);
        assert_eq!(roster.press(false), [4, 5]);
        assert_eq!(roster.notice(4), Notice::Asked);
        // It stays, and the next are asked.
        roster.enter(4, Awaits::Body);
        roster.enter(5, Awaits::Body);
        assert_eq!(roster.notice(4), Notice::None);
        assert_eq!(roster.press(false), [6, 7]);
        assert_eq!(roster.press(true), [0, 1, 2]);
        assert_eq!(roster.notice(2), Notice::Dismissed);
        assert_eq!(rest(&roster, Awaits::Head), [3, 6, 7, 8, 4, 5]);
        assert!(roster.press(true).is_empty());
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
