//! `saturation`: more load than backends, edge or memory can take, behind
//! Portico and its peers; what gets through, who waits, who is crowded out?
//!
//! Owns the campaign: which runs, in which order, within which time. What is run
//! and what it must meet is data (`catalogue`); who is measured is in `subject`.
//! Everything is started anew for each run. Results are kept in one file that
//! later runs add to, so that a long campaign can be made of short ones.

pub mod backend;
mod catalogue;
mod client;
mod drip;
mod figures;
mod fleet;
mod flood;
mod limit_zero;
mod overload;
mod plot;
mod report;
mod shape;
mod slow_clients;
mod subject;
mod tenants;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use self::catalogue::CASES;
use self::figures::Found;
use self::fleet::SLOTS;
use self::report::{Results, Run};
use self::subject::{Place, Subject};
use crate::report::Report;
use crate::{campaign, interrupt, machine, peer};

/// Descriptors that 10× of capacity may need in a client: all of a second's requests.
const FILES: u64 = 60_000;

/// `saturation`
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Scenarios, or single cases of them as `overload/5x`; all if not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Who is put through them; everyone who is installed if not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    proxy: Vec<Subject>,
    /// Times each is run; the report shows medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// No new run is begun after this many minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// The Portico to measure; `release/portico` beside this program if not given.
    #[arg(long)]
    portico: Option<PathBuf>,
    #[command(flatten)]
    results: campaign::Keeping,
}

/// A scenario.
struct Scenario {
    /// Its name on the command line and in the JSON.
    key: &'static str,
    /// Its name in the report.
    title: &'static str,
    /// Its runs: key and title.
    cases: &'static [(&'static str, &'static str)],
    /// Only Portico has what it is about.
    portico_alone: bool,
    /// One run, which finds the figures.
    run: fn(&Bench, Subject, &str, &mut Found) -> Result<()>,
}

/// Every scenario, in the order they are run and reported.
static SCENARIOS: &[Scenario] = &[
    Scenario {
        key: "overload",
        title: "four backends that serve ten at once and queue the rest inside themselves",
        cases: &[], // those of the catalogue
        portico_alone: false,
        run: |bench, subject, key, found| {
            let case = CASES.iter().find(|case| case.key == key);
            overload::run(bench, subject, case.context("a case")?, found)
        },
    },
    Scenario {
        key: "tenants",
        title: "a noisy app beside a quiet one",
        cases: tenants::CASES,
        portico_alone: false,
        run: tenants::run,
    },
    Scenario {
        key: "slow-clients",
        title: "thousands of clients that drip, or never speak, beside well-behaved ones",
        cases: slow_clients::CASES,
        portico_alone: false,
        run: slow_clients::run,
    },
    Scenario {
        key: "limit-zero",
        title: "a named limit set to 0 under traffic",
        cases: limit_zero::CASES,
        portico_alone: true,
        run: limit_zero::run,
    },
];

impl Scenario {
    /// Its runs: key and title.
    fn all_cases(&self) -> Vec<(&'static str, &'static str)> {
        match self.cases {
            [] => CASES.iter().map(|case| (case.key, case.title)).collect(),
            cases => cases.to_vec(),
        }
    }
}

/// What runs are made with.
struct Bench {
    program: PathBuf,
    keep: bool,
}

impl Bench {
    /// A run's folder.
    fn folder(&self) -> Result<TempDir> {
        campaign::folder_in_memory("portico-saturation.")
    }

    /// Where a subject is started, cores and threads left to it.
    fn place(
        &self,
        folder: &Path,
        noisy: &[SocketAddr],
        spare: SocketAddr,
        quiet: &[SocketAddr],
    ) -> Result<Place> {
        let folder = folder.join("proxy");
        std::fs::create_dir(&folder)?;
        Ok(Place {
            folder,
            program: self.program.clone(),
            noisy: noisy.to_vec(),
            spare,
            quiet: quiet.to_vec(),
            limit: SLOTS,
            core: None,
            threads: 0,
            settings: Vec::new(),
        })
    }

    fn keep_if_asked(&self, folder: TempDir) {
        if self.keep {
            eprintln!("kept: {}", folder.keep().display());
        }
    }
}

/// Runs what is asked for; writes the report after each run, so that nothing is lost.
pub fn run(options: &Options) -> Result<()> {
    let chosen = chosen(&options.only)?;
    if options.results.list {
        for (scenario, cases) in &chosen {
            println!("{}: {}", scenario.key, scenario.title);
            for (key, title) in cases {
                println!("  {}/{key:12} {title}", scenario.key);
            }
        }
        return Ok(());
    }
    interrupt::install()?;
    machine::raise_file_limit_to(FILES)?;
    campaign::carry_out(&options.results, |results, out| {
        runs(options, &chosen, results, out)
    })
}

/// A scenario and those of its cases that are asked for.
type Chosen = (&'static Scenario, Vec<(&'static str, &'static str)>);

fn runs(options: &Options, chosen: &[Chosen], results: &mut Results, out: &Path) -> Result<()> {
    let began = Instant::now();
    let bench = Bench {
        program: match &options.portico {
            Some(program) => program.canonicalize()?,
            None => peer::portico_program()?,
        },
        keep: options.results.keep,
    };
    let subjects =
        campaign::who_is_here(&Subject::ALL, &options.proxy, Subject::name, |subject| {
            subject.version(&bench.program)
        })?;
    let mut failed = 0;
    for (scenario, cases) in chosen {
        for (subject, version) in &subjects {
            if scenario.portico_alone && *subject != Subject::Portico {
                continue;
            }
            for (case, _) in cases {
                for round in 1..=options.rounds {
                    if began.elapsed() > Duration::from_secs(options.minutes * 60) {
                        eprintln!("{} minutes are over: the rest is left out", options.minutes);
                        return Ok(());
                    }
                    let mut found = Found::default();
                    let done = (scenario.run)(&bench, *subject, case, &mut found);
                    interrupt::pause(Duration::ZERO)?; // interrupted: that is the error
                    let named = format!("{}/{case} {}", scenario.key, subject.name());
                    if let Err(error) = done {
                        eprintln!("{named}: not measured: {error:#}");
                        failed += 1;
                        continue;
                    }
                    let run = Run {
                        scenario: scenario.key.to_owned(),
                        case: (*case).to_owned(),
                        subject: *subject,
                        version: version.clone(),
                        date: Report::now()?,
                        round,
                        found,
                    };
                    eprintln!("{named}: {run}");
                    results.add(run);
                    results.write(out)?;
                }
            }
        }
    }
    ensure!(failed == 0, "{failed} runs could not be measured");
    Ok(())
}

/// The scenarios and cases of these names, in the table's order.
fn chosen(names: &[String]) -> Result<Vec<Chosen>> {
    let asked = |scenario: &Scenario, case: &str| {
        let whole =
            |name: &String| name == scenario.key || *name == format!("{}/{case}", scenario.key);
        names.is_empty() || names.iter().any(whole)
    };
    let mut chosen: Vec<Chosen> = Vec::new();
    for scenario in SCENARIOS {
        let cases = scenario.all_cases().into_iter();
        let cases: Vec<_> = cases.filter(|(case, _)| asked(scenario, case)).collect();
        if !cases.is_empty() {
            chosen.push((scenario, cases));
        }
    }
    for name in names {
        let (scenario, case) = name.split_once('/').unwrap_or((name, ""));
        let known = chosen.iter().any(|(one, cases)| {
            one.key == scenario && (case.is_empty() || cases.iter().any(|(key, _)| *key == case))
        });
        if !known {
            bail!("no scenario {name:?}; `--list` says what there is");
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_and_single_cases_are_chosen() {
        let names = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        assert_eq!(chosen(&[]).unwrap().len(), SCENARIOS.len());
        let some = chosen(&names(&["tenants", "overload/5x", "overload/1x"])).unwrap();
        assert_eq!(some[0].0.key, "overload");
        assert_eq!(some[0].1.len(), 2);
        assert_eq!(some[1].1.len(), tenants::CASES.len());
        assert!(chosen(&names(&["overload/7x"])).is_err());
        assert!(chosen(&names(&["nothing"])).is_err());
    }
}
