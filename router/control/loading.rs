//! From a store's rows to what is held in memory.
//!
//! Owns decoding, each row once and on as many threads as the machine has: a
//! million rows are most of control's start. Never believes a row that does
//! not decode.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use prost::{DecodeError, Message};

use super::state::Stored;
use crate::feed::messages::{AppRecord, Standing};

/// An app's name and its encoded record, as the store has them.
pub type Row = (Box<str>, Box<[u8]>);

/// Rows that are not worth a thread of their own.
const ROWS_MIN: usize = 4_096;
/// Threads at most.
const THREADS_MAX: usize = 8;

/// An app on its way from the store into memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Its name.
    pub name: Arc<str>,
    /// As it is held.
    pub(super) stored: Stored,
    /// The hosts it claims.
    pub(super) domains: Vec<String>,
    /// Its record, if time is to bring something about for one of its
    /// backends: a lease, a drain.
    pub(super) timed: Option<Box<AppRecord>>,
}

impl Loaded {
    fn of((name, bytes): Row) -> Result<Loaded, Undecoded> {
        let mut record = match AppRecord::decode(&*bytes) {
            Ok(record) => record,
            Err(error) => return Err(Undecoded { name, error }),
        };
        let stored = Stored {
            revision: record.revision,
            backends: u32::try_from(record.backends.len()).unwrap_or(u32::MAX),
            bytes,
        };
        let domains = std::mem::take(&mut record.domains);
        let is_timed = record
            .backends
            .iter()
            .any(|it| it.lease_seconds > 0 || it.standing() == Standing::Draining);
        Ok(Loaded {
            name: name.into(),
            stored,
            domains,
            timed: is_timed.then(|| Box::new(record)),
        })
    }

    /// Its backends.
    pub fn backends(&self) -> u64 {
        u64::from(self.stored.backends)
    }

    /// Its record's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.stored.bytes
    }
}

/// A row that is no record.
#[derive(Debug)]
pub struct Undecoded {
    /// The app's name.
    pub name: Box<str>,
    /// What is wrong with it.
    pub error: DecodeError,
}

/// Decodes rows, in their order.
///
/// # Errors
/// One of them is no record.
pub fn decode(mut rows: Vec<Row>) -> Result<Vec<Loaded>, Undecoded> {
    let machine = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = machine.min(THREADS_MAX).min(1 + rows.len() / ROWS_MIN);
    let share = rows.len().div_ceil(threads).max(1);
    let mut loaded = Vec::with_capacity(rows.len());
    let decode = |rows: Vec<Row>| {
        rows.into_iter()
            .map(Loaded::of)
            .collect::<Result<Vec<_>, _>>()
    };
    thread::scope(|scope| {
        let mut others = Vec::new();
        while rows.len() > share {
            let last = rows.split_off((rows.len() - 1) / share * share);
            others.push(scope.spawn(move || decode(last)));
        }
        loaded.extend(decode(rows)?);
        // Split off from the end: the first of the rest is the last of these.
        for other in others.into_iter().rev() {
            match other.join() {
                Ok(part) => loaded.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(loaded)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::messages::BackendRecord;

    fn row(n: usize) -> Row {
        let leased = BackendRecord {
            id: "web.1".to_owned(),
            lease_seconds: u32::from(n % 10 == 3),
            ..BackendRecord::default()
        };
        let record = AppRecord {
            name: format!("app-{n:06}"),
            domains: vec![format!("{n}.example")],
            backends: vec![leased; n % 3],
            revision: n as u64,
            ..AppRecord::default()
        };
        (record.name.as_str().into(), record.encode_to_vec().into())
    }

    #[test]
    fn rows_come_out_decoded_and_in_their_order() {
        for count in [0, 1, ROWS_MIN - 1, ROWS_MIN, 3 * ROWS_MIN + 1] {
            let loaded = decode((0..count).map(row).collect()).unwrap();
            assert_eq!(loaded.len(), count);
            for (n, app) in loaded.iter().enumerate() {
                let (name, bytes) = row(n);
                assert_eq!((&*app.name, app.bytes()), (&*name, &*bytes));
                assert_eq!(
                    (app.stored.revision, app.backends()),
                    (n as u64, n as u64 % 3)
                );
                assert_eq!(app.domains, [format!("{n}.example")]);
                assert_eq!(app.timed.is_some(), n % 10 == 3 && n % 3 > 0);
            }
        }
    }

    #[test]
    fn a_row_that_is_no_record_is_named() {
        let mut rows: Vec<Row> = (0..2 * ROWS_MIN).map(row).collect();
        let last = rows.len() - 1;
        rows[last].1 = Box::from([0xff; 7]);
        assert_eq!(*decode(rows).unwrap_err().name, *row(last).0);
    }
}
