//! Events for operators: a bounded queue that any thread posts to, and the
//! thread that sends them up the feed when there is one.
//!
//! Never waits for control: what does not fit is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::wire::Wire;
use crate::feed::messages::{Body, Event};

/// How often the pump, with nothing to send, looks whether the feed is stopped.
const STOP_HEARD: Duration = Duration::from_millis(100);

/// Events that may wait for control.
const QUEUED_EVENTS: usize = 1_024;

/// A new queue: where to post, and what the feed sends from.
pub fn event_queue() -> (EventSender, EventQueue) {
    let (queue, events) = mpsc::sync_channel(QUEUED_EVENTS);
    let sender = EventSender {
        queue,
        dropped: Arc::default(),
    };
    (sender, EventQueue(events))
}

/// Events that wait for control.
#[derive(Debug)]
pub struct EventQueue(Receiver<Event>);

#[cfg(test)]
impl EventQueue {
    /// The next event, if one comes in time.
    pub(in crate::edge) fn next(&self, patience: Duration) -> Option<Event> {
        self.0.recv_timeout(patience).ok()
    }
}

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

    /// Where the feed's thread posts what is about a backend.
    pub(super) fn sender(&self) -> &EventSender {
        &self.sender
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
        loop {
            let event = match self.queue.recv_timeout(STOP_HEARD) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) if !self.wire.is_stopped() => continue,
                Err(_) => return,
            };
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

pub(super) fn ends(sender: EventSender, queue: EventQueue, wire: Arc<Wire>) -> (Events, Pump) {
    let own = Events {
        sender,
        told: AtomicU64::new(0),
    };
    let EventQueue(queue) = queue;
    (own, Pump { queue, wire })
}
