//! What a change wants, on which condition, and what it did.
//!
//! Values only: they are made and checked by the API, carried out by
//! [`staging`](super::staging).

use super::refusal::Refusal;
use crate::feed::messages::{AppRecord, PolicyRecord};

/// A request's condition on the app it changes (RFC 9110, section 13.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// None.
    #[default]
    Always,
    /// `If-Match: "N", …`: the app is at one of these revisions.
    At(Vec<u64>),
    /// `If-Match: *`: there is such an app.
    Exists,
    /// `If-None-Match: *`: there is no such app.
    Absent,
}

impl Condition {
    /// Whether an app at this revision (`None`: there is none) meets it.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, current: Option<u64>) -> Result<(), Refusal> {
        let met = match self {
            Condition::Always => true,
            Condition::At(revisions) => current.is_some_and(|now| revisions.contains(&now)),
            Condition::Exists => current.is_some(),
            Condition::Absent => current.is_none(),
        };
        if met {
            Ok(())
        } else {
            Err(Refusal::Lost { current })
        }
    }
}

/// An app as someone wants it, checked and in normal form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppSpec {
    /// Its name.
    pub name: String,
    /// Host patterns; a repeated one counts once.
    pub domains: Vec<String>,
    /// Its policy; `None` overrides nothing.
    pub policy: Option<PolicyRecord>,
    /// Its backends; `None` keeps those there are.
    pub backends: Option<Vec<BackendSpec>>,
}

/// A backend as someone wants it, checked and in normal form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendSpec {
    /// Its id.
    pub id: String,
    /// `ip:port`.
    pub address: String,
    /// 0 to 1,000.
    pub weight: u32,
    /// May be empty.
    pub release: String,
    /// 0: no lease.
    pub lease_seconds: u32,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The revision to wait for: the app's, or the one that removed it.
    pub revision: u64,
    /// Something came to be that was not there.
    pub created: bool,
    /// Anything is different now.
    pub changed: bool,
    /// The app as it is now; `None`: gone.
    pub record: Option<AppRecord>,
}

/// A lease to begin or end once the batch is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// The app's leases are those of this record.
    Settle(Box<str>),
    /// This backend was just registered or renewed by name.
    Renew(Box<str>, Box<str>),
}
