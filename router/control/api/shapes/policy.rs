//! The JSON shape of a policy: what an app overrides.
//!
//! Owns the keys and how a value is written; which values make sense is
//! decided in [`crate::table::Policy`], so that nothing is accepted here that
//! an edge would refuse.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Hedge, Probe};
use crate::control::api::problem::Problem;
use crate::control::api::request::Object;
use crate::control::api::span::Span;
use crate::feed::messages::PolicyRecord;
use crate::table;

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
    /// How long one try may stay without its first byte while another backend is left to try;
    /// above 0, at most `24h`, and at most `first_byte_timeout` and `deadline` where those are
    /// given too. Absent: as long as the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2s")]
    pub try_timeout: Option<Span>,
    /// From a request's first byte to its answer's first byte, every wait and try included;
    /// above 0, at most `24h`. Absent: the other times alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10s")]
    pub deadline: Option<Span>,
    /// How long a request waits for a backend to come up while none accepts connections; at most
    /// `24h`, `0s`: not at all. Absent: `5s`, and only where one has accepted them before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5s")]
    pub boot_wait: Option<Span>,
    /// Over how long the share of a new or readmitted backend rises to its full one; at most
    /// `24h`, `0s`: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10s")]
    pub slow_start: Option<Span>,
    /// Whether connections to backends are kept and reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_keepalive: Option<bool>,
    /// Bytes of a request body kept for a retry, and waited for before a backend
    /// is asked; at most 16,777,216.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_bytes: Option<u64>,
    /// Other backends tried after the first; at most 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// How many retries and hedges there may be, over all requests of the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<RetryBudget>)]
    pub retry_budget: Option<Object<RetryBudget>>,
    /// When a try that stays silent is overtaken by one on another backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// Whether failing backends are taken out of rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<bool>,
    /// How backends are asked whether they are well. Absent: they are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Probe>)]
    pub probe: Option<Object<Probe>>,
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

/// How many retries and hedges an app's requests may cause together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryBudget {
    /// As a percentage of recent requests; 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 20)]
    pub percent: Option<u32>,
    /// Besides, each second; 0 to 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 10)]
    pub per_second: Option<u32>,
}

impl Policy {
    /// Checked.
    ///
    /// # Errors
    /// Names the field.
    pub(super) fn record(&self) -> Result<PolicyRecord, Problem> {
        self.check_agreement()?;
        let ms = |span: Option<Span>| span.map(|span| span.ms);
        let budget = self.retry_budget.as_ref().map(|Object(budget)| budget);
        let probe = self.probe.as_ref().map(|Object(probe)| probe.record());
        let record = PolicyRecord {
            connect_timeout_ms: ms(self.connect_timeout),
            first_byte_timeout_ms: ms(self.first_byte_timeout),
            idle_timeout_ms: ms(self.idle_timeout),
            backend_keepalive: self.backend_keepalive,
            replay_bytes: self.replay_bytes,
            retries: count("retries", self.retries, 0, 10)?,
            max_concurrency: count("max_concurrency", self.max_concurrency, 1, 1_000_000)?,
            queue: count("queue", self.queue, 0, 1_000_000)?,
            maintenance: self.maintenance,
            try_timeout_ms: ms(self.try_timeout),
            deadline_ms: ms(self.deadline),
            hedge: self.hedge.map(Hedge::record),
            boot_wait_ms: ms(self.boot_wait),
            slow_start_ms: ms(self.slow_start),
            retry_percent: count(
                "retry_budget.percent",
                budget.and_then(|budget| budget.percent),
                0,
                100,
            )?,
            retry_per_second: count(
                "retry_budget.per_second",
                budget.and_then(|budget| budget.per_second),
                0,
                10_000,
            )?,
            ejection: self.ejection,
            probe: probe.transpose()?,
        };
        match table::Policy::from_record(Some(&record)) {
            Ok(_) => Ok(record),
            Err(error) => {
                let expected = format!("expected {}", error.expected());
                Err(wrong(error.key(), &expected))
            }
        }
    }

    /// Whether the times given can all be meant.
    fn check_agreement(&self) -> Result<(), Problem> {
        let whole = [
            ("first_byte_timeout", self.first_byte_timeout),
            ("deadline", self.deadline),
        ];
        for (key, limit) in whole {
            if let (Some(one), Some(limit)) = (self.try_timeout, limit)
                && one > limit
            {
                let detail = format!("{one} for one try, where {key} gives all of them {limit}");
                return Err(wrong("try_timeout", &detail));
            }
        }
        Ok(())
    }

    /// As registered.
    pub(super) fn of(record: &PolicyRecord) -> Policy {
        let span = |ms: Option<u64>| ms.map(|ms| Span { ms });
        let budget = RetryBudget {
            percent: record.retry_percent,
            per_second: record.retry_per_second,
        };
        Policy {
            connect_timeout: span(record.connect_timeout_ms),
            first_byte_timeout: span(record.first_byte_timeout_ms),
            idle_timeout: span(record.idle_timeout_ms),
            try_timeout: span(record.try_timeout_ms),
            deadline: span(record.deadline_ms),
            boot_wait: span(record.boot_wait_ms),
            slow_start: span(record.slow_start_ms),
            backend_keepalive: record.backend_keepalive,
            replay_bytes: record.replay_bytes,
            retries: record.retries,
            retry_budget: (budget != RetryBudget::default()).then_some(Object(budget)),
            hedge: record.hedge.as_ref().map(Hedge::of),
            ejection: record.ejection,
            probe: record.probe.as_ref().map(|probe| Object(Probe::of(probe))),
            max_concurrency: record.max_concurrency,
            queue: record.queue,
            maintenance: record.maintenance,
        }
    }
}

/// A policy's field that cannot be as it is given.
pub(super) fn wrong(key: &str, detail: &str) -> Problem {
    Problem::field(&format!("policy.{key}"), format!("policy.{key}: {detail}"))
}

fn count(key: &str, value: Option<u32>, least: u32, most: u32) -> Result<Option<u32>, Problem> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(wrong(key, &format!("expected {least} to {most}")))
        }
        value => Ok(value),
    }
}
