//! What a change wants, on which condition, and what it did.
//!
//! Values only: they are made and checked by the API, carried out by
//! [`staging`](super::staging).

use super::refusal::Refusal;
use crate::feed::messages::{AppRecord, PolicyRecord};
use crate::policy::shrink;

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

/// What an import comes to, over all of its groups: whether it drops more
/// backends than is likely meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportTally {
    /// Whoever imports says that it is meant.
    is_confirmed: bool,
    /// Backends of all apps when it began.
    registered: Option<u64>,
    /// Backends of the apps it named, before and after.
    before: u64,
    after: u64,
}

impl ImportTally {
    /// Of an import that begins; `is_confirmed`: it may drop what it likes.
    pub fn new(is_confirmed: bool) -> ImportTally {
        ImportTally {
            is_confirmed,
            ..ImportTally::default()
        }
    }

    /// Goes on with what [`told`](Self::told) says; `None`: it says something
    /// else.
    pub fn resume(told: &str, is_confirmed: bool) -> Option<ImportTally> {
        let mut numbers = told.split('-').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        let (registered, before, after) = (next()?, next()?, next()?);
        numbers.next().is_none().then_some(ImportTally {
            is_confirmed,
            registered: Some(registered),
            before,
            after,
        })
    }

    /// All of it, for an import that is sent in several requests: backends
    /// registered when it began, and those of the apps named so far, before and
    /// after. Empty while nothing was named.
    pub fn told(&self) -> String {
        match self.registered {
            Some(registered) => format!("{registered}-{}-{}", self.before, self.after),
            None => String::new(),
        }
    }

    /// Takes in apps that come to have `after` backends instead of `before`.
    ///
    /// # Errors
    /// Too many are dropped; the apps are not counted.
    pub(super) fn take(
        &mut self,
        registered: u64,
        replaced: impl Iterator<Item = (u64, u64)>,
    ) -> Result<(), Refusal> {
        let registered = *self.registered.get_or_insert(registered);
        let (mut before, mut after) = (self.before, self.after);
        for (had, has) in replaced {
            (before, after) = (before + had, after + has);
        }
        let dropped = before.saturating_sub(after);
        if !self.is_confirmed && shrink::is_hasty_import(registered, dropped) {
            return Err(Refusal::HastyImport {
                registered,
                dropped,
            });
        }
        (self.before, self.after) = (before, after);
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_judged_over_all_of_its_groups() {
        let mut tally = ImportTally::default();
        let mut take = |replaced: &[(u64, u64)]| tally.take(1_000, replaced.iter().copied());
        assert!(take(&[(150, 0)]).is_ok());
        // What it adds elsewhere counts for it.
        assert!(take(&[(0, 30), (80, 0)]).is_ok());
        let refused = take(&[(1, 0)]).unwrap_err();
        assert!(matches!(
            refused,
            Refusal::HastyImport {
                registered: 1_000,
                dropped: 201
            }
        ));
        // In another request it is the same import.
        let mut tally = ImportTally::resume(&tally.told(), false).unwrap();
        assert!(tally.take(1_000, [(1, 0)].into_iter()).is_err());
        assert!(tally.take(5_000_000, [(0, 1), (1, 0)].into_iter()).is_ok());
        assert_eq!(tally.told(), "1000-231-31");
        for nonsense in ["1-2", "1-2-x", "1-2-3-4", "-1-2-3"] {
            assert_eq!(ImportTally::resume(nonsense, false), None, "{nonsense}");
        }
        let mut tally = ImportTally::new(true);
        assert!(tally.take(1_000, [(1_000, 0)].into_iter()).is_ok());
    }
}
