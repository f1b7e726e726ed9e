//! Events: what an operator may want to know, newest last.
//!
//! Owns a bounded ring of the latest and a broadcast to those who follow. What
//! comes by the hundred pushes out its own kind, not what is rare. Never waits for
//! a reader: one that falls behind is told how many it missed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

use crate::feed::messages::Event;

/// Events kept for those who ask later.
const KEPT: usize = 1_000;
/// Events a follower may lag behind before it misses some.
const FOLLOWER_LAG: usize = 256;

/// The ring and its followers.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<Ring>,
    followers: broadcast::Sender<Event>,
}

/// The latest, oldest first.
#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    /// How many of each kind there are: never more entries than events.
    of_kind: HashMap<String, usize>,
}

impl Ring {
    fn push(&mut self, event: Event) {
        if self.events.len() == KEPT {
            self.drop_one();
        }
        *self.of_kind.entry(event.kind.clone()).or_default() += 1;
        self.events.push_back(event);
    }

    /// Drops the oldest event of the kind that there is most of.
    fn drop_one(&mut self) {
        let most = self.of_kind.values().max().copied().unwrap_or(0);
        let is_of_most = |event: &Event| self.of_kind.get(&event.kind) == Some(&most);
        let Some(at) = self.events.iter().position(is_of_most) else {
            return;
        };
        let Some(dropped) = self.events.remove(at) else {
            return;
        };
        match self.of_kind.get_mut(&dropped.kind) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.of_kind.remove(&dropped.kind)),
        }
    }

    /// The latest `limit`, oldest first.
    fn latest(&self, limit: usize) -> Vec<Event> {
        let passed = self.events.len().saturating_sub(limit);
        self.events.iter().skip(passed).cloned().collect()
    }
}

impl Default for Events {
    fn default() -> Self {
        Events {
            ring: Mutex::default(),
            followers: broadcast::Sender::new(FOLLOWER_LAG),
        }
    }
}

impl Events {
    /// Takes an event in: an edge's, or one of control's own.
    pub fn push(&self, event: Event) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.push(event.clone());
        // Under the lock, so that `follow` neither misses nor repeats one. No
        // follower is no error.
        let _ = self.followers.send(event);
    }

    /// Says something of control's own, in the process log as well.
    pub fn say(&self, kind: &str, app: &str, backend: &str, text: String) {
        tracing::info!(kind, app, backend, "{text}");
        self.push(Event {
            at_ms: now_ms(),
            kind: kind.to_owned(),
            app: app.to_owned(),
            backend: backend.to_owned(),
            text,
        });
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .events
            .len()
    }

    /// Whether nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The latest events, oldest first, at most `limit`.
    pub fn latest(&self, limit: usize) -> Vec<Event> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.latest(limit)
    }

    /// The latest `limit` events and every one from now on, without a gap.
    pub fn follow(&self, limit: usize) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        (ring.latest(limit), self.followers.subscribe())
    }
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_latest_and_forgets_the_oldest() {
        let events = Events::default();
        for n in 0..KEPT + 5 {
            events.say("test", "", "", n.to_string());
        }
        let latest = events.latest(usize::MAX);
        assert_eq!(latest.len(), KEPT);
        assert_eq!(latest[0].text, "5");
        assert_eq!(events.latest(1)[0].text, (KEPT + 4).to_string());
    }

    #[test]
    fn what_is_rare_outlasts_what_comes_by_the_hundred() {
        let events = Events::default();
        events.say("process_died", "", "", "rare".into());
        for n in 0..3 * KEPT {
            events.say("app_wanted", "", "", n.to_string());
            if n % KEPT == 7 {
                events.say("limit_set", "", "", n.to_string());
            }
        }
        let latest = events.latest(usize::MAX);
        assert_eq!(latest.len(), KEPT);
        assert_eq!(latest[0].text, "rare");
        let set = latest.iter().filter(|event| event.kind == "limit_set");
        assert_eq!(set.count(), 3);
        let newest = latest.last().expect("there are some");
        assert_eq!(newest.text, (3 * KEPT - 1).to_string());
    }

    #[test]
    fn a_follower_sees_each_event_once() {
        let events = Events::default();
        events.say("test", "shop", "web.1", "before".into());
        let (before, mut after) = events.follow(10);
        events.say("test", "", "", "after".into());
        assert_eq!(before.len(), 1);
        assert_eq!(after.try_recv().unwrap().text, "after");
        assert!(after.try_recv().is_err());
    }
}
