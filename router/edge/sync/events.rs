//! Events for operators: a bounded queue that any thread posts to, and the
//! thread that sends them up the feed when there is one.
//!
//! Never waits for control: what does not fit is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{SystemTime, UNIX_EPOCH};

use super::link::Wire;
use crate::feed::messages::{Body, Event};

/// Events that may wait for control.
const QUEUED_EVENTS: usize = 1_024;

/// Where events are posted; cheap to clone.
#[derive(Clone, Debug)]
pub struct EventSender {
    queue: SyncSender<Event>,
    dropped: Arc<AtomicU64>,
}

impl EventSender {
    /// Posts an event as of now; never waits. `kind` is snake case, `app` and
    /// `backend` may be empty, `text` is one sentence for a person.
    pub fn post(&self, kind: &str, app: &str, backend: &str, text: String) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = Event {
            at_ms: since.map_or(0, |since| since.as_millis() as u64),
            kind: kind.to_owned(),
            app: app.to_owned(),
            backend: backend.to_owned(),
            text,
        };
        if self.queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The feed thread's own end.
pub(super) struct Events {
    sender: EventSender,
    told: AtomicU64,
}

impl Events {
    pub(super) fn post(&self, kind: &str, app: &str, text: String) {
        self.sender.post(kind, app, "", text);
    }

    /// Events dropped since this was last asked.
    pub(super) fn newly_dropped(&self) -> u64 {
        let dropped = self.sender.dropped.load(Ordering::Relaxed);
        dropped - self.told.swap(dropped, Ordering::Relaxed)
    }
}

/// Sends events up the feed, one after the other.
pub(super) struct Pump {
    queue: Receiver<Event>,
    wire: Arc<Wire>,
}

impl Pump {
    /// Until the feed is stopped or nobody can post any more.
    pub(super) fn run(self) {
        while let Ok(event) = self.queue.recv() {
            // An event that a dying link took along is sent again on the next.
            let mut body = Some(Body::Event(event));
            while let Some(event) = body.take() {
                if !self.wire.wait_linked() {
                    return;
                }
                if self.wire.send(0, 0, event.clone()).is_err() {
                    self.wire.unlink();
                    body = Some(event);
                }
            }
        }
    }
}

pub(super) fn queue(wire: Arc<Wire>) -> (Events, EventSender, Pump) {
    let (queue, events) = mpsc::sync_channel(QUEUED_EVENTS);
    let sender = EventSender {
        queue,
        dropped: Arc::default(),
    };
    let own = Events {
        sender: sender.clone(),
        told: AtomicU64::new(0),
    };
    let pump = Pump {
        queue: events,
        wire,
    };
    (own, sender, pump)
}
