//! A backend as a queue: requests wait for a worker, a worker takes its time.
//!
//! Owns who is being served and who waits. A crash, a freeze and a thaw change
//! the times at which requests already begun will be done; completions set
//! before are then void, told by their epoch. Never looks at what a request is.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::engine::Micros;
use crate::load::Service;

/// A request being served, and when it will be done.
#[derive(Clone, Copy, Debug)]
pub struct Begun<J> {
    /// The request.
    pub job: J,
    /// When it is done, unless something happens to the backend.
    pub done_at_us: Micros,
    /// To be handed back with its completion.
    pub epoch: u32,
    /// It was not begun before.
    pub is_new: bool,
}

/// One instance of the app.
pub struct Server<J> {
    service: Service,
    workers: usize,
    /// Service takes this many times as long.
    slowness: u64,
    frozen_since_us: Option<Micros>,
    epoch: u32,
    serving: Vec<Begun<J>>,
    waiting: VecDeque<J>,
}

impl<J: Copy + PartialEq> Server<J> {
    /// Idle, with so many workers.
    pub fn new(service: Service, workers: usize) -> Self {
        Server {
            service,
            workers,
            slowness: 1,
            frozen_since_us: None,
            epoch: 0,
            serving: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Requests being served or waiting.
    pub fn held(&self) -> usize {
        self.serving.len() + self.waiting.len()
    }

    /// Those requests.
    pub fn requests(&self) -> impl Iterator<Item = J> {
        let begun = self.serving.iter().map(|begun| begun.job);
        begun.chain(self.waiting.iter().copied())
    }

    /// From now on each request begun takes `times` as long.
    pub fn slow_down(&mut self, times: u64) {
        self.slowness = times;
    }

    /// From now on it has so many workers; those too many finish what they do.
    pub fn staff(&mut self, workers: usize) {
        self.workers = workers;
    }

    /// A request arrives; begun at once if a worker is free.
    pub fn accept(&mut self, job: J, now_us: Micros, random: &mut Rng) -> Option<Begun<J>> {
        if self.frozen_since_us.is_some() || self.serving.len() >= self.workers {
            self.waiting.push_back(job);
            return None;
        }
        Some(self.begin(job, now_us, random))
    }

    fn begin(&mut self, job: J, now_us: Micros, random: &mut Rng) -> Begun<J> {
        let begun = Begun {
            job,
            done_at_us: now_us + self.service.draw_us(random) * self.slowness,
            epoch: self.epoch,
            is_new: true,
        };
        self.serving.push(begun);
        begun
    }

    /// Whether a completion set earlier still holds; the request then leaves,
    /// and the next in line may [`begin`](Self::next).
    pub fn finish(&mut self, job: J, epoch: u32) -> bool {
        if epoch != self.epoch {
            return false;
        }
        let at = self.serving.iter().position(|begun| begun.job == job);
        at.is_some_and(|at| {
            self.serving.swap_remove(at);
            true
        })
    }

    /// The next in line, if a worker is free for it.
    pub fn next(&mut self, now_us: Micros, random: &mut Rng) -> Option<Begun<J>> {
        if self.frozen_since_us.is_some() || self.serving.len() >= self.workers {
            return None;
        }
        let job = self.waiting.pop_front()?;
        Some(self.begin(job, now_us, random))
    }

    /// It dies with all it held; told are those begun, then those that waited.
    pub fn crash(&mut self) -> Vec<J> {
        self.epoch += 1;
        self.frozen_since_us = None;
        let begun = self.serving.drain(..).map(|begun| begun.job);
        begun.chain(self.waiting.drain(..)).collect()
    }

    /// It stops where it is, as a process does on SIGSTOP.
    pub fn freeze(&mut self, now_us: Micros) {
        self.epoch += 1;
        self.frozen_since_us.get_or_insert(now_us);
    }

    /// It goes on where it stopped; told are the new times of what it serves.
    pub fn thaw(&mut self, now_us: Micros, random: &mut Rng) -> Vec<Begun<J>> {
        let Some(since_us) = self.frozen_since_us.take() else {
            return Vec::new();
        };
        self.epoch += 1;
        for begun in &mut self.serving {
            begun.done_at_us = now_us + begun.done_at_us.saturating_sub(since_us);
            begun.epoch = self.epoch;
            begun.is_new = false;
        }
        let mut told = self.serving.clone();
        while let Some(begun) = self.next(now_us, random) {
            told.push(begun);
        }
        told
    }
}
