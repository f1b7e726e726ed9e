//! Apps as they are stored, sent and journalled. Wire shapes only.

use prost::Message;

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
