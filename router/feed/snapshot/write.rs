//! Writing a snapshot: aside, synced, then renamed into place.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use super::{
    BLOCK_BYTES, BlockPlace, END_MAGIC, FILE, FileError, Head, MAGIC, MAX_CLUSTER_ID_BYTES,
    PREVIOUS_FILE, SECTIONS, Snapshot, Summary, block_crc, encode_head, section_of,
};
use crate::feed::codec::MAX_FRAME_BYTES;
use crate::feed::messages::{AppRecord, Removed};

/// Writes one snapshot. Dropped before [`finish`](Self::finish), it leaves the
/// folder as it was.
#[derive(Debug)]
pub struct SnapshotWriter {
    folder: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    offset: u64,
    /// Of the header, then of the index.
    crc: u32,
    summary: Summary,
    sections: Vec<Section>,
    index: Vec<BlockPlace>,
    is_done: bool,
}

/// The block of a section that is being filled.
#[derive(Debug, Default)]
struct Section {
    count: u32,
    payload: Vec<u8>,
}

impl SnapshotWriter {
    /// Begins a snapshot in `folder`, which is created if need be. One writer
    /// at a time.
    ///
    /// # Errors
    /// I/O, and a cluster id over 256 bytes.
    pub fn create(folder: &Path, head: &Head) -> Result<SnapshotWriter, FileError> {
        let temporary = folder.join("snapshot.new");
        if head.cluster_id.len() > MAX_CLUSTER_ID_BYTES {
            return Err(FileError::Refused {
                path: temporary,
                what: format!("a cluster id of {} bytes", head.cluster_id.len()),
            });
        }
        fs::create_dir_all(folder).map_err(FileError::io(folder))?;
        let file = File::create(&temporary).map_err(FileError::io(&temporary))?;
        let mut writer = SnapshotWriter {
            folder: folder.into(),
            temporary,
            file: BufWriter::with_capacity(4 * BLOCK_BYTES, file),
            offset: 0,
            crc: 0,
            summary: Summary::default(),
            sections: (0..SECTIONS).map(|_| Section::default()).collect(),
            index: Vec::new(),
            is_done: false,
        };
        let header = encode_head(MAGIC, SECTIONS, head);
        writer.crc = crc32c::crc32c(&header);
        writer.put(&header)?;
        Ok(writer)
    }

    /// Says what was ever removed as of the snapshot's revision.
    pub fn removed(&mut self, removed: Removed) {
        self.summary.removed = removed;
    }

    /// Adds an app; each name once, in any order.
    ///
    /// # Errors
    /// I/O, and a record over the feed's largest frame.
    pub fn push(&mut self, record: &AppRecord) -> Result<(), FileError> {
        let bytes = record.encoded_len();
        if bytes > MAX_FRAME_BYTES {
            return Err(FileError::Refused {
                path: self.temporary.clone(),
                what: format!("app {} has a record of {bytes} bytes", record.name),
            });
        }
        let at = section_of(&record.name, SECTIONS);
        let section = &mut self.sections[at as usize];
        record
            .encode_length_delimited(&mut section.payload)
            .expect("a Vec must have room: it grows");
        section.count += 1;
        self.summary.totals.apps += 1;
        self.summary.totals.backends += record.backends.len() as u64;
        if section.payload.len() >= BLOCK_BYTES {
            self.flush(at)?;
        }
        Ok(())
    }

    fn flush(&mut self, at: u32) -> Result<(), FileError> {
        let section = std::mem::take(&mut self.sections[at as usize]);
        if section.count == 0 {
            return Ok(());
        }
        let place = BlockPlace {
            offset: self.offset,
            section: at,
            count: section.count,
            length: section.payload.len() as u32,
            crc: block_crc(at, section.count, &section.payload),
        };
        let fields = [place.section, place.count, place.length, place.crc];
        for field in fields {
            self.put(&field.to_be_bytes())?;
        }
        self.put(&section.payload)?;
        self.index.push(place);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.offset += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(FileError::io(&self.temporary))
    }

    /// Puts the snapshot in place, durably; the one before stays beside it.
    /// Returns its bytes.
    ///
    /// # Errors
    /// I/O; the snapshot before is then still in place.
    pub fn finish(mut self) -> Result<u64, FileError> {
        for at in 0..SECTIONS {
            self.flush(at)?;
        }
        let mut index = Vec::with_capacity(self.index.len() * super::INDEX_ENTRY_BYTES);
        for place in &self.index {
            index.extend(place.offset.to_be_bytes());
            for field in [place.section, place.count, place.length, place.crc] {
                index.extend(field.to_be_bytes());
            }
        }
        let crc = crc32c::crc32c_append(self.crc, &index);
        let mut trailer = Vec::with_capacity(super::TRAILER_BYTES);
        trailer.extend(self.summary.totals.apps.to_be_bytes());
        trailer.extend((self.index.len() as u32).to_be_bytes());
        trailer.extend((index.len() as u64).to_be_bytes());
        trailer.extend(crc32c::crc32c_append(crc, &trailer).to_be_bytes());
        trailer.extend(END_MAGIC);
        let summary = self.summary.encode();
        self.put(&summary)?;
        self.put(&index)?;
        self.put(&trailer)?;
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(FileError::io(&self.temporary))?;
        let current = self.folder.join(FILE);
        keep_previous(&self.folder, &current).map_err(FileError::io(&current))?;
        fs::rename(&self.temporary, &current).map_err(FileError::io(&current))?;
        self.is_done = true;
        sync_folder(&self.folder).map_err(FileError::io(&self.folder))?;
        Ok(self.offset)
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.is_done {
            // Left behind, it is only overwritten by the next writer.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Gives the current file its second name, so that at no moment there is none
/// under the first. One that is of no use takes nobody's place.
fn keep_previous(folder: &Path, current: &Path) -> io::Result<()> {
    let previous = folder.join(PREVIOUS_FILE);
    let is_useful = |path| Snapshot::open(path).is_ok_and(|it| it.apps.is_some());
    if !is_useful(current) {
        if current.is_dir() {
            fs::remove_dir_all(current)?;
        }
        if previous.is_file() && !is_useful(&previous) {
            fs::remove_file(previous)?;
        }
        return Ok(());
    }
    if previous.is_dir() {
        fs::remove_dir_all(&previous)?;
    }
    let link = folder.join("snapshot.link");
    let _ = fs::remove_file(&link);
    match fs::hard_link(current, &link) {
        Ok(()) => fs::rename(&link, previous),
        // A file system without links: a moment with only the previous name.
        Err(_) => fs::rename(current, previous),
    }
}

/// Makes renames in a folder durable.
pub(in crate::feed) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
