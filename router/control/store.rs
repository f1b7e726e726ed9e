//! The durable store: one redb file, `<state_dir>/store.redb`.
//!
//! Owns the file, its tables, and what can go wrong with it. One thread uses
//! it (see [`registry`](super::registry)). Never overwrites a file it cannot
//! read, never panics on one: redb's panics are caught here.
//!
//! Host claims have no table: they follow from the apps, one truth.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use prost::Message;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition,
};

use super::changes::Entry;
use super::loading::{self, Loaded, Row, Undecoded};
use super::staging::Batch;
use super::tokens::TokenRecord;
use crate::feed::messages::{LimitRecord, Removed};
use crate::policy::shrink::Shrink;
use crate::settings::absolute;

/// name → `AppRecord`.
const APPS: TableDefinition<&str, &[u8]> = TableDefinition::new("apps");
/// id → [`TokenRecord`].
const TOKENS: TableDefinition<&str, &[u8]> = TableDefinition::new("tokens");
/// name → `LimitRecord`. Absent in the stores of older programs.
const LIMITS: TableDefinition<&str, &[u8]> = TableDefinition::new("limits");
/// revision → [`Entry`].
const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("changes");
/// What the file is and where it stands.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// In [`META`]: apps ever removed. Absent in the stores of older programs.
const APPS_REMOVED: &str = "apps_removed";
/// In [`META`]: the revision of the limits' last change. Likewise.
const LIMITS_REVISION: &str = "limits_revision";
/// In [`META`]: backends ever removed. Likewise.
const BACKENDS_REMOVED: &str = "backends_removed";
/// Which installation it belongs to.
const IDENTITY: TableDefinition<&str, &str> = TableDefinition::new("identity");

/// The layout of the tables above.
const LAYOUT: u64 = 1;
/// Pages kept in memory. Reads are served from the registry, so this only
/// holds the tree's upper levels.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Why the store cannot be used. Each says which file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("store {}: another process has it open; stop that one first", absolute(.0).display())]
    Locked(PathBuf),
    /// The file is no store, or it is damaged.
    #[error("store {}: {reason}", absolute(.path).display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer program's.
    #[error("store {}: layout {found} was written by a newer portico; this one knows {LAYOUT}", absolute(.path).display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u64,
    },
    /// The system refused: permission, no space, no such folder.
    #[error("store {}: {source}", absolute(.path).display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A commit that did not happen.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct StoreFailure {
    /// No space left: the caller may try again once there is.
    pub full: bool,
    /// What the store said.
    pub reason: String,
}

/// Everything a store holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Which installation it belongs to; empty: the store is new.
    pub cluster_id: String,
    /// See [`Envelope`](crate::feed::messages::Envelope).
    pub epoch: u64,
    /// The last durable revision.
    pub revision: u64,
    /// Revisions after this one are in `changes`.
    pub changes_floor: u64,
    /// What was ever removed.
    pub removed: Removed,
    /// Every app, by name.
    pub apps: Vec<Loaded>,
    /// Every issued token.
    pub tokens: Vec<TokenRecord>,
    /// Every named limit.
    pub limits: BTreeMap<String, LimitRecord>,
    /// The revision of their last change.
    pub limits_revision: u64,
    /// The change log's tail.
    pub changes: Vec<Entry>,
    /// It lacks more than can be believed; judged when control boots.
    pub doubt: Option<Shrink>,
}

/// How the file is opened, and whether every page of it is verified; another
/// way only in tests.
type Opener = Box<dyn Fn(&Path, bool) -> Result<Database, OpenError> + Send>;

/// An open store.
pub struct Store {
    path: PathBuf,
    opener: Opener,
    /// `None` after a failed write: redb wants to be opened again.
    database: Option<Database>,
    revision: u64,
    /// The oldest entry of the change log that is on disk, or later.
    changes_from: u64,
}

/// Where the store is.
pub fn store_path(state_dir: &Path) -> PathBuf {
    state_dir.join("store.redb")
}

impl Contents {
    /// Backends of all its apps.
    pub fn backends(&self) -> u64 {
        self.apps.iter().map(Loaded::backends).sum()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store, or makes an empty one where there is none, and reads
    /// all of it. Checksums of every page are verified.
    ///
    /// # Errors
    /// See [`OpenError`]; the file is left as it was.
    pub fn open(path: &Path) -> Result<(Store, Contents), OpenError> {
        Store::open_by(path, Box::new(open_database))
    }

    fn open_by(path: &Path, opener: Opener) -> Result<(Store, Contents), OpenError> {
        guarded(path, || {
            let database = opener(path, true)?;
            let contents = read_all(path, &database)?;
            let store = Store {
                path: path.to_owned(),
                opener,
                database: Some(database),
                revision: contents.revision,
                changes_from: contents.changes_floor + 1,
            };
            Ok((store, contents))
        })
    }

    /// Gives a new store its identity and contents: at its first start, or
    /// when it is rebuilt.
    ///
    /// # Errors
    /// It could not be written; the store is as it was.
    pub fn found(&mut self, contents: &Contents) -> Result<(), StoreFailure> {
        self.write(contents.revision, |transaction| {
            let mut meta = transaction.open_table(META)?;
            meta.insert("layout", LAYOUT)?;
            meta.insert("epoch", contents.epoch)?;
            meta.insert("revision", contents.revision)?;
            meta.insert("changes_floor", contents.revision)?;
            insert_removed(&mut meta, contents.removed)?;
            transaction
                .open_table(IDENTITY)?
                .insert("cluster_id", contents.cluster_id.as_str())?;
            let mut apps = transaction.open_table(APPS)?;
            for app in &contents.apps {
                apps.insert(&*app.name, app.bytes())?;
            }
            let mut tokens = transaction.open_table(TOKENS)?;
            for token in &contents.tokens {
                tokens.insert(token.id.as_str(), token.encode_to_vec().as_slice())?;
            }
            transaction.open_table(CHANGES)?;
            Ok(())
        })?;
        self.changes_from = contents.revision + 1;
        Ok(())
    }

    /// Begins an epoch at a revision: what led here cannot be followed.
    ///
    /// # Errors
    /// It could not be written; the store is as it was.
    pub fn begin_epoch(&mut self, epoch: u64, revision: u64) -> Result<(), StoreFailure> {
        self.write(revision, |transaction| {
            let mut meta = transaction.open_table(META)?;
            meta.insert("epoch", epoch)?;
            meta.insert("revision", revision)?;
            meta.insert("changes_floor", revision)?;
            transaction.open_table(CHANGES)?.retain(|_, _| false)?;
            Ok(())
        })?;
        self.changes_from = revision + 1;
        Ok(())
    }

    /// What is kept of the file in memory.
    pub fn cache_bytes(&self) -> usize {
        let database = self.database.as_ref();
        database.map_or(0, |database| database.cache_stats().used_bytes())
    }

    /// Makes a batch durable, whole or not at all. Change log entries up to
    /// `changes_floor` are dropped with it.
    ///
    /// # Errors
    /// Nothing of it was kept, as far as can be known; if that cannot be
    /// known, the process ends (a restart reads what is true).
    pub(super) fn commit(&mut self, batch: &Batch, changes_floor: u64) -> Result<(), StoreFailure> {
        let revision = batch
            .entries
            .last()
            .map_or(self.revision, |entry| entry.revision);
        let changes_from = self.changes_from;
        self.write(revision, |transaction| {
            let mut apps = transaction.open_table(APPS)?;
            for (name, stored) in &batch.apps {
                match stored {
                    Some(stored) => apps.insert(&**name, &*stored.bytes)?,
                    None => apps.remove(&**name)?,
                };
            }
            let mut tokens = transaction.open_table(TOKENS)?;
            for (id, token) in &batch.tokens {
                match token {
                    Some(token) => tokens.insert(id.as_str(), token.encode_to_vec().as_slice())?,
                    None => tokens.remove(id.as_str())?,
                };
            }
            commit_limits(transaction, batch)?;
            let mut changes = transaction.open_table(CHANGES)?;
            for entry in &batch.entries {
                changes.insert(entry.revision, entry.encode().as_slice())?;
            }
            for stale in changes_from..=changes_floor {
                changes.remove(stale)?;
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert("revision", revision)?;
            meta.insert("changes_floor", changes_floor)?;
            insert_removed(&mut meta, batch.removed)?;
            Ok(())
        })?;
        self.changes_from = self.changes_from.max(changes_floor + 1);
        Ok(())
    }

    fn write(
        &mut self,
        revision: u64,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreFailure> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        let written = catch_unwind(AssertUnwindSafe(|| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.set_quick_repair(true);
            fill(&transaction)?;
            transaction.commit()?;
            Ok::<(), redb::Error>(())
        }));
        match written {
            Ok(Ok(())) => {
                self.database = Some(database);
                self.revision = revision;
                Ok(())
            }
            Ok(Err(error)) => {
                // Dropping may try to write once more; a panic of it is no news.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
                let full = is_full(&error);
                Err(StoreFailure {
                    full,
                    reason: format!("store {}: {error}", absolute(&self.path).display()),
                })
            }
            Err(panic) => {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
                let reason = format!(
                    "store {}: {}",
                    absolute(&self.path).display(),
                    panic_text(&*panic)
                );
                Err(StoreFailure {
                    full: false,
                    reason,
                })
            }
        }
    }

    /// Opens the file again after a failed write and makes sure that it holds
    /// what was acknowledged and nothing else.
    fn reopen(&self) -> Result<Database, StoreFailure> {
        let opened = guarded(&self.path, || {
            // Verified when this process first opened it.
            let database = (self.opener)(&self.path, false)?;
            let meta = database
                .begin_read()
                .map_err(|error| fault(&self.path, error.into()))?
                .open_table(META)
                .map_err(|error| fault(&self.path, error.into()))?;
            let found = meta
                .get("revision")
                .map_err(|error| fault(&self.path, error.into()))?;
            Ok((found.map_or(0, |value| value.value()), database))
        });
        let (found, database) = opened.map_err(|error| StoreFailure {
            full: matches!(&error, OpenError::Io { source, .. } if is_full_io(source)),
            reason: error.to_string(),
        })?;
        // A commit that failed after it became durable: what was answered and
        // what is stored differ. Only a fresh start can tell the truth.
        assert_eq!(
            found,
            self.revision,
            "store {} must hold what was acknowledged",
            absolute(&self.path).display()
        );
        Ok(database)
    }
}

fn commit_limits(transaction: &redb::WriteTransaction, batch: &Batch) -> Result<(), redb::Error> {
    if batch.limits.is_empty() {
        return Ok(());
    }
    let mut limits = transaction.open_table(LIMITS)?;
    for (name, limit) in &batch.limits {
        match limit {
            Some(limit) => limits.insert(name.as_str(), limit.encode_to_vec().as_slice())?,
            None => limits.remove(name.as_str())?,
        };
    }
    let mut meta = transaction.open_table(META)?;
    meta.insert(LIMITS_REVISION, batch.limits_revision)?;
    Ok(())
}

fn insert_removed(
    meta: &mut redb::Table<'_, &'static str, u64>,
    removed: Removed,
) -> Result<(), redb::Error> {
    meta.insert(APPS_REMOVED, removed.apps)?;
    meta.insert(BACKENDS_REMOVED, removed.backends)?;
    Ok(())
}

/// Moves a damaged store out of the way, keeping it.
///
/// # Errors
/// It cannot be renamed.
pub fn set_aside(path: &Path, now_ms: u64) -> io::Result<PathBuf> {
    let aside = path.with_extension(format!("redb.damaged-{now_ms}"));
    fs::rename(path, &aside)?;
    Ok(aside)
}

fn open_database(path: &Path, verify: bool) -> Result<Database, OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        return Err(io(io::Error::new(
            io::ErrorKind::IsADirectory,
            "is a folder",
        )));
    }
    let mut options = OpenOptions::new();
    // Token hashes are nobody else's business.
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    drop(options.open(path).map_err(io)?);
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(verify);
    builder.create(path).map_err(|error| unopened(path, error))
}

fn unopened(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::Locked(path)
        }
        DatabaseError::Storage(StorageError::Io(source)) if !says_damaged(&source) => {
            OpenError::Io { path, source }
        }
        other => OpenError::Damaged {
            path,
            reason: other.to_string(),
        },
    }
}

/// Whether an I/O error speaks of the file's content and not of the system:
/// nonsense where a head should be, an end where there should be more.
fn says_damaged(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(
        error.kind(),
        InvalidData | InvalidInput | Other | UnexpectedEof
    )
}

fn read_all(path: &Path, database: &Database) -> Result<Contents, OpenError> {
    let damaged = |error: redb::Error| fault(path, error);
    let transaction = database
        .begin_read()
        .map_err(|error| damaged(error.into()))?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Contents::default()),
        Err(error) => return Err(damaged(error.into())),
    };
    let number = |key: &str| -> Result<u64, OpenError> {
        let value = meta.get(key).map_err(|error| damaged(error.into()))?;
        value
            .map(|value| value.value())
            .ok_or_else(|| OpenError::Damaged {
                path: path.to_owned(),
                reason: format!("no `{key}` in it"),
            })
    };
    let layout = number("layout")?;
    if layout > LAYOUT {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: layout,
        });
    }
    let count = |key: &str| -> Result<u64, OpenError> {
        let value = meta.get(key).map_err(|error| damaged(error.into()))?;
        Ok(value.map_or(0, |value| value.value()))
    };
    let mut contents = Contents {
        removed: Removed {
            apps: count(APPS_REMOVED)?,
            backends: count(BACKENDS_REMOVED)?,
        },
        limits_revision: count(LIMITS_REVISION)?,
        epoch: number("epoch")?,
        revision: number("revision")?,
        changes_floor: number("changes_floor")?,
        ..Contents::default()
    };
    read_tables(&transaction, &mut contents).map_err(|problem| match problem {
        ReadProblem::Store(error) => fault(path, error),
        ReadProblem::Record(key, error) => OpenError::Damaged {
            path: path.to_owned(),
            reason: format!("the record of {key} does not decode: {error}"),
        },
    })?;
    Ok(contents)
}

/// Why a table could not be read.
enum ReadProblem {
    Store(redb::Error),
    Record(String, prost::DecodeError),
}

fn unread<E: Into<redb::Error>>(error: E) -> ReadProblem {
    ReadProblem::Store(error.into())
}

fn read_tables(
    transaction: &redb::ReadTransaction,
    contents: &mut Contents,
) -> Result<(), ReadProblem> {
    let identity = transaction.open_table(IDENTITY).map_err(unread)?;
    let cluster_id = identity.get("cluster_id").map_err(unread)?;
    contents.cluster_id = cluster_id
        .map(|id| id.value().to_owned())
        .unwrap_or_default();
    let apps = transaction.open_table(APPS).map_err(unread)?;
    let mut rows: Vec<Row> = Vec::new();
    for row in apps.iter().map_err(unread)? {
        let (name, bytes) = row.map_err(unread)?;
        rows.push((name.value().into(), bytes.value().into()));
    }
    contents.apps = loading::decode(rows)
        .map_err(|Undecoded { name, error }| ReadProblem::Record(format!("app `{name}`"), error))?;
    let tokens = transaction.open_table(TOKENS).map_err(unread)?;
    for row in tokens.iter().map_err(unread)? {
        let (id, bytes) = row.map_err(unread)?;
        let token = TokenRecord::decode(bytes.value())
            .map_err(|error| ReadProblem::Record(format!("token `{}`", id.value()), error))?;
        contents.tokens.push(token);
    }
    read_limits(transaction, contents)?;
    let changes = transaction.open_table(CHANGES).map_err(unread)?;
    for row in changes.iter().map_err(unread)? {
        let (revision, bytes) = row.map_err(unread)?;
        let entry = Entry::decode(revision.value(), bytes.value()).map_err(|error| {
            ReadProblem::Record(format!("revision {}", revision.value()), error)
        })?;
        contents.changes.push(entry);
    }
    Ok(())
}

fn read_limits(
    transaction: &redb::ReadTransaction,
    contents: &mut Contents,
) -> Result<(), ReadProblem> {
    let limits = match transaction.open_table(LIMITS) {
        Ok(limits) => limits,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(unread(error)),
    };
    for row in limits.iter().map_err(unread)? {
        let (name, bytes) = row.map_err(unread)?;
        let name = name.value().to_owned();
        let limit = LimitRecord::decode(bytes.value())
            .map_err(|error| ReadProblem::Record(format!("limit `{name}`"), error))?;
        contents.limits.insert(name, limit);
    }
    Ok(())
}

fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(OpenError::Damaged {
            path: path.to_owned(),
            reason: panic_text(&*panic),
        })
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given");
    format!("reading it failed an assertion: {said}")
}

fn fault(path: &Path, error: redb::Error) -> OpenError {
    match error {
        redb::Error::Io(source) if !says_damaged(&source) => OpenError::Io {
            path: path.to_owned(),
            source,
        },
        other => OpenError::Damaged {
            path: path.to_owned(),
            reason: other.to_string(),
        },
    }
}

fn is_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(source) if is_full_io(source))
}

fn is_full_io(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
