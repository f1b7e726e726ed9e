//! Apps for the prober's tests.

use crate::feed::messages::{
    AppRecord, BackendRecord, Change, Delta, Op, PolicyRecord, ProbeRecord,
};
use crate::table::Table;

/// An app with backends `web.0` and so on at these addresses.
pub(super) fn app(name: &str, addresses: &[&str], probe: Option<ProbeRecord>) -> AppRecord {
    let backend = |(n, address): (usize, &&str)| BackendRecord {
        id: format!("web.{n:04}"),
        address: (*address).to_owned(),
        weight: 1,
        incarnation: 1,
        ..BackendRecord::default()
    };
    AppRecord {
        name: name.to_owned(),
        backends: addresses.iter().enumerate().map(backend).collect(),
        policy: Some(PolicyRecord {
            probe,
            ..PolicyRecord::default()
        }),
        ..AppRecord::default()
    }
}

/// Publishes an app.
pub(super) fn put(table: &Table, record: AppRecord) {
    apply(table, Change::Put(record));
}

/// Applies a change, which must be usable.
pub(super) fn apply(table: &Table, change: Change) {
    let revision = table.revision();
    let nacks = table.apply(&Delta {
        from: revision,
        to: revision + 1,
        ops: vec![Op {
            change: Some(change),
        }],
        committed_at_ms: 0,
        ..Delta::default()
    });
    assert_eq!(nacks, []);
}
