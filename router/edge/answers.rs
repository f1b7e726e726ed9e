//! The router's own answers: every error becomes a response here, nowhere else.
//!
//! Owns the small page (HTML, or `application/problem+json` where `Accept` asks
//! for JSON), `Proxy-Status` (RFC 9209) and `Retry-After`. Never decides that a
//! request fails: it is told a [`Code`].

use std::borrow::Cow;

use crate::observe::Code;

/// What shapes an answer besides its code.
pub struct Answer<'a> {
    /// What happened.
    pub code: Code,
    /// The status; a code's own unless its row leaves a choice (H26).
    pub status: u16,
    /// H26's and others' detail, shown to the client.
    pub cause: Option<&'a str>,
    /// Seconds after which the client may try again, where that is known; else
    /// the code's own.
    pub retry_after: Option<u32>,
    /// Problem JSON instead of HTML.
    pub json: bool,
    /// The request was HEAD: no body.
    pub head_only: bool,
    /// The connection stays open.
    pub keep_alive: bool,
    /// The client speaks HTTP/1.0.
    pub http10: bool,
    /// Echoed as `X-Request-Id`; may be empty.
    pub request_id: &'a [u8],
}

/// Seconds after which a client may try again, where waiting helps.
fn retry_after(code: Code) -> Option<&'static str> {
    match code {
        Code::H10 | Code::H14 | Code::H19 | Code::H21 | Code::H22 => Some("5"),
        Code::H80 => Some("60"),
        // A line that stands is gone a moment after what made it.
        Code::H11 | Code::H29 => Some("1"),
        _ => None,
    }
}

impl Answer<'_> {
    /// Appends the whole answer to `out`; returns the body's length as sent.
    pub fn write(&self, out: &mut Vec<u8>) -> u64 {
        let reason = reason(self.status);
        let body = if self.json {
            self.problem(reason)
        } else {
            self.page(reason)
        };
        let kind = if self.json {
            "application/problem+json"
        } else {
            "text/html; charset=utf-8"
        };
        let mut number = itoa::Buffer::new();
        put(out, &["HTTP/1.1 ", number.format(self.status), " ", reason]);
        put(
            out,
            &[
                "\r\nContent-Type: ",
                kind,
                "\r\nCache-Control: no-store\r\nContent-Length: ",
            ],
        );
        put(
            out,
            &[
                number.format(body.len()),
                "\r\nProxy-Status: portico; error=",
            ],
        );
        put(
            out,
            &[
                self.code.proxy_error(),
                "; details=\"",
                self.code.name(),
                "\"",
            ],
        );
        let known = self.retry_after.map(|seconds| number.format(seconds));
        if let Some(seconds) = known.or(retry_after(self.code)) {
            put(out, &["\r\nRetry-After: ", seconds]);
        }
        if !self.request_id.is_empty() {
            put(out, &["\r\nX-Request-Id: "]);
            out.extend_from_slice(self.request_id);
        }
        if self.status == 405 {
            put(
                out,
                &["\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"],
            );
        }
        put(out, &["\r\nVia: 1.1 portico"]);
        put(
            out,
            match (self.keep_alive, self.http10) {
                (false, _) => &["\r\nConnection: close"],
                (true, true) => &["\r\nConnection: keep-alive"],
                (true, false) => &[],
            },
        );
        put(out, &["\r\n\r\n"]);
        if self.head_only {
            return 0;
        }
        out.extend_from_slice(body.as_bytes());
        body.len() as u64
    }

    fn problem(&self, reason: &str) -> String {
        serde_json::json!({
            "type": "about:blank",
            "title": reason,
            "status": self.status,
            "code": self.code.name(),
            "detail": self.detail(),
            "fault": self.code.fault().name(),
            "request_id": String::from_utf8_lossy(self.request_id),
        })
        .to_string()
    }

    fn detail(&self) -> Cow<'_, str> {
        match (self.code, self.cause) {
            (Code::H29, Some(limit)) => format!("over the limit {limit}").into(),
            (code, cause) => cause.unwrap_or(code.desc()).into(),
        }
    }

    fn page(&self, reason: &str) -> String {
        let id = String::from_utf8_lossy(self.request_id);
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{status} {reason}</title>\
             <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:18vh auto;\
             padding:0 1em;color:#222;background:#fff}}small{{color:#777}}\
             @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#161616}}}}</style>\
             <h1>{reason}</h1><p>{explanation}</p><p><small>{code} {desc}{cause}<br>{id}</small></p></html>\n",
            status = self.status,
            explanation = explanation(self.code),
            code = self.code.name(),
            desc = self.code.desc(),
            cause = self
                .cause
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default(),
        )
    }
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// One sentence for whoever opened the page.
fn explanation(code: Code) -> &'static str {
    match code {
        Code::H26 => "The request could not be understood.",
        Code::H29 => "Too many requests. Please slow down.",
        Code::H30 => "There is nothing at this address.",
        Code::H31 => "This address is not served on this connection.",
        Code::H80 => "Down for maintenance. Please try again later.",
        Code::H22 | Code::H24 | Code::H99 => "Something went wrong on our side. Please try again.",
        _ => "The application did not answer. Please try again in a moment.",
    }
}

/// The reason phrase of a status this router sends by itself.
fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        505 => "HTTP Version Not Supported",
        _ => "Service Unavailable",
    }
}

/// Whether `Accept` asks for JSON rather than a page.
pub fn wants_json(accept: &[u8]) -> bool {
    let accept = String::from_utf8_lossy(accept).to_ascii_lowercase();
    let at = |kind: &str| accept.find(kind);
    match (at("json"), at("text/html")) {
        (Some(json), Some(html)) => json < html,
        (Some(_), None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: Code) -> Answer<'static> {
        Answer {
            code,
            status: code.status(),
            cause: None,
            retry_after: None,
            json: false,
            head_only: false,
            keep_alive: true,
            http10: false,
            request_id: b"0123456789abcdef0123",
        }
    }

    #[test]
    fn every_code_makes_a_parsable_answer_whose_length_is_true() {
        for &code in Code::ALL {
            for json in [false, true] {
                let mut out = Vec::new();
                let sent = Answer {
                    json,
                    ..answer(code)
                }
                .write(&mut out);
                let mut headers = [httparse::EMPTY_HEADER; 16];
                let mut response = httparse::Response::new(&mut headers);
                let head = response.parse(&out).expect("must parse").unwrap();
                assert_eq!(out.len() - head, usize::try_from(sent).unwrap());
                let value = |name: &str| {
                    let header = response.headers.iter().find(|h| h.name == name);
                    String::from_utf8_lossy(header.expect("must be there").value).into_owned()
                };
                assert_eq!(value("Content-Length"), sent.to_string());
                assert!(value("Proxy-Status").ends_with(&format!("details=\"{}\"", code.name())));
            }
        }
    }

    #[test]
    fn accept_chooses_json_only_when_it_comes_before_html() {
        assert!(wants_json(b"application/json"));
        assert!(wants_json(b"application/problem+json, */*"));
        assert!(!wants_json(b"text/html, application/json;q=0.5"));
        assert!(!wants_json(b"*/*"));
        assert!(!wants_json(b""));
    }
}
