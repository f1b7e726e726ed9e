//! Asking a router over HTTP, and saying what went wrong if it did.

use std::io::{self, Read};
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Request, Response, StatusCode};
use ureq::{Agent, AsSendBody, Body};

use super::{CommandError, Reach};
use crate::cli::SettingsArgs;

const CONNECT: Duration = Duration::from_secs(5);
/// For whole answers; streams may take as long as they like.
const ANSWER: Duration = Duration::from_secs(30);
/// For a piece of an import, its commit included.
const LINES: Duration = Duration::from_secs(120);
/// The longest document read whole.
const ANSWER_BYTES: u64 = 64 << 20;

/// Which of the router's two ports is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Admin,
    Api,
}

impl Port {
    fn option(self) -> &'static str {
        match self {
            Port::Admin => "--admin or PORTICO_ADMIN",
            Port::Api => "--api or PORTICO_API",
        }
    }
}

/// What is asked besides reading and plain orders.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub method: &'a str,
    pub port: Port,
    pub path: &'a str,
    pub body: Option<&'a Value>,
    pub if_match: Option<&'a str>,
}

/// What was answered, be it a refusal.
#[derive(Debug)]
pub(super) struct Answered {
    url: String,
    pub status: u16,
    pub etag: Option<String>,
    body: String,
    no_token: Option<String>,
}

impl Answered {
    /// The document, if it is a success; else what the router says about it.
    pub fn success(self) -> Result<Value, CommandError> {
        let Answered {
            url,
            body,
            no_token,
            ..
        } = self;
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        if status.is_success() {
            return parsed(&url, &body);
        }
        let text = refusal(&url, status, &body, no_token);
        Err(CommandError::Failed(text))
    }
}

/// Why lines were not taken.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nobody listens there.
    Absent(CommandError),
    /// It may be taken if it is sent again.
    Passing(CommandError),
    /// It will not be.
    Final(CommandError),
}

/// A router, as reached by options, environment and settings.
#[derive(Debug)]
pub(super) struct Client<'a> {
    reach: &'a Reach,
    settings: &'a SettingsArgs,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub fn new(reach: &'a Reach, settings: &'a SettingsArgs) -> Client<'a> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .user_agent(concat!("portico/", env!("CARGO_PKG_VERSION")))
            // An operator's proxy knows nothing of a loopback port.
            .proxy(None)
            .build();
        Client {
            reach,
            settings,
            agent: config.new_agent(),
        }
    }

    /// Whether answers are to be printed as they came.
    pub fn json(&self) -> bool {
        self.reach.json
    }

    /// A document from the admin port.
    pub fn admin(&self, path: &str) -> Result<Value, CommandError> {
        let (url, response) = self.get(Port::Admin, path, Some(ANSWER))?;
        document(&url, response)
    }

    /// A stream of the answer's body; the answer is 200.
    pub fn stream(&self, port: Port, path: &str) -> Result<impl Read + use<>, CommandError> {
        let (_, response) = self.get(port, path, None)?;
        Ok(response.into_body().into_reader())
    }

    fn get(
        &self,
        port: Port,
        path: &str,
        timeout: Option<Duration>,
    ) -> Result<(String, Response<Body>), CommandError> {
        let url = self.url(port, path)?;
        let token = self.reach.token(self.settings);
        let mut request = self
            .agent
            .get(&url)
            .config()
            .timeout_global(timeout)
            .build();
        if let Ok(token) = &token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request
            .call()
            .map_err(|error| unreached(port, &url, &error))?;
        answered(&url, response, token.err()).map(|response| (url, response))
    }

    /// Asks, whatever the answer.
    pub fn ask(&self, asked: &Asked<'_>) -> Result<Answered, CommandError> {
        let url = self.url(asked.port, asked.path)?;
        let token = self.reach.token(self.settings);
        let mut request = Request::builder().method(asked.method).uri(&url);
        if let Ok(token) = &token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(tag) = asked.if_match {
            request = request.header("if-match", tag);
        }
        let unmade = |error: ureq::http::Error| CommandError::Failed(format!("{url}: {error}"));
        let answered = match asked.body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.run(request.body(body.to_string()).map_err(unmade)?)
            }
            None => self.run(request.body(()).map_err(unmade)?),
        };
        let mut response = answered.map_err(|error| unreached(asked.port, &url, &error))?;
        let etag = response.headers().get("etag");
        Ok(Answered {
            status: response.status().as_u16(),
            etag: etag
                .and_then(|tag| tag.to_str().ok())
                .map(ToOwned::to_owned),
            body: text(&url, &mut response)?,
            no_token: token.err(),
            url,
        })
    }

    fn run(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request);
        self.agent.run(request.timeout_global(Some(ANSWER)).build())
    }

    /// An order without a body; the answer is a document.
    pub fn post(&self, port: Port, path: &str) -> Result<Value, CommandError> {
        let url = self.url(port, path)?;
        let token = self.reach.token(self.settings);
        let mut request = self
            .agent
            .post(&url)
            .config()
            .timeout_global(Some(ANSWER))
            .build();
        if let Ok(token) = &token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request
            .send_empty()
            .map_err(|error| unreached(port, &url, &error))?;
        document(&url, answered(&url, response, token.err())?)
    }

    /// Sends lines of JSON; the answer is a document. What is told of a failure
    /// says whether sending them again may help.
    pub fn post_lines(&self, port: Port, path: &str, lines: &[u8]) -> Result<Value, Trouble> {
        let url = self.url(port, path).map_err(Trouble::Final)?;
        let token = self.reach.token(self.settings);
        let mut request = self
            .agent
            .post(&url)
            .config()
            .timeout_global(Some(LINES))
            .build()
            .header("content-type", "application/x-ndjson")
            // Asking first lets a refusal come before the lines have gone out.
            .header("expect", "100-continue");
        if let Ok(token) = &token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.send(lines).map_err(|error| {
            let told = unreached(port, &url, &error);
            match error {
                ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    Trouble::Absent(told)
                }
                ureq::Error::HostNotFound | ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                    Trouble::Final(told)
                }
                _ => Trouble::Passing(told),
            }
        })?;
        let is_passing = matches!(
            response.status(),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT
        );
        let response = answered(&url, response, token.err()).map_err(match is_passing {
            true => Trouble::Passing,
            false => Trouble::Final,
        })?;
        document(&url, response).map_err(Trouble::Passing)
    }

    fn url(&self, port: Port, path: &str) -> Result<String, CommandError> {
        let base = match port {
            Port::Admin => self.reach.admin_url(self.settings)?,
            Port::Api => self.reach.api_url(self.settings)?,
        };
        Ok(format!("{base}{path}"))
    }
}

fn unreached(port: Port, url: &str, error: &ureq::Error) -> CommandError {
    let hint = match error {
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            format!(
                "; is the router running there? ({} says where)",
                port.option()
            )
        }
        ureq::Error::HostNotFound | ureq::Error::BadUri(_) => {
            format!(" ({} says where)", port.option())
        }
        _ => String::new(),
    };
    let error = match error {
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    CommandError::Failed(format!("{url}: {error}{hint}"))
}

/// The answer if it is a success; else what the router says about it.
fn answered(
    url: &str,
    mut response: Response<Body>,
    no_token: Option<String>,
) -> Result<Response<Body>, CommandError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES)
        .read_to_string();
    Err(CommandError::Failed(refusal(
        url,
        status,
        &text.unwrap_or_default(),
        no_token,
    )))
}

fn refusal(url: &str, status: StatusCode, body: &str, no_token: Option<String>) -> String {
    let problem: Option<Value> = serde_json::from_str(body).ok();
    let detail = problem
        .as_ref()
        .and_then(|problem| problem["detail"].as_str());
    let mut text = match detail {
        Some(detail) => format!("{url}: {detail} ({status})"),
        None => format!("{url}: {status}"),
    };
    if let Some(imported) = problem.as_ref().map(|problem| &problem["imported"])
        && imported.is_object()
    {
        text.push_str(&format!("; done before that: {imported}"));
    }
    if status == StatusCode::UNAUTHORIZED {
        match no_token {
            Some(why) => text.push_str(&format!("; no token: {why} (or give --token)")),
            None => text.push_str("; the token shown is not the router's"),
        }
    }
    text
}

fn document(url: &str, mut response: Response<Body>) -> Result<Value, CommandError> {
    let text = text(url, &mut response)?;
    parsed(url, &text)
}

fn text(url: &str, response: &mut Response<Body>) -> Result<String, CommandError> {
    let read = response
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES)
        .read_to_string();
    read.map_err(|error| CommandError::Failed(format!("{url}: {error}")))
}

fn parsed(url: &str, text: &str) -> Result<Value, CommandError> {
    serde_json::from_str(text).map_err(|error| {
        CommandError::Failed(format!(
            "{url}: the answer is no JSON ({error}); is this a router?"
        ))
    })
}

/// A name as one segment of a URL's path.
pub(super) fn segment(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(segment("web.1"), "web.1");
        assert_eq!(segment("a/../b?c d"), "a%2F..%2Fb%3Fc%20d");
    }

    #[test]
    fn a_refusal_says_what_the_router_said_and_what_to_do() {
        let body = r#"{"detail":"This needs an operator's token."}"#;
        let why = Some("data/token: No such file or directory".to_owned());
        let text = refusal("http://a/x", StatusCode::UNAUTHORIZED, body, why);
        assert_eq!(
            text,
            "http://a/x: This needs an operator's token. (401 Unauthorized); \
             no token: data/token: No such file or directory (or give --token)"
        );
        let text = refusal("http://a/x", StatusCode::BAD_GATEWAY, "<html>", None);
        assert_eq!(text, "http://a/x: 502 Bad Gateway");
    }
}
