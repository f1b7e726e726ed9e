//! The JSON shape of an app.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Backend, Policy};
use crate::control::api::problem::Problem;
use crate::control::api::request::Object;
use crate::control::names;
use crate::control::staging::AppSpec;
use crate::feed::messages::AppRecord;

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

pub(super) fn domains(given: &[String]) -> Result<Vec<String>, Problem> {
    let normal = |(at, host): (usize, &String)| {
        names::host(host).map_err(|detail| Problem::field(&format!("domains[{at}]"), detail))
    };
    given.iter().enumerate().map(normal).collect()
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
