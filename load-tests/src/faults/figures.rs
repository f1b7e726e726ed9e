//! One run's figures: what clients saw and backends recorded, put together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::backend::{Behaviour, SERVICE_US};
use super::catalogue::{Method, SLOW_MS, Scenario};
use super::client::{End, Exchange};
use super::pool::{self, Action, Done};
use super::record::{Event, Record};

/// A backend that gets nothing for this long while all get requests is out:
/// in turn it would have had dozens.
const OUT_AFTER_US: u64 = 250_000;
/// Requests a recovered backend has answered when it counts as back.
const BACK_AFTER_ANSWERS: usize = 5;
/// After this from the first return, all having been down, nobody should fail any more.
const SETTLED_AFTER_US: u64 = 300_000;
/// A request reaches its backend within this, unless the proxy holds it.
const ON_THE_WAY_US: u64 = 50_000;
/// Width of a plot's buckets.
pub const BUCKET_US: u64 = 100_000;

/// Everything a run left behind; times are CLOCK_MONOTONIC, µs.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What ran.
    pub scenario: &'a Scenario,
    /// Every request, by its number, warm-up included.
    pub exchanges: &'a [Exchange],
    /// How many of them were warm-up.
    pub warm_up: usize,
    /// Each backend's records.
    pub records: &'a [Vec<Record>],
    /// What was done to backends.
    pub done: &'a [Done],
}

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests measured.
    pub requests: u64,
    /// Failed ones by kind: `connect`, a status, `deadline`, `broken`.
    pub failed: BTreeMap<String, u64>,
    /// Of the failed: in flight at a crash and on nobody else, so that only repeating could have saved them.
    pub failed_in_flight: u64,
    /// Requests that backends began more than once; only told for POSTs.
    pub executed_twice: Option<u64>,
    /// Requests that backends began, each try counted.
    pub tries: u64,
    /// Latency from when a request was due, of those answered and those given up at their deadline, µs.
    pub p50_us: u64,
    /// 99th percentile, µs.
    pub p99_us: u64,
    /// 99.9th percentile, µs.
    pub p999_us: u64,
    /// Highest, µs.
    pub max_us: u64,
    /// Slower than 250 ms, those given up included.
    pub slow: u64,
    /// Requests the misbehaving backend got until it was left alone; all of them if it never was.
    pub until_out: Option<u64>,
    /// From a backend's recovery to its fifth answer to a request due since, ms; the slowest of all recoveries.
    pub back_ms: Option<u64>,
    /// A recovered backend did not get that far within the run.
    pub never_back: bool,
    /// From when the first backend listened again, all having crashed, to the first answer, ms.
    pub first_success_ms: Option<f64>,
    /// Failed requests due later than 300 ms after that: one backend was there, and they did not find it.
    #[serde(default)]
    pub failed_since_back: Option<u64>,
    /// The harness's own lateness at worst: of the client with a request, or of a healthy backend with an answer, µs.
    pub noise_max_us: u64,
    /// Its 99.9th percentile, µs.
    pub noise_p999_us: u64,
    /// For plots: p50 and maximum of the latency, µs, and failures, by when requests were due.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<(u64, u64, u64)>,
}

impl Figures {
    /// All failed requests.
    pub fn failed_total(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Backends' hits a request.
    pub fn amplification(&self) -> f64 {
        self.tries as f64 / self.requests as f64
    }
}

impl Evidence<'_> {
    /// Puts the figures together.
    pub fn figures(&self) -> Figures {
        let measured = &self.exchanges[self.warm_up..];
        let mut latencies: Vec<u64> = measured.iter().filter_map(latency_us).collect();
        latencies.sort_unstable();
        let mut failed = BTreeMap::new();
        for exchange in measured {
            if let Some(kind) = kind(exchange.end) {
                *failed.entry(kind).or_default() += 1;
            }
        }
        let begun_by = self.begun_by();
        let in_flight = (self.warm_up..self.exchanges.len())
            .filter(|number| self.lost_in_a_crash(*number, &begun_by))
            .count();
        let twice = begun_by.values().filter(|by| by.len() > 1).count();
        let post = self.scenario.method == Method::Post;
        let mut noise = self.noise_us();
        noise.sort_unstable();
        let recoveries = self.recoveries();
        Figures {
            requests: measured.len() as u64,
            failed,
            failed_in_flight: in_flight as u64,
            executed_twice: post.then_some(twice as u64),
            tries: begun_by.values().map(|by| by.len() as u64).sum(),
            p50_us: quantile(&latencies, 0.50),
            p99_us: quantile(&latencies, 0.99),
            p999_us: quantile(&latencies, 0.999),
            max_us: quantile(&latencies, 1.0),
            slow: latencies
                .iter()
                .filter(|latency| **latency > SLOW_MS * 1_000)
                .count() as u64,
            until_out: self.until_out(),
            back_ms: recoveries.iter().flatten().max().copied(),
            never_back: recoveries.contains(&None),
            first_success_ms: self.first_success_ms(),
            failed_since_back: self.failed_since_back(),
            noise_max_us: quantile(&noise, 1.0),
            noise_p999_us: quantile(&noise, 0.999),
            timeline: if self.scenario.drawn {
                timeline(measured)
            } else {
                Vec::new()
            },
        }
    }

    /// When requests of `event` were recorded, by measured request: (backend, time, request).
    fn events(&self, event: Event) -> impl Iterator<Item = (usize, u64, usize)> {
        let recorded = self.records.iter().enumerate();
        recorded
            .flat_map(|(backend, records)| records.iter().map(move |record| (backend, record)))
            .filter(move |(_, record)| record.event == event)
            .filter_map(|(backend, record)| {
                let request = usize::try_from(record.request).ok()?;
                Some((backend, record.at_us, request))
            })
            .filter(|(_, _, request)| (self.warm_up..self.exchanges.len()).contains(request))
    }

    /// The backends that began each request, once for each try.
    fn begun_by(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut begun: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (backend, _, request) in self.events(Event::Began) {
            begun.entry(request).or_default().push(backend);
        }
        begun
    }

    /// Whether a request failed, was under way at some crash, and was begun by
    /// none but the crashed: read by it, or just on its way to it. One that
    /// nobody began for longer than that was held by the proxy, and is its loss.
    fn lost_in_a_crash(&self, request: usize, begun_by: &BTreeMap<usize, Vec<usize>>) -> bool {
        let exchange = &self.exchanges[request];
        if exchange.end == End::Answered {
            return false;
        }
        let begun_by = begun_by.get(&request).map_or(&[][..], Vec::as_slice);
        self.done
            .iter()
            .filter(|done| done.action == Action::Crash)
            .any(|crash| {
                let was_held =
                    begun_by.is_empty() && exchange.sent_us + ON_THE_WAY_US < crash.at_us;
                exchange.sent_us <= crash.done_us
                    && exchange.ended_us >= crash.at_us
                    && !was_held
                    && begun_by.iter().all(|backend| *backend == crash.backend)
            })
    }

    /// Requests that the one told to refuse or reset got from then on, until it
    /// got none for a while.
    fn until_out(&self) -> Option<u64> {
        let fault = self.done.iter().find(|done| {
            matches!(
                done.action,
                Action::Behave(Behaviour::Refusing | Behaviour::Resetting)
            )
        })?;
        let records = &self.records[fault.backend];
        let since = self.behaved_at(fault, records);
        let over = self
            .done
            .iter()
            .find(|done| done.backend == fault.backend && done.at_us > fault.at_us)
            .map_or(u64::MAX, |done| self.behaved_at(done, records));
        let mut last = since;
        let mut count = 0;
        for record in records {
            let began = record.event == Event::Began && record.at_us >= since;
            if !began || record.at_us >= over {
                continue;
            }
            if record.at_us - last > OUT_AFTER_US {
                break;
            }
            last = record.at_us;
            count += 1;
        }
        Some(count)
    }

    /// When a backend began to behave as ordered: by its own record.
    fn behaved_at(&self, order: &Done, records: &[Record]) -> u64 {
        records
            .iter()
            .find(|record| record.event == Event::Behaves && record.at_us >= order.at_us)
            .map_or(order.done_us, |record| record.at_us)
    }

    /// For each recovery that nothing undid within 2 s: how long until the
    /// backend was back, ms; `None` if it was not.
    fn recoveries(&self) -> Vec<Option<u64>> {
        let recovered = self.done.iter().filter(|done| {
            matches!(
                done.action,
                Action::Return | Action::Thaw | Action::Behave(Behaviour::Well)
            )
        });
        let lasting = recovered.filter(|recovery| {
            !self.done.iter().any(|next| {
                next.backend == recovery.backend
                    && next.at_us > recovery.at_us
                    && next.at_us < recovery.at_us + 2_000_000
            })
        });
        lasting.map(|recovery| self.back_ms(recovery)).collect()
    }

    fn back_ms(&self, recovery: &Done) -> Option<u64> {
        let records = &self.records[recovery.backend];
        let since = match recovery.action {
            Action::Return => pool::listened_after(records, recovery.at_us)?,
            Action::Thaw => recovery.done_us,
            _ => self.behaved_at(recovery, records),
        };
        let fifth = self
            .events(Event::Answered)
            .filter(|(backend, at_us, request)| {
                *backend == recovery.backend
                    && *at_us >= since
                    && self.exchanges[*request].due_us >= since
            })
            .nth(BACK_AFTER_ANSWERS - 1);
        fifth.map(|(_, at_us, _)| (at_us - since) / 1_000)
    }

    /// When the first backend listened again, all having been down at once.
    fn all_were_down_until(&self) -> Option<u64> {
        let crashed = |backend: usize| {
            let mut crashes = self.done.iter();
            crashes.find(|done| done.backend == backend && done.action == Action::Crash)
        };
        let crashes: Option<Vec<&Done>> = (0..self.records.len()).map(crashed).collect();
        let last = crashes?.into_iter().max_by_key(|crash| crash.done_us)?;
        let mut returns = self.done.iter();
        let first_back = returns.find(|done| done.action == Action::Return)?;
        if first_back.at_us < last.done_us {
            return None;
        }
        pool::listened_after(&self.records[first_back.backend], first_back.at_us)
    }

    fn first_success_ms(&self) -> Option<f64> {
        let listening = self.all_were_down_until()?;
        let successes = self
            .exchanges
            .iter()
            .filter(|exchange| exchange.end == End::Answered && exchange.ended_us >= listening);
        let first = successes.map(|exchange| exchange.ended_us).min()?;
        Some((first - listening) as f64 / 1_000.0)
    }

    fn failed_since_back(&self) -> Option<u64> {
        let since = self.all_were_down_until()? + SETTLED_AFTER_US;
        let failed = self
            .exchanges
            .iter()
            .filter(|exchange| exchange.due_us >= since && exchange.end != End::Answered);
        Some(failed.count() as u64)
    }

    /// How late the client was with each request, and backends that were never
    /// frozen or slowed with each answer.
    fn noise_us(&self) -> Vec<u64> {
        let measured = &self.exchanges[self.warm_up..];
        let mut late: Vec<u64> = measured
            .iter()
            .map(|exchange| exchange.sent_us - exchange.due_us)
            .collect();
        let hampered = |backend: usize| {
            self.done.iter().any(|done| {
                done.backend == backend
                    && matches!(
                        done.action,
                        Action::Freeze | Action::Behave(Behaviour::Slow)
                    )
            })
        };
        for (backend, records) in self.records.iter().enumerate() {
            if hampered(backend) {
                continue;
            }
            let mut began = BTreeMap::new();
            for record in records {
                match record.event {
                    Event::Began => {
                        began.insert(record.request, record.at_us);
                    }
                    Event::Answered => late.extend(
                        began
                            .remove(&record.request)
                            .map(|at_us| (record.at_us - at_us).saturating_sub(SERVICE_US)),
                    ),
                    Event::Listening | Event::Behaves => {}
                }
            }
        }
        late
    }
}

/// From when it was due, of a request that was answered or waited for till its deadline.
fn latency_us(exchange: &Exchange) -> Option<u64> {
    matches!(exchange.end, End::Answered | End::Deadline)
        .then(|| exchange.ended_us.saturating_sub(exchange.due_us))
}

/// What kind of failure an end is.
fn kind(end: End) -> Option<String> {
    match end {
        End::Answered => None,
        End::NotConnected => Some("connect".to_owned()),
        End::Status(status) => Some(status.to_string()),
        End::Deadline => Some("deadline".to_owned()),
        End::Broken => Some("broken".to_owned()),
    }
}

/// The value that `share` of the sorted values do not exceed; 0 of nothing.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    match sorted.len() {
        0 => 0,
        count => sorted[rank.clamp(1, count) - 1],
    }
}

fn timeline(measured: &[Exchange]) -> Vec<(u64, u64, u64)> {
    let Some(first) = measured.first() else {
        return Vec::new();
    };
    let mut buckets: BTreeMap<u64, (Vec<u64>, u64)> = BTreeMap::new();
    for exchange in measured {
        let bucket = (exchange.due_us - first.due_us) / BUCKET_US;
        let (latencies, failed) = buckets.entry(bucket).or_default();
        latencies.extend(latency_us(exchange));
        *failed += u64::from(kind(exchange.end).is_some());
    }
    buckets
        .into_values()
        .map(|(mut latencies, failed)| {
            latencies.sort_unstable();
            (quantile(&latencies, 0.5), quantile(&latencies, 1.0), failed)
        })
        .collect()
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
