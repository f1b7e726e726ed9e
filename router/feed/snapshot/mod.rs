//! The snapshot file: every app as of one revision.
//!
//! Owns the file's format, its writer and its reader. Never applies the
//! journal, never chooses between files: that is
//! [`last_known_good`](fn@super::last_known_good).
//!
//! ```text
//! header   magic, format, oldest reader, sections, epoch, revision, cluster id, crc32c
//! block*   section, count, length, crc32c of those and the payload
//!          payload: that many length-delimited AppRecords
//! summary  mark, apps, backends, removed apps, removed backends, crc32c
//! index    of each block: offset, section, count, length, crc32c
//! trailer  apps, blocks, index length, crc32c of header and index, magic
//! ```
//!
//! An app's section is chosen by its name, so that what a damaged block held is
//! known: the same section of an older file stands in. A section is cut into
//! blocks, so that writing a million apps in any order needs a few megabytes.
//! The summary came later: files without one read as well, and programs that do
//! not know of it pass it over.
//! The index repeats each block's checksum and is checksummed itself: together
//! they cover every byte. Integers are big-endian.

mod read;
pub(super) mod write;

pub use read::Snapshot;
pub use write::SnapshotWriter;

use std::io;
use std::path::{Path, PathBuf};

use super::messages::{Removed, Totals};
use crate::settings::absolute;

/// The file, in the table's folder.
pub const FILE: &str = "snapshot";
/// The one before it.
pub const PREVIOUS_FILE: &str = "snapshot.previous";

const MAGIC: [u8; 8] = *b"PORTICO\x01";
const END_MAGIC: [u8; 8] = *b"\x01OCITROP";
/// The format this program writes.
const FORMAT: u32 = 1;
/// The oldest program that may read what this one writes.
const MIN_READER: u32 = 1;
/// Sections of a file written by this program.
const SECTIONS: u32 = 64;
/// Most sections a reader accepts.
const MAX_SECTIONS: u32 = 4096;
/// A block is written once it has this many bytes.
const BLOCK_BYTES: usize = 64 * 1024;
/// Most bytes of a block a reader accepts: one app of the largest frame fits.
const MAX_BLOCK_BYTES: usize = super::codec::MAX_FRAME_BYTES + BLOCK_BYTES;
/// Bytes of a block before its payload.
const BLOCK_HEADER_BYTES: usize = 16;
/// Bytes of one block's place in the index.
const INDEX_ENTRY_BYTES: usize = 24;
/// Bytes after the index.
const TRAILER_BYTES: usize = 32;
/// What the summary begins with.
const SUMMARY_MARK: [u8; 4] = *b"sum\x01";
/// Bytes of the summary.
const SUMMARY_BYTES: usize = 40;
/// Most bytes of a cluster's id.
pub(super) const MAX_CLUSTER_ID_BYTES: usize = 256;

/// What a snapshot or a journal starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which installation this is.
    pub cluster_id: String,
    /// The store's epoch.
    pub epoch: u64,
    /// The revision it is of (snapshot) or follows (journal).
    pub revision: u64,
}

/// How much a snapshot holds, for those who judge it without reading it all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Apps and backends in it.
    pub totals: Totals,
    /// What was ever removed, as of its revision.
    pub removed: Removed,
}

impl Summary {
    fn encode(&self) -> [u8; SUMMARY_BYTES] {
        let mut bytes = [0; SUMMARY_BYTES];
        bytes[..4].copy_from_slice(&SUMMARY_MARK);
        let Summary { totals, removed } = self;
        let fields = [totals.apps, totals.backends, removed.apps, removed.backends];
        for (at, field) in fields.into_iter().enumerate() {
            bytes[4 + at * 8..12 + at * 8].copy_from_slice(&field.to_be_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..SUMMARY_BYTES - 4]);
        bytes[SUMMARY_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None`: its bytes are not what was written.
    fn decode(bytes: &[u8; SUMMARY_BYTES]) -> Option<Summary> {
        let crc = crc32c::crc32c(&bytes[..SUMMARY_BYTES - 4]);
        if bytes[..4] != SUMMARY_MARK || crc != u32_at(bytes, SUMMARY_BYTES - 4) {
            return None;
        }
        Some(Summary {
            totals: Totals {
                apps: u64_at(bytes, 4),
                backends: u64_at(bytes, 12),
            },
            removed: Removed {
                apps: u64_at(bytes, 20),
                backends: u64_at(bytes, 28),
            },
        })
    }
}

/// Why a file of the table's folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there.
    #[error("{} is not there", absolute(path).display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system failed.
    #[error("{}: {source}", absolute(path).display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Written for later programs only.
    #[error("{} needs a reader of format {needed}, this program reads {FORMAT}", absolute(path).display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        needed: u32,
    },
    /// Its bytes are not what was written.
    #[error("{} is damaged: {what}", absolute(path).display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        what: &'static str,
    },
    /// A delta or record that this file cannot take.
    #[error("{}: {what}", absolute(path).display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
}

impl FileError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> FileError + '_ {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => FileError::Missing { path: path.into() },
            _ => FileError::Io {
                path: path.into(),
                source,
            },
        }
    }
}

/// Verifies every byte of the newest snapshot in `folder`; returns what it is
/// of.
///
/// # Errors
/// Missing, unreadable, too new, or damaged anywhere.
pub fn check(folder: &Path) -> Result<Head, FileError> {
    let snapshot = Snapshot::open(&folder.join(FILE))?;
    if snapshot.is_whole() && !snapshot.is_summary_damaged {
        return Ok(snapshot.head);
    }
    Err(FileError::Damaged {
        path: snapshot.path().into(),
        what: "what it holds",
    })
}

/// The section of an app in a file of `sections` sections. Part of the format.
pub(super) fn section_of(name: &str, sections: u32) -> u32 {
    crc32c::crc32c(name.as_bytes()) % sections.max(1)
}

/// A block's checksum: over its header's other fields, then its payload.
fn block_crc(section: u32, count: u32, payload: &[u8]) -> u32 {
    let mut fields = [0; 12];
    fields[..4].copy_from_slice(&section.to_be_bytes());
    fields[4..8].copy_from_slice(&count.to_be_bytes());
    fields[8..].copy_from_slice(&(payload.len() as u32).to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&fields), payload)
}

/// Where a block is and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlockPlace {
    offset: u64,
    section: u32,
    count: u32,
    length: u32,
    crc: u32,
}

/// The header shared by snapshots and journals, checksum included.
pub(super) fn encode_head(magic: [u8; 8], sections: u32, head: &Head) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(48 + head.cluster_id.len());
    bytes.extend(magic);
    bytes.extend(FORMAT.to_be_bytes());
    bytes.extend(MIN_READER.to_be_bytes());
    bytes.extend(sections.to_be_bytes());
    bytes.extend(head.epoch.to_be_bytes());
    bytes.extend(head.revision.to_be_bytes());
    bytes.extend((head.cluster_id.len() as u32).to_be_bytes());
    bytes.extend(head.cluster_id.as_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    bytes
}

/// Bytes of a header before the cluster's id.
const HEAD_FIXED_BYTES: usize = 40;

/// Reads a header; returns its bytes' number, the sections and the head.
///
/// # Errors
/// Missing, too new, damaged.
pub(super) fn read_head(
    file: &mut impl io::Read,
    magic: [u8; 8],
    path: &Path,
) -> Result<(Vec<u8>, u32, Head), FileError> {
    let damaged = |what| FileError::Damaged {
        path: path.into(),
        what,
    };
    let mut bytes = vec![0; HEAD_FIXED_BYTES];
    file.read_exact(&mut bytes)
        .map_err(|_| damaged("its header is cut short"))?;
    if bytes[..8] != magic {
        return Err(damaged("it does not begin as such a file does"));
    }
    let id_bytes = u32_at(&bytes, 36) as usize;
    if id_bytes > MAX_CLUSTER_ID_BYTES {
        return Err(damaged("its header's length"));
    }
    bytes.resize(HEAD_FIXED_BYTES + id_bytes + 4, 0);
    file.read_exact(&mut bytes[HEAD_FIXED_BYTES..])
        .map_err(|_| damaged("its header is cut short"))?;
    let body = bytes.len() - 4;
    if crc32c::crc32c(&bytes[..body]) != u32_at(&bytes, body) {
        return Err(damaged("its header's checksum"));
    }
    let needed = u32_at(&bytes, 12);
    if needed > FORMAT {
        return Err(FileError::TooNew {
            path: path.into(),
            needed,
        });
    }
    let sections = u32_at(&bytes, 16);
    let head = Head {
        epoch: u64_at(&bytes, 20),
        revision: u64_at(&bytes, 28),
        cluster_id: String::from_utf8(bytes[HEAD_FIXED_BYTES..body].to_vec())
            .map_err(|_| damaged("its cluster id"))?,
    };
    Ok((bytes, sections, head))
}

/// The integer at `at`, which must be inside.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes must be 4"))
}

/// The integer at `at`, which must be inside.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes must be 8"))
}

#[cfg(test)]
mod tests;
