//! `lookup`: what finding a host costs, as the table's own benchmark prints it.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::Bench;
use super::report::Found;
use crate::{interrupt, machine};

/// Builds and runs the benchmark, and reads what it prints.
pub fn run(bench: &mut Bench, found: &mut Found) -> Result<()> {
    let printed = bench.folder.join("bench.stdout");
    let mut child = Command::new("cargo")
        .args(["bench", "--bench", "table", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .arg("--target-dir")
        .arg(machine::target_folder()?)
        .stdin(Stdio::null())
        .stdout(File::create(&printed)?)
        .spawn()
        .context("starting cargo")?;
    let ended = interrupt::wait_exit(&mut child, bench.left());
    if !matches!(ended, Ok(Some(_))) {
        let _ = child.kill();
        child.wait()?;
    }
    match ended? {
        Some(status) => ensure!(status.success(), "cargo bench: {status}"),
        None => bail!("cargo bench: not in time"),
    }
    let text = std::fs::read_to_string(&printed)?;
    let few = lookup_ns(&text, 1_000).context("no lookup at 1,000 apps")?;
    let many = lookup_ns(&text, 1_000_000).context("no lookup at 1,000,000 apps")?;
    found.put("lookup_few_ns", few);
    found.put("lookup_many_ns", many);
    found.put("lookup_ratio", many / few);
    Ok(())
}

/// `route, any app  123 ns` below `APPS apps, …`.
fn lookup_ns(text: &str, apps: u64) -> Option<f64> {
    let begins = format!("{apps} apps");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&begins));
    let line = lines.find(|line| line.trim_start().starts_with("route, any app"))?;
    let mut words = line.split_whitespace().rev();
    (words.next()? == "ns").then(|| words.next()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_benchmarks_lines_are_read() {
        let text = "1000 apps, one domain\n  route, hot apps  20 ns\n  route, any app  30 ns\n\
                    1000000 apps, one domain\n  route, any app         85 ns\n";
        assert_eq!(lookup_ns(text, 1_000), Some(30.0));
        assert_eq!(lookup_ns(text, 1_000_000), Some(85.0));
        assert_eq!(lookup_ns(text, 7), None);
    }
}
