//! The lines of an import and of an export.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::app::domains;
use super::{BackendBody, Policy};
use crate::control::api::problem::Problem;
use crate::control::api::request::Object;
use crate::control::names;
use crate::control::staging::AppSpec;
use crate::feed::messages::{AppRecord, Standing};

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

/// A line of an export: what an import of it brings back. What an operator
/// ejected is in it like any other: that is about this router today, not about
/// the app. Imported where it is ejected, at the same address, it stays so.
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
