//! The JSON shape of a backend.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::control::api::problem::Problem;
use crate::control::names;
use crate::control::staging::BackendSpec;
use crate::feed::messages::{BackendRecord, Standing};

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
    /// An operator took it out of rotation until it is readmitted, or registered at another
    /// address. Absent: no.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ejected: bool,
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
            ejected: record.ejected,
        }
    }
}
