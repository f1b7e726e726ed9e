//! Events: what an operator may want to know, newest last.
//!
//! Owns a bounded ring of the latest and a broadcast to those who follow.
//! Never waits for a reader: one that falls behind is told how many it missed.

use std::collections::VecDeque;
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
    ring: Mutex<VecDeque<Event>>,
    followers: broadcast::Sender<Event>,
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
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(event.clone());
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
            .len()
    }

    /// Whether nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The latest events, oldest first, at most `limit`.
    pub fn latest(&self, limit: usize) -> Vec<Event> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter()
            .skip(ring.len().saturating_sub(limit))
            .cloned()
            .collect()
    }

    /// The latest `limit` events and every one from now on, without a gap.
    pub fn follow(&self, limit: usize) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = ring
            .iter()
            .skip(ring.len().saturating_sub(limit))
            .cloned()
            .collect();
        (latest, self.followers.subscribe())
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
