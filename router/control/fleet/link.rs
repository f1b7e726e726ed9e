//! A link: one edge's connection to the feed.
//!
//! Owns the conversation: hello both ways, the table whole or from where the
//! edge stands, then every change, a beat each second, questions and their
//! reports. What is to be sent is looked up when there is room to send it: a
//! slow edge holds a cursor, never a queue, and catches up in fewer steps. The
//! log waits for the cursor (see [`changes`](crate::control::changes)), so that
//! being slow is no reason to be sent the whole table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use prost::Message;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::gate::{Gate, Pass};
use super::{Ask, Fleet, Membership};
use crate::control::changes::Follower;
use crate::control::events::Events;
use crate::control::registry::Registry;
use crate::control::shrink;
use crate::feed::codec::{self, FrameError};
use crate::feed::messages::{
    Beat, Body, Collect, Doubt, EdgeHello, Envelope, Hello, LimitSet, Order, Report, Snapshot,
};

/// Edges connected at once.
const LINKS: usize = 64;
/// How long a peer may take to say hello, or to make room for one frame.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often an idle link beats.
const BEAT: Duration = Duration::from_secs(1);
/// A link that lasts no longer was refused, or broke at its first message.
const BRIEF: Duration = Duration::from_millis(500);
/// Touches of one delta; more follow in the next.
const DELTA_TOUCHES: usize = 5_000;
/// Bytes of a snapshot's part, about.
const FRAME_BYTES: usize = 2 << 20;
/// Apps looked at for one part of a snapshot.
const SNAPSHOT_PAGE: usize = 500;
/// The id of a report that nobody asked for.
const UNASKED: u64 = 0;
/// Questions that an edge may leave unanswered.
const UNANSWERED: usize = 64;

/// Questions asked of an edge, by id.
type Questions = Mutex<BTreeMap<u64, oneshot::Sender<Report>>>;

/// Serves the feed until it is dropped.
pub async fn serve(listener: UnixListener, fleet: Arc<Fleet>, registry: Arc<Registry>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if links.len() < LINKS => match accepted {
                Ok((stream, _)) => {
                    links.spawn(link(stream, fleet.clone(), registry.clone()));
                }
                Err(error) => {
                    tracing::warn!("the feed's listener: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = links.join_next() => {}
        }
    }
}

async fn link(stream: UnixStream, fleet: Arc<Fleet>, registry: Arc<Registry>) {
    let (mut reader, writer) = stream.into_split();
    let (refused, refusals) = watch::channel(None);
    let mut link = Link {
        writer,
        gate: Gate::new(registry.guard().follow(), refusals),
        is_confirmed: false,
        follower: registry.follow(u64::MAX),
        limits: registry.limits().follow(),
        registry: registry.clone(),
        cursor: None,
        is_pinned: false,
    };
    let mut buffer = BytesMut::new();
    let (hello, held) = match timeout(PATIENCE, link.greet(&mut reader, &mut buffer)).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return tracing::warn!("an edge was refused: {error}"),
        Err(_) => return tracing::warn!("an edge did not say hello in {} s", PATIENCE.as_secs()),
    };
    // What it says it holds is all that can be known of a pinned one.
    let active = if hello.is_pinned {
        Some(held)
    } else {
        link.cursor
    };
    let (member, asks) = fleet.admit(&hello, active);
    let pid = hello.pid;
    let text = introduction(&hello, held, link.cursor);
    // One that refuses this control comes back each second: that is said once.
    let since = Instant::now();
    let connected = async {
        if fleet.is_brief(pid) {
            tokio::time::sleep(BRIEF).await;
            fleet.set_brief(pid, false);
        }
        fleet.events().say("edge_connected", "", "", text);
        std::future::pending().await
    };
    let questions = Questions::default();
    let heard = Heard {
        member: &member,
        fleet: &fleet,
        questions: &questions,
        doubted: &|doubt| {
            say_doubted(fleet.events(), pid, &doubt);
            refused.send_replace(Some(registry.guard().standing().confirmations));
        },
    };
    let ended = tokio::select! {
        biased;
        error = connected => error,
        error = hear(&mut reader, &mut buffer, heard) => error,
        error = link.speak(asks, &questions) => error,
    };
    let (was_brief, is_brief) = (fleet.is_brief(pid), since.elapsed() < BRIEF);
    fleet.set_brief(pid, is_brief);
    let text = match (was_brief, is_brief) {
        (true, _) => return,
        (false, true) => {
            format!("edge {pid} is gone at once: {ended}; it is told of again when it stays")
        }
        (false, false) => format!("edge {pid} is gone: {ended}"),
    };
    fleet.events().say("edge_disconnected", "", "", text);
}

/// What an edge that just said hello is.
fn introduction(hello: &EdgeHello, held: u64, cursor: Option<u64>) -> String {
    let pid = hello.pid;
    let what = if hello.is_standby {
        "a standby edge"
    } else {
        "edge"
    };
    match cursor {
        _ if hello.is_pinned => format!(
            "{what} {pid} is connected, and stays at revision {held}, which ran well: it takes no change"
        ),
        Some(revision) => format!("{what} {pid} is connected, at revision {revision}"),
        None => format!("{what} {pid} is connected, and needs the whole table"),
    }
}

/// An edge did not take the whole table it was sent.
fn say_doubted(events: &Events, pid: u32, doubt: &Doubt) {
    let lost = shrink::vanishing(doubt);
    let text = format!(
        "edge {pid} did not take the table of revision {}: it holds {} apps with {} backends, and with {} apps and \
         {} backends offered at least {} apps and {} backends would be gone, more than were removed. It serves what \
         it holds and hears of no change until that is settled: {}",
        doubt.revision,
        doubt.apps_held,
        doubt.backends_held,
        doubt.apps_offered,
        doubt.backends_offered,
        lost.apps,
        lost.backends,
        shrink::REMEDY
    );
    events.say("shrink_refused", "", "", text);
}

/// Where what an edge says goes.
#[derive(Clone, Copy)]
struct Heard<'h> {
    member: &'h Membership,
    fleet: &'h Fleet,
    questions: &'h Questions,
    doubted: &'h (dyn Fn(Doubt) + Send + Sync),
}

/// Takes what an edge says until it stops talking.
async fn hear(reader: &mut OwnedReadHalf, buffer: &mut BytesMut, heard: Heard<'_>) -> FrameError {
    let Heard {
        member,
        fleet,
        questions,
        doubted,
    } = heard;
    loop {
        let envelope = match codec::read_async(reader, buffer).await {
            Ok(envelope) => envelope,
            Err(error) => return error,
        };
        match envelope.body {
            Some(Body::Ack(ack)) => member.acked(envelope.revision, &ack),
            Some(Body::Nack(nack)) => {
                member.nacked();
                let text = format!(
                    "an edge could not use the record of `{}`: {}",
                    nack.key, nack.reason
                );
                fleet.events().say("record_refused", &nack.key, "", text);
            }
            Some(Body::Report(report)) if report.id == UNASKED => member.reported(&report),
            Some(Body::Report(report)) => {
                let asked = questions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&report.id);
                if let Some(asked) = asked {
                    // Whoever asked may have stopped waiting.
                    let _ = asked.send(report);
                }
            }
            Some(Body::Event(event)) => fleet.events().push(event),
            Some(Body::LimitsHeld(held)) => member.limited(held.version),
            Some(Body::Doubt(doubt)) => {
                member.doubted(doubt);
                doubted(doubt);
            }
            // What this version does not know, or is not for control.
            _ => {}
        }
    }
}

struct Link {
    writer: OwnedWriteHalf,
    registry: Arc<Registry>,
    /// The revision the edge has been sent; `None`: it needs the whole table.
    cursor: Option<u64>,
    /// Keeps what comes after it.
    follower: Follower,
    /// It stays with the table it has: nothing of it is sent.
    is_pinned: bool,
    /// Whether anything of the table may be sent.
    gate: Gate,
    /// The next whole table is one that an operator confirmed.
    is_confirmed: bool,
    /// The named limits, as they change.
    limits: watch::Receiver<Arc<LimitSet>>,
}

impl Link {
    /// Says hello and hears the edge's, with the revision it holds; decides
    /// where it stands.
    async fn greet(
        &mut self,
        reader: &mut OwnedReadHalf,
        buffer: &mut BytesMut,
    ) -> Result<(EdgeHello, u64), FrameError> {
        let (cluster_id, epoch) = (self.registry.cluster_id(), self.registry.epoch());
        self.send(
            Body::Hello(Hello {
                cluster_id: cluster_id.clone(),
            }),
            self.registry.revision(),
        )
        .await?;
        loop {
            let envelope = codec::read_async(reader, buffer).await?;
            if let Some(Body::EdgeHello(hello)) = envelope.body {
                let same_life = hello.cluster_id == cluster_id && envelope.epoch == epoch;
                let known = envelope.revision <= self.registry.revision();
                self.is_pinned = hello.is_pinned;
                self.cursor = (same_life && known).then_some(envelope.revision);
                if let Some(revision) = self.cursor.filter(|_| !hello.is_pinned) {
                    self.follower.has_seen(revision);
                }
                return Ok((hello, envelope.revision));
            }
        }
    }

    /// Sends what there is to send until the edge stops listening.
    async fn speak(&mut self, mut asks: mpsc::Receiver<Ask>, questions: &Questions) -> FrameError {
        let mut head = self.registry.outgoing();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = 0;
        // Before the table: an edge that serves is to know what it may let pass.
        self.limits.mark_changed();
        loop {
            if let Err(error) = self.send_limits().await {
                return error;
            }
            head.mark_unchanged();
            if let Err(error) = self.catch_up().await {
                return error;
            }
            let sent = tokio::select! {
                moved = head.changed() => match moved {
                    Ok(()) => Ok(()),
                    Err(_) => return FrameError::Ended,
                },
                _ = beat.tick() => self.send(Body::Beat(Beat {}), self.cursor.unwrap_or_default()).await,
                ask = asks.recv() => match ask {
                    None => return FrameError::Ended,
                    Some(Ask::Report { app, top, memory, answer }) => {
                        asked += 1;
                        remember(questions, asked, answer);
                        self.send(Body::Collect(Collect { id: asked, app, top, memory }), self.registry.revision()).await
                    }
                    Some(Ask::Carry(order)) => self.carry(order).await,
                },
                () = self.gate.changed(), if !self.is_pinned => Ok(()),
                moved = self.limits.changed() => match moved {
                    Ok(()) => {
                        self.limits.mark_changed();
                        Ok(())
                    }
                    Err(_) => return FrameError::Ended,
                },
            };
            if let Err(error) = sent {
                return error;
            }
        }
    }

    /// Sends the limits that hold, if it has others: doubts about the table are
    /// none about them, and an edge that is pinned goes by them too.
    async fn send_limits(&mut self) -> Result<(), FrameError> {
        if !self.limits.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let holding = self.limits.borrow_and_update().clone();
        let set = LimitSet {
            version: holding.version,
            limits: holding.limits.clone(),
            ..LimitSet::default()
        };
        self.send(Body::Limits(set), self.cursor.unwrap_or_default())
            .await
    }

    /// Passes an order on, after every change made before it.
    async fn carry(&mut self, order: Order) -> Result<(), FrameError> {
        self.catch_up().await?;
        self.send(Body::Order(order), self.cursor.unwrap_or_default())
            .await
    }

    /// Brings the edge to the head. A delta is never cut: a domain may change
    /// hands in it, which its reader must see whole. One that is too long is
    /// asked for over fewer revisions.
    async fn catch_up(&mut self) -> Result<(), FrameError> {
        if self.is_pinned {
            return Ok(());
        }
        match self.gate.pass() {
            Pass::Open => {}
            Pass::Whole => (self.cursor, self.is_confirmed) = (None, true),
            Pass::Shut => {
                // A whole table comes next: the log keeps nothing for that.
                self.follower.has_seen(u64::MAX);
                return Ok(());
            }
        }
        let mut touches = DELTA_TOUCHES;
        loop {
            let delta = match self.cursor.map(|from| self.registry.delta(from, touches)) {
                Some(Ok(None)) => return Ok(()),
                Some(Ok(Some(delta))) => delta,
                Some(Err(_)) | None => {
                    self.send_snapshot().await?;
                    continue;
                }
            };
            let to = delta.to;
            match self.send(Body::Delta(delta), to).await {
                Ok(()) => {
                    self.cursor = Some(to);
                    self.follower.has_seen(to);
                }
                Err(FrameError::TooLong { .. }) if touches > 1 => touches /= 4,
                Err(FrameError::TooLong { .. }) => self.cursor = None,
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends the whole table as of a revision. Apps that change meanwhile may
    /// be sent as they are then; the deltas from that revision on, which
    /// follow, bring all of them up to date.
    async fn send_snapshot(&mut self) -> Result<(), FrameError> {
        let (revision, removed) = self.registry.removed();
        self.follower.has_seen(revision);
        let mut after = String::new();
        let mut part = Snapshot {
            first: true,
            is_confirmed: self.is_confirmed,
            removed: Some(removed),
            ..Snapshot::default()
        };
        let mut bytes = 0;
        loop {
            let page = self.registry.page(&after, SNAPSHOT_PAGE);
            part.last = page.len() < SNAPSHOT_PAGE;
            if let Some(record) = page.last() {
                after.clone_from(&record.name);
            }
            for record in page {
                let length = record.encoded_len();
                if bytes + length > FRAME_BYTES && !part.apps.is_empty() {
                    let next = Snapshot {
                        is_confirmed: part.is_confirmed,
                        last: part.last,
                        ..Snapshot::default()
                    };
                    let full = std::mem::replace(&mut part, next);
                    let full = Snapshot {
                        last: false,
                        ..full
                    };
                    self.send(Body::Snapshot(full), revision).await?;
                    bytes = 0;
                }
                bytes += length;
                part.apps.push(record);
            }
            if part.last {
                // What was removed meanwhile may be missing from these parts.
                part.removed = Some(self.registry.removed().1);
                self.send(Body::Snapshot(part), revision).await?;
                self.cursor = Some(revision);
                // Only now: one that was not sent whole is confirmed still.
                self.is_confirmed = false;
                return Ok(());
            }
        }
    }

    async fn send(&mut self, body: Body, revision: u64) -> Result<(), FrameError> {
        let envelope = Envelope::new(self.registry.epoch(), revision, body);
        match timeout(PATIENCE, codec::write_async(&mut self.writer, &envelope)).await {
            Ok(sent) => sent,
            Err(_) => Err(FrameError::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }
}

fn remember(questions: &Questions, id: u64, answer: oneshot::Sender<Report>) {
    let mut questions = questions.lock().unwrap_or_else(PoisonError::into_inner);
    questions.insert(id, answer);
    while questions.len() > UNANSWERED {
        questions.pop_first();
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
