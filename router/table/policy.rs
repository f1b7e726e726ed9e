//! How requests to one app are treated: the checked form of a
//! [`PolicyRecord`], with the defaults.

use std::time::Duration;

use crate::feed::messages::PolicyRecord;

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
        }
    }
}

/// A policy value that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{key} must be {expected}")]
pub struct PolicyError {
    key: &'static str,
    expected: &'static str,
}

/// Longest time a policy may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Most bytes of a request body an app may have kept for a retry.
const MAX_REPLAY_BYTES: u64 = 16 * 1024 * 1024;

impl Policy {
    /// A record's policy; what it leaves out is the default.
    ///
    /// # Errors
    /// A time of zero or over a day, a replay buffer over 16 MiB, a
    /// concurrency of zero.
    pub fn from_record(record: Option<&PolicyRecord>) -> Result<Policy, PolicyError> {
        let mut policy = Policy::default();
        let Some(record) = record else {
            return Ok(policy);
        };
        let time = |key, into: &mut Duration, ms: Option<u64>| match ms {
            None => Ok(()),
            Some(ms) if ms > 0 && Duration::from_millis(ms) <= MAX_TIMEOUT => {
                *into = Duration::from_millis(ms);
                Ok(())
            }
            Some(_) => Err(PolicyError {
                key,
                expected: "above 0 and at most a day",
            }),
        };
        time(
            "connect_timeout",
            &mut policy.connect_timeout,
            record.connect_timeout_ms,
        )?;
        time(
            "first_byte_timeout",
            &mut policy.first_byte_timeout,
            record.first_byte_timeout_ms,
        )?;
        time(
            "idle_timeout",
            &mut policy.idle_timeout,
            record.idle_timeout_ms,
        )?;
        if let Some(keepalive) = record.backend_keepalive {
            policy.backend_keepalive = keepalive;
        }
        if let Some(bytes) = record.replay_bytes {
            if bytes > MAX_REPLAY_BYTES {
                return Err(PolicyError {
                    key: "replay_bytes",
                    expected: "at most 16 MiB",
                });
            }
            policy.replay_bytes = bytes as usize;
        }
        if let Some(retries) = record.retries {
            policy.retries = retries;
        }
        if let Some(requests) = record.max_concurrency {
            if requests == 0 {
                return Err(PolicyError {
                    key: "max_concurrency",
                    expected: "above 0",
                });
            }
            policy.max_concurrency = requests;
        }
        policy.queue = record.queue.or(policy.queue);
        policy.maintenance = record.maintenance.unwrap_or(policy.maintenance);
        Ok(policy)
    }
}
