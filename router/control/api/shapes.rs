//! The JSON shapes of apps, policies and backends, and the way to and from
//! records.
//!
//! Owns names, ranges and normal forms. Everything registered went through
//! here, and everything read comes back in the same shape.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::request::Object;
use super::span::Span;
use crate::control::names;
use crate::control::staging::{AppSpec, BackendSpec};
use crate::feed::messages::{AppRecord, BackendRecord, PolicyRecord, Standing};

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
    fn record(&self) -> Result<PolicyRecord, Problem> {
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

    fn of(record: &PolicyRecord) -> Policy {
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

/// The body of `PUT /v1/apps/{app}`.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppBody {
    /// Hosts: exact or `*.` wildcard, each with an optional path prefix.
    #[serde(default)]
    #[schema(example = json!(["shop.example", "*.shop.example", "example.com/shop"]))]
    pub domains: Vec<String>,
    /// What the app overrides.
    #[serde(default)]
    #[schema(value_type = Policy)]
    pub policy: Object<Policy>,
}

impl AppBody {
    /// Checked, for an app of this name; its backends stay.
    ///
    /// # Errors
    /// Names the field.
    pub fn spec(self, name: String) -> Result<AppSpec, Problem> {
        let policy = Some(self.policy.0.record()?);
        Ok(AppSpec {
            name,
            domains: domains(&self.domains)?,
            policy,
            backends: None,
        })
    }
}

fn domains(given: &[String]) -> Result<Vec<String>, Problem> {
    let normal = |(at, host): (usize, &String)| {
        names::host(host).map_err(|detail| Problem::field(&format!("domains[{at}]"), detail))
    };
    given.iter().enumerate().map(normal).collect()
}

/// The body of `PUT /v1/apps/{app}/backends/{id}`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendBody {
    /// `ip:port`.
    #[schema(example = "10.0.0.7:8000")]
    pub address: String,
    /// 0 to 1,000; its share relative to its peers'. 0: only if nothing else is left.
    #[serde(default = "full_weight")]
    #[schema(default = 100)]
    pub weight: u32,
    /// The release it runs.
    #[serde(default)]
    pub release: String,
    /// 1 to 86,400: it must be heard of this often. Absent: it stays until removed.
    #[serde(default)]
    pub lease_seconds: Option<u32>,
}

fn full_weight() -> u32 {
    100
}

impl BackendBody {
    /// Checked, for a backend of this id; `prefix` leads to its fields.
    ///
    /// # Errors
    /// Names the field.
    pub fn spec(self, id: String, prefix: &str) -> Result<BackendSpec, Problem> {
        let wrong =
            |field: &str, detail: String| Problem::field(&format!("{prefix}{field}"), detail);
        let address = names::address(&self.address).map_err(|detail| wrong("address", detail))?;
        if self.weight > 1_000 {
            return Err(wrong("weight", "weight: expected 0 to 1000".into()));
        }
        names::check_release(&self.release).map_err(|detail| wrong("release", detail))?;
        if self
            .lease_seconds
            .is_some_and(|seconds| !(1..=86_400).contains(&seconds))
        {
            return Err(wrong(
                "lease_seconds",
                "lease_seconds: expected 1 to 86400".into(),
            ));
        }
        Ok(BackendSpec {
            id,
            address: address.to_string(),
            weight: self.weight,
            release: self.release,
            lease_seconds: self.lease_seconds.unwrap_or(0),
        })
    }
}

/// A backend as it is registered.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Backend {
    /// `ip:port`.
    pub address: String,
    /// Its share relative to its peers'.
    pub weight: u32,
    /// The release it runs.
    pub release: String,
    /// Absent: it stays until removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u32>,
    /// Whether new requests may go to it: `active`, `suspect` or `draining`.
    pub standing: &'static str,
}

impl Backend {
    /// As registered.
    pub fn of(record: &BackendRecord) -> Backend {
        Backend {
            address: record.address.clone(),
            weight: record.weight,
            release: record.release.clone(),
            lease_seconds: (record.lease_seconds > 0).then_some(record.lease_seconds),
            standing: match record.standing() {
                Standing::Active => "active",
                Standing::Suspect => "suspect",
                Standing::Draining => "draining",
            },
        }
    }
}

/// An app as it is registered.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct App {
    /// Its name.
    pub app: String,
    /// The revision of its last change; also its `ETag`.
    pub revision: u64,
    /// Its hosts, in normal form.
    pub domains: Vec<String>,
    /// What it overrides.
    pub policy: Policy,
    /// Its instances, by id.
    pub backends: BTreeMap<String, Backend>,
}

impl App {
    /// As registered.
    pub fn of(record: AppRecord) -> App {
        App {
            policy: record.policy.as_ref().map(Policy::of).unwrap_or_default(),
            backends: record
                .backends
                .iter()
                .map(|it| (it.id.clone(), Backend::of(it)))
                .collect(),
            app: record.name,
            revision: record.revision,
            domains: record.domains,
        }
    }
}

/// A line of an import: an app whole.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportLine {
    /// Its name.
    pub app: String,
    /// Its hosts.
    #[serde(default)]
    pub domains: Vec<String>,
    /// What it overrides.
    #[serde(default)]
    #[schema(value_type = Policy)]
    pub policy: Object<Policy>,
    /// Its instances, by id; absent: those registered stay.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, BackendBody>>)]
    pub backends: Option<BTreeMap<String, Object<BackendBody>>>,
}

impl ImportLine {
    /// Checked.
    ///
    /// # Errors
    /// Names the field.
    pub fn spec(self) -> Result<AppSpec, Problem> {
        names::check_app(&self.app).map_err(|detail| Problem::field("app", detail))?;
        let backends = self.backends.map(|backends| {
            let checked = |(id, Object(body)): (String, Object<BackendBody>)| {
                let prefix = format!("backends.{id}.");
                names::check_backend(&id).map_err(|detail| Problem::field("backends", detail))?;
                body.spec(id, &prefix)
            };
            backends
                .into_iter()
                .map(checked)
                .collect::<Result<Vec<_>, Problem>>()
        });
        Ok(AppSpec {
            policy: Some(self.policy.0.record()?),
            domains: domains(&self.domains)?,
            backends: backends.transpose()?,
            name: self.app,
        })
    }
}

/// A line of an export: what an import of it brings back.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExportLine {
    /// Its name.
    pub app: String,
    /// Its hosts.
    pub domains: Vec<String>,
    /// What it overrides.
    pub policy: Policy,
    /// Its instances, by id, without those that drain.
    pub backends: BTreeMap<String, ExportBackend>,
}

/// A backend in an export.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExportBackend {
    /// `ip:port`.
    pub address: String,
    /// Its share relative to its peers'.
    pub weight: u32,
    /// The release it runs.
    pub release: String,
    /// Absent: it stays until removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u32>,
}

impl ExportLine {
    /// As registered.
    pub fn of(record: AppRecord) -> ExportLine {
        let staying = record
            .backends
            .into_iter()
            .filter(|it| it.standing() != Standing::Draining);
        let backends = staying.map(|it| {
            let backend = ExportBackend {
                address: it.address,
                weight: it.weight,
                release: it.release,
                lease_seconds: (it.lease_seconds > 0).then_some(it.lease_seconds),
            };
            (it.id, backend)
        });
        ExportLine {
            app: record.name,
            domains: record.domains,
            policy: record.policy.as_ref().map(Policy::of).unwrap_or_default(),
            backends: backends.collect(),
        }
    }
}
