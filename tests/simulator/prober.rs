//! The prober of a modelled router: it looks whether backends that nobody
//! answers at are back, when the health says so.
//!
//! Owns the timing of these looks as the edge's prober thread does, for the
//! apps without a probe of their own: a connection, and nothing sent.

use portico::table::Probed;

use crate::engine::{MILLISECOND, Micros};
use crate::faults::Mode;
use crate::world::{Event, NETWORK_US, World};

/// A probe's connection is given up after this.
const PATIENCE_US: Micros = 500 * MILLISECOND;

impl World {
    /// Sets the next look at a backend, if there is to be one sooner than set.
    pub(super) fn set_probe(&mut self, router: usize, backend: usize) {
        let now_us = self.now_us();
        let known = &mut self.routers[router];
        if backend >= known.app.backends.len() {
            return;
        }
        let Some(at_us) = known.app.next_return_probe_us(backend) else {
            return;
        };
        let at_us = at_us.max(now_us);
        if known.probe_at_us[backend].is_some_and(|set_us| set_us <= at_us) {
            return;
        }
        known.probe_at_us[backend] = Some(at_us);
        self.engine.at(at_us, Event::ProbeDue { router, backend });
    }

    /// Someone waits for the app: looks may be due sooner now.
    pub(super) fn hasten_probes(&mut self, router: usize) {
        for backend in 0..self.routers[router].app.backends.len() {
            self.set_probe(router, backend);
        }
    }

    pub(super) fn probe(&mut self, router: usize, backend: usize) {
        let now_us = self.now_us();
        let known = &mut self.routers[router];
        if known.probe_at_us[backend] != Some(now_us) {
            // Set anew since.
            return;
        }
        known.probe_at_us[backend] = None;
        if backend >= known.app.backends.len() {
            return;
        }
        match known.app.next_return_probe_us(backend) {
            Some(at_us) if at_us > now_us => return self.set_probe(router, backend),
            Some(_) => {}
            None => return,
        }
        let mode = self.backends[backend].mode;
        let took_us = match mode {
            Mode::Unreachable => PATIENCE_US,
            _ => 2 * NETWORK_US,
        };
        let passed = mode.accepts();
        self.record.probes += 1;
        self.engine.after(
            took_us,
            Event::Probed {
                router,
                backend,
                passed,
            },
        );
    }

    pub(super) fn probed(&mut self, router: usize, backend: usize, passed: bool) {
        if backend >= self.routers[router].app.backends.len() {
            return;
        }
        let told = Probed {
            index: backend,
            now_us: self.now_us(),
            passed,
            random: self.choosing.u64(..),
        };
        let verdict = self.routers[router].app.probed(&told);
        if let Some(verdict) = verdict {
            self.pronounced(router, backend, verdict);
        }
        if passed {
            self.routers[router].live.queue.wake_all();
        }
        self.set_probe(router, backend);
    }
}
