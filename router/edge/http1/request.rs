//! A request's head, read into spans and checked.
//!
//! Owns the request line, `Host`, the framing of request bodies and what else
//! the journey asks of a head. Refuses whatever two parsers could read
//! differently; the status and a short cause go with the refusal.

use super::head::{Framing, Header, Limits, Seen, Span, Version};
use super::host::{self, HostName};
use super::known::{self, Known};
use super::list::{self, Coding, Options};
use super::request_line::{request_line, skip_blank_lines};
use super::scan::{self, Flaw, Scan, Stage, Step};

/// A request that goes no further; its connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer.
    pub status: u16,
    /// The log's `cause=`.
    pub cause: &'static str,
}

impl Refusal {
    pub(super) fn bad(cause: &'static str) -> Refusal {
        Refusal { status: 400, cause }
    }
}

impl From<Flaw> for Refusal {
    #[cold]
    fn from(flaw: Flaw) -> Refusal {
        match flaw {
            Flaw::Limit(cause) => Refusal { status: 431, cause },
            Flaw::Malformed(cause) => Refusal::bad(cause),
        }
    }
}

/// The methods that mean something here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    #[default]
    Get,
    /// HEAD: its answer has no body.
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// PATCH
    Patch,
    /// TRACE
    Trace,
    /// Any other token but CONNECT, which is refused.
    Other,
}

impl Method {
    pub(super) fn of(text: &[u8]) -> Method {
        match text {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"PATCH" => Method::Patch,
            b"TRACE" => Method::Trace,
            _ => Method::Other,
        }
    }

    /// Repeating the request changes nothing more (RFC 9110, section 9.2.2).
    pub fn idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Patch | Method::Other)
    }
}

/// The form of the target (RFC 9112, section 3.2). The fourth, authority-form,
/// is CONNECT's and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*`
    Asterisk,
}

/// A request's head as spans of the buffer it was read from. Reuse one for
/// every request of a connection: its memory is kept.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The method's text.
    pub method_text: Span,
    /// The target as sent.
    pub target: Span,
    /// Path and query: the target without scheme and authority. May be empty
    /// or begin with `?` in absolute-form; see [`RequestHead::path`].
    pub path_and_query: Span,
    /// The target's form.
    pub form: Form,
    /// The version.
    pub version: Version,
    /// The authority as sent, port included: `Host`'s value.
    pub authority: Span,
    /// The host in lower case, without port and trailing dot: for lookup.
    pub host: HostName,
    /// The header lines, in order.
    pub headers: Vec<Header>,
    /// Which known headers there are.
    pub seen: Seen,
    /// How the body ends.
    pub framing: Framing,
    /// The client wants the connection kept.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The client asks to switch protocols.
    pub upgrade: bool,
    /// The client takes trailers (`TE: trailers`).
    pub te_trailers: bool,
    /// It carries an `Idempotency-Key`.
    pub idempotency_key: bool,
    /// Its `X-Request-Id`, if it is one to keep.
    pub request_id: Option<Span>,
    /// Its `traceparent`, if it is one to continue.
    pub traceparent: Option<Span>,
    /// Its first `Accept`.
    pub accept: Option<Span>,
    /// Value of `Content-Length`.
    content_length: Option<u64>,
    /// There is one `Content-Length` line, and it can pass as it came.
    length_is_plain: bool,
}

impl RequestHead {
    fn clear(&mut self) {
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        self.host.clear();
        self.headers = headers;
        self.method = Method::default();
        self.path_and_query = Span::default();
        self.form = Form::default();
        self.authority = Span::default();
        self.seen = Seen::default();
        self.framing = Framing::default();
        self.keep_alive = false;
        self.expect_continue = false;
        self.upgrade = false;
        self.te_trailers = false;
        self.idempotency_key = false;
        self.request_id = None;
        self.traceparent = None;
        self.accept = None;
        self.content_length = None;
        self.length_is_plain = false;
    }

    /// What `Content-Length` says, 0 included.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// The `Content-Length` line can pass as it came.
    pub(super) fn length_is_plain(&self) -> bool {
        self.length_is_plain
    }

    /// The path, without the query; `/` where the target has none.
    pub fn path<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        let target = self.path_and_query.of(buf);
        let path = match target.iter().position(|b| *b == b'?') {
            Some(query) => &target[..query],
            None => target,
        };
        if path.is_empty() { b"/" } else { path }
    }

    /// Repeating the request is safe: by its method, or by its key.
    pub fn idempotent(&self) -> bool {
        self.method.idempotent() || self.idempotency_key
    }

    /// Whether the answer has no body whatever it says.
    pub fn is_head(&self) -> bool {
        self.method == Method::Head
    }
}

/// Reads a request's head from the start of `buf`.
///
/// `None`: more bytes are needed; call again with the same bytes and those
/// that followed, and the same `scan` and `head`. `Some(n)`: the head (with
/// the blank lines skipped before it) is `buf[..n]`; start the next with a new
/// [`Scan`].
///
/// # Errors
/// The refusal to answer; nothing of the request may be forwarded. The first
/// flaw in byte order wins, whatever the reads were.
pub fn parse_request(
    buf: &[u8],
    scan: &mut Scan,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<usize>, Refusal> {
    if scan.stage == Stage::Start {
        if !skip_blank_lines(buf, scan)? {
            return Ok(None);
        }
        head.clear();
    }
    if matches!(scan.stage, Stage::First(_)) && !request_line(buf, scan, limits, head)? {
        return Ok(None);
    }
    loop {
        match scan.header(buf, limits)? {
            Step::More => return Ok(None),
            Step::End(len) => {
                finish(buf, head)?;
                return Ok(Some(len));
            }
            Step::Header(mut header) => {
                if head.headers.len() == limits.headers {
                    return Err(Flaw::Limit("too many headers").into());
                }
                note(buf, head, &mut header)?;
                head.headers.push(header);
            }
        }
    }
}

/// Takes what a header line says by itself.
#[inline]
fn note(buf: &[u8], head: &mut RequestHead, header: &mut Header) -> Result<(), Refusal> {
    if header.known == Known::Other {
        if header.name.of(buf).contains(&b'_') {
            header.stops = underscored(header.name.of(buf))?;
        }
        return Ok(());
    }
    let value = header.value.of(buf);
    let again = head.seen.holds(header.known);
    head.seen.insert(header.known);
    match header.known {
        Known::Host => {
            if again {
                return Err(Refusal::bad("more than one Host"));
            }
            take_host(buf, head, header.value)?;
        }
        Known::ContentLength => {
            let length = list::content_length(value).map_err(Refusal::bad)?;
            if head.content_length.is_some_and(|earlier| earlier != length) {
                return Err(Refusal::bad("differing Content-Length"));
            }
            head.content_length = Some(length);
            head.length_is_plain = !again && list::is_plain_length(value);
        }
        Known::TransferEncoding => {
            if again {
                return Err(Refusal::bad("more than one Transfer-Encoding"));
            }
            match list::coding(value) {
                Coding::Chunked => head.framing = Framing::Chunked,
                Coding::Invalid => return Err(Refusal::bad("invalid Transfer-Encoding")),
                Coding::Registered => {
                    return Err(Refusal {
                        status: 501,
                        cause: "unsupported Transfer-Encoding",
                    });
                }
            }
        }
        Known::Expect => {
            if value.eq_ignore_ascii_case(b"100-continue") {
                head.expect_continue = true;
            } else if !value.is_empty() {
                return Err(Refusal {
                    status: 417,
                    cause: "unsupported expectation",
                });
            }
        }
        Known::Te => {
            let mut offers = list::elements(value);
            head.te_trailers |= offers.any(|offer| offer.eq_ignore_ascii_case(b"trailers"));
        }
        Known::IdempotencyKey => head.idempotency_key |= !value.is_empty(),
        Known::XRequestId => {
            head.request_id = (!again && list::is_request_id(value)).then_some(header.value);
        }
        Known::Traceparent => {
            head.traceparent = (!again && list::is_traceparent(value)).then_some(header.value);
        }
        Known::Accept if !again => head.accept = Some(header.value),
        _ => {}
    }
    Ok(())
}

/// Whether a CGI-like backend would take a name with underscores for one that
/// means something here; one that frames the message is refused.
#[cold]
fn underscored(name: &[u8]) -> Result<bool, Refusal> {
    match known::disguised(name) {
        Known::ContentLength | Known::TransferEncoding => {
            Err(Refusal::bad("underscore in a framing header's name"))
        }
        kind => Ok(kind != Known::Other),
    }
}

fn take_host(buf: &[u8], head: &mut RequestHead, value: Span) -> Result<(), Refusal> {
    let authority = value.of(buf);
    let len = host::host_len(authority).map_err(Refusal::bad)?;
    if head.form == Form::Absolute && !head.authority.of(buf).eq_ignore_ascii_case(authority) {
        return Err(Refusal::bad("target and Host differ"));
    }
    head.host.set(&authority[..len]);
    head.authority = value;
    Ok(())
}

/// Takes what the header lines say together.
fn finish(buf: &[u8], head: &mut RequestHead) -> Result<(), Refusal> {
    if !head.seen.holds(Known::Host) {
        if head.form != Form::Absolute || head.version == Version::Http11 {
            return Err(Refusal::bad("no Host"));
        }
        let authority = head.authority.of(buf);
        let len = host::host_len(authority).map_err(Refusal::bad)?;
        head.host.set(&authority[..len]);
    }
    if head.framing == Framing::Chunked {
        if head.content_length.is_some() {
            return Err(Refusal::bad("Content-Length with Transfer-Encoding"));
        }
        if head.version == Version::Http10 {
            return Err(Refusal::bad("Transfer-Encoding in HTTP/1.0"));
        }
    } else if let Some(length) = head.content_length.filter(|length| *length > 0) {
        head.framing = Framing::Length(length);
    }
    head.keep_alive = head.version == Version::Http11;
    let mut upgrade = false;
    if head.seen.holds(Known::Connection) {
        upgrade = connection(buf, head)?;
    }
    head.upgrade = upgrade && head.version == Version::Http11 && offers_a_protocol(buf, head);
    head.expect_continue &= head.version == Version::Http11 && head.framing != Framing::None;
    Ok(())
}

/// Reads the connection options; whether `upgrade` is among them.
fn connection(buf: &[u8], head: &mut RequestHead) -> Result<bool, Refusal> {
    let mut options = Options::default();
    for at in 0..head.headers.len() {
        if head.headers[at].known == Known::Connection {
            let value = head.headers[at].value;
            let nominate = |option: &[u8]| {
                scan::nominate(&mut head.headers, buf, option)
                    .map_err(|_| "Connection names a framing header")
            };
            options
                .take(value.of(buf), nominate)
                .map_err(Refusal::bad)?;
        }
    }
    head.keep_alive = !options.close && (head.version == Version::Http11 || options.keep_alive);
    Ok(options.upgrade)
}

/// Whether `Upgrade` names a protocol that is passed on. `h2c` is not: it
/// would carry requests past the routing (and RFC 9113 retired it).
fn offers_a_protocol(buf: &[u8], head: &RequestHead) -> bool {
    let mut protocols = head
        .headers
        .iter()
        .filter(|header| header.known == Known::Upgrade)
        .flat_map(|header| list::elements(header.value.of(buf)))
        .peekable();
    protocols.peek().is_some() && !protocols.any(|name| name.eq_ignore_ascii_case(b"h2c"))
}

#[cfg(test)]
mod tests;
