//! How an app's backends are probed: the checked form of a [`ProbeRecord`].

use std::time::Duration;

use super::PolicyError;
use crate::feed::messages::{ProbeRecord, StatusRange};

/// An app's active probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// What is asked for with `GET`; `None`: a connection that opens is enough.
    pub path: Option<Box<str>>,
    /// The Host sent; `None`: the backend's address.
    pub host: Option<Box<str>>,
    /// Between the starts of two probes of one backend.
    pub interval: Duration,
    /// From connecting to the end of the answer's head.
    pub timeout: Duration,
    /// Passed probes in a row that bring a backend back.
    pub rise: u32,
    /// Failed probes in a row that take it out.
    pub fall: u32,
    /// Statuses that pass.
    pub statuses: StatusSet,
}

/// Statuses as ranges, both ends included, in order and apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatusSet(Box<[(u16, u16)]>);

impl StatusSet {
    /// Whether it has this status.
    pub fn contains(&self, status: u16) -> bool {
        let ranges = self.0.iter();
        ranges
            .clone()
            .any(|&(first, last)| (first..=last).contains(&status))
    }
}

impl Default for Probe {
    fn default() -> Self {
        Probe {
            path: None,
            host: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            statuses: StatusSet(Box::new([(200, 399)])),
        }
    }
}

const INTERVALS: std::ops::RangeInclusive<u64> = 100..=3_600_000;
const COUNTS: std::ops::RangeInclusive<u32> = 1..=100;
const PATH_BYTES: usize = 2_048;
const HOST_BYTES: usize = 255;

impl Probe {
    /// A record's probe; what it leaves out is the default.
    ///
    /// # Errors
    /// A path or host that is no such thing, an interval outside 100 ms to 1 h,
    /// a timeout of zero or above the interval, counts outside 1 to 100,
    /// statuses that are none, out of order or overlap.
    pub(super) fn from_record(record: &ProbeRecord) -> Result<Probe, PolicyError> {
        let default = Probe::default();
        let check = |is_good, key, expected| match is_good {
            true => Ok(()),
            false => Err(PolicyError { key, expected }),
        };
        let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let path = Some(record.path.as_str()).filter(|path| !path.is_empty());
        let host = Some(record.host.as_str()).filter(|host| !host.is_empty());
        check(
            path.is_none_or(|path| {
                path.starts_with('/') && path.len() <= PATH_BYTES && visible(path)
            }),
            "probe.path",
            "a path of visible ASCII that starts with /, at most 2048 bytes",
        )?;
        check(
            host.is_none_or(|host| host.len() <= HOST_BYTES && visible(host)),
            "probe.host",
            "visible ASCII, at most 255 bytes",
        )?;
        let interval_ms = record.interval_ms.unwrap_or(5_000);
        check(
            INTERVALS.contains(&interval_ms),
            "probe.interval",
            "100 ms to 1 h",
        )?;
        let timeout_ms = record.timeout_ms.unwrap_or(interval_ms.min(2_000));
        check(
            (1..=interval_ms).contains(&timeout_ms),
            "probe.timeout",
            "above 0 and at most the interval",
        )?;
        let (rise, fall) = (
            record.rise.unwrap_or(default.rise),
            record.fall.unwrap_or(default.fall),
        );
        check(COUNTS.contains(&rise), "probe.rise", "1 to 100")?;
        check(COUNTS.contains(&fall), "probe.fall", "1 to 100")?;
        Ok(Probe {
            path: path.map(Into::into),
            host: host.map(Into::into),
            interval: Duration::from_millis(interval_ms),
            timeout: Duration::from_millis(timeout_ms),
            rise,
            fall,
            statuses: if record.statuses.is_empty() {
                default.statuses
            } else {
                statuses(&record.statuses)?
            },
        })
    }
}

fn statuses(ranges: &[StatusRange]) -> Result<StatusSet, PolicyError> {
    let mut below = 99;
    let mut set = Vec::with_capacity(ranges.len());
    for range in ranges {
        if range.first <= below || range.last < range.first || range.last > 599 {
            return Err(PolicyError {
                key: "probe.status",
                expected: "ranges within 100 to 599, in order, not overlapping",
            });
        }
        below = range.last;
        set.push((range.first as u16, range.last as u16));
    }
    Ok(StatusSet(set.into_boxed_slice()))
}
