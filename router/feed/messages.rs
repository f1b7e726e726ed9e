//! The feed's messages: what control and the edge say to each other, and what
//! the snapshot file and the journal are made of.
//!
//! Owns the wire shapes only. Never holds behaviour, defaults or validation:
//! an absent field means "the reader's default", decided in [`crate::table`].
//!
//! **Invariant**: a field number is never reused and no field is required; a
//! reader ignores what it does not know. Writers learn a field one release
//! after readers do.

use prost::Message;

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
    #[prost(oneof = "Body", tags = "10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24")]
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

/// An edge's counters since its start.
#[derive(Clone, PartialEq, Message)]
pub struct Report {
    /// The [`Collect`]'s id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Counters and gauges.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Histograms.
    #[prost(message, repeated, tag = "3")]
    pub histograms: Vec<HistogramSample>,
    /// Apps, busiest first, `other` last with an empty name.
    #[prost(message, repeated, tag = "4")]
    pub apps: Vec<AppReport>,
}

/// One counter or gauge.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// The metric's name as exported.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Label names and values, in turn.
    #[prost(string, repeated, tag = "2")]
    pub labels: Vec<String>,
    /// Its value.
    #[prost(double, tag = "3")]
    pub value: f64,
}

/// One histogram; mergeable because every writer uses the same bounds.
#[derive(Clone, PartialEq, Message)]
pub struct HistogramSample {
    /// The metric's name as exported.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Label names and values, in turn.
    #[prost(string, repeated, tag = "2")]
    pub labels: Vec<String>,
    /// Observations per bucket, not cumulative; bounds are those of the row.
    #[prost(uint64, repeated, tag = "3")]
    pub buckets: Vec<u64>,
    /// Sum of observations, in the row's unit.
    #[prost(double, tag = "4")]
    pub sum: f64,
}

/// One app's counters.
#[derive(Clone, PartialEq, Message)]
pub struct AppReport {
    /// The app's name; empty: all others together.
    #[prost(string, tag = "1")]
    pub app: String,
    /// Answers by status class: 1xx, 2xx, 3xx, 4xx, 5xx.
    #[prost(uint64, repeated, tag = "2")]
    pub responses: Vec<u64>,
    /// Requests with a code (H10 …), by code number, in turn with their count.
    #[prost(uint64, repeated, tag = "3")]
    pub codes: Vec<u64>,
    /// Bytes of answer bodies sent to clients.
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
    /// Requests being served now.
    #[prost(uint64, tag = "5")]
    pub in_flight: u64,
    /// Requests waiting for a backend now.
    #[prost(uint64, tag = "6")]
    pub queued: u64,
    /// Sum of total times, microseconds.
    #[prost(uint64, tag = "7")]
    pub total_us: u64,
    /// Its backends; only when the app was asked for by name.
    #[prost(message, repeated, tag = "8")]
    pub backends: Vec<BackendReport>,
}

/// One backend as this edge sees it.
#[derive(Clone, PartialEq, Message)]
pub struct BackendReport {
    /// The backend's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Requests in flight to it.
    #[prost(uint64, tag = "2")]
    pub in_flight: u64,
    /// Requests sent to it.
    #[prost(uint64, tag = "3")]
    pub requests: u64,
    /// Attempts on it that failed.
    #[prost(uint64, tag = "4")]
    pub failures: u64,
    /// Its health as this edge judges it.
    #[prost(enumeration = "Health", tag = "5")]
    pub health: i32,
    /// Why it is out, or was last; a word in snake case, empty if it never was.
    #[prost(string, tag = "6")]
    pub reason: String,
    /// In this state since, Unix milliseconds; 0: since it is known.
    #[prost(uint64, tag = "7")]
    pub since_ms: u64,
    /// Times it was ejected.
    #[prost(uint64, tag = "8")]
    pub ejections: u64,
    /// Its recent time to the first byte, microseconds.
    #[prost(uint64, tag = "9")]
    pub latency_us: u64,
    /// Its share of its weight, in thousandths: below 1,000 while it ramps up.
    #[prost(uint32, tag = "10")]
    pub share_permille: u32,
}

/// A backend's health as one edge judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Health {
    /// In rotation.
    Healthy = 0,
    /// In rotation, its share rising.
    Ramping = 1,
    /// Asked for rest (Retry-After): used last.
    Resting = 2,
    /// Out of rotation.
    Ejected = 3,
    /// Out of rotation, a trial under way.
    Trial = 4,
}

/// Something an operator may want to know.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// When, Unix milliseconds.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// What kind, snake case.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// The app concerned, if one.
    #[prost(string, tag = "3")]
    pub app: String,
    /// The backend concerned, if one.
    #[prost(string, tag = "4")]
    pub backend: String,
    /// One sentence for a person.
    #[prost(string, tag = "5")]
    pub text: String,
}

/// An app as stored, sent and journalled.
#[derive(Clone, PartialEq, Message)]
pub struct AppRecord {
    /// `[a-z][a-z0-9-]{0,62}`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Lower-case hosts, `*.` wildcards, each with an optional `/path` prefix.
    #[prost(string, repeated, tag = "2")]
    pub domains: Vec<String>,
    /// How requests to the app are treated.
    #[prost(message, optional, tag = "3")]
    pub policy: Option<PolicyRecord>,
    /// Its instances, sorted by id.
    #[prost(message, repeated, tag = "4")]
    pub backends: Vec<BackendRecord>,
    /// The store's revision of its last change.
    #[prost(uint64, tag = "5")]
    pub revision: u64,
}

/// What an app overrides; an absent field is the default of
/// [`crate::table::Policy`].
#[derive(Clone, PartialEq, Message)]
pub struct PolicyRecord {
    /// Milliseconds.
    #[prost(uint64, optional, tag = "1")]
    pub connect_timeout_ms: Option<u64>,
    /// Milliseconds.
    #[prost(uint64, optional, tag = "2")]
    pub first_byte_timeout_ms: Option<u64>,
    /// Milliseconds.
    #[prost(uint64, optional, tag = "3")]
    pub idle_timeout_ms: Option<u64>,
    /// Whether connections to backends are reused.
    #[prost(bool, optional, tag = "4")]
    pub backend_keepalive: Option<bool>,
    /// Bytes of a request body kept for a retry.
    #[prost(uint64, optional, tag = "5")]
    pub replay_bytes: Option<u64>,
    /// Other backends tried after the first.
    #[prost(uint32, optional, tag = "6")]
    pub retries: Option<u32>,
    /// Requests in flight to one backend.
    #[prost(uint32, optional, tag = "7")]
    pub max_concurrency: Option<u32>,
    /// Requests waiting for the app; absent: 50 for each backend.
    #[prost(uint32, optional, tag = "8")]
    pub queue: Option<u32>,
    /// Every request is answered H80.
    #[prost(bool, optional, tag = "9")]
    pub maintenance: Option<bool>,
    /// Milliseconds one try may wait for its first byte while another backend
    /// is left; absent: as long as the request.
    #[prost(uint64, optional, tag = "10")]
    pub try_timeout_ms: Option<u64>,
    /// Milliseconds from a request's first byte to its answer's first byte, all
    /// waits and tries together; absent: bounded by the other times only.
    #[prost(uint64, optional, tag = "11")]
    pub deadline_ms: Option<u64>,
    /// When a try is overtaken by another; absent: learned.
    #[prost(message, optional, tag = "12")]
    pub hedge: Option<HedgeRecord>,
    /// Milliseconds a request may wait for a backend to come up.
    #[prost(uint64, optional, tag = "13")]
    pub boot_wait_ms: Option<u64>,
    /// Milliseconds over which a new or readmitted backend gets its full share;
    /// 0: at once.
    #[prost(uint64, optional, tag = "14")]
    pub slow_start_ms: Option<u64>,
    /// Retries allowed, as a percentage of recent requests.
    #[prost(uint32, optional, tag = "15")]
    pub retry_percent: Option<u32>,
    /// Retries allowed each second besides.
    #[prost(uint32, optional, tag = "16")]
    pub retry_per_second: Option<u32>,
    /// Whether failing backends are taken out of rotation.
    #[prost(bool, optional, tag = "17")]
    pub ejection: Option<bool>,
    /// How backends are asked whether they are well; absent: they are not.
    #[prost(message, optional, tag = "18")]
    pub probe: Option<ProbeRecord>,
}

/// When a try that has not answered is overtaken by one on another backend.
/// None of the fields set: never.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct HedgeRecord {
    /// After this share of the app's recent answers would have come, in
    /// thousandths.
    #[prost(uint32, optional, tag = "1")]
    pub permille: Option<u32>,
    /// After this many milliseconds.
    #[prost(uint64, optional, tag = "2")]
    pub after_ms: Option<u64>,
    /// After what the app's own answers teach: the default, said by name. The
    /// other fields then count for nothing.
    #[prost(bool, tag = "3")]
    pub learned: bool,
}

/// An active probe; absent fields have the defaults of
/// [`crate::table::Probe`].
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ProbeRecord {
    /// What is asked for; empty: only a connection is opened.
    #[prost(string, tag = "1")]
    pub path: String,
    /// The Host sent; empty: the backend's address.
    #[prost(string, tag = "2")]
    pub host: String,
    /// Milliseconds between two probes of one backend.
    #[prost(uint64, optional, tag = "3")]
    pub interval_ms: Option<u64>,
    /// Milliseconds a probe may take.
    #[prost(uint64, optional, tag = "4")]
    pub timeout_ms: Option<u64>,
    /// Passed probes in a row that bring a backend back.
    #[prost(uint32, optional, tag = "5")]
    pub rise: Option<u32>,
    /// Failed probes in a row that take it out.
    #[prost(uint32, optional, tag = "6")]
    pub fall: Option<u32>,
    /// Statuses that pass, as ranges.
    #[prost(message, repeated, tag = "7")]
    pub statuses: Vec<StatusRange>,
}

/// Statuses from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct StatusRange {
    /// 100 to 599.
    #[prost(uint32, tag = "1")]
    pub first: u32,
    /// 100 to 599, not below `first`.
    #[prost(uint32, tag = "2")]
    pub last: u32,
}

/// An instance of an app.
#[derive(Clone, PartialEq, Message)]
pub struct BackendRecord {
    /// Chosen by whoever registers it.
    #[prost(string, tag = "1")]
    pub id: String,
    /// `ip:port`.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Its share relative to the app's other backends; 0 takes no traffic while
    /// another is there.
    #[prost(uint32, tag = "3")]
    pub weight: u32,
    /// The release it runs; may be empty.
    #[prost(string, tag = "4")]
    pub release: String,
    /// A [`Standing`].
    #[prost(enumeration = "Standing", tag = "5")]
    pub standing: i32,
    /// New with every registration under another address: pooled connections
    /// and live state of an earlier incarnation are not reused.
    #[prost(uint64, tag = "6")]
    pub incarnation: u64,
    /// Its lease, seconds; 0: it stays until removed. Control's own: here, so
    /// that a store rebuilt from a snapshot still lets leases expire.
    #[prost(uint32, tag = "7")]
    pub lease_seconds: u32,
    /// While draining: the longest it may take, milliseconds. Control's own.
    #[prost(uint64, tag = "8")]
    pub drain_ms: u64,
    /// An operator took it out of rotation until it is readmitted.
    #[prost(bool, tag = "9")]
    pub ejected: bool,
    /// When the operator did, Unix milliseconds. Control's own.
    #[prost(uint64, tag = "10")]
    pub ejected_at_ms: u64,
}

/// Whether new requests may go to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Standing {
    /// In rotation.
    Active = 0,
    /// Its lease expired: used only if nothing better is left.
    Suspect = 1,
    /// On its way out: no new requests.
    Draining = 2,
}
