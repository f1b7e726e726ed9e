//! A sealed file in memory: how a supervisor's state reaches the one that
//! takes its place. Knows nothing of what is in it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::FdFlags;

/// Nobody may change what was written, whoever holds a descriptor of it.
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::GROW)
    .union(SealFlags::SHRINK)
    .union(SealFlags::SEAL);
/// The longest state read, in bytes; a real one has some tens of thousands.
const MAX_BYTES: u64 = 16 << 20;

/// Bytes that outlive an `execve`.
#[derive(Debug)]
pub(in crate::supervisor) struct Memory {
    file: File,
}

impl Memory {
    /// Holds `bytes`, for good.
    ///
    /// # Errors
    /// The system's, when it is out of memory or descriptors.
    pub fn of(bytes: &[u8]) -> io::Result<Memory> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create("portico-succession", flags)?);
        file.write_all(bytes)?;
        file.rewind()?;
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        Ok(Memory { file })
    }

    /// Its descriptor's number, as the environment names it.
    pub fn number(&self) -> String {
        self.file.as_raw_fd().to_string()
    }

    /// Lets a child inherit it until the returned value is dropped.
    ///
    /// # Errors
    /// None for a descriptor that is open, and it is.
    pub fn lend(&self) -> io::Result<Lent<'_>> {
        rustix::io::fcntl_setfd(&self.file, FdFlags::empty())?;
        Ok(Lent { memory: self })
    }

    /// Reads what the descriptor `number` holds, without taking it over.
    ///
    /// # Errors
    /// It is not open, or not what [`Memory::of`] makes.
    pub fn read(number: RawFd) -> io::Result<Vec<u8>> {
        // By its name, not by its number: that needs no trust in the number.
        let file = File::open(format!("/proc/self/fd/{number}"))?;
        let seals = rustix::fs::fcntl_get_seals(&file);
        if !seals.is_ok_and(|seals| seals.contains(SEALS)) {
            return Err(io::Error::other("not a sealed file in memory"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A memory that may be inherited.
#[derive(Debug)]
pub(in crate::supervisor) struct Lent<'a> {
    memory: &'a Memory,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // It is open, so this cannot fail.
        let _ = rustix::io::fcntl_setfd(&self.memory.file, FdFlags::CLOEXEC);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_back_by_number_and_cannot_be_changed() {
        let memory = Memory::of(b"all that passes").unwrap();
        let number: RawFd = memory.number().parse().unwrap();
        assert_eq!(Memory::read(number).unwrap(), b"all that passes");
        assert_eq!(Memory::read(number).unwrap(), b"all that passes", "again");
        let mut file = &memory.file;
        assert!(file.write_all(b"x").is_err());
    }

    #[test]
    fn anything_else_is_refused() {
        let temp = tempfile::tempfile().unwrap();
        let refused = Memory::read(temp.as_raw_fd()).unwrap_err().to_string();
        assert!(refused.contains("not a sealed file"), "{refused}");
        assert!(Memory::read(1 << 20).is_err());
    }

    #[test]
    fn only_a_lent_one_is_inherited() {
        let memory = Memory::of(b"x").unwrap();
        let inherited = || rustix::io::fcntl_getfd(&memory).unwrap().is_empty();
        assert!(!inherited());
        let lent = memory.lend().unwrap();
        assert!(inherited());
        drop(lent);
        assert!(!inherited());
    }
}
