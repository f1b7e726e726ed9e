//! `/v1/tokens`: issue, list, withdraw. Operators only.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::problem::{Problem, ProblemBody};
use super::request::{Json, Path, Permitted};
use crate::control::events::now_ms;
use crate::control::refusal::Refusal;
use crate::control::tokens::{self, Caller, Scope, TokenRecord};

/// Scopes of one token, at most.
const SCOPES_MAX: usize = 100;

/// A token to issue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// `operator`, `read`, `app:NAME`.
    #[schema(example = json!(["app:shop"]))]
    pub scopes: Vec<String>,
    /// For people; at most 128 characters.
    #[serde(default)]
    pub name: String,
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    /// Names it.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<String>,
    /// When it was issued, Unix milliseconds.
    pub created_at_ms: u64,
}

impl Token {
    fn of(record: TokenRecord) -> Token {
        let TokenRecord {
            id,
            name,
            scopes,
            created_at_ms,
            sha256: _,
        } = record;
        Token {
            id,
            name,
            scopes,
            created_at_ms,
        }
    }
}

/// A token just issued.
#[derive(Debug, Serialize, ToSchema)]
pub struct Issued {
    /// The registry's revision; tokens do not change it.
    pub revision: u64,
    /// What to send as `Authorization: Bearer`; shown this once.
    pub token: String,
    /// The same, under the name that secrets go by.
    pub secret: String,
    /// What is kept.
    #[serde(flatten)]
    pub kept: Token,
}

/// Issues a token.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenBody,
    responses((status = 201, body = Issued), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn issue(
    State(state): State<ApiState>,
    caller: Caller,
    Json(body): Json<TokenBody>,
) -> Result<Response, Problem> {
    caller.must_operate()?;
    if body.scopes.is_empty() || body.scopes.len() > SCOPES_MAX {
        return Err(Problem::field(
            "scopes",
            format!("scopes: expected 1 to {SCOPES_MAX}"),
        ));
    }
    let parse = |(at, scope): (usize, &String)| {
        Scope::parse(scope).map_err(|detail| Problem::field(&format!("scopes[{at}]"), detail))
    };
    let scopes = body
        .scopes
        .iter()
        .enumerate()
        .map(parse)
        .collect::<Result<Vec<_>, _>>()?;
    if body.name.chars().count() > 128 || body.name.chars().any(char::is_control) {
        return Err(Problem::field(
            "name",
            "name: expected at most 128 printable characters",
        ));
    }
    let (record, secret) = tokens::issue(&body.name, &scopes, now_ms()).map_err(|error| {
        tracing::error!("no randomness for a token: {error}");
        Problem::internal()
    })?;
    let kept = record.clone();
    state
        .registry
        .change(move |staging| staging.put_token(kept))
        .await?;
    let issued = Issued {
        revision: state.registry.revision(),
        token: secret.clone(),
        secret,
        kept: Token::of(record),
    };
    Ok((StatusCode::CREATED, axum::Json(issued)).into_response())
}

/// Every issued token.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenList {
    /// By id. The operator's token file is not among them.
    pub tokens: Vec<Token>,
}

/// Lists issued tokens, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens",
    responses((status = 200, body = TokenList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<axum::Json<TokenList>, Problem> {
    caller.must_operate()?;
    let tokens = state
        .registry
        .tokens()
        .list()
        .into_iter()
        .map(Token::of)
        .collect();
    Ok(axum::Json(TokenList { tokens }))
}

/// The answer to a withdrawal.
#[derive(Debug, Serialize, ToSchema)]
pub struct Withdrawn {
    /// The registry's revision; tokens do not change it.
    pub revision: u64,
    /// The token.
    pub id: String,
}

/// Withdraws a token: it is unknown from now on.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 200, body = Withdrawn), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody)))]
pub async fn withdraw(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<Withdrawn>, Problem> {
    caller.must_operate()?;
    if !state.registry.tokens().contains(&id) {
        return Err(Refusal::NoToken(id).into());
    }
    let gone = id.clone();
    state
        .registry
        .change(move |staging| {
            staging.delete_token(&gone);
            Ok(())
        })
        .await?;
    Ok(axum::Json(Withdrawn {
        revision: state.registry.revision(),
        id,
    }))
}
