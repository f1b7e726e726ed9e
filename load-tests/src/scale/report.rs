//! The results' file, the report and the plot made of it.
//!
//! The JSON holds the last run of every scenario, one a line. The report has a
//! table a scenario, with what must be met, and one table in which Portico and
//! its peers stand beside each other.

use std::fmt::{self, Display, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalogue::Row;
use super::figure::{Figure, shown};
use crate::campaign::{self, Kept};
use crate::machine::Machine;
use crate::plot::{self, Panel};

/// What a scenario found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// In the order they were found.
    pub figures: Vec<Figure>,
    /// What no number says.
    pub notes: Vec<String>,
    /// What the admin port says of memory, as it says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Value>,
}

impl Found {
    /// Adds a figure of the catalogue.
    pub fn put(&mut self, key: &str, value: f64) {
        assert!(Row::of(key).is_some(), "{key} must be in the catalogue");
        self.put_if_known(key, value);
    }

    /// The same, of one that may be nobody's concern.
    pub fn put_if_known(&mut self, key: &str, value: f64) {
        if Row::of(key).is_some() {
            self.figures.push(Figure {
                key: key.to_owned(),
                value,
            });
        }
    }

    /// Adds a note.
    pub fn note(&mut self, words: impl Into<String>) {
        self.notes.push(words.into());
    }
}

/// One run of one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its key.
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// Who.
    pub subject: String,
    /// RFC 3339, UTC.
    pub date: String,
    /// As it was called.
    pub command: String,
    /// All of it, what is not measured included.
    pub took_seconds: f64,
    /// What it found.
    pub found: Found,
}

impl Run {
    fn figure(&self, key: &str) -> Option<&Figure> {
        self.found.figures.iter().find(|figure| figure.key == key)
    }
}

impl Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scenario,
            subject,
            took_seconds,
            found,
            ..
        } = self;
        writeln!(f, "{scenario} {subject} ({took_seconds:.0} s)")?;
        for figure in &found.figures {
            let met = match figure.is_met().filter(|_| !is_peer(self)) {
                None => "",
                Some(true) => "  met",
                Some(false) => "  MISSED",
            };
            let words = Row::of(&figure.key).map_or(figure.key.as_str(), |row| row.words);
            writeln!(f, "  {words}: {}{met}", figure.shown())?;
        }
        for note in &found.notes {
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}

/// The last run of every scenario.
pub type Results = Kept<Run>;

impl campaign::Run for Run {
    const FILES: &'static str = "scale";

    fn report(kept: &Results) -> String {
        kept.markdown()
    }

    fn plotted(kept: &Results) -> String {
        kept.plot()
    }
}

impl Results {
    /// Adds a run in the place of the one before.
    pub fn add(&mut self, run: Run) {
        self.machine = Machine::here();
        match self
            .runs
            .iter_mut()
            .find(|old| old.scenario == run.scenario)
        {
            Some(old) => *old = run,
            None => self.runs.push(run),
        }
        let place = |run: &Run| {
            let mut all = super::SCENARIOS.iter();
            all.position(|scenario| scenario.key == run.scenario)
        };
        self.runs.sort_by_key(place);
    }

    /// The tables.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write_markdown(&mut text)
            .expect("writing to a String must succeed");
        text
    }

    fn write_markdown(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "{}.\n", self.conditions(|run| &run.date))?;
        for run in self.runs.iter().filter(|run| !is_peer(run)) {
            writeln!(text, "## {}: {}\n", run.scenario, run.title)?;
            writeln!(text, "| | found | at most | met |\n|---|---:|---:|---|")?;
            for figure in &run.found.figures {
                // A figure of an older file that nobody knows any more is left out.
                let Some(row) = Row::of(&figure.key) else {
                    continue;
                };
                let met = figure
                    .is_met()
                    .map_or("", |met| if met { "yes" } else { "**no**" });
                let limit = row.at_most.map(|limit| shown(limit, row.unit));
                writeln!(
                    text,
                    "| {} | {} | {} | {met} |",
                    row.words,
                    figure.shown(),
                    limit.unwrap_or_default()
                )?;
            }
            writeln!(text)?;
            for note in &run.found.notes {
                writeln!(text, "- {note}")?;
            }
            writeln!(text, "\n`{}`, {:.0} s.\n", run.command, run.took_seconds)?;
        }
        self.write_peers(text)
    }

    fn write_peers(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "## Beside its peers\n")?;
        let titles: Vec<&str> = COLUMNS.iter().map(|(title, _)| *title).collect();
        writeln!(text, "| | {} |", titles.join(" | "))?;
        writeln!(text, "|---|{}", "---:|".repeat(titles.len()))?;
        for run in self.rows() {
            let cells = COLUMNS.iter().map(|(_, key)| self.cell(run, key));
            let cells: Vec<String> = cells.collect();
            writeln!(text, "| {} | {} |", run.subject, cells.join(" | "))?;
        }
        writeln!(text)?;
        for run in self.runs.iter().filter(|run| is_peer(run)) {
            for note in &run.found.notes {
                writeln!(text, "- {}: {note}", run.subject)?;
            }
        }
        Ok(())
    }

    /// Portico with all apps, then the peers.
    fn rows(&self) -> impl Iterator<Item = &Run> {
        let first = self.runs.iter().filter(|run| run.scenario == "million");
        first.chain(self.runs.iter().filter(|run| is_peer(run)))
    }

    /// What one change costs Portico is found by the scenario of changes.
    fn figure(&self, run: &Run, key: &str) -> Option<Figure> {
        let churn = || self.runs.iter().find(|run| run.scenario == "churn");
        let found = run.figure(key).or_else(|| {
            let is_portico = run.scenario == "million";
            churn().filter(|_| is_portico)?.figure(key)
        });
        found.cloned()
    }

    fn cell(&self, run: &Run, key: &str) -> String {
        self.figure(run, key)
            .map_or_else(|| "–".to_owned(), |figure| figure.shown())
    }

    fn plot(&self) -> String {
        let panels: Vec<Panel> = PLOTTED
            .iter()
            .map(|(title, key, unit)| Panel {
                title: (*title).to_owned(),
                unit,
                bars: self
                    .rows()
                    .filter_map(|run| {
                        let value = self.figure(run, key)?.value;
                        let apps = self.figure(run, "apps")?.value;
                        let name = format!("{} ({:.0}k)", short(&run.subject), apps / 1e3);
                        (!value.is_nan()).then_some((name, value))
                    })
                    .collect(),
            })
            .collect();
        plot::draw(&panels, &self.conditions(|run| &run.date))
    }
}

/// `Envoy, RDS and CDS files` is `Envoy` in a plot; nginx is there twice.
fn short(subject: &str) -> &str {
    match subject.split_once(',') {
        Some(("nginx", " map")) => "nginx map",
        Some(("nginx", _)) => "nginx servers",
        Some((name, _)) => name,
        None => subject,
    }
}

fn is_peer(run: &Run) -> bool {
    run.title == "peers"
}

/// The columns beside the peers: title and figure.
const COLUMNS: &[(&str, &str)] = &[
    ("apps reached", "apps"),
    ("gives up at", "gives_up"),
    ("from its files to the first request", "load_s"),
    ("memory", "memory_mib"),
    ("one change is active after", "change_ms"),
    ("CPU of one change", "change_cpu_ms"),
    ("a reload takes", "reload_s"),
    ("CPU of a reload", "reload_cpu_s"),
    ("WebSockets cut", "reload_cut"),
    ("requests failed", "reload_failed"),
    ("memory after reloads", "reload_memory_mib"),
];

/// The panels of the plot: title, figure, unit.
const PLOTTED: &[(&str, &str, &str)] = &[
    ("Memory, all processes together", "memory_mib", "MiB"),
    ("From its files to the first request", "load_s", "s"),
    ("One change is active after", "change_ms", "ms"),
    ("CPU time of one change", "change_cpu_ms", "ms"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scenario: &str, subject: &str, title: &str, figures: Vec<Figure>) -> Run {
        Run {
            scenario: scenario.to_owned(),
            title: title.to_owned(),
            subject: subject.to_owned(),
            date: "2026-11-23T00:00:00Z".to_owned(),
            command: "load-tests scale".to_owned(),
            took_seconds: 1.0,
            found: Found {
                figures,
                ..Found::default()
            },
        }
    }

    fn figure(key: &str, value: f64) -> Figure {
        Figure {
            key: key.to_owned(),
            value,
        }
    }

    fn results() -> Results {
        let mut results = Results::default();
        let apps = || figure("apps", 1e6);
        results.add(run("nginx-map", "nginx, map", "peers", vec![apps()]));
        let changes = vec![
            figure("change_ms", 9.0),
            figure("propagation_p99_ms", 101.0),
        ];
        results.add(run("churn", "Portico", "changes", changes));
        results.add(run("million", "Portico", "all", vec![apps()]));
        results
    }

    #[test]
    fn a_figure_missed_is_said_and_portico_stands_beside_its_peers() {
        let text = results().markdown();
        assert!(
            text.contains("| commit → active, p99 | 101 ms | 100 ms | **no** |"),
            "{text}"
        );
        assert!(
            text.contains("| Portico | 1000000 | – | – | – | 9 ms |"),
            "{text}"
        );
        assert!(text.contains("| nginx, map | 1000000 |"), "{text}");
        assert!(!text.contains("## nginx-map"), "{text}");
        assert!(results().plot().contains("Portico (1000k)"));
    }

    #[test]
    #[should_panic(expected = "must be in the catalogue")]
    fn a_figure_without_a_row_is_a_mistake() {
        Found::default().put("nobody", 1.0);
    }

    #[test]
    fn a_run_replaces_the_one_before() {
        let mut results = results();
        results.add(run("churn", "Portico", "changes", vec![]));
        assert_eq!(results.runs.len(), 3);
        let order: Vec<&str> = results
            .runs
            .iter()
            .map(|run| run.scenario.as_str())
            .collect();
        assert_eq!(order, ["million", "churn", "nginx-map"]);
    }
}
