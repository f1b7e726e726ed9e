//! `POST /upgrade`: an operator wants the binary now on disk to take over.
//!
//! Only passes the wish to the supervisor, which replaces control itself on
//! the way: what came of it is read from `/processes` afterwards.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::control::AdminState;
use crate::control::api::problem::Problem;
use crate::heritage::{ProcessStatus, Role, UpgradeStage, UpgradeStatus};

/// Answers 202 with the number of the attempt to look for in the supervisor's
/// row of `/processes`.
pub(super) async fn upgrade(
    State(state): State<AdminState>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let attempt = next_attempt(&state.processes.latest())?;
    let text = format!("an operator asked for an upgrade (attempt {attempt})");
    state.events.say("upgrade_asked", "", "", text);
    state.lifeline.ask_upgrade();
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "attempt": attempt, "outcome": "/processes" })),
    ))
}

fn next_attempt(processes: &[ProcessStatus]) -> Result<u64, Problem> {
    let Some(supervisor) = supervisor(processes) else {
        let detail = "the supervisor has not told of itself yet: ask again";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Problem::new(status, "no_supervisor", detail));
    };
    match &supervisor.upgrade {
        Some(last) if last.stage == UpgradeStage::Running => {
            let detail = format!("upgrade {} is under way: {}", last.attempt, last.text);
            let problem = Problem::new(StatusCode::CONFLICT, "upgrade_running", detail);
            Err(problem.with("attempt", last.attempt))
        }
        last => Ok(last.as_ref().map_or(0, |last| last.attempt) + 1),
    }
}

fn supervisor(processes: &[ProcessStatus]) -> Option<&ProcessStatus> {
    processes
        .iter()
        .find(|process| process.role == Role::Supervisor)
}

/// The end of an upgrade that `after` tells of and `before` did not: the name
/// of its event, and what it says.
pub(in crate::control) fn news(
    before: &[ProcessStatus],
    after: &[ProcessStatus],
) -> Option<(&'static str, String)> {
    let known = supervisor(before)?.upgrade.as_ref();
    let now = supervisor(after)?.upgrade.as_ref()?;
    if known == Some(now) {
        return None;
    }
    let UpgradeStatus { attempt, text, .. } = now;
    match now.stage {
        UpgradeStage::Running => None,
        UpgradeStage::Done => Some(("upgraded", format!("upgrade {attempt}: {text}"))),
        UpgradeStage::Failed => Some(("upgrade_failed", format!("upgrade {attempt}: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heritage::ProcessState;

    fn table(upgrade: Option<(u64, UpgradeStage)>) -> Vec<ProcessStatus> {
        vec![ProcessStatus {
            role: Role::Supervisor,
            pid: 1,
            state: ProcessState::Ready,
            started_at_ms: 0,
            restarts: 0,
            last_exit: None,
            open_descriptors: None,
            upgrade: upgrade.map(|(attempt, stage)| UpgradeStatus {
                attempt,
                began_at_ms: 0,
                stage,
                text: "so it is".into(),
            }),
            obituaries: Vec::new(),
        }]
    }

    #[test]
    fn attempts_are_counted_and_one_is_under_way_at_a_time() {
        assert_eq!(next_attempt(&table(None)).unwrap(), 1);
        for over in [UpgradeStage::Done, UpgradeStage::Failed] {
            assert_eq!(next_attempt(&table(Some((7, over)))).unwrap(), 8);
        }
        let running = next_attempt(&table(Some((7, UpgradeStage::Running)))).unwrap_err();
        assert_eq!(running.code(), "upgrade_running");
        assert!(running.detail().contains("upgrade 7"));
        assert_eq!(next_attempt(&[]).unwrap_err().code(), "no_supervisor");
    }

    #[test]
    fn an_end_is_told_once() {
        let running = table(Some((2, UpgradeStage::Running)));
        let failed = table(Some((2, UpgradeStage::Failed)));
        let (kind, text) = news(&running, &failed).unwrap();
        assert_eq!(
            (kind, text.as_str()),
            ("upgrade_failed", "upgrade 2: so it is")
        );
        assert_eq!(news(&failed, &failed), None);
        assert_eq!(news(&failed, &running), None);
        let done = table(Some((3, UpgradeStage::Done)));
        assert_eq!(news(&running, &done).unwrap().0, "upgraded");
        // A control that has just started repeats no old news.
        assert_eq!(news(&[], &done), None);
    }
}
