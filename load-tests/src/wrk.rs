//! Closed-loop load at full rate: runs wrk and reads what it prints.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::child::{Plan, Running, StopSignal};

/// What wrk printed.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Requests answered.
    pub requests: u64,
    /// Per second.
    pub requests_per_second: f64,
    /// Median latency, µs.
    pub p50_us: f64,
    /// 99th percentile, µs.
    pub p99_us: f64,
    /// Socket errors and answers other than 2xx and 3xx.
    pub errors: u64,
}

/// The load of one run.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// The proxy's address.
    pub address: SocketAddr,
    /// Host header.
    pub host: &'a str,
    /// Path.
    pub path: &'a str,
    /// Keepalive connections.
    pub connections: usize,
    /// Seconds.
    pub seconds: u64,
    /// The core wrk runs on.
    pub core: usize,
}

/// Runs wrk, one thread, pinned; its files go to `folder`.
pub fn run(load: &Load<'_>, folder: &Path) -> Result<Outcome> {
    let stdout = folder.join("wrk.out");
    let mut command: Vec<OsString> = ["wrk", "--latency", "-t", "1", "--timeout", "10s"]
        .map(Into::into)
        .into();
    command.extend(["-c".into(), load.connections.to_string().into()]);
    command.extend(["-d".into(), format!("{}s", load.seconds).into()]);
    command.extend(["-H".into(), format!("Host: {}", load.host).into()]);
    command.push(format!("http://{}{}", load.address, load.path).into());
    let plan = Plan {
        name: "wrk",
        command,
        core: Some(load.core),
        stop: StopSignal::Kill,
        stdout: stdout.clone(),
        stderr: folder.join("wrk.err"),
    };
    File::create(&stdout)?; // the last run's report must not be read again
    Running::start(&plan)?.finish(Duration::from_secs(load.seconds + 15))?;
    let printed = std::fs::read_to_string(stdout)?;
    parse(&printed).with_context(|| format!("reading wrk's output: {printed}"))
}

/// Reads wrk 4's report.
fn parse(printed: &str) -> Result<Outcome> {
    let lines = || printed.lines().map(str::trim);
    let after = |prefix: &str| {
        lines()
            .find_map(|line| line.strip_prefix(prefix))
            .map(str::trim)
    };
    let socket_errors: u64 = after("Socket errors:").map_or(0, |line| {
        line.split(' ')
            .filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok())
            .sum()
    });
    let bad_status: u64 = after("Non-2xx or 3xx responses:").map_or(Ok(0), str::parse)?;
    let requests = lines()
        .find_map(|line| line.split_once(" requests in "))
        .context("no count of requests")?;
    Ok(Outcome {
        requests: requests.0.parse()?,
        requests_per_second: after("Requests/sec:").context("no rate")?.parse()?,
        p50_us: microseconds(after("50%").context("no 50 %")?)?,
        p99_us: microseconds(after("99%").context("no 99 %")?)?,
        errors: socket_errors + bad_status,
    })
}

/// wrk's times: `871.00us`, `1.62ms`, `2.01s`, `1.00m`.
fn microseconds(text: &str) -> Result<f64> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .with_context(|| format!("a time without unit: {text:?}"))?;
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        "h" => 3600e6,
        _ => anyhow::bail!("unknown unit {unit:?}"),
    };
    Ok(number.parse::<f64>()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 5s test @ http://127.0.0.1:9000/12
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.23ms  300.00us   9.00ms   90.00%
    Req/Sec    50.00k     1.00k   52.00k    80.00%
  Latency Distribution
     50%  871.00us
     75%    1.31ms
     90%    1.50ms
     99%    2.00s 
  250123 requests in 5.01s, 30.00MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
  Non-2xx or 3xx responses: 10
Requests/sec:  49924.75
Transfer/sec:      6.00MB
";

    #[test]
    fn a_report_is_read_whole() {
        let outcome = parse(PRINTED).unwrap();
        let expected = Outcome {
            requests: 250_123,
            requests_per_second: 49_924.75,
            p50_us: 871.0,
            p99_us: 2_000_000.0,
            errors: 17,
        };
        assert_eq!(outcome, expected);
    }

    #[test]
    fn a_report_without_errors_counts_none() {
        let calm: String = PRINTED
            .lines()
            .filter(|line| !line.contains("errors") && !line.contains("Non-2xx"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(parse(&calm).unwrap().errors, 0);
    }

    #[test]
    fn a_cut_report_is_an_error() {
        assert!(parse(&PRINTED[..200]).is_err());
        assert!(microseconds("12").is_err());
        assert!(microseconds("1.5parsec").is_err());
    }
}
