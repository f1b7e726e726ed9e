//! The retry budget: how much of an app's traffic may be repeated, so that
//! retries never become the outage.
//!
//! Owns the sum. Never decides whether a request is safe to repeat, never
//! counts requests: their number comes in, and only when somebody wants a
//! retry, so that a request that needs none pays nothing.
//!
//! Each request adds a share of a retry, which is kept for ten seconds; each
//! second adds some more, of which two seconds' worth is kept. So in any time
//! T, retries are at most: share × requests(T + the 10 s before) +
//! per second × (T + 2 s). Requests that came while nobody asked are taken as
//! spread evenly over that time.

/// What a withdrawal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// A request that failed is tried again.
    Again,
    /// A request that waits is overtaken. Only the upper half of the budget is
    /// for these: what fails comes before what is slow.
    Hedge,
}

/// What an app allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Retries as a percentage of requests.
    pub percent: u32,
    /// Retries each second besides.
    pub per_second: u32,
}

/// How long a request's share of a retry is kept.
const KEPT_SECONDS: usize = 10;
/// How many seconds' worth of [`Allowance::per_second`] is kept.
const STORED_SECONDS: u64 = 2;
const SECOND_US: u64 = 1_000_000;
/// Parts of a retry that are accounted for.
const RETRY: u64 = 100_000_000;

/// One app's budget, over all threads.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// What the requests of each of the last seconds left, in millionths of a
    /// percent; a ring by second.
    shares: [u64; KEPT_SECONDS],
    /// The same, before withdrawals.
    given: [u64; KEPT_SECONDS],
    /// What time left.
    store: u64,
    /// When it was last brought up to date; `None`: never.
    asked_us: Option<u64>,
    /// Requests by then.
    requests: u64,
}

impl Budget {
    /// Takes out one retry, if there is one. `requests`: the app's so far.
    pub fn withdraw(
        &mut self,
        now_us: u64,
        requests: u64,
        allowance: Allowance,
        kind: Retry,
    ) -> bool {
        self.catch_up(now_us, requests, allowance);
        let left = self.shares.iter().sum::<u64>() + self.store;
        let reserve = match kind {
            Retry::Again => 0,
            Retry::Hedge => {
                let most = self.given.iter().sum::<u64>() + most_stored(allowance);
                most / 2
            }
        };
        if left < reserve + RETRY {
            return false;
        }
        self.spend(RETRY);
        true
    }

    /// Brings it up to date: the more often, the better it knows which requests
    /// are recent.
    pub fn catch_up(&mut self, now_us: u64, requests: u64, allowance: Allowance) {
        let most = most_stored(allowance);
        let Some(asked_us) = self.asked_us else {
            self.asked_us = Some(now_us);
            self.requests = requests;
            self.store = most;
            // What came before the first question is recent: an app's first
            // requests may need retries most.
            self.give(now_us, share(requests, allowance));
            return;
        };
        // Threads' clock readings may come in a little out of order.
        let now_us = now_us.max(asked_us);
        let elapsed_us = now_us - asked_us;
        let came = requests.saturating_sub(self.requests);
        self.asked_us = Some(now_us);
        self.requests = requests.max(self.requests);
        let earned = u128::from(allowance.per_second) * u128::from(elapsed_us) * u128::from(RETRY)
            / u128::from(SECOND_US);
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        self.store = self.store.saturating_add(earned).min(most);
        self.expire(asked_us, now_us);
        self.spread(asked_us, now_us, share(came, allowance));
    }

    /// Empties the places of the seconds that began since.
    fn expire(&mut self, from_us: u64, to_us: u64) {
        let (from, to) = (from_us / SECOND_US, to_us / SECOND_US);
        for second in (from + 1..=to).take(KEPT_SECONDS) {
            let at = place(second);
            self.shares[at] = 0;
            self.given[at] = 0;
        }
    }

    /// Spreads what came evenly over the time since; what came too long ago is
    /// gone already.
    fn spread(&mut self, from_us: u64, to_us: u64, share: u64) {
        let (from, to) = (from_us / SECOND_US, to_us / SECOND_US);
        if from == to {
            self.give(to_us, share);
            return;
        }
        let elapsed_us = u128::from(to_us - from_us);
        let oldest = from.max((to + 1).saturating_sub(KEPT_SECONDS as u64));
        for second in oldest..=to {
            let begin_us = from_us.max(second * SECOND_US);
            let end_us = to_us.min((second + 1) * SECOND_US);
            let part = u128::from(share) * u128::from(end_us - begin_us) / elapsed_us;
            self.give(begin_us, part as u64);
        }
    }

    fn give(&mut self, at_us: u64, share: u64) {
        let at = place(at_us / SECOND_US);
        self.shares[at] = self.shares[at].saturating_add(share);
        self.given[at] = self.given[at].saturating_add(share);
    }

    /// Takes from what expires first.
    fn spend(&mut self, mut amount: u64) {
        let now = self.asked_us.unwrap_or(0) / SECOND_US;
        for second in now + 1..=now + KEPT_SECONDS as u64 {
            let share = &mut self.shares[place(second)];
            let part = amount.min(*share);
            *share -= part;
            amount -= part;
        }
        self.store = self.store.saturating_sub(amount);
    }
}

fn place(second: u64) -> usize {
    (second % KEPT_SECONDS as u64) as usize
}

fn share(requests: u64, allowance: Allowance) -> u64 {
    requests
        .saturating_mul(u64::from(allowance.percent))
        .saturating_mul(RETRY / 100)
        .min(u64::MAX / 64)
}

fn most_stored(allowance: Allowance) -> u64 {
    u64::from(allowance.per_second) * STORED_SECONDS * RETRY
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
