//! The feed's messages: what control and the edge say to each other, and what
//! the snapshot file and the journal are made of.
//!
//! Owns the wire shapes only. Never holds behaviour, defaults or validation:
//! an absent field means "the reader's default", decided in [`crate::table`].
//!
//! **Invariant**: a field number is never reused and no field is required; a
//! reader ignores what it does not know. Writers learn a field one release
//! after readers do.

mod limits;
mod records;
mod reports;
mod view;

use prost::Message;

pub use self::limits::{HeaderRecord, LimitRecord, LimitSet, PerRecord, RateRecord};
pub use self::records::{
    AppRecord, BackendRecord, HedgeRecord, PolicyRecord, ProbeRecord, Standing, StatusRange,
};
pub use self::reports::{
    AppReport, BackendReport, Event, Health, HistogramSample, MemoryPart, Report, Sample,
    UnwellBackend,
};
pub use self::view::{AppView, BackendView, ViewError, split_delimited};

/// The feed's major version; a peer with another one is refused by name.
pub const FEED_VERSION: u32 = 1;

/// What every frame carries. A frame is a big-endian `u32` length followed by
/// one encoded `Envelope`.
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    /// [`FEED_VERSION`] of the writer.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Rises only when a store is restored from a backup: a lower one is refused.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The store's revision that this message speaks of.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    /// The message.
    #[prost(
        oneof = "Body",
        tags = "10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 25, 26"
    )]
    pub body: Option<Body>,
}

/// Every message of the feed; 10–19 go down (control to edge), 20–29 up.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Down: who control is. The first message either side sends is a hello.
    #[prost(message, tag = "10")]
    Hello(Hello),
    /// Down: a part of the whole table.
    #[prost(message, tag = "11")]
    Snapshot(Snapshot),
    /// Down: what changed between two revisions.
    #[prost(message, tag = "12")]
    Delta(Delta),
    /// Down: nothing changed; the revision stands. Once a second.
    #[prost(message, tag = "13")]
    Beat(Beat),
    /// Down: asks for a [`Report`].
    #[prost(message, tag = "14")]
    Collect(Collect),
    /// Down: an operator's order to an edge.
    #[prost(message, tag = "15")]
    Order(Order),
    /// Down: the named limits, all of them.
    #[prost(message, tag = "16")]
    Limits(LimitSet),
    /// Up: who the edge is and the revision it holds.
    #[prost(message, tag = "20")]
    EdgeHello(EdgeHello),
    /// Up: the envelope's revision is active on every thread.
    #[prost(message, tag = "21")]
    Ack(Ack),
    /// Up: a record could not be used; its previous value stands.
    #[prost(message, tag = "22")]
    Nack(Nack),
    /// Up: counters, answering a [`Collect`].
    #[prost(message, tag = "23")]
    Report(Report),
    /// Up: something an operator may want to know.
    #[prost(message, tag = "24")]
    Event(Event),
    /// Up: a whole table was not taken, since too much would have vanished.
    #[prost(message, tag = "25")]
    Doubt(Doubt),
    /// Up: these limits are in force on every thread.
    #[prost(message, tag = "26")]
    LimitsHeld(LimitsHeld),
}

/// Control introduces itself.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// Which installation this is; an edge that holds another one's table refuses.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
}

/// An edge introduces itself.
#[derive(Clone, PartialEq, Message)]
pub struct EdgeHello {
    /// Which installation the held table came from; empty: none held.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    /// The edge's process id.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// Its data threads.
    #[prost(uint32, tag = "3")]
    pub threads: u32,
    /// The program's version.
    #[prost(string, tag = "4")]
    pub program: String,
    /// It holds the table and serves nobody yet.
    #[prost(bool, tag = "5")]
    pub is_standby: bool,
    /// It stays with the table it has; none is to be sent.
    #[prost(bool, tag = "6")]
    pub is_pinned: bool,
    /// It holds a table that is whole, be it another epoch's that nothing can be
    /// built on: what it serves is not nothing. One that was damaged may be.
    #[prost(bool, tag = "7")]
    pub has_table: bool,
}

/// A part of the whole table as of the envelope's revision. Parts arrive in
/// order; the table is replaced when `last` arrives, never before.
#[derive(Clone, PartialEq, Message)]
pub struct Snapshot {
    /// Apps of this part.
    #[prost(message, repeated, tag = "1")]
    pub apps: Vec<AppRecord>,
    /// The first part of a snapshot: whatever came before it is dropped.
    #[prost(bool, tag = "2")]
    pub first: bool,
    /// The last part.
    #[prost(bool, tag = "3")]
    pub last: bool,
    /// An operator has confirmed that what vanished is meant to.
    #[prost(bool, tag = "4")]
    pub is_confirmed: bool,
    /// What was ever removed. In the first part as of the envelope's revision:
    /// what the receiver then holds. In the last one as of when it was sent:
    /// what the table lacks that was removed while it was sent is explained by
    /// that.
    #[prost(message, optional, tag = "5")]
    pub removed: Option<Removed>,
}

/// How much was ever removed by changes, one by one, since the store was
/// founded. It only rises, so a table that shrank by more than this rose did
/// not shrink by what was asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Removed {
    /// Apps.
    #[prost(uint64, tag = "1")]
    pub apps: u64,
    /// Backends, those of removed apps among them.
    #[prost(uint64, tag = "2")]
    pub backends: u64,
}

/// How much a table holds.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Totals {
    /// Apps.
    #[prost(uint64, tag = "1")]
    pub apps: u64,
    /// Backends, of all of them.
    #[prost(uint64, tag = "2")]
    pub backends: u64,
}

/// Changes that lead from revision `from` to revision `to`.
#[derive(Clone, PartialEq, Message)]
pub struct Delta {
    /// Must equal the receiver's revision, else it asks for a snapshot.
    #[prost(uint64, tag = "1")]
    pub from: u64,
    /// The revision reached.
    #[prost(uint64, tag = "2")]
    pub to: u64,
    /// In order; the last one for an app wins.
    #[prost(message, repeated, tag = "3")]
    pub ops: Vec<Op>,
    /// When the newest of them was committed, Unix milliseconds.
    #[prost(uint64, tag = "4")]
    pub committed_at_ms: u64,
    /// What was ever removed, as of `to`.
    #[prost(message, optional, tag = "5")]
    pub removed: Option<Removed>,
    /// How much there is, as of when it was written; in a journal alone.
    #[prost(message, optional, tag = "6")]
    pub totals: Option<Totals>,
}

/// One app's change. The app's record is the unit: a change to several of an
/// app's keys is seen whole or not at all.
#[derive(Clone, PartialEq, Message)]
pub struct Op {
    /// What to do.
    #[prost(oneof = "Change", tags = "1, 2")]
    pub change: Option<Change>,
}

/// The kinds of change.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every change is a put; deletes are the rare ones that pay"
)]
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Change {
    /// The app is now this.
    #[prost(message, tag = "1")]
    Put(AppRecord),
    /// The app of this name is gone.
    #[prost(string, tag = "2")]
    Delete(String),
}

/// Control is alive and at the envelope's revision.
#[derive(Clone, PartialEq, Message)]
pub struct Beat {}

/// Asks for a report.
#[derive(Clone, PartialEq, Message)]
pub struct Collect {
    /// Comes back in the report.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Only this app, with its backends; empty: the process's counters and the
    /// busiest apps.
    #[prost(string, tag = "2")]
    pub app: String,
    /// At most this many apps, busiest first; the rest are summed as `other`.
    #[prost(uint32, tag = "3")]
    pub top: u32,
    /// Also what the table's memory goes to, which costs a walk over it.
    #[prost(bool, tag = "4")]
    pub memory: bool,
}

/// An operator's order, carried out on every thread.
#[derive(Clone, PartialEq, Message)]
pub struct Order {
    /// What to do: `readmit` forgets what made a backend be ejected. Others are
    /// unknown to this version.
    #[prost(string, tag = "1")]
    pub verb: String,
    /// The app concerned.
    #[prost(string, tag = "2")]
    pub app: String,
    /// The backend concerned.
    #[prost(string, tag = "3")]
    pub backend: String,
}

/// The envelope's revision is active.
#[derive(Clone, PartialEq, Message)]
pub struct Ack {
    /// Apps the edge holds.
    #[prost(uint64, tag = "1")]
    pub apps: u64,
    /// It still serves nobody: nothing waits for it.
    #[prost(bool, tag = "2")]
    pub is_standby: bool,
}

/// A whole table that would have made too much vanish in one step. The one
/// held before stands.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Doubt {
    /// The revision refused.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// Apps held, and apps there would be.
    #[prost(uint64, tag = "2")]
    pub apps_held: u64,
    /// See above.
    #[prost(uint64, tag = "3")]
    pub apps_offered: u64,
    /// Backends held, and backends there would be.
    #[prost(uint64, tag = "4")]
    pub backends_held: u64,
    /// See above.
    #[prost(uint64, tag = "5")]
    pub backends_offered: u64,
}

/// Limits that an edge goes by.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LimitsHeld {
    /// The [`LimitSet`]'s version.
    #[prost(uint64, tag = "1")]
    pub version: u64,
}

/// A record the edge could not use.
#[derive(Clone, PartialEq, Message)]
pub struct Nack {
    /// The app's name, as far as it could be read.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What was wrong with it.
    #[prost(string, tag = "2")]
    pub reason: String,
}
