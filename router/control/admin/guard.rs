//! Who may ask what of the admin port.
//!
//! On a loopback address reads are open; anywhere else they need a token that
//! may read everything. Writes need an operator's, everywhere. `/healthz` and
//! `/readyz` are open everywhere, since what probes them carries no token; so is
//! the page, which holds no number of its own and asks its reader for the token
//! to fetch them with.
//!
//! An open read must name this host by address or as `localhost`: a page in a
//! browser on this machine could otherwise point a name of its own here and
//! read along (DNS rebinding). With a token any name will do.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::control::AdminState;
use crate::control::api::problem::Problem;
use crate::control::tokens::Caller;

/// Open to everyone, everywhere.
const OPEN: &[&str] = &["/", "/healthz", "/readyz"];

/// The layer around every route.
pub(super) async fn guard(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    let local = state.settings.admin.listen.ip().is_loopback();
    let caller = match caller(&state, request.headers()) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    match admit(&request, caller.as_ref(), local) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Whose token came along, if one did. A wrong one is never ignored.
fn caller(state: &AdminState, headers: &HeaderMap) -> Result<Option<Caller>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let caller = state.tokens.authorize(value.as_bytes());
    caller
        .map(Some)
        .ok_or_else(|| Problem::unauthorized("the token is not known here"))
}

fn admit(request: &Request, caller: Option<&Caller>, local: bool) -> Result<(), Problem> {
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    let open = OPEN.contains(&request.uri().path());
    let missing = |what: &str| {
        Problem::unauthorized(&format!(
            "this needs {what}: send Authorization: Bearer TOKEN"
        ))
    };
    let forbidden = |what: &str| Problem::forbidden(format!("this needs {what}"));
    match (read, caller) {
        (true, _) if open => Ok(()),
        (true, None) if !local => Err(missing("a token that may read everything")),
        (true, None) => named_plainly(request),
        (true, Some(caller)) if local || caller.may_read_all() => Ok(()),
        (true, Some(_)) => Err(forbidden("a token that may read everything")),
        (false, None) => Err(missing("an operator's token")),
        (false, Some(caller)) if caller.is_operator() => Ok(()),
        (false, Some(_)) => Err(forbidden("an operator's token")),
    }
}

fn named_plainly(request: &Request) -> Result<(), Problem> {
    let host = request
        .headers()
        .get(header::HOST)
        .map(|host| host.as_bytes());
    let host = host.or_else(|| {
        request
            .uri()
            .authority()
            .map(|name| name.as_str().as_bytes())
    });
    match host {
        // Only programs that are no browsers leave it out.
        None => Ok(()),
        Some(host) if is_plain(host) => Ok(()),
        Some(_) => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign_host",
            "without a token the admin port answers only to an IP address or localhost as Host",
        )),
    }
}

/// Whether a `Host` is an address or `localhost`, with or without a port.
fn is_plain(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bracketed = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost") || bracketed.unwrap_or(name).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::control::tokens::Scope;

    fn request(method: Method, path: &str, host: &str) -> Request {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host);
        request.body(Body::empty()).unwrap()
    }

    fn status(request: &Request, scope: Option<Scope>, local: bool) -> u16 {
        let caller = scope.map(|scope| Caller {
            token_id: "t".into(),
            scopes: vec![scope],
        });
        match admit(request, caller.as_ref(), local) {
            Ok(()) => 200,
            Err(problem) => problem.into_response().status().as_u16(),
        }
    }

    #[test]
    fn reads_are_open_only_at_home() {
        let read = request(Method::GET, "/metrics", "127.0.0.1:8082");
        assert_eq!(status(&read, None, true), 200);
        assert_eq!(status(&read, None, false), 401);
        assert_eq!(status(&read, Some(Scope::Read), false), 200);
        assert_eq!(status(&read, Some(Scope::Operator), false), 200);
        assert_eq!(status(&read, Some(Scope::App("shop".into())), false), 403);
    }

    #[test]
    fn writes_need_an_operator_everywhere() {
        let write = request(Method::POST, "/apps/a/backends/b/drain", "127.0.0.1");
        for local in [true, false] {
            assert_eq!(status(&write, None, local), 401);
            assert_eq!(status(&write, Some(Scope::Read), local), 403);
            assert_eq!(status(&write, Some(Scope::App("a".into())), local), 403);
            assert_eq!(status(&write, Some(Scope::Operator), local), 200);
        }
    }

    #[test]
    fn probes_need_no_token() {
        assert_eq!(
            status(
                &request(Method::GET, "/readyz", "router.example"),
                None,
                false
            ),
            200
        );
        assert_eq!(
            status(
                &request(Method::GET, "/healthz", "router.example"),
                None,
                true
            ),
            200
        );
        assert_eq!(
            status(&request(Method::POST, "/healthz", "localhost"), None, true),
            401
        );
    }

    #[test]
    fn a_name_pointed_here_reads_nothing() {
        let rebound = request(Method::GET, "/apps", "evil.example:8082");
        assert_eq!(status(&rebound, None, true), 403);
        assert_eq!(status(&rebound, Some(Scope::Read), true), 200);
    }

    #[test]
    fn plain_hosts() {
        for plain in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:80",
        ] {
            assert!(is_plain(plain.as_bytes()), "{plain}");
        }
        for other in [
            "",
            "a.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "[evil]:1",
        ] {
            assert!(!is_plain(other.as_bytes()), "{other}");
        }
    }
}
