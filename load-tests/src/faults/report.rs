//! The results' file and the table made of it.
//!
//! The JSON holds every run as it was, one a line; the Markdown is made of
//! medians over a scenario's rounds. Failures are never a median: they are
//! summed, and one is too many where none is allowed.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use super::catalogue::{SCENARIOS, SECONDS, Scenario};
use super::figures::Figures;
use super::plot;
use super::subject::Subject;
use crate::campaign::{self, Kept};
use crate::machine::Machine;
use crate::statistics::median;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The scenario's key.
    pub scenario: String,
    /// Who.
    pub subject: Subject,
    /// Its version.
    pub version: String,
    /// RFC 3339, UTC.
    pub date: String,
    /// One core for the proxy, the other for the rest.
    pub pinned: bool,
    /// Everything ran before all else on the machine.
    #[serde(default)]
    pub realtime: bool,
    /// Which of the rounds.
    pub round: u64,
    /// What was found.
    pub figures: Figures,
}

/// Every run so far.
pub type Results = Kept<Run>;

impl campaign::Run for Run {
    const FILES: &'static str = "faults";

    fn report(kept: &Results) -> String {
        kept.markdown()
    }

    fn plotted(kept: &Results) -> String {
        plot::latencies(kept)
    }
}

impl Results {
    /// Adds a run; a first round replaces what was there of the same scenario and subject.
    pub fn add(&mut self, run: Run) {
        self.machine = Machine::here();
        if run.round == 1 {
            self.runs
                .retain(|old| old.scenario != run.scenario || old.subject != run.subject);
        }
        self.runs.push(run);
    }

    /// Where, when and how.
    pub fn how(&self) -> String {
        let Machine {
            cpu,
            cores,
            kernel,
            system,
            ..
        } = &self.machine;
        let (first, last) = self.dates(|run| &run.date);
        let all = |yes: fn(&Run) -> bool, words| {
            let said = !self.runs.is_empty() && self.runs.iter().all(yes);
            if said { words } else { "" }
        };
        format!(
            "{} to {}; {cpu}, {cores} cores for proxy, load and backends, {system}, Linux {kernel}; backends take 5 ms a request; {SECONDS} s of open-loop load, the fault begins after 3 s; latency counts from when a request was due{}{}",
            first,
            last,
            all(
                |run| run.pinned,
                "; one core for the proxy, one for the rest"
            ),
            all(|run| run.realtime, "; everything at real-time priority"),
        )
    }

    /// The tables, ready for a README.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}.\n\n", self.how());
        self.write_verdicts(&mut text)
            .and_then(|()| self.write_figures(&mut text))
            .expect("writing to a String must succeed");
        text
    }

    /// The rounds of one scenario on one subject.
    pub fn summary(&self, scenario: &Scenario, subject: Subject) -> Option<Summary> {
        let runs: Vec<&Run> = self
            .runs
            .iter()
            .filter(|run| run.scenario == scenario.key && run.subject == subject)
            .collect();
        Summary::of(&runs)
    }

    /// The first round's figures, for plots.
    pub fn first(&self, scenario: &Scenario, subject: Subject) -> Option<&Figures> {
        let mut runs = self.runs.iter();
        let run = runs.find(|run| run.scenario == scenario.key && run.subject == subject)?;
        Some(&run.figures)
    }

    /// A row a scenario, a column a subject: met, or what was not.
    fn write_verdicts(&self, text: &mut String) -> fmt::Result {
        let subjects: Vec<Subject> = Subject::ALL
            .into_iter()
            .filter(|subject| *subject != Subject::Direct)
            .collect();
        write!(text, "| scenario | must meet ")?;
        for subject in &subjects {
            write!(text, "| {} ", subject.name())?;
        }
        writeln!(text, "|\n|---|---{}|", "|---".repeat(subjects.len()))?;
        for scenario in SCENARIOS {
            let words: Vec<String> = scenario.targets.iter().map(|one| one.words()).collect();
            write!(text, "| {} | {} ", scenario.title, words.join("; "))?;
            for subject in &subjects {
                let verdict = self
                    .summary(scenario, *subject)
                    .map_or("–".to_owned(), |runs| verdict(scenario, &runs));
                write!(text, "| {verdict} ")?;
            }
            writeln!(text, "|")?;
        }
        writeln!(text)
    }

    fn write_figures(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "| scenario | proxy | rounds | failed | p50 ms | p99 ms | p99.9 ms | max ms | > 250 ms | tries a request | besides | harness late, max ms | |"
        )?;
        writeln!(
            text,
            "|---|---|---:|---|---:|---:|---:|---:|---:|---:|---|---:|---|"
        )?;
        for scenario in SCENARIOS {
            for subject in Subject::ALL {
                let Some(runs) = self.summary(scenario, subject) else {
                    continue;
                };
                let met = scenario.targets.iter().all(|target| target.met(&runs));
                writeln!(
                    text,
                    "| {} ({}) | {} {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.1} | {} | {:.3} | {} | {:.1} | {} |",
                    scenario.title,
                    scenario.method.name(),
                    subject.name(),
                    runs.version,
                    runs.rounds,
                    runs.failures(),
                    runs.p50_us / 1e3,
                    runs.p99_us / 1e3,
                    runs.p999_us / 1e3,
                    runs.max_us / 1e3,
                    share(runs.slow_share),
                    runs.amplification,
                    runs.besides(),
                    runs.noise_max_us / 1e3,
                    if met { "met" } else { "**missed**" },
                )?;
            }
        }
        writeln!(text)
    }
}

/// `met`, or the figures that were not.
fn verdict(scenario: &Scenario, runs: &Summary) -> String {
    let missed: Vec<String> = scenario
        .targets
        .iter()
        .filter(|target| !target.met(runs))
        .map(|target| target.found(runs))
        .collect();
    if missed.is_empty() {
        "met".to_owned()
    } else {
        format!("✗ {}", missed.join("; "))
    }
}

/// A share as per cent; exactly nothing is shown as nothing.
pub fn share(share: f64) -> String {
    if share > 0.0 {
        format!("{:.2} %", share * 100.0)
    } else {
        "0".to_owned()
    }
}

/// All rounds of a scenario on a subject: medians, but sums of failures and the
/// worst of what must never be worse.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The subject's version.
    pub version: String,
    /// How many.
    pub rounds: usize,
    /// Failed requests by kind, summed.
    pub failed: BTreeMap<String, u64>,
    /// Of these, in flight at a crash and nowhere else, summed.
    pub failed_in_flight: u64,
    /// Executed more than once, summed.
    pub executed_twice: Option<u64>,
    /// Median of the rounds, µs.
    pub p50_us: f64,
    /// Median of the rounds, µs.
    pub p99_us: f64,
    /// Median of the rounds, µs.
    pub p999_us: f64,
    /// Median of the rounds' highest, µs.
    pub max_us: f64,
    /// Of all rounds' requests, those slower than 250 ms.
    pub slow_share: f64,
    /// Tries a request, median.
    pub amplification: f64,
    /// The worst round's.
    pub until_out: Option<u64>,
    /// The worst round's, ms.
    pub back_ms: Option<u64>,
    /// In any round.
    pub never_back: bool,
    /// The worst round's, ms.
    pub first_success_ms: Option<f64>,
    /// Summed.
    pub failed_since_back: Option<u64>,
    /// Median of the rounds' highest, µs.
    pub noise_max_us: f64,
}

impl Summary {
    /// Of at least one run.
    pub fn of(runs: &[&Run]) -> Option<Self> {
        let first = runs.first()?;
        let figures = || runs.iter().map(|run| &run.figures);
        let middle = |field: fn(&Figures) -> u64| median(figures().map(|one| field(one) as f64));
        let mut failed: BTreeMap<String, u64> = BTreeMap::new();
        for (kind, count) in figures().flat_map(|one| &one.failed) {
            *failed.entry(kind.clone()).or_default() += count;
        }
        let requests: u64 = figures().map(|one| one.requests).sum();
        let slow: u64 = figures().map(|one| one.slow).sum();
        Some(Self {
            version: first.version.clone(),
            rounds: runs.len(),
            failed,
            failed_in_flight: figures().map(|one| one.failed_in_flight).sum(),
            executed_twice: figures().map(|one| one.executed_twice).sum(),
            p50_us: middle(|one| one.p50_us),
            p99_us: middle(|one| one.p99_us),
            p999_us: middle(|one| one.p999_us),
            max_us: middle(|one| one.max_us),
            slow_share: slow as f64 / requests as f64,
            amplification: median(figures().map(Figures::amplification)),
            until_out: figures().filter_map(|one| one.until_out).max(),
            back_ms: figures().filter_map(|one| one.back_ms).max(),
            never_back: figures().any(|one| one.never_back),
            first_success_ms: figures()
                .map(|one| one.first_success_ms)
                .collect::<Option<Vec<f64>>>()
                .and_then(|all| all.into_iter().max_by(f64::total_cmp)),
            failed_since_back: figures().map(|one| one.failed_since_back).sum(),
            noise_max_us: middle(|one| one.noise_max_us),
        })
    }

    /// All failed requests.
    pub fn failed_total(&self) -> u64 {
        self.failed.values().sum()
    }

    /// `3: 2 × 503, 1 × deadline`; `0`.
    fn failures(&self) -> String {
        let total = self.failed_total();
        if total == 0 {
            return "0".to_owned();
        }
        let kinds: Vec<String> = self
            .failed
            .iter()
            .map(|(kind, count)| format!("{count} × {kind}"))
            .collect();
        format!("{total}: {}", kinds.join(", "))
    }

    /// What only some scenarios have.
    fn besides(&self) -> String {
        let mut words = Vec::new();
        if self.failed_in_flight > 0 {
            words.push(format!(
                "{} lost in flight at a crash",
                self.failed_in_flight
            ));
        }
        if let Some(twice) = self.executed_twice {
            words.push(format!("{twice} executed twice"));
        }
        if let Some(count) = self.until_out {
            words.push(format!("out after {count} requests"));
        }
        match self.back_ms {
            _ if self.never_back => words.push("not back in time".to_owned()),
            Some(back) => words.push(format!("back after {back} ms")),
            None => {}
        }
        if let Some(first) = self.first_success_ms {
            words.push(format!("first success after {first:.0} ms"));
        }
        if let Some(failed) = self.failed_since_back {
            words.push(format!(
                "{failed} failed later than 300 ms after that return"
            ));
        }
        words.join("; ")
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
