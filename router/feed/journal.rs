//! The journal: the deltas since a snapshot, appended as they are committed.
//!
//! Owns the file's format, appending and reading. Never reads what follows a
//! frame that does not verify: the writer truncates there, the reader stops
//! there and says so.
//!
//! ```text
//! header  as a snapshot's: the revision is the one the first delta follows
//! frame*  length, crc32c of the payload, payload: one encoded Delta
//! ```
//!
//! When a snapshot is taken a new journal begins with the deltas that are
//! newer, and the old one stays beside it as the snapshot before does: the two
//! older files together still lead to the newest revision.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use prost::Message;

use super::codec::MAX_FRAME_BYTES;
use super::messages::Delta;
use super::snapshot::write::sync_folder;
use super::snapshot::{FileError, Head, encode_head, read_head, u32_at};

/// The file, in the table's folder.
pub const FILE: &str = "journal";
/// The one before it.
pub const PREVIOUS_FILE: &str = "journal.previous";

const MAGIC: [u8; 8] = *b"PORTICOJ";
const FRAME_HEADER_BYTES: usize = 8;

/// A journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    head: Head,
    revision: u64,
    bytes: u64,
}

impl Journal {
    /// Begins the journal of the snapshot just put in place in `folder`. Deltas
    /// of the journal before that are newer than the snapshot are taken along;
    /// that journal is kept beside this one.
    ///
    /// # Errors
    /// I/O; the journal before is then still in place.
    pub fn begin(folder: &Path, head: &Head) -> Result<Journal, FileError> {
        let path = folder.join(FILE);
        let temporary = folder.join("journal.new");
        let failed = || FileError::io(&temporary);
        let file = File::create(&temporary).map_err(failed())?;
        let mut out = BufWriter::new(file);
        let header = encode_head(MAGIC, 0, head);
        out.write_all(&header).map_err(failed())?;
        let mut journal = Tail {
            revision: head.revision,
            bytes: header.len() as u64,
        };
        if let Ok(mut before) = JournalReader::open(&path)
            && before.head.cluster_id == head.cluster_id
            && before.head.epoch == head.epoch
        {
            while let Some(delta) = before.next_after(journal.revision) {
                let frame = encode_frame(&delta, &path)?;
                out.write_all(&frame).map_err(failed())?;
                journal.revision = delta.to;
                journal.bytes += frame.len() as u64;
            }
        }
        let file = out
            .into_inner()
            .map_err(|error| failed()(error.into_error()))?;
        file.sync_all().map_err(failed())?;
        if path.exists() {
            let previous = folder.join(PREVIOUS_FILE);
            fs::rename(&path, &previous).map_err(FileError::io(&previous))?;
        }
        fs::rename(&temporary, &path).map_err(FileError::io(&path))?;
        sync_folder(folder).map_err(FileError::io(folder))?;
        Ok(Journal {
            path,
            file,
            head: head.clone(),
            revision: journal.revision,
            bytes: journal.bytes,
        })
    }

    /// Opens the journal of `folder` to append to it; whatever follows its
    /// last good frame is cut off.
    ///
    /// # Errors
    /// Missing, a damaged header, I/O.
    pub fn open(folder: &Path) -> Result<Journal, FileError> {
        let path = folder.join(FILE);
        let mut reader = JournalReader::open(&path)?;
        while reader.next_delta().is_some() {}
        let failed = || FileError::io(&path);
        let mut file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(failed())?;
        file.set_len(reader.good_bytes).map_err(failed())?;
        file.seek(SeekFrom::End(0)).map_err(failed())?;
        file.sync_all().map_err(failed())?;
        Ok(Journal {
            file,
            revision: reader.revision,
            bytes: reader.good_bytes,
            head: reader.head,
            path,
        })
    }

    /// Whose it is and which revision its first delta follows.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The revision its last delta reached.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether it is still what its path names: not removed, not replaced.
    pub fn is_in_place(&self) -> bool {
        let own = self.file.metadata().map(|it| (it.dev(), it.ino()));
        let named = fs::metadata(&self.path).map(|it| (it.dev(), it.ino()));
        matches!((own, named), (Ok(own), Ok(named)) if own == named)
    }

    /// Its length: a writer takes a new snapshot once it is long.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a delta, not yet durable: see [`sync`](Self::sync).
    ///
    /// # Errors
    /// A delta that does not follow the last one, or is over the feed's largest
    /// frame; I/O, after which the file ends as before the call.
    pub fn append(&mut self, delta: &Delta) -> Result<(), FileError> {
        if delta.from != self.revision || delta.to < delta.from {
            return Err(FileError::Refused {
                path: self.path.clone(),
                what: format!(
                    "a delta from {} to {} does not follow revision {}",
                    delta.from, delta.to, self.revision
                ),
            });
        }
        let frame = encode_frame(delta, &self.path)?;
        if let Err(error) = self.file.write_all(&frame) {
            // A full disk may have taken half of it: the next frame must not
            // follow that.
            let _ = self.file.set_len(self.bytes);
            let _ = self.file.seek(SeekFrom::End(0));
            return Err(FileError::io(&self.path)(error));
        }
        self.revision = delta.to;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Makes what was appended durable.
    ///
    /// # Errors
    /// I/O.
    pub fn sync(&self) -> Result<(), FileError> {
        self.file.sync_data().map_err(FileError::io(&self.path))
    }
}

/// How far a journal being written reaches.
struct Tail {
    revision: u64,
    bytes: u64,
}

fn encode_frame(delta: &Delta, path: &Path) -> Result<Vec<u8>, FileError> {
    let length = delta.encoded_len();
    if length > MAX_FRAME_BYTES {
        return Err(FileError::Refused {
            path: path.into(),
            what: format!("a delta of {length} bytes"),
        });
    }
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    frame.reserve(length);
    delta
        .encode(&mut frame)
        .expect("a Vec must have room: it grows");
    let crc = crc32c::crc32c(&frame[FRAME_HEADER_BYTES..]);
    frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
    frame[4..8].copy_from_slice(&crc.to_be_bytes());
    Ok(frame)
}

/// Reads a journal from its start, up to the first frame that does not verify.
#[derive(Debug)]
pub struct JournalReader {
    /// Whose it is and which revision its first delta follows.
    pub head: Head,
    file: BufReader<File>,
    revision: u64,
    good_bytes: u64,
    damage: Option<&'static str>,
}

impl JournalReader {
    /// Opens a journal file.
    ///
    /// # Errors
    /// Missing, unreadable, too new, or a damaged header.
    pub fn open(path: &Path) -> Result<JournalReader, FileError> {
        let mut file = BufReader::new(File::open(path).map_err(FileError::io(path))?);
        let (header, _, head) = read_head(&mut file, MAGIC, path)?;
        Ok(JournalReader {
            revision: head.revision,
            head,
            file,
            good_bytes: header.len() as u64,
            damage: None,
        })
    }

    /// The next delta; `None` at the end, or at the first damage.
    pub fn next_delta(&mut self) -> Option<Delta> {
        if self.damage.is_some() {
            return None;
        }
        match self.read() {
            Ok(delta) => {
                let delta = delta?;
                self.revision = delta.to;
                Some(delta)
            }
            Err(damage) => {
                self.damage = Some(damage);
                None
            }
        }
    }

    /// The next delta that follows `revision`, those before it left out.
    pub fn next_after(&mut self, revision: u64) -> Option<Delta> {
        loop {
            let delta = self.next_delta()?;
            if delta.from >= revision && delta.to > revision {
                return (delta.from == revision).then_some(delta);
            }
        }
    }

    /// What ended the reading before the file's end, if anything did.
    pub fn damage(&self) -> Option<&'static str> {
        self.damage
    }

    /// The revision of the last delta read.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn read(&mut self) -> Result<Option<Delta>, &'static str> {
        let mut fields = [0; FRAME_HEADER_BYTES];
        match self.fill(&mut fields)? {
            0 => return Ok(None),
            FRAME_HEADER_BYTES => {}
            _ => return Err("it ends inside a frame"),
        }
        let length = u32_at(&fields, 0) as usize;
        if length > MAX_FRAME_BYTES {
            return Err("a frame's length");
        }
        // By what is there, not by what the length claims.
        let mut payload = Vec::new();
        let read = (&mut self.file)
            .take(length as u64)
            .read_to_end(&mut payload);
        if read.map_err(|_| "it can not be read")? != length {
            return Err("it ends inside a frame");
        }
        if crc32c::crc32c(&payload) != u32_at(&fields, 4) {
            return Err("a frame's checksum");
        }
        let delta = Delta::decode(&payload[..]).map_err(|_| "a frame's content")?;
        if delta.from != self.revision || delta.to < delta.from {
            return Err("a delta that does not follow the one before");
        }
        self.good_bytes += (FRAME_HEADER_BYTES + length) as u64;
        Ok(Some(delta))
    }

    /// Fills `into` as far as the file goes; returns how far.
    fn fill(&mut self, into: &mut [u8]) -> Result<usize, &'static str> {
        let mut filled = 0;
        while filled < into.len() {
            match self.file.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err("it can not be read"),
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
