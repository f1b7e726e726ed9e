//! What a backend did, in a file that outlives it.
//!
//! Each event is one record of 32 bytes, appended by one `write` before anything
//! else happens: once written it is the kernel's, and `kill -9` of the writer
//! loses nothing. 32 divides a page, so that not even a write cut short by the
//! kill leaves half a record in between. Times are of CLOCK_MONOTONIC, which
//! all processes of a machine share. Never synced to a disk: the machine is
//! not what crashes here.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

const RECORD_BYTES: usize = 32;

/// CLOCK_MONOTONIC, µs.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the monotonic clock must not be negative");
    let nanoseconds = u64::try_from(now.tv_nsec).expect("nanoseconds must not be negative");
    seconds * 1_000_000 + nanoseconds / 1_000
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It listens.
    Listening,
    /// It has read a whole request: from here on, the request counts as executed.
    Began,
    /// It is about to answer a request with 200.
    Answered,
    /// It behaves anew from here on.
    Behaves,
}

impl Event {
    fn code(self) -> u64 {
        match self {
            Self::Listening => 1,
            Self::Began => 2,
            Self::Answered => 3,
            Self::Behaves => 4,
        }
    }

    fn of(code: u64) -> Option<Self> {
        [Self::Listening, Self::Began, Self::Answered, Self::Behaves]
            .into_iter()
            .find(|event| event.code() == code)
    }
}

/// One event of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// CLOCK_MONOTONIC, µs.
    pub at_us: u64,
    /// What happened.
    pub event: Event,
    /// The request's number; 0 where there is none.
    pub request: u64,
}

impl Record {
    /// Of now.
    pub fn now(event: Event, request: u64) -> Self {
        Self {
            at_us: now_us(),
            event,
            request,
        }
    }

    /// Appends it, in one write.
    pub fn append(self, file: &mut File) -> Result<()> {
        let mut bytes = [0_u8; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.at_us.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.event.code().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.request.to_le_bytes());
        file.write_all(&bytes).context("writing a record")
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |from: usize| {
            let field = bytes.get(from..from + 8)?;
            Some(u64::from_le_bytes(field.try_into().ok()?))
        };
        Some(Self {
            at_us: number(0)?,
            event: Event::of(number(8)?)?,
            request: number(16)?,
        })
    }
}

/// Opens a backend's file for appending, made if it is not there.
pub fn open(path: &Path) -> Result<File> {
    let opened = File::options().create(true).append(true).open(path);
    opened.with_context(|| format!("opening {}", path.display()))
}

/// Every record of a backend, in its order, over all its lives; none if it never lived.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let records = bytes.chunks_exact(RECORD_BYTES).map(|chunk| {
        Record::decode(chunk).with_context(|| format!("{}: a damaged record", path.display()))
    });
    records.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backend");
        assert_eq!(read(&path).unwrap(), []);
        let written = [
            Record::now(Event::Listening, 0),
            Record::now(Event::Began, 7),
            Record::now(Event::Answered, u64::MAX),
        ];
        for record in written {
            record.append(&mut open(&path).unwrap()).unwrap();
        }
        assert_eq!(read(&path).unwrap(), written);
    }

    #[test]
    fn an_unknown_event_is_damage() {
        assert_eq!(Record::decode(&[9_u8; RECORD_BYTES]), None);
    }
}
