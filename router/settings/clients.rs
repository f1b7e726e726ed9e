//! What the edge gives its clients, and holds them to: `edge.*` again, apart
//! because it is one subject.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Times, rates and numbers of client connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clients {
    /// A request's head must be whole this long after its first byte, and
    /// begin this long after its connection was accepted.
    pub head_timeout: Duration,
    /// A kept connection without a request is closed after this.
    pub keepalive_timeout: Duration,
    /// Bytes a second that a request's body must arrive with; 0: none.
    pub min_body_rate: u64,
    /// Bytes a second that a client must take of an answer; 0: none.
    pub min_drain_rate: u64,
    /// Client connections there may be; 0: as the descriptors allow.
    pub max_connections: u64,
    /// Of these, how many of one address; 0: any number.
    pub max_connections_per_address: u64,
    /// Bytes that the edge's buffers may take; 0: as the memory allows.
    pub buffer_bytes: u64,
}

impl Default for Clients {
    fn default() -> Self {
        Clients {
            head_timeout: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(60),
            min_body_rate: 64,
            min_drain_rate: 64,
            max_connections: 0,
            max_connections_per_address: 0,
            buffer_bytes: 0,
        }
    }
}
