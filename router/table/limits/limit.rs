//! One limit: which requests it is for, what it has counted, who is inside.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{counted, series};
use crate::feed::messages::{HeaderRecord, LimitRecord, PerRecord, RateRecord, Sample};
use crate::observe::limits as rows;
use crate::policy::limit::keyed::{Crowds, Full, KEYS, Meters, Seat};
use crate::policy::limit::{Crowd, Meter, Pace, Period, Rate, Wait};

/// When one more may have room where what counts is how many are inside.
const CROWDED: Wait = Wait(0);

/// What a request is, to limits.
pub trait Subject {
    /// Its app; `None`: nobody has its host.
    fn app(&self) -> Option<&str>;
    /// Its path, without the query.
    fn path(&self) -> &[u8];
    /// Who sent it.
    fn client(&self) -> IpAddr;
    /// The values of a header's lines, in order; the name is in lower case.
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]>;
    /// Whether a line of a header has this value; the name is in lower case.
    fn has(&self, name: &str, value: &str) -> bool;
}

/// What a limit counts by, and what it has counted; outlives its editions.
#[derive(Debug)]
enum Measure {
    Meter(Meter),
    Meters(Meters),
    Crowd(Crowd),
    Crowds(Crowds),
}

#[derive(Debug)]
struct State {
    measure: Measure,
    admitted: AtomicU64,
    refused: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Pace(Pace),
    Most(u32),
}

/// An edition of a limit.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) name: Arc<str>,
    pub(super) app: Option<Box<str>>,
    path: Box<str>,
    header: Option<HeaderRecord>,
    per: Option<PerRecord>,
    figure: Figure,
    state: Arc<State>,
}

impl Limit {
    /// What a record says; `known` is its edition before. `None`: it says
    /// nothing that this version understands.
    pub(super) fn of(
        record: &LimitRecord,
        known: Option<&Arc<Limit>>,
        now_ns: u64,
    ) -> Option<Limit> {
        let figure = match (record.rate, record.concurrency) {
            (Some(rate), None) => Figure::Pace(pace(rate)?),
            (None, Some(most)) => Figure::Most(most),
            _ => return None,
        };
        let lowered = |header: &String| header.to_ascii_lowercase();
        let per = record.per.as_ref().map(|per| PerRecord {
            header: lowered(&per.header),
        });
        Some(Limit {
            name: record.name.as_str().into(),
            app: (!record.app.is_empty()).then(|| record.app.as_str().into()),
            path: record.path.trim_end_matches('/').into(),
            header: record.header.as_ref().map(|header| HeaderRecord {
                name: lowered(&header.name),
                value: header.value.clone(),
            }),
            state: state(known, figure, per.as_ref(), now_ns),
            per,
            figure,
        })
    }

    /// Whether a request is one of those it is for; its app is.
    pub(super) fn is_for(&self, subject: &impl Subject) -> bool {
        let header = self.header.as_ref();
        is_below(subject.path(), self.path.as_bytes())
            && header.is_none_or(|header| subject.has(&header.name, &header.value))
    }

    /// What it has to be asked for a request.
    pub(super) fn charge<'l>(
        self: &'l Arc<Self>,
        subject: &impl Subject,
        seed: &ahash::RandomState,
    ) -> Charge<'l> {
        let hash = self.per.as_ref().map_or(0, |per| match &*per.header {
            "" => seed.hash_one(network(subject.client())),
            // Those without one are as one.
            name => {
                let mut hasher = seed.build_hasher();
                // Each with its length: two lines are not one.
                subject
                    .header(name)
                    .for_each(|value| value.hash(&mut hasher));
                hasher.finish()
            }
        });
        Charge { limit: self, hash }
    }

    pub(super) fn count_refused(&self) {
        self.state.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let State {
            admitted, refused, ..
        } = &*self.state;
        let mut samples = Vec::from(counted(
            &self.name,
            admitted.load(Relaxed),
            refused.load(Relaxed),
        ));
        let forgotten = match &self.state.measure {
            Measure::Meters(meters) => meters.forgotten(),
            Measure::Crowds(crowds) => crowds.uncounted(),
            Measure::Meter(_) | Measure::Crowd(_) => return samples,
        };
        samples.push(series(&rows::FORGOTTEN, &self.name, forgotten));
        samples
    }

    /// Bytes of its table.
    pub(super) fn bytes(&self) -> usize {
        match &self.state.measure {
            Measure::Meters(_) => KEYS * 2 * size_of::<u64>(),
            Measure::Crowds(_) => KEYS * size_of::<u64>(),
            Measure::Meter(_) | Measure::Crowd(_) => 0,
        }
    }
}

/// The pace of a record; `None`: it makes no sense.
pub(super) fn pace(rate: RateRecord) -> Option<Pace> {
    let per = Period::of_seconds(rate.seconds)?;
    let count = rate.count;
    let checked = Rate { count, per }.checked().ok()?;
    Some(Pace::new(checked, rate.burst))
}

/// What the edition before has counted, if it counted the same way.
fn state(
    known: Option<&Arc<Limit>>,
    figure: Figure,
    per: Option<&PerRecord>,
    now_ns: u64,
) -> Arc<State> {
    let same = known.filter(|known| known.per.as_ref() == per);
    if let Some(known) = same {
        match (figure, &known.state.measure) {
            (Figure::Pace(pace), Measure::Meter(meter)) => {
                if known.figure != figure {
                    meter.settle(pace, now_ns);
                }
                return Arc::clone(&known.state);
            }
            (Figure::Pace(pace), Measure::Meters(meters)) => {
                if known.figure != figure {
                    meters.settle(pace, now_ns);
                }
                return Arc::clone(&known.state);
            }
            (Figure::Most(_), Measure::Crowd(_) | Measure::Crowds(_)) => {
                return Arc::clone(&known.state);
            }
            _ => {}
        }
    }
    let counted = |of: fn(&State) -> &AtomicU64| {
        AtomicU64::new(known.map_or(0, |known| of(&known.state).load(Relaxed)))
    };
    Arc::new(State {
        measure: match (figure, per) {
            (Figure::Pace(_), None) => Measure::Meter(Meter::default()),
            (Figure::Pace(_), Some(_)) => Measure::Meters(Meters::default()),
            (Figure::Most(_), None) => Measure::Crowd(Crowd::default()),
            (Figure::Most(_), Some(_)) => Measure::Crowds(Crowds::default()),
        },
        admitted: counted(|state| &state.admitted),
        refused: counted(|state| &state.refused),
    })
}

/// Whether a path is a prefix's or below it, in whole segments.
fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    match path.strip_prefix(prefix) {
        Some([]) => true,
        Some(rest) => prefix.is_empty() || rest[0] == b'/',
        None => false,
    }
}

/// What counts as one client: an address, and of version 6 its network of 64
/// bits, since that is what one client has.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => {
            let bits = u128::from(address) >> 64 << 64;
            IpAddr::V6(bits.into())
        }
    }
}

/// A request before a limit.
pub(super) struct Charge<'l> {
    limit: &'l Arc<Limit>,
    hash: u64,
}

impl Charge<'_> {
    /// Lets it pass, with a hold where it counts until it ends.
    pub(super) fn take(&self, now_ns: u64) -> Result<Option<Hold>, Wait> {
        let Limit { figure, state, .. } = &**self.limit;
        match (*figure, &state.measure) {
            (Figure::Pace(pace), Measure::Meter(meter)) => meter.take(pace, now_ns).map(|()| None),
            (Figure::Pace(pace), Measure::Meters(meters)) => {
                meters.take(self.hash, pace, now_ns).map(|()| None)
            }
            (Figure::Most(most), Measure::Crowd(crowd)) => match crowd.enter(most) {
                true => Ok(Some(self.hold(None))),
                false => Err(CROWDED),
            },
            (Figure::Most(most), Measure::Crowds(crowds)) => match crowds.enter(self.hash, most) {
                Ok(seat) => Ok(seat.map(|seat| self.hold(Some(seat)))),
                Err(Full) => Err(CROWDED),
            },
            _ => unreachable!("a limit must count by what its figure is of"),
        }
    }

    fn hold(&self, seat: Option<Seat>) -> Hold {
        Hold {
            state: Arc::clone(&self.limit.state),
            seat,
        }
    }

    /// It is refused by another limit; holds give themselves back.
    pub(super) fn give_back(&self) {
        let Limit { figure, state, .. } = &**self.limit;
        match (*figure, &state.measure) {
            (Figure::Pace(pace), Measure::Meter(meter)) => meter.give_back(pace),
            (Figure::Pace(pace), Measure::Meters(meters)) => meters.give_back(self.hash, pace),
            _ => {}
        }
    }

    pub(super) fn count_admitted(&self) {
        self.limit.state.admitted.fetch_add(1, Relaxed);
    }
}

/// A request that counts as inside a limit until this is dropped.
#[derive(Debug)]
pub struct Hold {
    state: Arc<State>,
    seat: Option<Seat>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        match (&self.state.measure, self.seat) {
            (Measure::Crowd(crowd), _) => crowd.leave(),
            (Measure::Crowds(crowds), Some(seat)) => crowds.leave(seat),
            _ => {}
        }
    }
}
