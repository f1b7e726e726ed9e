//! The JSON shape of a policy: what an app overrides.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::control::api::problem::Problem;
use crate::control::api::span::Span;
use crate::feed::messages::PolicyRecord;

/// The longest timeout a policy may set: a day.
const TIMEOUT_MAX_MS: u64 = 86_400_000;
/// The largest replay buffer a policy may set.
const REPLAY_MAX_BYTES: u64 = 16 << 20;

/// What an app overrides; what is absent has the router's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// One attempt to connect to a backend; above 0, at most `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5s")]
    pub connect_timeout: Option<Span>,
    /// From the end of the request to the first byte of the answer; above 0, at most `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "30s")]
    pub first_byte_timeout: Option<Span>,
    /// No byte either way once answering or upgraded; above 0, at most `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "55s")]
    pub idle_timeout: Option<Span>,
    /// Whether connections to backends are kept and reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_keepalive: Option<bool>,
    /// Bytes of a request body kept for a retry; at most 16,777,216.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_bytes: Option<u64>,
    /// Other backends tried after the first; at most 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Requests in flight to one backend; 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// Requests waiting for the app; at most 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// Every request is answered with the maintenance page (H80).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<bool>,
}

impl Policy {
    pub(super) fn record(&self) -> Result<PolicyRecord, Problem> {
        let timeout = |key: &str, span: Option<Span>| match span {
            Some(span) if span.ms == 0 || span.ms > TIMEOUT_MAX_MS => Err(Problem::field(
                &format!("policy.{key}"),
                format!("policy.{key}: expected above 0 and at most 24h"),
            )),
            span => Ok(span.map(|span| span.ms)),
        };
        let count = |key: &str, value: Option<u32>, least: u32, most: u32| match value {
            Some(value) if !(least..=most).contains(&value) => Err(Problem::field(
                &format!("policy.{key}"),
                format!("policy.{key}: expected {least} to {most}"),
            )),
            value => Ok(value),
        };
        if self
            .replay_bytes
            .is_some_and(|bytes| bytes > REPLAY_MAX_BYTES)
        {
            let detail = format!("policy.replay_bytes: expected at most {REPLAY_MAX_BYTES}");
            return Err(Problem::field("policy.replay_bytes", detail));
        }
        Ok(PolicyRecord {
            connect_timeout_ms: timeout("connect_timeout", self.connect_timeout)?,
            first_byte_timeout_ms: timeout("first_byte_timeout", self.first_byte_timeout)?,
            idle_timeout_ms: timeout("idle_timeout", self.idle_timeout)?,
            backend_keepalive: self.backend_keepalive,
            replay_bytes: self.replay_bytes,
            retries: count("retries", self.retries, 0, 10)?,
            max_concurrency: count("max_concurrency", self.max_concurrency, 1, 1_000_000)?,
            queue: count("queue", self.queue, 0, 1_000_000)?,
            maintenance: self.maintenance,
            ..PolicyRecord::default()
        })
    }

    pub(super) fn of(record: &PolicyRecord) -> Policy {
        let span = |ms: Option<u64>| ms.map(|ms| Span { ms });
        Policy {
            connect_timeout: span(record.connect_timeout_ms),
            first_byte_timeout: span(record.first_byte_timeout_ms),
            idle_timeout: span(record.idle_timeout_ms),
            backend_keepalive: record.backend_keepalive,
            replay_bytes: record.replay_bytes,
            retries: record.retries,
            max_concurrency: record.max_concurrency,
            queue: record.queue,
            maintenance: record.maintenance,
        }
    }
}
