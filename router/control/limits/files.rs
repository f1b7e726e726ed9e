//! Limits as files: a number in `<rates_dir>/<name>` is the limit's number
//! while the file is there.
//!
//! Owns the thread that looks, every [`LOOK`], and what was last read well.
//! Never writes there. What cannot be used (garbage, a folder, too large, not
//! readable) is passed over: the last good number stands, and one event says
//! so, without a word of what the file says. Links are followed, and looked at anew each time, so that a swapped link
//! counts like a rewritten file. A file that is just being written may be seen
//! half: it is looked at again while it is fresh, and complained of only if it
//! stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

use super::{LIMITS_MAX, Limits, Number, is_name};
use crate::control::events::Events;
use crate::feed::messages::LimitSet;
use crate::policy::limit::NoRate;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);
/// Bytes of a file, at most: a number and a line's end have far fewer.
const FILE_MAX: usize = 64;
/// Looks after a change in which a file is read although it looks the same:
/// the system's clock may be too coarse to tell two writes apart.
const FRESH: u32 = 8;
/// Looks after which what cannot be used is complained of.
const STALE: u32 = 4;

/// Ends the thread when dropped.
#[derive(Debug)]
pub struct Watch(#[expect(dead_code, reason = "held for its drop")] SyncSender<()>);

/// Reads the folder once, then goes on watching it. `kept` is what held
/// before: where a file cannot be used now, its number there was good then.
///
/// # Errors
/// The thread cannot be started.
pub fn watch(
    folder: PathBuf,
    kept: Option<&LimitSet>,
    limits: Arc<Limits>,
    events: Arc<Events>,
) -> io::Result<Watch> {
    let (stop, stopped) = sync_channel(1);
    let mut rates = Rates::new(folder, kept);
    rates.look(&limits, &events);
    let watching = move || {
        while ticks(&stopped) {
            rates.look(&limits, &events);
        }
    };
    thread::Builder::new()
        .name("rates".into())
        .spawn(watching)?;
    Ok(Watch(stop))
}

/// Waits for the next look. False: there is none.
fn ticks(stopped: &Receiver<()>) -> bool {
    matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout))
}

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp([i128; 5]);

impl Stamp {
    fn of(about: &Metadata) -> Stamp {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) << 32 | i128::from(nanos);
        Stamp([
            about.dev().into(),
            about.ino().into(),
            about.size().into(),
            nanos(about.mtime(), about.mtime_nsec()),
            nanos(about.ctime(), about.ctime_nsec()),
        ])
    }
}

/// What is known of a file.
#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    /// Looks since it last changed.
    looks: u32,
    /// What it last said that could be used.
    number: Option<Number>,
    /// What is wrong with it now.
    wrong: Option<String>,
    is_told: bool,
}

/// The folder.
#[derive(Debug)]
struct Rates {
    folder: PathBuf,
    seen: BTreeMap<String, Seen>,
    /// Names that are no limit's, complained of.
    strange: BTreeSet<String>,
    /// The folder cannot be read, and that was said.
    is_unreadable: bool,
}

impl Rates {
    fn new(folder: PathBuf, kept: Option<&LimitSet>) -> Rates {
        let records = kept.into_iter().flat_map(|set| &set.limits);
        let from_files = records.filter(|record| record.is_from_file);
        let seen = from_files.map(|record| {
            let seen = Seen {
                number: Number::of(record),
                ..Seen::default()
            };
            (record.name.clone(), seen)
        });
        Rates {
            folder,
            seen: seen.collect(),
            strange: BTreeSet::new(),
            is_unreadable: false,
        }
    }

    /// Looks at every file once, and tells what they say.
    fn look(&mut self, limits: &Limits, events: &Events) {
        let names = match self.names(events) {
            Ok(names) => names,
            Err(error) => {
                if !std::mem::replace(&mut self.is_unreadable, true) {
                    let text = format!(
                        "rates_dir {}: {error}; what its files said stands",
                        self.folder.display()
                    );
                    events.say("rate_file_refused", "", "", text);
                }
                // Also those from before a restart, which nobody has told yet.
                self.tell(limits);
                return;
            }
        };
        self.is_unreadable = false;
        self.seen.retain(|name, _| names.contains(name));
        for name in names {
            let path = self.folder.join(&name);
            let seen = self.seen.entry(name.clone()).or_default();
            if !seen.look(&path, |number| limits.check(&name, number)) {
                // Removed since the folder was read.
                self.seen.remove(&name);
                continue;
            }
            if let Some(wrong) = seen.complaint() {
                let stands = match seen.number {
                    Some(number) => format!("its last good number stands, {number}"),
                    None => "it counts for nothing".into(),
                };
                let text = format!("{}: {wrong}; {stands}", path.display());
                events.say("rate_file_refused", "", "", text);
            }
        }
        self.tell(limits);
    }

    fn tell(&self, limits: &Limits) {
        let written = self
            .seen
            .iter()
            .filter_map(|(name, seen)| Some((name.clone(), seen.number?)));
        limits.write(written.collect());
    }

    /// The files' names that are limits'. A folder that is not there has none.
    fn names(&mut self, events: &Events) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        let mut strange = BTreeSet::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            Err(error) => return Err(error),
        };
        for entry in entries.take(2 * LIMITS_MAX) {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if is_name(&name) && names.len() < LIMITS_MAX {
                names.insert(name);
            } else if !name.starts_with('.') && !name.ends_with('~') {
                strange.insert(name);
            }
        }
        for name in strange.difference(&self.strange) {
            let text = format!(
                "{}: {name:?} is no limit's name ([a-z][a-z0-9_-]{{0,62}}), or one too many; it counts for nothing",
                self.folder.display()
            );
            events.say("rate_file_refused", "", "", text);
        }
        self.strange = strange;
        Ok(names)
    }
}

impl Seen {
    /// Reads the file if it may have changed. False: it is gone.
    fn look(&mut self, path: &Path, check: impl Fn(Number) -> Result<(), String>) -> bool {
        let about = match fs::metadata(path) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link that leads nowhere is a file that cannot be read.
                if fs::symlink_metadata(path).is_err() {
                    return false;
                }
                self.found(None, Err(format!("cannot be read: {error}")));
                return true;
            }
            Err(error) => {
                self.found(None, Err(format!("cannot be read: {error}")));
                return true;
            }
        };
        let stamp = Stamp::of(&about);
        let is_settled = self.stamp == Some(stamp) && self.looks >= FRESH;
        if is_settled && self.wrong.is_none() {
            return true;
        }
        let read = read(path, &about).and_then(|text| {
            // Never what it says: a link may lead to a secret, and events are
            // read without a token.
            let complain = |wrong: &str| format!("its {} bytes: {wrong}", text.len());
            let number: Number = text
                .parse()
                .map_err(|NoRate| complain("expected a number such as 10 or 600/m"))?;
            check(number).map_err(|wrong| complain(&wrong))?;
            Ok(number)
        });
        self.found(Some(stamp), read);
        true
    }

    fn found(&mut self, stamp: Option<Stamp>, read: Result<Number, String>) {
        let is_same = self.stamp == stamp && self.wrong.as_ref() == read.as_ref().err();
        self.looks = if is_same {
            self.looks.saturating_add(1)
        } else {
            0
        };
        self.stamp = stamp;
        match read {
            Ok(number) => {
                self.number = Some(number);
                self.wrong = None;
                self.is_told = false;
            }
            Err(wrong) => self.wrong = Some(wrong),
        }
    }

    /// What is wrong with it, once.
    fn complaint(&mut self) -> Option<String> {
        if self.is_told || self.looks < STALE {
            return None;
        }
        let wrong = self.wrong.clone()?;
        self.is_told = true;
        Some(wrong)
    }
}

/// A small file's text, without the white space around it.
fn read(path: &Path, about: &Metadata) -> Result<String, String> {
    // Looked at first: opening a device can do things, and a pipe waits.
    must_be_small(about)?;
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let file = open(path).map_err(unreadable)?;
    must_be_small(&file.metadata().map_err(unreadable)?)?;
    let mut bytes = Vec::with_capacity(FILE_MAX + 1);
    let read = file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(unreadable)?;
    if bytes.len() > FILE_MAX {
        return Err(format!("has more than {FILE_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is no text".to_owned())?;
    Ok(text.trim_ascii().to_owned())
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn must_be_small(about: &Metadata) -> Result<(), String> {
    if !about.is_file() {
        return Err("is no file".into());
    }
    if about.len() > FILE_MAX as u64 {
        return Err(format!("has more than {FILE_MAX} bytes"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
