//! Named limits as they are stored, sent and kept beside the table. Wire
//! shapes only.

use prost::Message;

/// All limits in force. Small and bounded, so it is always sent whole.
#[derive(Clone, PartialEq, Message)]
pub struct LimitSet {
    /// Rises with each set that this control sends.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// What is gone by, sorted by name.
    #[prost(message, repeated, tag = "2")]
    pub limits: Vec<LimitRecord>,
    /// What the store holds, sorted by name; on disk alone, to rebuild a lost
    /// store from.
    #[prost(message, repeated, tag = "3")]
    pub stored: Vec<LimitRecord>,
    /// Which installation this is; on disk alone.
    #[prost(string, tag = "4")]
    pub cluster_id: String,
}

/// A named limit. Of `rate` and `concurrency` one is set; a reader that finds
/// neither keeps what it had under that name.
#[derive(Clone, PartialEq, Message)]
pub struct LimitRecord {
    /// `[a-z][a-z0-9_-]{0,62}`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// So many in a time.
    #[prost(message, optional, tag = "2")]
    pub rate: Option<RateRecord>,
    /// So many at once.
    #[prost(uint32, optional, tag = "3")]
    pub concurrency: Option<u32>,
    /// Only requests to this app; empty: any, unknown hosts included.
    #[prost(string, tag = "4")]
    pub app: String,
    /// Only paths below this one, whole segments; empty: any.
    #[prost(string, tag = "5")]
    pub path: String,
    /// Only requests with this header.
    #[prost(message, optional, tag = "6")]
    pub header: Option<HeaderRecord>,
    /// Each its own allowance; absent: one for all.
    #[prost(message, optional, tag = "7")]
    pub per: Option<PerRecord>,
    /// Of its last change; limits count revisions of their own.
    #[prost(uint64, tag = "8")]
    pub revision: u64,
    /// Its number comes from a file. Not in the store.
    #[prost(bool, tag = "9")]
    pub is_from_file: bool,
}

/// So many requests in a time.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct RateRecord {
    /// How many.
    #[prost(uint32, tag = "1")]
    pub count: u32,
    /// In so many seconds: 1, 60 or 3600.
    #[prost(uint32, tag = "2")]
    pub seconds: u32,
    /// How many at once after a quiet time; absent: a second's worth.
    #[prost(uint32, optional, tag = "3")]
    pub burst: Option<u32>,
}

/// A header and its value.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HeaderRecord {
    /// In any case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Exactly.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// What tells apart who has an allowance of its own.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PerRecord {
    /// A header's value; empty: the client's address.
    #[prost(string, tag = "1")]
    pub header: String,
}
