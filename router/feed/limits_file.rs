//! The limits in force, as a file beside the table: what an edge goes by until
//! control tells it more.
//!
//! Owns the file's format, its writer and its reader. Small, and written whole
//! each time; one that is damaged counts as none.
//!
//! ```text
//! magic, length of the payload, crc32c of the payload, payload: a LimitSet
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use prost::Message;

use super::messages::LimitSet;
use super::snapshot::{FileError, u32_at};

/// The file, in the table's folder.
pub const FILE: &str = "limits";

const MAGIC: [u8; 8] = *b"PORTLIM\x01";
const HEAD_BYTES: usize = MAGIC.len() + 8;
/// Far more than all limits there may be.
const MAX_BYTES: u64 = 16 << 20;

/// What the file holds; `None`: there is none.
///
/// # Errors
/// Unreadable, or damaged.
pub fn read(folder: &Path) -> Result<Option<LimitSet>, FileError> {
    let path = folder.join(FILE);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    match read.map_err(FileError::io(&path)) {
        Ok(_) => {}
        Err(FileError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    let damaged = |what| FileError::Damaged {
        path: path.clone(),
        what,
    };
    if bytes.len() < HEAD_BYTES || bytes[..MAGIC.len()] != MAGIC {
        return Err(damaged("it does not begin as such a file does"));
    }
    let payload = &bytes[HEAD_BYTES..];
    if u32_at(&bytes, 8) as usize != payload.len() || u32_at(&bytes, 12) != crc32c::crc32c(payload)
    {
        return Err(damaged("its length or checksum"));
    }
    let set = LimitSet::decode(payload).map_err(|_| damaged("what it holds"))?;
    Ok(Some(set))
}

/// Replaces the file: aside, synced, renamed into place.
///
/// # Errors
/// I/O; the file is as it was.
pub fn write(folder: &Path, set: &LimitSet) -> Result<(), FileError> {
    let (path, aside) = (folder.join(FILE), folder.join("limits.new"));
    let payload = set.encode_to_vec();
    let length = u32::try_from(payload.len()).map_err(|_| FileError::Refused {
        path: path.clone(),
        what: "more limits than fit".into(),
    })?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
    bytes.extend(MAGIC);
    bytes.extend(length.to_be_bytes());
    bytes.extend(crc32c::crc32c(&payload).to_be_bytes());
    bytes.extend(payload);
    let replace = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = File::create(&aside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(folder)?.sync_all()
    };
    replace().map_err(FileError::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::messages::{LimitRecord, RateRecord};

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("table");
        assert_eq!(read(&folder).unwrap(), None);
        let limit = LimitRecord {
            name: "publish".into(),
            rate: Some(RateRecord {
                count: 10,
                seconds: 60,
                burst: None,
            }),
            ..LimitRecord::default()
        };
        let set = LimitSet {
            version: 3,
            limits: vec![limit.clone()],
            stored: vec![limit],
            cluster_id: "this".into(),
        };
        write(&folder, &LimitSet::default()).unwrap();
        write(&folder, &set).unwrap();
        assert_eq!(read(&folder).unwrap(), Some(set));
        let path = folder.join(FILE);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(read(&folder).is_err(), "{length} bytes of it");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            assert!(read(&folder).is_err(), "byte {at}");
        }
        fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert!(read(&folder).is_err());
    }
}
