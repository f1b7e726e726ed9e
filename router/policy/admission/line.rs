//! The line itself: places in the order of coming, and who is taken out of it.
//!
//! Owns what [`WaitQueue`](super::WaitQueue) has under its lock. Never wakes
//! anybody: who is to be woken is handed out.

use std::collections::{BTreeSet, VecDeque};
use std::task::Waker;

use super::standing::{Pace, Standing};
use super::{Joining, NoPlace, Turn};

/// Requests in line.
#[derive(Debug, Default)]
pub(super) struct Line {
    next_ticket: u64,
    /// By ticket, which is the order of coming.
    places: VecDeque<Place>,
    /// The highest limit that anyone joined with since the line was empty.
    limit: u32,
    /// Wake-ups that found nobody in line while a woken waiter was picking: it
    /// takes one when it comes back instead of waiting.
    spare: u32,
    /// Those who have not left that were held while the app was down.
    held: u32,
    standing: Standing,
    /// Tickets below this joined before the line stood, and are near enough to
    /// their turn to get it.
    promised_below: u64,
    /// Taken out to be shed, and not told yet.
    shed: BTreeSet<u64>,
}

/// One waiter in line.
#[derive(Debug)]
struct Place {
    ticket: u64,
    /// When it joined, microseconds.
    since_us: u64,
    /// Set by its first poll.
    waker: Option<Waker>,
}

impl Line {
    /// Whether more is asked for than can be done.
    pub(super) fn is_standing(&self) -> bool {
        self.standing.is_standing() && self.held == 0
    }

    /// Enters someone, where `waiting` have not left; gives the ticket.
    pub(super) fn join(&mut self, joining: &Joining, waiting: u32) -> Result<u64, NoPlace> {
        let &Joining {
            limit,
            now_us,
            ref pace,
            held,
        } = joining;
        self.limit = match waiting {
            0 => limit,
            _ => self.limit.max(limit),
        };
        self.standing.asked();
        let flows = held || self.held > 0;
        let places = self.standing.places(self.limit, now_us, pace);
        let places = if flows { self.limit } else { places };
        if waiting >= places {
            self.standing.shed(now_us);
            return Err(match places < self.limit {
                true => NoPlace::Shed,
                false => NoPlace::Full,
            });
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.held += u32::from(held);
        self.places.push_back(Place {
            ticket,
            since_us: now_us,
            waker: None,
        });
        Ok(ticket)
    }

    /// Takes out whoever is next; without anyone, the wake-up is kept for one of
    /// the `waiting` that is picking just now.
    pub(super) fn take_next(&mut self, waiting: u32) -> Option<Waker> {
        let promised_below = self.promised_below;
        let is_promised = |place: &Place| place.ticket < promised_below;
        let newest_first = self.is_standing() && !self.places.front().is_some_and(is_promised);
        let next = match newest_first {
            true => self.places.pop_back(),
            false => self.places.pop_front(),
        };
        if next.is_none() {
            self.spare = (self.spare + 1).min(waiting);
        }
        next.and_then(|place| place.waker)
    }

    /// Takes out everyone.
    pub(super) fn take_all(&mut self, waiting: u32) -> Vec<Waker> {
        let places = std::mem::take(&mut self.places);
        self.spare = waiting.saturating_sub(places.len() as u32);
        places.into_iter().filter_map(|place| place.waker).collect()
    }

    /// Takes out those who waited too long, if the line stands.
    pub(super) fn shed_old(&mut self, now_us: u64, pace: &Pace) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if !self.is_standing() {
            return wakers;
        }
        let promised_below = self.promised_below;
        // Behind those who still get their turn.
        let first = self
            .places
            .partition_point(|place| place.ticket < promised_below);
        let is_old = |place: &Place| now_us.saturating_sub(place.since_us) > pace.depth_us;
        while self.places.get(first).is_some_and(is_old) {
            let Some(place) = self.places.remove(first) else {
                break;
            };
            self.standing.shed(now_us);
            self.shed.insert(place.ticket);
            wakers.extend(place.waker);
        }
        wakers
    }

    /// Someone in it is held from here on: one about to be told that it was shed
    /// is back at its place.
    pub(super) fn hold(&mut self, ticket: u64, since_us: u64) {
        self.held += 1;
        if self.shed.remove(&ticket) {
            self.enter(ticket, since_us, None);
        }
    }

    /// Someone was served after so long.
    pub(super) fn served(&mut self, waited_us: u64, now_us: u64, pace: &Pace) {
        if self.held == 0
            && self
                .standing
                .served(waited_us, self.places.len() as u32, now_us, pace)
        {
            let near = self.standing.served_in(pace.target_us, now_us, pace) as usize;
            let first_far = self.places.get(near);
            self.promised_below = first_far.map_or(self.next_ticket, |place| place.ticket);
        }
    }

    /// Someone leaves; whether it had been woken.
    pub(super) fn leave(&mut self, ticket: u64, held: bool) -> bool {
        self.held -= u32::from(held);
        match self.position(ticket) {
            Ok(at) => {
                self.places.remove(at);
                false
            }
            Err(_) => !self.shed.remove(&ticket),
        }
    }

    /// Nobody is left.
    pub(super) fn emptied(&mut self) {
        self.spare = 0;
        self.standing.emptied();
    }

    /// A wake-up that was kept for whoever comes back.
    pub(super) fn use_spare(&mut self) -> bool {
        let has_spare = self.spare > 0;
        self.spare -= u32::from(has_spare);
        has_spare
    }

    /// Back to its place: others were woken with it perhaps, and came back
    /// before it.
    pub(super) fn put_back(&mut self, ticket: u64, since_us: u64, waker: &Waker) {
        self.enter(ticket, since_us, Some(waker.clone()));
    }

    fn enter(&mut self, ticket: u64, since_us: u64, waker: Option<Waker>) {
        let at = self.places.partition_point(|place| place.ticket < ticket);
        let place = Place {
            ticket,
            since_us,
            waker,
        };
        self.places.insert(at, place);
    }

    /// What became of someone; `None`: it is in line, and will be woken.
    pub(super) fn ask(&mut self, ticket: u64, waker: &Waker) -> Option<Turn> {
        match self.position(ticket) {
            Ok(at) => {
                self.places[at].waker = Some(waker.clone());
                None
            }
            Err(_) if self.shed.remove(&ticket) => Some(Turn::Shed),
            Err(_) => Some(Turn::Come),
        }
    }

    /// Whether nothing is left of anybody.
    #[cfg(test)]
    pub(super) fn is_clean(&self) -> bool {
        self.places.is_empty() && self.shed.is_empty() && self.held == 0 && self.spare == 0
    }

    fn position(&self, ticket: u64) -> Result<usize, usize> {
        self.places
            .binary_search_by_key(&ticket, |place| place.ticket)
    }
}
