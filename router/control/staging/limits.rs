//! Named limits being changed: they count revisions of their own, since no
//! table depends on them.

use super::{Condition, Refusal, Staging, limit};
use crate::control::limits::{KEYED_MAX, LIMITS_MAX};
use crate::feed::messages::LimitRecord;

/// What came of a change of a limit.
#[derive(Clone, Debug)]
pub struct LimitOutcome {
    /// It was not stored before.
    pub created: bool,
    /// Anything is other than before.
    pub changed: bool,
    /// The revision of its last change, this one or an earlier one.
    pub revision: u64,
}

impl Staging<'_> {
    /// Stores a limit.
    ///
    /// # Errors
    /// The condition is not met, or there are too many.
    pub fn put_limit(
        &mut self,
        record: &LimitRecord,
        condition: &Condition,
    ) -> Result<LimitOutcome, Refusal> {
        let before = self.limit(&record.name);
        condition.check(before.map(|before| before.revision))?;
        let same = before.filter(|before| {
            let as_before = LimitRecord {
                revision: before.revision,
                ..record.clone()
            };
            as_before == **before
        });
        if let Some(same) = same {
            return Ok(LimitOutcome {
                created: false,
                changed: false,
                revision: same.revision,
            });
        }
        let created = before.is_none();
        let others = || {
            let all = self.base.limits.keys().chain(self.batch.limits.keys());
            let names: std::collections::BTreeSet<_> = all.collect();
            let others = names.into_iter().filter(|name| **name != record.name);
            others.filter_map(|name| self.limit(name))
        };
        limit("limits", others().count() + 1, LIMITS_MAX)?;
        if record.per.is_some() {
            let keyed = others().filter(|other| other.per.is_some()).count();
            limit("limits with `per`", keyed + 1, KEYED_MAX)?;
        }
        let revision = self.next_limits_revision();
        let record = LimitRecord {
            revision,
            ..record.clone()
        };
        self.batch.limits.insert(record.name.clone(), Some(record));
        Ok(LimitOutcome {
            created,
            changed: true,
            revision,
        })
    }

    /// Removes a limit.
    ///
    /// # Errors
    /// There is none, or the condition is not met.
    pub fn delete_limit(
        &mut self,
        name: &str,
        condition: &Condition,
    ) -> Result<LimitOutcome, Refusal> {
        let before = self.limit(name).map(|before| before.revision);
        let before = before.ok_or_else(|| Refusal::NoLimit(name.to_owned()))?;
        condition.check(Some(before))?;
        let revision = self.next_limits_revision();
        self.batch.limits.insert(name.to_owned(), None);
        Ok(LimitOutcome {
            created: false,
            changed: true,
            revision,
        })
    }

    fn limit(&self, name: &str) -> Option<&LimitRecord> {
        match self.batch.limits.get(name) {
            Some(staged) => staged.as_ref(),
            None => self.base.limits.get(name),
        }
    }

    fn next_limits_revision(&mut self) -> u64 {
        let newest = self.batch.limits_revision.max(self.base.limits_revision);
        self.batch.limits_revision = newest + 1;
        self.batch.limits_revision
    }
}
