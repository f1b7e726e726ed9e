//! `limit-zero`: a named limit is set to 0 while requests flow; from when on does
//! none get through any more?
//!
//! Portico's alone. Requests come on many connections over two threads; the
//! order goes to the admin port, or into a file. The last request let through
//! is the one sent last that was answered with 200: what it was sent after the
//! order is what the order took. At this rate there is one each 2 ms.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::client::Load;
use super::figures::{self, BACKENDS, Found, Tally};
use super::fleet::{Fleet, SERVICE_MS};
use super::overload::{DEADLINE_US, HEAD_START_US, pause_until, play};
use super::shape::Shape;
use super::subject::{NOISY, Started, Subject};
use crate::faults::client::{End, Exchange};
use crate::faults::record::now_us;
use crate::scale::figure::quantile;
use crate::{http_client, interrupt};

/// Key and title of each run.
pub const CASES: &[(&str, &str)] = &[
    ("order", "by PUT on the admin port"),
    ("file", "by a number in a file"),
];

/// Requests a second.
const RATE: f64 = 500.0;
/// How often it is done.
const TIMES: u64 = 20;
/// How long requests flow, and how long they are stopped, each time, ms.
const FLOWING_MS: u64 = 500;
const STOPPED_MS: u64 = 500;
/// The limit's name.
const LIMIT: &str = "publish";
/// Far above what comes, per second.
const OPEN: u64 = 100_000;

/// One order: CLOCK_MONOTONIC, µs.
#[derive(Clone, Copy, Debug)]
struct Order {
    sent_us: u64,
    acknowledged_us: u64,
    /// When it was taken back.
    reopened_us: u64,
}

/// One way, everything started anew.
pub fn run(bench: &Bench, subject: Subject, case: &str, found: &mut Found) -> Result<()> {
    let folder = bench.folder()?;
    let mut fleet = Fleet::start("backends", BACKENDS + 1, SERVICE_MS, folder.path(), None)?;
    let (spare, pool) = fleet.addresses.split_last().context("a spare backend")?;
    let rates = folder.path().join("rates");
    std::fs::create_dir(&rates)?;
    let mut place = bench.place(folder.path(), pool, *spare, pool)?;
    place.threads = 2;
    place.settings = vec![format!("rates_dir=\"{}\"", rates.display())];
    let mut proxy = subject.start(&place)?;
    let by_file = case == "file";
    let set = |proxy: &Started, rate: u64| -> Result<()> {
        if by_file {
            write_rate(&rates, rate)
        } else {
            let order = format!(r#"{{"rate":"{rate}/s","app":"noisy"}}"#);
            proxy
                .portico()?
                .put_admin(&format!("/limits/{LIMIT}"), &order)
        }
    };
    // A file has a number for a limit; what it is attached to was said before.
    let order = format!(r#"{{"rate":"{OPEN}/s","app":"noisy"}}"#);
    proxy
        .portico()?
        .put_admin(&format!("/limits/{LIMIT}"), &order)?;
    let load = Load {
        address: proxy.address,
        request: http_client::request(NOISY, "/").into_bytes(),
        shape: Shape::steady(RATE, TIMES * (FLOWING_MS + STOPPED_MS) + FLOWING_MS),
        start_us: now_us() + HEAD_START_US,
        deadline_us: DEADLINE_US,
        together_us: 0,
        connections_first: 64,
        core: None,
    };
    let mut orders = Vec::new();
    let exchanges = play(&load, || {
        pause_until(load.start_us)?;
        for _ in 0..TIMES {
            interrupt::pause(Duration::from_millis(FLOWING_MS))?;
            let sent_us = now_us();
            set(&proxy, 0)?;
            let acknowledged_us = now_us();
            interrupt::pause(Duration::from_millis(STOPPED_MS))?;
            orders.push(Order {
                sent_us,
                acknowledged_us,
                reopened_us: now_us(),
            });
            set(&proxy, OPEN)?;
        }
        Ok(())
    })?;
    proxy.check_alive()?;
    fleet.check_alive()?;
    put(found, &exchanges, &orders, by_file)?;
    let end_us = load.start_us + load.shape.ms() * 1_000;
    figures::put_lateness(found, &Tally::of(&exchanges, load.start_us, end_us));
    Ok(())
}

/// As `echo 0 > FILE` does it.
fn write_rate(folder: &Path, rate: u64) -> Result<()> {
    std::fs::write(folder.join(LIMIT), format!("{rate}\n")).context("writing a rate")
}

fn put(found: &mut Found, exchanges: &[Exchange], orders: &[Order], by_file: bool) -> Result<()> {
    let ms = |us: &u64| *us as f64 / 1e3;
    let mut after_sent: Vec<u64> = Vec::new();
    let mut after_acknowledged = 0;
    for order in orders {
        let last_us = last_let_through(exchanges, order);
        let last_us = last_us.context("nothing flowed before an order")?;
        let refused = exchanges.iter().any(|one| {
            (order.sent_us..order.reopened_us).contains(&one.sent_us) && one.end == End::Status(429)
        });
        ensure!(refused, "a limit of 0 refused nothing");
        after_sent.push(last_us.saturating_sub(order.sent_us));
        let acknowledged_us = last_us.saturating_sub(order.acknowledged_us);
        after_acknowledged = after_acknowledged.max(acknowledged_us);
    }
    after_sent.sort_unstable();
    let median = quantile(&after_sent, 0.5) / 1e3;
    let worst = after_sent.last().map_or(f64::NAN, ms);
    found.put("zero_times", orders.len() as f64);
    if by_file {
        found.put("file_zero_ms", median);
        found.put("file_zero_max_ms", worst);
    } else {
        found.put("zero_ms", median);
        found.put("zero_max_ms", worst);
        found.put("zero_acked_max_ms", ms(&after_acknowledged));
    }
    Ok(())
}

/// When the last request was sent that got through before the limit was lifted again.
fn last_let_through(exchanges: &[Exchange], order: &Order) -> Option<u64> {
    let through = exchanges
        .iter()
        .filter(|one| one.end == End::Answered && one.sent_us < order.reopened_us);
    through.map(|one| one.sent_us).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gets_through_after_an_order_is_what_it_took() {
        let exchange = |sent_us: u64, end: End| Exchange {
            due_us: sent_us,
            sent_us,
            ended_us: sent_us + 20,
            end,
        };
        let exchanges = [
            exchange(900, End::Answered),
            exchange(1_005, End::Answered),
            exchange(1_010, End::Status(429)),
            exchange(2_100, End::Answered), // after it was taken back
        ];
        let order = Order {
            sent_us: 1_000,
            acknowledged_us: 1_020,
            reopened_us: 2_000,
        };
        let mut found = Found::default();
        put(&mut found, &exchanges, &[order], false).unwrap();
        assert_eq!(found.value("zero_max_ms"), Some(0.005));
        assert_eq!(found.value("zero_acked_max_ms"), Some(0.0));
        assert!(put(&mut found, &exchanges[..2], &[order], true).is_err());
    }
}
