//! Reading a snapshot, section by section, believing nothing unchecked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use prost::Message;

use super::{
    BLOCK_HEADER_BYTES, BlockPlace, END_MAGIC, FileError, Head, INDEX_ENTRY_BYTES, MAGIC,
    MAX_BLOCK_BYTES, MAX_SECTIONS, SUMMARY_BYTES, Summary, TRAILER_BYTES, block_crc, read_head,
    section_of, u32_at, u64_at,
};
use crate::feed::messages::{AppRecord, AppView, split_delimited};

/// Most bytes of an index: that of a billion apps.
const MAX_INDEX_BYTES: u64 = 128 * 1024 * 1024;

/// A snapshot file, open. Its header is verified; its blocks are as they are
/// read.
#[derive(Debug)]
pub struct Snapshot {
    /// What it is of.
    pub head: Head,
    /// Apps, by its trailer; `None` if that is damaged.
    pub apps: Option<u64>,
    /// How much it holds; `None`: written without one, or damaged.
    pub summary: Option<Summary>,
    /// The summary is there and damaged.
    pub(in crate::feed) is_summary_damaged: bool,
    path: PathBuf,
    file: File,
    /// Its length.
    bytes: u64,
    sections: u32,
    pub(super) blocks: Vec<BlockPlace>,
}

/// What the index says.
struct Index {
    /// Where it begins.
    at: u64,
    apps: u64,
    blocks: Vec<BlockPlace>,
}

impl BlockPlace {
    /// Where the next one may begin.
    fn end(&self) -> u64 {
        self.offset
            .saturating_add((BLOCK_HEADER_BYTES as u64) + u64::from(self.length))
    }
}

/// One section's apps.
#[derive(Debug)]
pub(in crate::feed) struct SectionRead {
    /// Those whose bytes verified.
    pub(in crate::feed) apps: Vec<AppRecord>,
    /// Whether that is all of them.
    pub(in crate::feed) is_whole: bool,
}

impl Snapshot {
    /// Opens a file and verifies its header. If its index is damaged the file
    /// is still open: its blocks are found by walking it, and no section of it
    /// counts as whole.
    ///
    /// # Errors
    /// Missing, unreadable, too new, or a damaged header.
    pub fn open(path: &Path) -> Result<Snapshot, FileError> {
        let file = File::open(path).map_err(FileError::io(path))?;
        let mut reader = BufReader::new(&file);
        let (header, sections, head) = read_head(&mut reader, MAGIC, path)?;
        if sections == 0 || sections > MAX_SECTIONS {
            return Err(FileError::Damaged {
                path: path.into(),
                what: "its number of sections",
            });
        }
        let bytes = file.metadata().map_err(FileError::io(path))?.len();
        let mut snapshot = Snapshot {
            head,
            apps: None,
            summary: None,
            is_summary_damaged: false,
            path: path.into(),
            file,
            bytes,
            sections,
            blocks: Vec::new(),
        };
        let index = snapshot.index(&header).map_err(FileError::io(path))?;
        match index {
            Some(index) => {
                let blocks_end = index.blocks.iter().map(BlockPlace::end).max();
                let blocks_end = blocks_end.unwrap_or(header.len() as u64);
                snapshot.summarize(blocks_end, index.at);
                (snapshot.apps, snapshot.blocks) = (Some(index.apps), index.blocks);
            }
            None => snapshot.blocks = snapshot.walk(header.len() as u64),
        }
        Ok(snapshot)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sections it is cut into.
    pub fn sections(&self) -> u32 {
        self.sections
    }

    /// The index, if every checksum of it is right.
    fn index(&self, header: &[u8]) -> io::Result<Option<Index>> {
        let Some(trailer_at) = self.bytes.checked_sub(TRAILER_BYTES as u64) else {
            return Ok(None);
        };
        let mut trailer = [0; TRAILER_BYTES];
        self.file.read_exact_at(&mut trailer, trailer_at)?;
        let blocks = u64::from(u32_at(&trailer, 8));
        let index_bytes = u64_at(&trailer, 12);
        let is_sane = trailer[24..] == END_MAGIC
            && index_bytes == blocks * INDEX_ENTRY_BYTES as u64
            && index_bytes <= MAX_INDEX_BYTES
            && index_bytes + header.len() as u64 <= trailer_at;
        if !is_sane {
            return Ok(None);
        }
        let mut index = vec![0; index_bytes as usize];
        self.file
            .read_exact_at(&mut index, trailer_at - index_bytes)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(header), &index);
        if crc32c::crc32c_append(crc, &trailer[..20]) != u32_at(&trailer, 20) {
            return Ok(None);
        }
        let places = index
            .chunks_exact(INDEX_ENTRY_BYTES)
            .map(|entry| BlockPlace {
                offset: u64_at(entry, 0),
                section: u32_at(entry, 8),
                count: u32_at(entry, 12),
                length: u32_at(entry, 16),
                crc: u32_at(entry, 20),
            });
        Ok(Some(Index {
            at: trailer_at - index_bytes,
            apps: u64_at(&trailer, 0),
            blocks: places.collect(),
        }))
    }

    /// Reads the summary, which is what stands between blocks and index.
    fn summarize(&mut self, from: u64, to: u64) {
        if to <= from {
            return;
        }
        let mut bytes = [0; SUMMARY_BYTES];
        let is_there =
            to - from == SUMMARY_BYTES as u64 && self.file.read_exact_at(&mut bytes, from).is_ok();
        self.summary = Summary::decode(&bytes).filter(|_| is_there);
        self.is_summary_damaged = self.summary.is_none();
    }

    /// The blocks as they follow each other, up to the first that is not one.
    fn walk(&self, mut offset: u64) -> Vec<BlockPlace> {
        let (mut blocks, mut buffer) = (Vec::new(), Vec::new());
        let mut fields = [0; BLOCK_HEADER_BYTES];
        while self.file.read_exact_at(&mut fields, offset).is_ok() {
            let place = BlockPlace {
                offset,
                section: u32_at(&fields, 0),
                count: u32_at(&fields, 4),
                length: u32_at(&fields, 8),
                crc: u32_at(&fields, 12),
            };
            let is_block = self.payload(&place, &mut buffer).is_some();
            if place.section >= self.sections || !is_block {
                break;
            }
            offset += BLOCK_HEADER_BYTES as u64 + u64::from(place.length);
            blocks.push(place);
        }
        blocks
    }

    /// Whether every byte of it verifies. Decodes nothing.
    pub(in crate::feed) fn is_whole(&self) -> bool {
        let mut buffer = Vec::new();
        let mut blocks = self.blocks.iter();
        self.apps.is_some() && blocks.all(|place| self.payload(place, &mut buffer).is_some())
    }

    /// Reads a block's payload into `payload`, if every byte of it verifies.
    fn payload<'p>(&self, place: &BlockPlace, payload: &'p mut Vec<u8>) -> Option<&'p [u8]> {
        let length = place.length as usize;
        // No app is empty, so a count can not pass the length.
        if length > MAX_BLOCK_BYTES || place.count > place.length {
            return None;
        }
        let end = place
            .offset
            .checked_add((BLOCK_HEADER_BYTES + length) as u64)?;
        if end > self.bytes {
            return None;
        }
        payload.resize(BLOCK_HEADER_BYTES + length, 0);
        self.file.read_exact_at(payload, place.offset).ok()?;
        let (fields, payload) = payload.split_at(BLOCK_HEADER_BYTES);
        let is_same = u32_at(fields, 0) == place.section
            && u32_at(fields, 4) == place.count
            && u32_at(fields, 8) == place.length
            && u32_at(fields, 12) == place.crc;
        let is_good = is_same && block_crc(place.section, place.count, payload) == place.crc;
        is_good.then_some(payload)
    }

    /// Shows a block's records, encoded, up to the first that `look` refuses;
    /// whether that was all of them and every byte of the block verified.
    fn block(
        &self,
        place: &BlockPlace,
        buffer: &mut Vec<u8>,
        look: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        self.payload(place, buffer)
            .is_some_and(|payload| each_record(payload, place.count, look))
    }

    /// The apps of one section.
    pub(in crate::feed) fn section(&self, section: u32) -> SectionRead {
        let mut read = SectionRead {
            apps: Vec::new(),
            is_whole: self.apps.is_some(),
        };
        let mut buffer = Vec::new();
        for place in self.blocks.iter().filter(|place| place.section == section) {
            read.is_whole &= self.block(place, &mut buffer, |record| {
                let app = AppRecord::decode(record);
                app.map(|app| read.apps.push(app)).is_ok()
            });
        }
        read
    }

    /// Shows every app, and its bytes, to some thread's `Take`, on as many
    /// threads as asked for; returns the sections that were not read whole.
    /// What was shown of such a section is what [`section`](Self::section) has.
    pub(in crate::feed) fn each<Take: FnMut(&AppView<'_>, &[u8])>(
        &self,
        threads: usize,
        taker: &(impl Fn() -> Take + Sync),
    ) -> BTreeSet<u32> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut take = taker();
            let mut damaged = BTreeSet::new();
            let mut buffer = Vec::new();
            while let Some(place) = self.blocks.get(next.fetch_add(1, Relaxed)) {
                let is_whole = self.payload(place, &mut buffer).is_some_and(|payload| {
                    let mut view = AppView::default();
                    each_record(payload, place.count, |record| {
                        let is_good = view.read(record).is_ok();
                        if is_good {
                            take(&view, record);
                        }
                        is_good
                    })
                });
                if !is_whole {
                    damaged.insert(place.section);
                }
            }
            damaged
        };
        let mut damaged = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut damaged = work();
            for other in others {
                match other.join() {
                    Ok(theirs) => damaged.extend(theirs),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            damaged
        });
        if self.apps.is_none() {
            damaged.extend(0..self.sections);
        }
        damaged
    }

    /// The apps that a file of `sections` sections has in this one.
    pub(in crate::feed) fn section_of_other(&self, section: u32, sections: u32) -> SectionRead {
        if sections == self.sections {
            return self.section(section);
        }
        let mut all = SectionRead {
            apps: Vec::new(),
            is_whole: true,
        };
        for own in 0..self.sections {
            let read = self.section(own);
            all.is_whole &= read.is_whole;
            let apps = read.apps.into_iter();
            all.apps
                .extend(apps.filter(|app| section_of(&app.name, sections) == section));
        }
        all
    }
}

/// Shows the records of a payload, without their lengths, up to the first that
/// `look` refuses; whether that was all of them and nothing else.
fn each_record<'p>(
    mut payload: &'p [u8],
    count: u32,
    mut look: impl FnMut(&'p [u8]) -> bool,
) -> bool {
    for _ in 0..count {
        match split_delimited(&mut payload) {
            Ok(record) if look(record) => {}
            _ => return false,
        }
    }
    payload.is_empty()
}
