//! `POST /table/confirm`: a table that lacks more than was removed is meant.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::control::AdminState;
use crate::control::api::problem::Problem;
use crate::control::shrink::{self, vanishing};
use crate::policy::shrink::Tally;

/// `POST /table/confirm`: whatever is doubted now goes out. 409: nothing is.
pub(super) async fn confirm(State(state): State<AdminState>) -> Result<Json<Value>, Problem> {
    let Some(confirmed) = shrink::confirm(&state.registry, &state.fleet).await? else {
        let detail = "no table is doubted: there is nothing to confirm";
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "nothing_to_confirm",
            detail,
        ));
    };
    let Tally { apps, backends } = confirmed.vanished;
    let revision = state.registry.revision();
    let text = format!(
        "an operator confirmed that up to {apps} apps and {backends} backends are gone: the table of revision \
         {revision} goes out"
    );
    state.events.say("shrink_confirmed", "", "", text);
    Ok(Json(json!({
        "revision": revision,
        "apps": apps,
        "backends": backends,
        "was_withheld": confirmed.was_withheld,
        "edges": confirmed.edges,
    })))
}

/// What is doubted now, for the page; `null`: nothing is.
pub(super) fn doubted(state: &AdminState) -> Value {
    let withheld = state.registry.guard().standing().withheld;
    let doubts = state.fleet.doubts();
    if withheld.is_none() && doubts.is_empty() {
        return Value::Null;
    }
    let tally = |tally: Tally| json!({ "apps": tally.apps, "backends": tally.backends });
    json!({
        "store": withheld.map(|shrink| json!({
            "held": tally(shrink.held),
            "offered": tally(shrink.offered),
            "unexplained": tally(shrink.unexplained),
        })),
        "edges": doubts.iter().map(|doubt| json!({
            "revision": doubt.revision,
            "apps_held": doubt.apps_held,
            "apps_offered": doubt.apps_offered,
            "backends_held": doubt.backends_held,
            "backends_offered": doubt.backends_offered,
            "vanishing": tally(vanishing(doubt)),
        })).collect::<Vec<_>>(),
        "confirm": "portico confirm-shrink",
    })
}
