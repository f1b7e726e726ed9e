//! Messages to put through the codec: well-formed ones by their parts, and
//! edits of them.

use proptest::collection::vec;
use proptest::prelude::*;

/// Name and value of each header or trailer, names in lower case, sorted by
/// name and otherwise in order.
pub type Lines = Vec<(String, Vec<u8>)>;

/// Headers that reach the other side as they are.
pub const END_TO_END: &[&str] = &[
    "Accept",
    "Cookie",
    "User-Agent",
    "Content-Type",
    "X-A",
    "x-b",
    "X_under",
    "If-None-Match",
    "Range",
    "Authorization",
    "!#$%&'*+-.^_`|~0aZ",
    "Set-Cookie",
];

/// Headers that stop at the router, or are set by it.
pub const HOP_BY_HOP: &[&str] = &[
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authorization",
    "HTTP2-Settings",
    "X-Request-Id",
    "Proxy-Authenticate",
    "x-hop",
];

pub fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![9 => 0x21..=0x7e_u8, 1 => 0x80..=0xff_u8];
    let inner = prop_oneof![8 => byte.clone(), 1 => Just(b' '), 1 => Just(b'\t')];
    prop_oneof![
        1 => Just(Vec::new()),
        9 => (byte.clone(), vec(inner, 0..20), byte).prop_map(|(first, mut rest, last)| {
            rest.insert(0, first);
            rest.push(last);
            rest
        }),
    ]
}

pub fn headers(
    names: &'static [&'static str],
) -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    vec((prop::sample::select(names), value()), 0..8)
}

/// A body as chunks; joined, it is one of known length.
pub fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 1..60), 0..6)
}

pub fn trailers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let names: &[&str] = &[
        "X-Sum",
        "x-other",
        "Content-Length",
        "Host",
        "Set-Cookie",
        "TE",
    ];
    vec((prop::sample::select(names), value()), 0..4)
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Body {
    None,
    Length,
    Chunked,
}

/// A message's parts beside its first line.
#[derive(Clone, Debug)]
pub struct Parts {
    pub end_to_end: Vec<(&'static str, Vec<u8>)>,
    pub hop_by_hop: Vec<(&'static str, Vec<u8>)>,
    pub body: Body,
    pub chunks: Vec<Vec<u8>>,
    pub trailers: Vec<(&'static str, Vec<u8>)>,
    pub extensions: bool,
    pub blanks: &'static str,
    pub step: usize,
}

pub fn parts() -> impl Strategy<Value = Parts> {
    (
        headers(END_TO_END),
        headers(HOP_BY_HOP),
        prop::sample::select(&[Body::None, Body::Length, Body::Chunked][..]),
        chunks(),
        trailers(),
        any::<bool>(),
        prop::sample::select(&["", " ", "\t \t"][..]),
        1..200_usize,
    )
        .prop_map(
            |(end_to_end, hop_by_hop, body, chunks, trailers, extensions, blanks, step)| Parts {
                end_to_end,
                hop_by_hop,
                body,
                chunks,
                trailers,
                extensions,
                blanks,
                step,
            },
        )
}

pub fn line(name: &str, value: &[u8], blanks: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    out.extend_from_slice(blanks.as_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(blanks.as_bytes());
    out.extend_from_slice(b"\r\n");
}

impl Parts {
    /// The headers after the first line, then the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut hop_by_hop = self.hop_by_hop.iter();
        line("Connection", b"keep-alive, X-Hop", self.blanks, out);
        for (name, value) in &self.end_to_end {
            line(name, value, self.blanks, out);
            if let Some((name, value)) = hop_by_hop.next() {
                line(name, value, self.blanks, out);
            }
        }
        match self.body {
            Body::None => {}
            Body::Length => {
                let length = self.payload().len().to_string();
                line("content-Length", length.as_bytes(), self.blanks, out);
            }
            Body::Chunked => line("transfer-encoding", b"Chunked", self.blanks, out),
        }
        out.extend_from_slice(b"\r\n");
        match self.body {
            Body::None => {}
            Body::Length => out.extend_from_slice(&self.payload()),
            Body::Chunked => self.write_chunks(out),
        }
    }

    pub fn write_chunks(&self, out: &mut Vec<u8>) {
        let extension = if self.extensions { ";a=b;c" } else { "" };
        for chunk in &self.chunks {
            out.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("00{extension}\r\n").as_bytes());
        for (name, value) in &self.trailers {
            line(name, value, self.blanks, out);
        }
        out.extend_from_slice(b"\r\n");
    }

    pub fn payload(&self) -> Vec<u8> {
        match self.body {
            Body::None => Vec::new(),
            _ => self.chunks.concat(),
        }
    }

    pub fn expected_headers(&self) -> Lines {
        sorted(
            self.end_to_end
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        )
    }

    pub fn expected_trailers(&self) -> Lines {
        let passing = self
            .trailers
            .iter()
            .filter(|(name, _)| name.starts_with(['X', 'x']));
        match self.body {
            Body::Chunked => {
                sorted(passing.map(|(name, value)| ((*name).to_owned(), value.clone())))
            }
            _ => Vec::new(),
        }
    }
}

pub fn sorted(lines: impl Iterator<Item = (String, Vec<u8>)>) -> Lines {
    let mut lines: Lines = lines
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    lines
}

/// Bytes that make parsers disagree.
pub const EDITS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "\0",
    "\x7f",
    "\u{e9}",
    "0",
    "5",
    "+",
    "chunked",
    "Content-Length: 5\r\n",
    "Content-Length: 6\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: b\r\n",
    "Connection: close, x-a\r\n",
    " folded\r\n",
    "HTTP/1.0",
    "GET / HTTP/1.1\r\n",
    "#",
    "Upgrade: x\r\n",
    "Connection: upgrade\r\n",
    "1;a=b\r\n",
    "X: y\r\n",
    "_",
    "*",
    "http://b/",
];

/// Cuts, doubles and insertions.
pub fn edited(text: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edit = (
        any::<prop::sample::Index>(),
        0..4_u8,
        prop::sample::select(EDITS),
        0..9_usize,
    );
    vec(edit, 0..4).prop_map(move |edits| {
        let mut text = text.clone();
        for (at, kind, insert, len) in edits {
            let at = at.index(text.len() + 1);
            let end = text.len().min(at + len);
            match kind {
                0 => drop(text.drain(at..end)),
                1 => {
                    let again = text[at..end].to_vec();
                    drop(text.splice(at..at, again));
                }
                2 => drop(text.splice(at..end, insert.bytes())),
                _ => drop(text.splice(at..at, insert.bytes())),
            }
        }
        text
    })
}

/// The choice byte of the oracles, then a message with a few edits.
pub fn message(first: &'static str) -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), parts()).prop_flat_map(move |(choice, parts)| {
        let mut text = vec![choice];
        text.extend_from_slice(first.as_bytes());
        parts.write(&mut text);
        edited(text)
    })
}
