//! One connection to control: the conversation, and what ends it.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::{Held, Sync, report};
use crate::edge::verdict::pronounce;
use crate::feed::codec::{self, FrameError};
use crate::feed::messages::{
    Body, Collect, Delta, Doubt, EdgeHello, Envelope, Hello, LimitsHeld, Nack, Order, Removed,
    Snapshot,
};
use crate::observe::{Counter, Gauge};
use crate::policy::shrink::{self, Shrink, Tally};
use crate::table::{Install, Table};

/// Control beats each second: silent for this long, it is given up.
const SILENCE: Duration = Duration::from_secs(10);
/// How long control may leave no room for one message.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// Nacks of one message that are logged; all are counted and sent.
const LOGGED_NACKS: usize = 20;

/// Why a connection ended. None of these withdraws the table held.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("control is not there: {0}")]
    Absent(std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("control is of installation `{theirs}`, the table held of `{ours}`")]
    OtherCluster { theirs: String, ours: String },
    #[error("control is of epoch {theirs}, older than the table held ({ours})")]
    OlderEpoch { theirs: u64, ours: u64 },
    #[error("control's table is of revision {theirs}, older than the one held ({ours})")]
    OlderTable { theirs: u64, ours: u64 },
    #[error("a change from revision {from} does not follow {held}: asking for the whole table")]
    Gap { from: u64, held: u64 },
    #[error("control broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("applying a message of control panicked: asking for the whole table")]
    Panicked,
}

impl LinkError {
    /// What to count, if control itself is refused.
    pub(super) fn refusal(&self) -> Option<Counter> {
        match self {
            LinkError::OtherCluster { .. } => Some(Counter::FeedRefusedCluster),
            LinkError::OlderEpoch { .. } | LinkError::OlderTable { .. } => {
                Some(Counter::FeedRefusedOlder)
            }
            LinkError::Frame(FrameError::Version { .. }) => Some(Counter::FeedRefusedVersion),
            LinkError::Gap { .. } => Some(Counter::FeedRefusedGap),
            LinkError::Protocol(_)
            | LinkError::Panicked
            | LinkError::Frame(FrameError::Malformed(_) | FrameError::TooLong { .. }) => {
                Some(Counter::FeedRefusedProtocol)
            }
            LinkError::Absent(_) | LinkError::Frame(_) => None,
        }
    }

    /// Whether the table held may be behind what control believes was sent.
    pub(super) fn needs_whole_table(&self) -> bool {
        matches!(
            self,
            LinkError::Gap { .. } | LinkError::Protocol(_) | LinkError::Panicked
        )
    }
}

/// A conversation under way.
pub(super) struct Link<'s> {
    sync: &'s mut Sync,
    table: &'s Table,
    /// Control's, by its hello.
    cluster_id: String,
    epoch: u64,
    /// Control's revision by its hello: an edge that has it is up to date.
    target: u64,
    /// The whole table that is being sent.
    install: Option<Arriving<'s>>,
    /// Control's whole table was not taken: its changes lead on from that, and
    /// are passed over until a whole one is taken.
    is_doubting: bool,
}

/// A whole table that is being sent.
struct Arriving<'s> {
    install: Install<'s>,
    /// What was ever removed, as of the revision it leads to.
    removed: Removed,
}

impl Link<'_> {
    /// Connects and talks until something ends it; sets `did_talk` once control
    /// sent something of use.
    pub(super) fn run(sync: &mut Sync, did_talk: &mut bool) -> LinkError {
        match Link::talk(sync, did_talk) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn talk(sync: &mut Sync, did_talk: &mut bool) -> Result<std::convert::Infallible, LinkError> {
        let stream = UnixStream::connect(&sync.feed_path).map_err(LinkError::Absent)?;
        stream
            .set_read_timeout(Some(SILENCE))
            .and_then(|()| stream.set_write_timeout(Some(WRITE_PATIENCE)))
            .map_err(LinkError::Absent)?;
        let reader = stream.try_clone().map_err(LinkError::Absent)?;
        let mut reader = BufReader::with_capacity(64 * 1024, reader);
        let mut stream = stream;
        let is_standby = sync.wire.is_standby();
        codec::write(&mut stream, &greeting(sync, is_standby))?;
        let first = codec::read(&mut reader)?;
        let Some(Body::Hello(hello)) = first.body else {
            return Err(LinkError::Protocol("its first message is no hello"));
        };
        accept(&sync.held, &hello, first.epoch)?;
        let said = (is_standby, sync.is_named());
        sync.wire.link(stream, first.epoch, said, &sync.table)?;
        sync.own().inc(Counter::FeedConnects);
        sync.own().set(Gauge::FeedConnected, 1);
        tracing::info!(revision = first.revision, "connected to control");
        let table = Arc::clone(&sync.table);
        let mut link = Link {
            table: &table,
            cluster_id: hello.cluster_id,
            epoch: first.epoch,
            target: first.revision,
            install: None,
            is_doubting: false,
            sync,
        };
        link.settle();
        for nack in std::mem::take(&mut link.sync.boot_nacks) {
            link.send(Body::Nack(nack))?;
        }
        loop {
            if link.sync.wire.is_stopped() {
                return Err(LinkError::Frame(FrameError::Ended));
            }
            let envelope = codec::read(&mut reader)?;
            link.take(envelope)?;
            *did_talk = true;
        }
    }

    fn send(&self, body: Body) -> Result<(), LinkError> {
        let revision = self.table.revision();
        Ok(self.sync.wire.send(self.epoch, revision, body)?)
    }

    fn take(&mut self, envelope: Envelope) -> Result<(), LinkError> {
        if envelope.epoch < self.epoch {
            return Err(LinkError::OlderEpoch {
                theirs: envelope.epoch,
                ours: self.epoch,
            });
        }
        match envelope.body {
            // The table is why it is pinned.
            Some(Body::Snapshot(_) | Body::Delta(_)) if self.sync.is_pinned => Ok(()),
            Some(Body::Snapshot(part)) => self.snapshot(&part, envelope.revision),
            Some(Body::Delta(delta)) => self.delta(&delta),
            Some(Body::Limits(set)) => {
                self.sync.hold_limits(&set);
                let version = set.version;
                self.send(Body::LimitsHeld(LimitsHeld { version }))
            }
            Some(Body::Collect(collect)) => self.report(&collect),
            Some(Body::Order(order)) => {
                self.carry_out(&order);
                Ok(())
            }
            Some(Body::Hello(_)) => Err(LinkError::Protocol("a second hello")),
            // A beat says only that control is alive, which reading it did. A
            // kind of a later version is for later versions.
            _ => Ok(()),
        }
    }

    fn report(&self, collect: &Collect) -> Result<(), LinkError> {
        let mut report = Some(report::of(self.sync, collect));
        if collect.memory {
            report = report.and_then(|report| self.sync.walk.send(report, self.epoch));
        }
        match report {
            Some(report) => self.send(Body::Report(report)),
            None => Ok(()),
        }
    }

    /// An operator's order. An app or backend that is gone needs none.
    fn carry_out(&self, order: &Order) {
        if order.verb != "readmit" {
            tracing::warn!(verb = order.verb, "an order this version does not know");
            return;
        }
        let Some(app) = self.table.app(&order.app) else {
            return;
        };
        let backends = &app.backends;
        let found = backends.binary_search_by(|backend| backend.id.as_str().cmp(&order.backend));
        let Ok(index) = found else {
            return;
        };
        let sync = &self.sync;
        if let Some(verdict) = app.readmit(index, sync.moment().now_us) {
            let (cells, events) = (sync.own(), sync.events.sender());
            pronounce(cells, events, &app, &backends[index], &verdict);
        }
    }

    fn snapshot(&mut self, part: &Snapshot, revision: u64) -> Result<(), LinkError> {
        let held = &self.sync.held;
        if held.is_some && held.epoch == self.epoch && revision < self.table.revision() {
            return Err(LinkError::OlderTable {
                theirs: revision,
                ours: self.table.revision(),
            });
        }
        if part.first {
            self.install = Some(Arriving {
                install: self.table.install(),
                removed: part.removed.unwrap_or_default(),
            });
        }
        let Some(arriving) = &mut self.install else {
            return Err(LinkError::Protocol("a snapshot that begins in its middle"));
        };
        arriving.install.part(&part.apps);
        if !part.last {
            return Ok(());
        }
        let Some(Arriving { install, removed }) = self.install.take() else {
            return Ok(());
        };
        if let Some(shrink) = self.doubts(part, &install) {
            return self.refuse(&shrink, revision);
        }
        let nacks = install.finish(revision);
        self.is_doubting = false;
        self.sync.own().inc(Counter::FeedSnapshots);
        self.sync.own().set(Gauge::TableDoubted, 0);
        self.sync.hold(Held {
            is_some: true,
            cluster_id: self.cluster_id.clone(),
            epoch: self.epoch,
            is_exact: true,
            removed,
        });
        tracing::info!(
            revision,
            apps = self.table.len(),
            "took control's whole table"
        );
        self.answer(nacks)
    }

    /// Whether more would vanish with the table that came than was removed.
    fn doubts(&self, last: &Snapshot, install: &Install<'_>) -> Option<Shrink> {
        let held = &self.sync.held;
        if !held.is_some || last.is_confirmed {
            return None;
        }
        let holds = Tally {
            apps: self.table.len() as u64,
            backends: self.table.backends(),
        };
        let offered = Tally {
            apps: install.len(),
            backends: install.backends(),
        };
        let removed = Tally::from(last.removed.unwrap_or_default()).less(held.removed.into());
        shrink::implausible(holds, offered, removed)
    }

    /// The table held stands; control hears why, and the link stays.
    fn refuse(&mut self, shrink: &Shrink, revision: u64) -> Result<(), LinkError> {
        self.is_doubting = true;
        self.sync.own().inc(Counter::TablesRefused);
        self.sync.own().set(Gauge::TableDoubted, 1);
        tracing::error!(revision, "control's whole table was not taken: {shrink}");
        self.send(Body::Doubt(Doubt {
            revision,
            apps_held: shrink.held.apps,
            apps_offered: shrink.offered.apps,
            backends_held: shrink.held.backends,
            backends_offered: shrink.offered.backends,
        }))
    }

    fn delta(&mut self, delta: &Delta) -> Result<(), LinkError> {
        if self.install.is_some() {
            return Err(LinkError::Protocol("a delta inside a snapshot"));
        }
        if self.is_doubting {
            return Ok(());
        }
        let held = &self.sync.held;
        let is_ours = held.is_some && held.is_exact && held.epoch == self.epoch;
        if !is_ours || delta.from != self.table.revision() || delta.to < delta.from {
            return Err(LinkError::Gap {
                from: delta.from,
                held: self.table.revision(),
            });
        }
        let nacks = self.table.apply(delta);
        self.sync.held.removed = delta.removed.unwrap_or(self.sync.held.removed);
        self.sync.own().inc(Counter::FeedDeltas);
        self.sync.show_table();
        self.answer(nacks)
    }

    /// The table is up to date, if it is.
    fn settle(&mut self) {
        let is_there = self.sync.held.is_exact && self.table.revision() >= self.target;
        if is_there || self.sync.is_pinned || self.is_doubting {
            self.sync.settle();
        }
    }

    /// Says what could not be used, then that the rest is active.
    fn answer(&mut self, nacks: Vec<Nack>) -> Result<(), LinkError> {
        self.settle();
        self.sync.own().add(Counter::FeedNacks, nacks.len() as u64);
        for nack in nacks.iter().take(LOGGED_NACKS) {
            tracing::warn!(app = nack.key, "a record of control: {}", nack.reason);
        }
        for nack in nacks {
            self.send(Body::Nack(nack))?;
        }
        Ok(self.sync.wire.ack(self.table)?)
    }
}

/// Who this edge is and where it stands. What it cannot build on (nothing, or
/// not exactly a revision) it does not name: control then sends all.
fn greeting(sync: &Sync, is_standby: bool) -> Envelope {
    let held = &sync.held;
    let (cluster_id, revision) = if sync.is_named() {
        (held.cluster_id.clone(), sync.table.revision())
    } else {
        (String::new(), 0)
    };
    let hello = EdgeHello {
        cluster_id,
        pid: std::process::id(),
        threads: sync.threads as u32,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        has_table: held.is_some && held.is_exact,
        is_standby,
        is_pinned: sync.is_pinned,
    };
    Envelope::new(held.epoch, revision, Body::EdgeHello(hello))
}

/// Whether this control may be listened to.
fn accept(held: &Held, hello: &Hello, epoch: u64) -> Result<(), LinkError> {
    if !held.is_some {
        return Ok(());
    }
    if hello.cluster_id != held.cluster_id {
        return Err(LinkError::OtherCluster {
            theirs: hello.cluster_id.clone(),
            ours: held.cluster_id.clone(),
        });
    }
    if epoch < held.epoch {
        return Err(LinkError::OlderEpoch {
            theirs: epoch,
            ours: held.epoch,
        });
    }
    Ok(())
}
