//! What campaigns have in common: their options, the results' file with every
//! run, who there is to be measured, and a run's folder.
//!
//! Owns where results are and how they are kept: in one file that later runs add
//! to. Never makes a run, and never knows what one found.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::machine::{self, Machine};

/// Options about results.
#[derive(Clone, Debug, clap::Args)]
pub struct Keeping {
    /// Forget what the results' file holds; otherwise only what is run anew is replaced.
    #[arg(long)]
    pub fresh: bool,
    /// Run nothing: write table and plot from the results' file.
    #[arg(long)]
    pub render: bool,
    /// List the scenarios and run nothing.
    #[arg(long)]
    pub list: bool,
    /// Keep the folders of runs (configurations, logs, records), and say where.
    #[arg(long)]
    pub keep: bool,
    /// Where results, table and plot are; `target/load-tests` if not given.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// A run of a kind of campaign.
pub trait Run: Serialize + DeserializeOwned {
    /// What the files of its results are called.
    const FILES: &'static str;

    /// The report.
    fn report(kept: &Kept<Self>) -> String;

    /// The plot, as SVG.
    fn plotted(kept: &Kept<Self>) -> String;
}

/// Every run kept, and the machine they were made on.
#[derive(Debug, Deserialize)]
pub struct Kept<R> {
    /// Of the last run.
    pub machine: Machine,
    /// In the order of the report.
    pub runs: Vec<R>,
}

impl<R> Default for Kept<R> {
    fn default() -> Self {
        Self {
            machine: Machine::here(),
            runs: Vec::new(),
        }
    }
}

impl<R: Run> Kept<R> {
    /// Those in a folder; none if there is no file.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(format!("{}.json", R::FILES));
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(&file)?;
        serde_json::from_str(&text)
            .with_context(|| format!("{}: run with --fresh to start anew", file.display()))
    }

    /// Writes JSON, with a run on each line, Markdown and SVG.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let runs: Result<Vec<String>, _> = self.runs.iter().map(serde_json::to_string).collect();
        let json = format!(
            "{{\"machine\":{},\n\"runs\":[\n{}\n]}}\n",
            serde_json::to_string(&self.machine)?,
            runs?.join(",\n")
        );
        let file = |ending: &str| folder.join(format!("{}.{ending}", R::FILES));
        std::fs::write(file("json"), json)?;
        std::fs::write(file("md"), R::report(self))?;
        std::fs::write(file("svg"), R::plotted(self))?;
        Ok(())
    }

    /// One line of where and when.
    pub fn conditions<'a>(&'a self, date: impl Fn(&'a R) -> &'a str) -> String {
        let Machine {
            cpu,
            cores,
            kernel,
            system,
            memory_mib,
        } = &self.machine;
        let (first, last) = self.dates(date);
        format!(
            "{first} to {last}; {cpu}, {cores} cores for proxy, clients and backends together, {} GiB, {system}, Linux {kernel}",
            memory_mib / 1024
        )
    }

    /// When the first and the last run was.
    pub fn dates<'a>(&'a self, date: impl Fn(&'a R) -> &'a str) -> (&'a str, &'a str) {
        let dates = || self.runs.iter().map(&date);
        (dates().min().unwrap_or("–"), dates().max().unwrap_or("–"))
    }
}

/// Has a campaign add its runs to those kept, unless they are only to be rendered,
/// and prints the report. The campaign writes after each run, so that nothing is
/// lost.
pub fn carry_out<R: Run>(
    options: &Keeping,
    campaign: impl FnOnce(&mut Kept<R>, &Path) -> Result<()>,
) -> Result<()> {
    let out = match &options.out {
        Some(folder) => folder.clone(),
        None => machine::target_folder()?.join("load-tests"),
    };
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let mut kept = match options.fresh {
        true => Kept::default(),
        false => Kept::read(&out)?,
    };
    let done = match options.render {
        true => Ok(()),
        false => campaign(&mut kept, &out),
    };
    kept.write(&out)?;
    println!("{}", R::report(&kept));
    eprintln!("written: {}/{}.{{md,json,svg}}", out.display(), R::FILES);
    done
}

/// Who of `wanted` (of `all` if empty) is installed, with versions.
pub fn who_is_here<S: Copy + PartialEq>(
    all: &[S],
    wanted: &[S],
    name: fn(S) -> &'static str,
    version: impl Fn(S) -> Result<String>,
) -> Result<Vec<(S, String)>> {
    let mut here = Vec::new();
    for &subject in all {
        if !wanted.is_empty() && !wanted.contains(&subject) {
            continue;
        }
        match version(subject) {
            Ok(version) => here.push((subject, version)),
            Err(reason) => eprintln!("{}: not measured: {reason:#}", name(subject)),
        }
    }
    if here.is_empty() {
        bail!("nobody to measure; `load-tests setup` installs the peers");
    }
    Ok(here)
}

/// A run's folder, in memory where there is one: a disk's stalls are nobody's here.
pub fn folder_in_memory(prefix: &str) -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    folder(prefix, memory.is_dir().then_some(memory))
}

/// A run's folder, readable for those who give up root: nginx's workers, Portico's
/// children.
pub fn folder(prefix: &str, parent: Option<&Path>) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    let folder = match parent {
        Some(parent) => builder.tempdir_in(parent)?,
        None => builder.tempdir()?,
    };
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Figure(f64);

    impl Run for Figure {
        const FILES: &'static str = "figures";

        fn report(kept: &Kept<Self>) -> String {
            kept.runs.len().to_string()
        }

        fn plotted(_: &Kept<Self>) -> String {
            String::new()
        }
    }

    #[test]
    fn what_is_kept_is_the_same_whenever_it_is_written_again() {
        let folder = folder("portico-campaign.", None).unwrap();
        let mut kept = Kept::<Figure>::read(folder.path()).unwrap();
        kept.machine.cpu = "another machine's".into();
        kept.runs = vec![Figure(98.666_666_666_666_67), Figure(0.1)];
        kept.write(folder.path()).unwrap();
        let text = || std::fs::read_to_string(folder.path().join("figures.json")).unwrap();
        let first = text();
        let again = Kept::<Figure>::read(folder.path()).unwrap();
        again.write(folder.path()).unwrap();
        assert_eq!(text(), first);
        assert!(first.contains("another machine's") && first.contains("98.66666666666667"));
    }
}
