//! How requests to one app are treated: the checked form of a
//! [`PolicyRecord`], with the defaults.

mod probe;

use std::time::Duration;

pub use self::probe::{Probe, StatusSet};
use crate::feed::messages::{HedgeRecord, PolicyRecord};

/// An app's policy with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// One attempt to connect to a backend.
    pub connect_timeout: Duration,
    /// From the end of the request to the first byte of the answer (H12).
    pub first_byte_timeout: Duration,
    /// No byte either way once answering or upgraded (H15, H28).
    pub idle_timeout: Duration,
    /// Whether connections to backends are kept and reused.
    pub backend_keepalive: bool,
    /// Bytes of a request body kept for a retry.
    pub replay_bytes: usize,
    /// Other backends tried after the first.
    pub retries: u32,
    /// Requests in flight to one backend, over all threads.
    pub max_concurrency: u32,
    /// Requests waiting for the app; `None`: 50 for each backend.
    pub queue: Option<u32>,
    /// Every request is answered H80.
    pub maintenance: bool,
    /// From the end of a try's request to its first byte, while another backend
    /// is left to try; `None`: `first_byte_timeout` alone.
    pub try_timeout: Option<Duration>,
    /// From a request's first byte to its answer's first byte, every wait and
    /// try included (H12); `None`: the other times alone.
    pub deadline: Option<Duration>,
    /// When a silent try is overtaken by one on another backend.
    pub hedge: Hedge,
    /// How long a request waits for a backend to come up while none accepts
    /// connections; `None`: [`Policy::BOOT_WAIT`], and only where one has
    /// accepted them before.
    pub boot_wait: Option<Duration>,
    /// A new or readmitted backend gets its full share after this; zero: at
    /// once.
    pub slow_start: Duration,
    /// Retries allowed, as a percentage of recent requests.
    pub retry_percent: u32,
    /// Retries allowed each second besides.
    pub retry_per_second: u32,
    /// Whether failing backends are taken out of rotation.
    pub ejection: bool,
    /// How backends are asked whether they are well.
    pub probe: Option<Probe>,
}

/// When a try that has not answered is overtaken by another on another backend,
/// for requests that may be repeated (Dean and Barroso, *The Tail at Scale*,
/// 2013).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hedge {
    /// When it has taken far longer than nearly all answers of the app do.
    Learned,
    /// Never.
    Off,
    /// When this share of the app's recent answers would have come, in
    /// thousandths, 500 to 999.
    Quantile(u16),
    /// After this long.
    After(Duration),
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(55),
            backend_keepalive: true,
            replay_bytes: 64 * 1024,
            retries: 2,
            max_concurrency: 200,
            queue: None,
            maintenance: false,
            try_timeout: None,
            deadline: None,
            hedge: Hedge::Learned,
            boot_wait: None,
            slow_start: Duration::from_secs(10),
            retry_percent: 20,
            retry_per_second: 10,
            ejection: true,
            probe: None,
        }
    }
}

/// A policy value that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{key} must be {expected}")]
pub struct PolicyError {
    pub(super) key: &'static str,
    pub(super) expected: &'static str,
}

impl PolicyError {
    /// Which value, as the API names it: `probe.interval`.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// What it must be.
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

/// Longest time a policy may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Most bytes of a request body an app may have kept for a retry.
const MAX_REPLAY_BYTES: u64 = 16 * 1024 * 1024;

impl Policy {
    /// How long a request waits for backends that went away to come back.
    pub const BOOT_WAIT: Duration = Duration::from_secs(5);

    /// A record's policy; what it leaves out is the default.
    ///
    /// # Errors
    /// A time of zero or over a day, a replay buffer over 16 MiB, a concurrency
    /// of zero, a hedge or probe that cannot be meant.
    pub fn from_record(record: Option<&PolicyRecord>) -> Result<Policy, PolicyError> {
        let default = Policy::default();
        let Some(record) = record else {
            return Ok(default);
        };
        if record
            .replay_bytes
            .is_some_and(|bytes| bytes > MAX_REPLAY_BYTES)
        {
            return Err(PolicyError {
                key: "replay_bytes",
                expected: "at most 16 MiB",
            });
        }
        if record.max_concurrency == Some(0) {
            return Err(PolicyError {
                key: "max_concurrency",
                expected: "above 0",
            });
        }
        let or = |given: Option<Duration>, otherwise| given.unwrap_or(otherwise);
        Ok(Policy {
            connect_timeout: or(
                time("connect_timeout", record.connect_timeout_ms)?,
                default.connect_timeout,
            ),
            first_byte_timeout: or(
                time("first_byte_timeout", record.first_byte_timeout_ms)?,
                default.first_byte_timeout,
            ),
            idle_timeout: or(
                time("idle_timeout", record.idle_timeout_ms)?,
                default.idle_timeout,
            ),
            backend_keepalive: record
                .backend_keepalive
                .unwrap_or(default.backend_keepalive),
            replay_bytes: record
                .replay_bytes
                .map_or(default.replay_bytes, |bytes| bytes as usize),
            retries: record.retries.unwrap_or(default.retries),
            max_concurrency: record.max_concurrency.unwrap_or(default.max_concurrency),
            queue: record.queue,
            maintenance: record.maintenance.unwrap_or(default.maintenance),
            try_timeout: time("try_timeout", record.try_timeout_ms)?,
            deadline: time("deadline", record.deadline_ms)?,
            hedge: record.hedge.as_ref().map_or(Ok(default.hedge), hedge)?,
            boot_wait: time_or_none("boot_wait", record.boot_wait_ms)?,
            slow_start: or(
                time_or_none("slow_start", record.slow_start_ms)?,
                default.slow_start,
            ),
            retry_percent: record.retry_percent.unwrap_or(default.retry_percent),
            retry_per_second: record.retry_per_second.unwrap_or(default.retry_per_second),
            ejection: record.ejection.unwrap_or(default.ejection),
            probe: record.probe.as_ref().map(Probe::from_record).transpose()?,
        })
    }
}

/// A time above 0 and at most a day.
fn time(key: &'static str, ms: Option<u64>) -> Result<Option<Duration>, PolicyError> {
    let expected = "above 0 and at most a day";
    match ms {
        Some(0) => Err(PolicyError { key, expected }),
        _ => time_or_none(key, ms).map_err(|_| PolicyError { key, expected }),
    }
}

/// A time of at most a day; zero means none.
fn time_or_none(key: &'static str, ms: Option<u64>) -> Result<Option<Duration>, PolicyError> {
    match ms.map(Duration::from_millis) {
        Some(time) if time > MAX_TIMEOUT => Err(PolicyError {
            key,
            expected: "at most a day",
        }),
        time => Ok(time),
    }
}

fn hedge(record: &HedgeRecord) -> Result<Hedge, PolicyError> {
    if record.learned {
        return Ok(Hedge::Learned);
    }
    const EXPECTED: PolicyError = PolicyError {
        key: "hedge",
        expected: "a quantile from 0.5 to 0.999, or a time above 0 and at most a day",
    };
    match (record.permille, record.after_ms) {
        (None, None) => Ok(Hedge::Off),
        (Some(permille @ 500..=999), None) => Ok(Hedge::Quantile(permille as u16)),
        (None, after_ms) => match time("hedge", after_ms) {
            Ok(Some(after)) => Ok(Hedge::After(after)),
            _ => Err(EXPECTED),
        },
        _ => Err(EXPECTED),
    }
}
