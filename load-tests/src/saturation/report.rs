//! The results' file, the report and the plot made of it.
//!
//! The JSON holds every run, one a line. The report has one table of overload
//! with everybody in it, one a scenario after it, and Portico's figures against
//! what they must meet.

use std::fmt::{self, Display, Write};

use serde::{Deserialize, Serialize};

use super::catalogue::{Limit, ROWS, Row};
use super::figures::Found;
use super::subject::Subject;
use super::{SCENARIOS, Scenario, plot};
use crate::campaign::{self, Kept};
use crate::machine::Machine;
use crate::scale::figure::shown;
use crate::statistics::median;

/// One run of one case by one subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The scenario's key.
    pub scenario: String,
    /// The case's.
    pub case: String,
    /// Who.
    pub subject: Subject,
    /// Its version.
    pub version: String,
    /// RFC 3339, UTC.
    pub date: String,
    /// From 1.
    pub round: u64,
    /// What it found.
    pub found: Found,
}

impl Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for figure in &self.found.figures {
            let unit = Row::of(&figure.key).map_or("", |row| row.unit);
            write!(f, "{} {}, ", figure.key, shown(figure.value, unit))?;
        }
        write!(f, "failed {:?}", self.found.failed)?;
        for note in &self.found.notes {
            write!(f, "; {note}")?;
        }
        Ok(())
    }
}

/// Every run kept.
pub type Results = Kept<Run>;

impl campaign::Run for Run {
    const FILES: &'static str = "saturation";

    fn report(kept: &Results) -> String {
        kept.markdown()
    }

    fn plotted(kept: &Results) -> String {
        plot::goodput(kept)
    }
}

impl Results {
    /// Adds a run; the first round of a case takes the place of all before.
    pub fn add(&mut self, run: Run) {
        let same = |old: &Run| {
            (&old.scenario, &old.case, old.subject) == (&run.scenario, &run.case, run.subject)
        };
        let first = run.round == 1;
        self.runs
            .retain(|old| !(same(old) && (first || old.round == run.round)));
        self.machine = Machine::here();
        self.runs.push(run);
        let place = |run: &Run| {
            let scenario = SCENARIOS.iter().position(|one| one.key == run.scenario);
            let cases = scenario.map(|one| SCENARIOS[one].all_cases());
            let case = cases.and_then(|all| all.iter().position(|(key, _)| *key == run.case));
            (scenario, case, run.subject, run.round)
        };
        self.runs.sort_by_key(place);
    }

    fn runs_of<'a>(
        &'a self,
        scenario: &'a str,
        case: &'a str,
        subject: Subject,
    ) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| {
            run.scenario == scenario && run.case == case && run.subject == subject
        })
    }

    /// The median over the rounds; `None` if nobody found it.
    pub fn value(&self, scenario: &str, case: &str, subject: Subject, key: &str) -> Option<f64> {
        let found: Vec<f64> = self
            .runs_of(scenario, case, subject)
            .filter_map(|run| run.found.value(key))
            .collect();
        (!found.is_empty()).then(|| median(found))
    }

    /// Who was put through any case of a scenario.
    pub fn subjects(&self, scenario: &str) -> Vec<Subject> {
        let ran = |subject: &Subject| {
            let mut runs = self.runs.iter();
            runs.any(|run| run.scenario == scenario && run.subject == *subject)
        };
        Subject::ALL.into_iter().filter(ran).collect()
    }

    /// The report.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write_markdown(&mut text)
            .expect("writing to a String must succeed");
        text
    }

    fn write_markdown(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "{}. Medians where there are rounds; bold: Portico misses what is asked of it.\n",
            self.conditions(|run| &run.date)
        )?;
        let mut versions: Vec<String> = Vec::new();
        for run in &self.runs {
            let named = format!("{} {}", run.subject.name(), run.version);
            if !versions.contains(&named) {
                versions.push(named);
            }
        }
        versions.sort();
        writeln!(text, "{}.\n", versions.join(", "))?;
        self.write_overload(text)?;
        for scenario in SCENARIOS.iter().filter(|one| one.key != "overload") {
            self.write_cases(text, scenario)?;
        }
        self.write_details(text)
    }

    /// The one table: everybody under every load.
    fn write_overload(&self, text: &mut String) -> fmt::Result {
        let subjects = self.subjects("overload");
        if subjects.is_empty() {
            return Ok(());
        }
        writeln!(text, "## Overload\n")?;
        let titles: Vec<&str> = COLUMNS.iter().map(|(title, ..)| *title).collect();
        writeln!(text, "| | {} |", titles.join(" | "))?;
        writeln!(text, "|---|{}", "---:|".repeat(titles.len()))?;
        for subject in subjects {
            let cell = |(_, cases, key, digits): &(&str, &[&str], &str, usize)| {
                let cells: Vec<String> = cases
                    .iter()
                    .map(|case| self.cell("overload", case, subject, key, *digits))
                    .collect();
                cells.join(" · ")
            };
            let cells: Vec<String> = COLUMNS.iter().map(cell).collect();
            writeln!(text, "| {} | {} |", subject.name(), cells.join(" | "))?;
        }
        writeln!(text, "\n{LEGEND}\n")
    }

    /// A value alone, as it stands in a table with units in the heading.
    fn cell(
        &self,
        scenario: &str,
        case: &str,
        subject: Subject,
        key: &str,
        digits: usize,
    ) -> String {
        let Some(value) = self.value(scenario, case, subject, key) else {
            return "–".to_owned();
        };
        let shown = if value.is_nan() {
            "–".to_owned()
        } else {
            format!("{value:.digits$}")
        };
        match limit_of(key, subject) {
            Some(limit) if !limit.is_met(value) => format!("**{shown}**"),
            _ => shown,
        }
    }

    /// A table a case: a row a subject, a column a figure.
    fn write_cases(&self, text: &mut String, scenario: &Scenario) -> fmt::Result {
        let subjects = self.subjects(scenario.key);
        if subjects.is_empty() {
            return Ok(());
        }
        writeln!(text, "## {}: {}\n", scenario.key, scenario.title)?;
        for (case, title) in scenario.all_cases() {
            let has = |row: &&Row| {
                let mut all = subjects.iter();
                all.any(|one| self.value(scenario.key, case, *one, row.key).is_some())
            };
            let rows: Vec<&Row> = ROWS.iter().filter(has).collect();
            if rows.is_empty() {
                continue;
            }
            let heading = |row: &&Row| {
                let unit = if row.unit.is_empty() {
                    String::new()
                } else {
                    format!(", {}", row.unit)
                };
                format!("{}{unit}{}", row.words, limit_words(row.limit))
            };
            let headings: Vec<String> = rows.iter().map(heading).collect();
            writeln!(text, "| {title} | {} |", headings.join(" | "))?;
            writeln!(text, "|---|{}", "---:|".repeat(rows.len()))?;
            for subject in &subjects {
                if self.runs_of(scenario.key, case, *subject).next().is_none() {
                    continue;
                }
                let cells = rows.iter().map(|row| {
                    let digits = digits(self.value(scenario.key, case, *subject, row.key));
                    self.cell(scenario.key, case, *subject, row.key, digits)
                });
                let cells: Vec<String> = cells.collect();
                writeln!(text, "| {} | {} |", subject.name(), cells.join(" | "))?;
            }
            writeln!(text)?;
        }
        for run in self.runs.iter().filter(|run| run.scenario == scenario.key) {
            for note in &run.found.notes {
                writeln!(text, "- {}, {}: {note}", run.subject.name(), run.case)?;
            }
        }
        writeln!(text)
    }

    /// Every figure of every overload run, for those who want to know.
    fn write_details(&self, text: &mut String) -> fmt::Result {
        let subjects = self.subjects("overload");
        if subjects.is_empty() {
            return Ok(());
        }
        writeln!(text, "## Overload, in full\n")?;
        let titles: Vec<String> = DETAILS
            .iter()
            .filter_map(|key| Row::of(key))
            .map(|row| format!("{}, {}", row.words, row.unit))
            .collect();
        writeln!(
            text,
            "| | | {} | failed otherwise, by kind |",
            titles.join(" | ")
        )?;
        writeln!(text, "|---|---|{}---|", "---:|".repeat(titles.len()))?;
        for case in super::CASES {
            for subject in &subjects {
                let Some(run) = self.runs_of("overload", case.key, *subject).last() else {
                    continue;
                };
                let cells = DETAILS.iter().map(|key| {
                    let digits = digits(self.value("overload", case.key, *subject, key));
                    self.cell("overload", case.key, *subject, key, digits)
                });
                let cells: Vec<String> = cells.collect();
                let failed = run.found.failed.iter();
                let failed: Vec<String> = failed
                    .map(|(kind, count)| format!("{count} × {kind}"))
                    .collect();
                writeln!(
                    text,
                    "| {} | {} | {} | {} |",
                    case.title,
                    subject.name(),
                    cells.join(" | "),
                    failed.join(", ")
                )?;
            }
        }
        writeln!(text)
    }
}

/// What is asked of a subject; nothing of peers.
fn limit_of(key: &str, subject: Subject) -> Option<Limit> {
    let row = Row::of(key)?;
    match subject {
        Subject::Portico => row.limit,
        Subject::PorticoLimit => row.limit_if_told,
        _ => None,
    }
}

fn limit_words(limit: Option<Limit>) -> String {
    match limit {
        None => String::new(),
        Some(Limit::AtLeast(limit)) => format!(" (≥ {limit})"),
        Some(Limit::AtMost(limit)) => format!(" (≤ {limit})"),
    }
}

/// So many that the number has three or four digits.
fn digits(value: Option<f64>) -> usize {
    match value.map(f64::abs) {
        Some(value) if value.fract() == 0.0 || value >= 1_000.0 => 0,
        Some(value) if value >= 10.0 => 1,
        _ => 2,
    }
}

/// A column of the overload table: title, cases whose values stand in it, figure, digits.
type Column = (&'static str, &'static [&'static str], &'static str, usize);

const STEADY: &[&str] = &["1x", "2x", "5x", "10x"];
const SLOWER: &[&str] = &["slower-2x", "slower-5x"];
const JOINS: &[&str] = &["joins-2x", "joins-5x"];
const LEAVES: &[&str] = &["leaves-2x", "leaves-5x"];

const COLUMNS: &[Column] = &[
    (
        "goodput, % of capacity, at 1× · 2× · 5× · 10×",
        STEADY,
        "goodput",
        1,
    ),
    ("p99 of successes, ms, at the same", STEADY, "p99_ms", 0),
    (
        "a refusal, median ms, at 5× · 10×",
        &["5x", "10x"],
        "refusal_ms",
        1,
    ),
    ("shed after a spike, s", &["spike"], "shed_after_s", 2),
    (
        "service time doubles: goodput, % (2× · 5×)",
        SLOWER,
        "goodput",
        1,
    ),
    ("since 1 s after", SLOWER, "goodput_settled", 1),
    ("p99, ms", SLOWER, "p99_ms", 0),
    ("a backend joins: goodput, %", JOINS, "goodput", 1),
    ("since 1 s after", JOINS, "goodput_settled", 1),
    ("a backend leaves: goodput, %", LEAVES, "goodput", 1),
    ("since 1 s after", LEAVES, "goodput_settled", 1),
];

const LEGEND: &str = "Goodput: answers 200 within the clients' second, over what capacity (4 × 10 × 20 ms: 2,000/s) could have answered of what was offered, over the whole measured time. Asked of Portico: goodput ≥ 97 %, p99 ≤ 120 ms (80 with `max_concurrency`), a refusal ≤ 5 ms, shed ≤ 1 s after a spike.";

/// The figures of the full table.
const DETAILS: &[&str] = &[
    "offered",
    "goodput",
    "goodput_settled",
    "goodput_spike",
    "p50_ms",
    "p99_ms",
    "refused",
    "refusal_ms",
    "refusal_p99_ms",
    "failed",
    "shed_after_s",
    "cores",
    "late_ms",
    "late_max_ms",
];

#[cfg(test)]
mod tests {
    use super::*;

    pub fn run(case: &str, subject: Subject, round: u64, figures: &[(&str, f64)]) -> Run {
        let mut found = Found::default();
        for (key, value) in figures {
            found.put(key, *value);
        }
        Run {
            scenario: "overload".to_owned(),
            case: case.to_owned(),
            subject,
            version: "1".to_owned(),
            date: "2026-11-28T00:00:00Z".to_owned(),
            round,
            found,
        }
    }

    #[test]
    fn rounds_make_a_median_and_a_first_round_begins_anew() {
        let mut results = Results::default();
        for (round, goodput) in [(1, 90.0), (2, 99.0), (3, 98.0)] {
            results.add(run("5x", Subject::Portico, round, &[("goodput", goodput)]));
        }
        let value =
            |results: &Results| results.value("overload", "5x", Subject::Portico, "goodput");
        assert_eq!(value(&results), Some(98.0));
        results.add(run("5x", Subject::Portico, 1, &[("goodput", 50.0)]));
        assert_eq!(value(&results), Some(50.0));
        assert_eq!(results.runs.len(), 1);
    }

    #[test]
    fn portico_is_judged_and_peers_are_shown() {
        let mut results = Results::default();
        for subject in [
            Subject::Portico,
            Subject::PorticoLimit,
            Subject::NginxExpert,
        ] {
            results.add(run(
                "10x",
                subject,
                1,
                &[("goodput", 98.0), ("p99_ms", 100.0)],
            ));
        }
        let text = results.markdown();
        assert!(
            text.contains("| Portico defaults | – · – · – · 98.0 | – · – · – · 100 |"),
            "{text}"
        );
        assert!(
            text.contains("| Portico max_concurrency | – · – · – · 98.0 | – · – · – · **100** |"),
            "{text}"
        );
        assert!(
            text.contains("| nginx expert | – · – · – · 98.0 | – · – · – · 100 |"),
            "{text}"
        );
    }
}
