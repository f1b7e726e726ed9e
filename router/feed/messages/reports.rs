//! What an edge counted, judged and has to tell. Wire shapes only.

use prost::Message;

/// An edge's counters since its start.
#[derive(Clone, PartialEq, Message)]
pub struct Report {
    /// The id of the [`Collect`](super::Collect).
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
    /// Backends of apps with traffic that are out of rotation, at rest, or not
    /// yet back with their full share; the first hundred. Only where no app was
    /// named.
    #[prost(message, repeated, tag = "5")]
    pub unwell: Vec<UnwellBackend>,
    /// How many there are.
    #[prost(uint64, tag = "6")]
    pub unwell_total: u64,
    /// What memory goes to; only where asked.
    #[prost(message, repeated, tag = "7")]
    pub memory: Vec<MemoryPart>,
    /// Which process this is.
    #[prost(uint32, tag = "8")]
    pub pid: u32,
    /// Descriptors it has open, which a process of another user cannot count.
    #[prost(uint64, tag = "9")]
    pub open_descriptors: u64,
}

/// What a part of a process takes in memory.
#[derive(Clone, PartialEq, Message)]
pub struct MemoryPart {
    /// A word in snake case, such as `routes`.
    #[prost(string, tag = "1")]
    pub part: String,
    /// Bytes, estimated.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
}

/// A backend that is not well.
#[derive(Clone, PartialEq, Message)]
pub struct UnwellBackend {
    /// Its app.
    #[prost(string, tag = "1")]
    pub app: String,
    /// How this edge sees it.
    #[prost(message, optional, tag = "2")]
    pub backend: Option<BackendReport>,
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
    /// Requests that may wait for an answer of it at once, as learned.
    #[prost(uint64, tag = "11")]
    pub limit: u64,
    /// What its answers take while none of them waits for another, microseconds;
    /// 0: unknown.
    #[prost(uint64, tag = "12")]
    pub undisturbed_us: u64,
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
