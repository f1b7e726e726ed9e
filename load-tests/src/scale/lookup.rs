//! `lookup`: what finding a host costs, as the table's own benchmark prints it.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::Bench;
use super::report::Found;
use crate::{interrupt, machine};

/// Builds and runs the benchmark with few apps and with many, and reads what it prints.
pub fn run(bench: &mut Bench, found: &mut Found) -> Result<()> {
    let few = lookup_ns(&time(bench, "1000")?).context("no lookup at 1,000 apps")?;
    let many = lookup_ns(&time(bench, "1000000")?).context("no lookup at 1,000,000 apps")?;
    found.put("lookup_few_ns", few);
    found.put("lookup_many_ns", many);
    found.put("lookup_ratio", many / few);
    Ok(())
}

/// What `cargo bench --bench table -- time APPS` prints.
fn time(bench: &Bench, apps: &str) -> Result<String> {
    let printed = bench.folder.join("bench.stdout");
    let mut child = Command::new("cargo")
        .args(["bench", "--bench", "table", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .arg("--target-dir")
        .arg(machine::target_folder()?)
        .args(["--", "time", apps])
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
    Ok(std::fs::read_to_string(&printed)?)
}

/// `route, any app  123 ns`; of several the lowest: the first still warms the table up.
fn lookup_ns(text: &str) -> Option<f64> {
    let all = text.lines().filter_map(|line| {
        let value = line.trim_start().strip_prefix("route, any app")?;
        value.trim().strip_suffix(" ns")?.parse().ok()
    });
    all.min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_benchmarks_lines_are_read() {
        let text = "1000000 apps, one domain\n  route, hot apps  20 ns\n  route, any app         95 ns\n\
                    \x20 route, hot apps  20 ns\n  route, any app         85 ns\n";
        assert_eq!(lookup_ns(text), Some(85.0));
        assert_eq!(lookup_ns("route, unknown 7 ns"), None);
    }
}
