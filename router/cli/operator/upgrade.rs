//! `upgrade`: asks for one, and waits until it is known how it went.
//!
//! Control, which answers here, is itself replaced on the way: questions that
//! are reset or not answered are asked again.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Client, Port};
use super::text::{print, print_json, shown};
use super::views::text;
use super::{CommandError, Upgrade};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// How long nobody may answer before the router counts as gone.
const SILENCE: Duration = Duration::from_secs(60);

/// `portico upgrade`
pub(super) fn upgrade(client: &Client<'_>, args: &Upgrade) -> Result<(), CommandError> {
    let asked = client.post(Port::Admin, "/upgrade")?;
    let attempt = asked["attempt"].as_u64().ok_or_else(|| {
        CommandError::Failed("the router did not number the attempt; is it older?".to_owned())
    })?;
    let outcome = wait(client, attempt, Duration::from_secs(args.timeout))?;
    if client.json() {
        print_json(&outcome)?;
    }
    match outcome["stage"].as_str() {
        Some("done") if client.json() => Ok(()),
        Some("done") => print(&format!("upgraded: {}\n", shown(&text(&outcome["text"])))),
        _ => Err(CommandError::Failed(format!(
            "not upgraded, the old version serves on: {}",
            shown(&text(&outcome["text"]))
        ))),
    }
}

/// The supervisor's word on attempt `attempt`, once it has ended.
fn wait(client: &Client<'_>, attempt: u64, timeout: Duration) -> Result<Value, CommandError> {
    let began = Instant::now();
    let mut heard_at = began;
    let mut told = String::new();
    while began.elapsed() < timeout {
        match client.admin("/processes") {
            Ok(table) => {
                heard_at = Instant::now();
                match look(&table, attempt) {
                    Seen::Over(outcome) => return Ok(outcome),
                    Seen::Underway(step) if step != told => {
                        // Standard output is for the outcome.
                        eprintln!("portico: {}", shown(&step));
                        told = step;
                    }
                    Seen::Underway(_) | Seen::Nothing => {}
                }
            }
            Err(error) if heard_at.elapsed() > SILENCE => return Err(error),
            Err(_) => {}
        }
        std::thread::park_timeout(PAUSE);
    }
    Err(CommandError::Failed(format!(
        "after {} s nobody knows how upgrade {attempt} went{}; `/processes` will tell",
        timeout.as_secs(),
        match told.as_str() {
            "" => " or whether it began".to_owned(),
            step => format!(" (last: {})", shown(step)),
        }
    )))
}

/// What a process table says of an attempt.
#[derive(Debug, PartialEq)]
enum Seen {
    /// Not begun.
    Nothing,
    /// What it does.
    Underway(String),
    /// How it ended.
    Over(Value),
}

fn look(table: &Value, attempt: u64) -> Seen {
    let rows = table["processes"].as_array().map_or(&[][..], Vec::as_slice);
    let supervisor = rows.iter().find(|row| row["role"] == "supervisor");
    let Some(status) = supervisor.map(|row| &row["upgrade"]) else {
        return Seen::Nothing;
    };
    match status["attempt"].as_u64() {
        Some(seen) if seen >= attempt => match status["stage"].as_str() {
            Some("running") => Seen::Underway(text(&status["text"])),
            _ => Seen::Over(status.clone()),
        },
        _ => Seen::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_attempt_asked_for_counts() {
        let table = |upgrade: &Value| {
            json!({ "processes": [
                { "role": "edge", "upgrade": { "attempt": 9, "stage": "done", "text": "no" } },
                { "role": "supervisor", "upgrade": upgrade },
            ]})
        };
        let running =
            json!({ "attempt": 3, "stage": "running", "text": "the new binary rehearses" });
        let failed = json!({ "attempt": 3, "stage": "failed", "text": "it hangs" });
        assert_eq!(look(&table(&Value::Null), 1), Seen::Nothing);
        assert_eq!(look(&table(&failed), 4), Seen::Nothing, "an older one");
        assert_eq!(
            look(&table(&running), 3),
            Seen::Underway("the new binary rehearses".into())
        );
        assert_eq!(look(&table(&failed), 3), Seen::Over(failed.clone()));
        assert_eq!(look(&json!({}), 1), Seen::Nothing, "no table yet");
    }
}
