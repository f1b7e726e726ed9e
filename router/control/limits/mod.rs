//! Named limits, as control knows them: what is stored, what files say, and
//! what follows.
//!
//! Owns the set that edges are sent and its version. Never decides about a
//! request, and never stores: what is durable comes from
//! [`registry`](super::registry), what files say from [`files`].
//!
//! ```text
//! store ──publish──▶┐
//!                   ├─▶ what holds ──▶ edges, by their links
//! files ──written──▶┘        └───────▶ table/limits, by `keep`
//! ```
//!
//! A file's number wins over the stored one while the file is there; everything
//! else about a limit is the stored one's. A file whose name no limit has makes
//! one over everything.

pub mod files;
mod keep;
pub mod shape;

pub use keep::keep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::feed::messages::{LimitRecord, LimitSet, RateRecord};
use crate::policy::limit::{NoRate, Period, Rate, own};

/// Limits there may be, and of these such with an allowance for each client or
/// header value: what an edge has memory for.
pub use crate::table::limits::{KEYED_MAX, LIMITS_MAX};

/// The most that may be under way at once.
pub const CONCURRENCY_MAX: u32 = 1_000_000;

/// A limit's figure as it is said in a word: `10`, `10/m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// So many a second, or at once, by what the limit is.
    Plain(u32),
    /// So many in a time.
    Rate(Rate),
}

impl FromStr for Number {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Number, NoRate> {
        let rate: Rate = text.parse()?;
        Ok(match text.contains('/') {
            true => Number::Rate(rate),
            false => Number::Plain(rate.count),
        })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Plain(count) => count.fmt(f),
            Number::Rate(rate) => rate.fmt(f),
        }
    }
}

impl Number {
    /// The number of a limit.
    pub fn of(record: &LimitRecord) -> Option<Number> {
        match (record.concurrency, record.rate) {
            (Some(most), _) => Some(Number::Plain(most)),
            (None, Some(rate)) => rate_of(rate).map(Number::Rate),
            (None, None) => None,
        }
    }

    /// A limit with this number instead of its own.
    ///
    /// # Errors
    /// It makes no sense there, in a sentence.
    pub fn put_into(self, record: &LimitRecord) -> Result<LimitRecord, String> {
        let mut record = record.clone();
        let rate = match (self, record.concurrency) {
            (Number::Plain(most), Some(_)) => {
                record.concurrency = Some(most);
                return Ok(record);
            }
            (Number::Rate(_), Some(_)) => {
                return Err("expected a whole number: it limits how many are under way".into());
            }
            (Number::Plain(count), None) => Rate::per_second(count),
            (Number::Rate(rate), None) => rate,
        };
        if record.name == own::PROBES {
            check_probes(rate)?;
        }
        let burst = record.rate.and_then(|rate| rate.burst);
        record.rate = Some(RateRecord {
            burst,
            ..recorded(rate)
        });
        Ok(record)
    }
}

/// Probes have a bound of their own.
fn check_probes(rate: Rate) -> Result<(), String> {
    let most = own::MOST_PROBES;
    let fits = u64::from(rate.count) <= u64::from(most.count) * u64::from(rate.per.seconds());
    fits.then_some(())
        .ok_or_else(|| format!("an edge makes at most {most} probes"))
}

/// A rate as it is sent.
fn recorded(rate: Rate) -> RateRecord {
    RateRecord {
        count: rate.count,
        seconds: rate.per.seconds(),
        burst: None,
    }
}

/// A rate as it was sent; `None`: by a later version.
fn rate_of(rate: RateRecord) -> Option<Rate> {
    let per = Period::of_seconds(rate.seconds)?;
    Some(Rate {
        count: rate.count,
        per,
    })
}

/// A limit and where its number is from.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// What holds; `None`: nothing does (a flow of the router's own).
    pub holds: Option<LimitRecord>,
    /// What is stored.
    pub stored: Option<LimitRecord>,
}

#[derive(Debug, Default)]
struct Sources {
    stored: BTreeMap<String, LimitRecord>,
    written: BTreeMap<String, Number>,
}

/// The limits.
#[derive(Debug)]
pub struct Limits {
    sources: Mutex<Sources>,
    holding: watch::Sender<Arc<LimitSet>>,
}

impl Limits {
    /// Those that are stored.
    pub fn new(stored: BTreeMap<String, LimitRecord>) -> Limits {
        let limits = Limits {
            sources: Mutex::default(),
            holding: watch::Sender::default(),
        };
        limits.store(stored);
        limits
    }

    /// These are stored from now on.
    pub fn store(&self, stored: BTreeMap<String, LimitRecord>) {
        let mut sources = self.sources();
        sources.stored = stored;
        self.tell(&sources);
    }

    /// Files say this from now on.
    pub fn write(&self, written: BTreeMap<String, Number>) {
        let mut sources = self.sources();
        if sources.written != written {
            sources.written = written;
            self.tell(&sources);
        }
    }

    /// Whether a file may say this of a limit.
    ///
    /// # Errors
    /// It may not, in a sentence.
    pub fn check(&self, name: &str, number: Number) -> Result<(), String> {
        let stored = self.sources().stored.get(name).cloned();
        number.put_into(&stored.unwrap_or_else(|| named(name)))?;
        Ok(())
    }

    /// What holds, and each change of it.
    pub fn follow(&self) -> watch::Receiver<Arc<LimitSet>> {
        self.holding.subscribe()
    }

    /// The version of what holds.
    pub fn version(&self) -> u64 {
        self.holding.borrow().version
    }

    /// The rate that holds for a flow of the router's own; `None`: none does.
    pub fn own_rate(set: &LimitSet, name: &str) -> Option<RateRecord> {
        set.limits.iter().find(|record| record.name == name)?.rate
    }

    /// A limit.
    pub fn get(&self, name: &str) -> Option<Known> {
        let sources = self.sources();
        let stored = sources.stored.get(name).cloned();
        let holds = sources.holding(name);
        let is_known = own::is_own(name) || holds.is_some();
        is_known.then(|| Known {
            name: name.to_owned(),
            holds: holds.or_else(|| usual(name)),
            stored,
        })
    }

    /// Every limit, by name.
    pub fn all(&self) -> Vec<Known> {
        let names = self.sources().names();
        names.iter().filter_map(|name| self.get(name)).collect()
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock of the sources, so that no set overtakes a later one.
    fn tell(&self, sources: &Sources) {
        let names = sources.stored.keys().chain(sources.written.keys());
        let names: BTreeSet<&String> = names.collect();
        let limits = names.into_iter().filter_map(|name| sources.holding(name));
        let limits: Vec<_> = limits.collect();
        let stored = sources.stored.values().cloned().collect();
        self.holding.send_modify(|holding| {
            *holding = Arc::new(LimitSet {
                version: holding.version + 1,
                limits,
                stored,
                cluster_id: String::new(),
            });
        });
    }
}

impl Sources {
    /// What follows for one limit.
    fn holding(&self, name: &str) -> Option<LimitRecord> {
        let stored = self.stored.get(name);
        let written = self.written.get(name).and_then(|number| {
            let base = stored.cloned().unwrap_or_else(|| named(name));
            let mut record = number.put_into(&base).ok()?;
            record.is_from_file = true;
            Some(record)
        });
        written.or_else(|| stored.cloned())
    }

    fn names(&self) -> BTreeSet<String> {
        let own = own::ALL.iter().map(|(name, _)| (*name).to_owned());
        let known = self.stored.keys().chain(self.written.keys()).cloned();
        own.chain(known).collect()
    }
}

/// A limit over everything, without a number yet.
fn named(name: &str) -> LimitRecord {
    LimitRecord {
        name: name.to_owned(),
        ..LimitRecord::default()
    }
}

/// What holds for a flow of the router's own where nobody said anything.
fn usual(name: &str) -> Option<LimitRecord> {
    let (_, rate) = own::ALL.iter().find(|(own, _)| *own == name)?;
    Some(LimitRecord {
        rate: Some(recorded((*rate)?)),
        ..named(name)
    })
}

/// A limit's name: `[a-z][a-z0-9_-]{0,62}`.
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(name: &str, text: &str) -> LimitRecord {
        let number: Number = text.parse().unwrap();
        number.put_into(&named(name)).unwrap()
    }

    fn held(limits: &Limits, name: &str) -> Option<Number> {
        let set = limits.follow().borrow().clone();
        Number::of(set.limits.iter().find(|record| record.name == name)?)
    }

    #[test]
    fn a_file_wins_while_it_is_there() {
        let mut stored = rate("publish", "20/m");
        stored.path = "/publish".into();
        let limits = Limits::new(BTreeMap::from([("publish".into(), stored)]));
        let before = limits.version();
        limits.write(BTreeMap::from([
            ("publish".into(), Number::Plain(0)),
            ("new".into(), "5/m".parse().unwrap()),
        ]));
        assert!(limits.version() > before);
        assert_eq!(
            held(&limits, "publish"),
            Some(Number::Rate(Rate::per_second(0)))
        );
        assert_eq!(held(&limits, "new").unwrap().to_string(), "5/m");
        let known = limits.get("publish").unwrap();
        let holds = known.holds.unwrap();
        assert!(holds.is_from_file && holds.path == "/publish");
        assert_eq!(
            Number::of(&known.stored.unwrap()).unwrap().to_string(),
            "20/m"
        );
        limits.write(BTreeMap::new());
        assert_eq!(held(&limits, "publish").unwrap().to_string(), "20/m");
        assert_eq!(held(&limits, "new"), None);
        let version = limits.version();
        limits.write(BTreeMap::new());
        assert_eq!(limits.version(), version, "nothing changed");
    }

    #[test]
    fn a_number_is_what_the_limit_is_of() {
        let crowd = LimitRecord {
            concurrency: Some(5),
            ..named("uploads")
        };
        let limits = Limits::new(BTreeMap::from([("uploads".into(), crowd)]));
        assert!(limits.check("uploads", "10/m".parse().unwrap()).is_err());
        assert!(limits.check("probes", Number::Plain(1_001)).is_err());
        assert!(limits.check("probes", Number::Plain(1_000)).is_ok());
        limits.write(BTreeMap::from([("uploads".into(), Number::Plain(2))]));
        assert_eq!(held(&limits, "uploads"), Some(Number::Plain(2)));
        // What makes no sense any more is passed over.
        limits.write(BTreeMap::from([("uploads".into(), "9/m".parse().unwrap())]));
        assert_eq!(held(&limits, "uploads"), Some(Number::Plain(5)));
    }

    #[test]
    fn the_routers_own_are_always_there() {
        let limits = Limits::new(BTreeMap::new());
        let names: Vec<_> = limits.all().into_iter().map(|known| known.name).collect();
        assert_eq!(names, ["access_log", "changes", "probes", "retries"]);
        assert!(limits.get("retries").unwrap().holds.is_none());
        assert!(limits.get("probes").unwrap().holds.is_some());
        assert!(limits.follow().borrow().limits.is_empty());
    }

    #[test]
    fn names() {
        for name in ["a", "publish", "a-b_c9", &"x".repeat(63)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "A", "9a", "-a", "a b", "a.b", "é", &"x".repeat(64)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
