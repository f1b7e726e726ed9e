//! How requests to one app are treated: the checked form of a
//! [`PolicyRecord`](crate::feed::messages::PolicyRecord), with the defaults.

use std::time::Duration;

/// An app's policy with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
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
