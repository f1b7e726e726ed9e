//! A client that tries all the time: a new connection, a request, at once the
//! next. It tells when service was back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::router::answers;
use crate::faults::record::now_us;
use crate::interrupt;

/// Clients at it, so that every thread of a router is asked.
const CLIENTS: usize = 2;
/// Between two tries of one client: what it cannot tell apart.
const PAUSE: Duration = Duration::from_micros(500);

/// Tries under way; ended by [`end`](Self::end).
#[derive(Debug)]
pub struct Tries {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Try>>>,
}

/// One try; CLOCK_MONOTONIC, µs.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    /// When its answer was there, or it failed.
    pub ended_us: u64,
    /// Answered with 200.
    pub is_answered: bool,
}

impl Tries {
    /// Begins.
    pub fn start(address: SocketAddr, host: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (over, host) = (Arc::clone(&over), host.to_owned());
            thread::spawn(move || {
                let mut tries = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let is_answered = answers(address, &host);
                    tries.push(Try {
                        ended_us: now_us(),
                        is_answered,
                    });
                    if interrupt::pause(PAUSE).is_err() {
                        break;
                    }
                }
                tries
            })
        };
        Self {
            clients: (0..CLIENTS).map(client).collect(),
            over,
        }
    }

    /// Every try, in the order they ended.
    pub fn end(self) -> Vec<Try> {
        self.over.store(true, Ordering::Relaxed);
        let tries = self.clients.into_iter().flat_map(|one| one.join());
        let mut tries: Vec<Try> = tries.flatten().collect();
        tries.sort_by_key(|one| one.ended_us);
        tries
    }
}

/// From `at_us` to the first answer that was there after `gone_us`, ms: an
/// answer that ends later than the dead process is the next one's.
pub fn back_after_ms(tries: &[Try], at_us: u64, gone_us: u64) -> Option<f64> {
    let first = tries
        .iter()
        .find(|one| one.is_answered && one.ended_us > gone_us)?;
    Some((first.ended_us - at_us) as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_after_the_death_is_the_next_ones() {
        let one = |ended_us, is_answered| Try {
            ended_us,
            is_answered,
        };
        let tries = [
            one(900, true),
            one(1_005, true), // the dying process's last
            one(1_020, false),
            one(6_000, true),
        ];
        assert_eq!(back_after_ms(&tries, 1_000, 1_010), Some(5.0));
        assert_eq!(back_after_ms(&tries[..3], 1_000, 1_010), None);
    }
}
