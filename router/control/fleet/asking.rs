//! What is asked of every edge at once: its numbers, its memory, an order.
//!
//! Owns how long is waited for whom. Never waits for one edge longer than for
//! another.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::Fleet;
use crate::feed::messages::{MemoryPart, Order, Report};

/// How long an edge may take to report its counters.
const COLLECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long it may take to look through its table.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an order may wait for room among an edge's questions.
const ORDER_TIMEOUT: Duration = Duration::from_millis(500);
/// How often edges are asked for their numbers where nobody else asks: what an
/// edge counted since is lost if it is killed.
const KEEP: Duration = Duration::from_secs(10);
/// Apps told apart then.
const KEEP_APPS: u32 = 50;

/// What is put to one edge, in order.
#[derive(Debug)]
pub(in crate::control) enum Ask {
    /// A question: see [`Collect`](crate::feed::messages::Collect).
    Report {
        /// Only this app; empty: the process.
        app: String,
        /// How many of the busiest apps.
        top: u32,
        /// Also what its memory goes to.
        memory: bool,
        /// Where the report goes.
        answer: oneshot::Sender<Report>,
    },
    /// An order; it follows every change made before it was given.
    Carry(Order),
}

/// What all edges told of themselves.
#[derive(Debug, Default)]
pub struct Heard {
    /// Edges connected.
    pub edges: usize,
    /// What those that answered in time report.
    pub reports: Vec<Report>,
    /// What the others last counted, edges that left included: no gauges.
    pub past: Vec<Report>,
}

impl Fleet {
    /// Asks every edge for its counters; those that do not answer within half
    /// a second are left out. With `app`, only that app's, with its backends;
    /// else the process's and those of the `top` busiest apps.
    pub async fn collect(&self, app: &str, top: u32) -> Vec<Report> {
        let heard = self.ask_each(app, top, false, COLLECT_TIMEOUT).await;
        heard.into_iter().map(|(_, report)| report).collect()
    }

    /// Asks every edge for its counters and those of the `top` busiest apps,
    /// and adds what those counted that are not there any more.
    pub async fn count(&self, top: u32) -> Heard {
        let edges = self.roster().edges.len();
        let heard = self.ask_each("", top, false, COLLECT_TIMEOUT).await;
        let mut ledger = self.ledger();
        for (pid, report) in &heard {
            ledger.hear(*pid, report);
        }
        let pids: Vec<u32> = heard.iter().map(|(pid, _)| *pid).collect();
        Heard {
            edges,
            past: ledger.but(&pids),
            reports: heard.into_iter().map(|(_, report)| report).collect(),
        }
    }

    /// Asks every edge what its memory goes to, by process; each walks its
    /// whole table for it. Those that do not tell are left out.
    pub async fn memory(&self) -> Vec<(u32, Vec<MemoryPart>)> {
        let heard = self.ask_each("", 1, true, MEMORY_TIMEOUT).await;
        let parts = heard.into_iter().map(|(pid, report)| (pid, report.memory));
        parts.filter(|(_, parts)| !parts.is_empty()).collect()
    }

    /// The reports of those that answer in time, by process.
    async fn ask_each(
        &self,
        app: &str,
        top: u32,
        memory: bool,
        patience: Duration,
    ) -> Vec<(u32, Report)> {
        let mut answers = Vec::new();
        for member in self.roster().edges.values() {
            let (answer, answered) = oneshot::channel();
            let ask = Ask::Report {
                app: app.to_owned(),
                top,
                memory,
                answer,
            };
            // An edge with a full queue does not answer anyway.
            if member.asks.try_send(ask).is_ok() {
                answers.push((member.status.pid, answered));
            }
        }
        let deadline = Instant::now() + patience;
        let mut reports = Vec::with_capacity(answers.len());
        for (pid, answered) in answers {
            if let Ok(Ok(report)) = timeout_at(deadline, answered).await {
                reports.push((pid, report));
            }
        }
        reports
    }

    /// Gives every edge an order. What is collected from an edge after this
    /// returned was reported after it carried the order out. An edge that takes
    /// nothing for half a second, or is not connected, does not hear of it.
    pub async fn order(&self, order: &Order) {
        let edges: Vec<mpsc::Sender<Ask>> = self
            .roster()
            .edges
            .values()
            .map(|member| member.asks.clone())
            .collect();
        let told = edges.iter().map(async |asks| {
            let given = asks.send(Ask::Carry(order.clone()));
            matches!(timeout(ORDER_TIMEOUT, given).await, Ok(Ok(())))
        });
        let told = join_all(told)
            .await
            .into_iter()
            .filter(|told| *told)
            .count();
        if told < edges.len() {
            tracing::warn!(
                verb = order.verb,
                app = order.app,
                backend = order.backend,
                "only {told} of {} edges took an order",
                edges.len()
            );
        }
    }
}

/// Keeps what edges counted known, whether anybody asks or not. Runs until it
/// is dropped.
pub async fn keep(fleet: Arc<Fleet>) {
    let mut ticks = interval(KEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        fleet.count(KEEP_APPS).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::messages::EdgeHello;

    fn fleet() -> Arc<Fleet> {
        Arc::new(Fleet::new(Arc::default(), Arc::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_edge_that_does_not_answer_is_left_out_of_the_count() {
        let fleet = fleet();
        let (_quick, mut quick_asks) = fleet.admit(&EdgeHello::default(), Some(1));
        let (_mute, _mute_asks) = fleet.admit(&EdgeHello::default(), Some(1));
        let answering = tokio::spawn(async move {
            let Some(Ask::Report {
                app, top, answer, ..
            }) = quick_asks.recv().await
            else {
                panic!("it must be asked");
            };
            assert_eq!((app.as_str(), top), ("shop", 3));
            let report = Report {
                id: 9,
                ..Report::default()
            };
            answer.send(report).unwrap();
        });
        let reports = fleet.collect("shop", 3).await;
        answering.await.unwrap();
        assert_eq!(
            reports.iter().map(|report| report.id).collect::<Vec<_>>(),
            [9]
        );
    }
}
