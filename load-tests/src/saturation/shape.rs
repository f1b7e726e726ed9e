//! Load over time: rates one after another, and when each request is due.

/// A rate for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// Requests due per second.
    pub rate: f64,
    /// For how long, ms.
    pub ms: u64,
}

/// Rates one after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    phases: Vec<Phase>,
}

/// Walks over the requests of a shape; times are µs from its start.
#[derive(Clone, Debug)]
pub struct Schedule {
    phases: Vec<Phase>,
    /// The phase of the next request, when that phase begins, and the request's number in it.
    phase: usize,
    began_us: u64,
    number: u64,
}

impl Shape {
    /// These phases.
    pub fn new(phases: impl IntoIterator<Item = (f64, u64)>) -> Self {
        let phases = phases.into_iter().map(|(rate, ms)| Phase { rate, ms });
        Self {
            phases: phases.collect(),
        }
    }

    /// One rate.
    pub fn steady(rate: f64, ms: u64) -> Self {
        Self::new([(rate, ms)])
    }

    /// All of it, ms.
    pub fn ms(&self) -> u64 {
        self.phases.iter().map(|phase| phase.ms).sum()
    }

    /// About how many requests.
    pub fn requests(&self) -> usize {
        let of = |phase: &Phase| phase.rate * phase.ms as f64 / 1e3;
        self.phases.iter().map(of).sum::<f64>() as usize
    }

    /// From its beginning.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            phases: self.phases.clone(),
            phase: 0,
            began_us: 0,
            number: 0,
        }
    }
}

impl Schedule {
    /// When the next request is due; `None` after the last.
    pub fn next_us(&mut self) -> Option<u64> {
        loop {
            let phase = self.phases.get(self.phase)?;
            let offset_us = self.number as f64 * 1e6 / phase.rate;
            if phase.rate > 0.0 && offset_us < phase.ms as f64 * 1e3 {
                return Some(self.began_us + offset_us as u64);
            }
            self.began_us += phase.ms * 1_000;
            self.phase += 1;
            self.number = 0;
        }
    }

    /// The next one is sent.
    pub fn advance(&mut self) {
        self.number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let shape = Shape::new([(1_000.0, 3), (0.0, 5), (500.0, 4)]);
        assert_eq!((shape.ms(), shape.requests()), (12, 5));
        let mut schedule = shape.schedule();
        let due = std::iter::from_fn(|| {
            let due = schedule.next_us();
            schedule.advance();
            due
        });
        assert_eq!(
            due.collect::<Vec<_>>(),
            [0, 1_000, 2_000, 8_000, 10_000],
            "a phase without requests is only time"
        );
    }
}
