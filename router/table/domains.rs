//! The domains of an app, in as little memory as they need.
//!
//! Owns their storage and which requests they match. Nearly every app has one
//! short domain: it lies inside the app, so that a lookup that got as far as
//! the app has the text to compare. Never checks a domain's text.

use std::cmp::Ordering;

use super::domain::{Domain, matched};
use super::heap_bytes;

/// Bytes of a domain that is kept inside the app.
const SHORT_BYTES: usize = 30;

/// Canonical domains, sorted, each once.
#[derive(Debug, PartialEq, Eq)]
pub struct Domains(Kept);

#[derive(Debug, PartialEq, Eq)]
enum Kept {
    Short { len: u8, text: [u8; SHORT_BYTES] },
    Long(Box<[Box<str>]>),
}

const _: () = assert!(size_of::<Domains>() == 32);

impl Domains {
    /// These, which must be canonical and are put in order.
    pub(super) fn of(mut texts: Vec<&str>) -> Domains {
        texts.sort_unstable();
        texts.dedup();
        Self::sorted(&texts)
    }

    fn sorted(texts: &[&str]) -> Domains {
        if let [text] = texts
            && text.len() <= SHORT_BYTES
        {
            let mut kept = [0; SHORT_BYTES];
            kept[..text.len()].copy_from_slice(text.as_bytes());
            return Domains(Kept::Short {
                len: text.len() as u8,
                text: kept,
            });
        }
        Domains(Kept::Long(texts.iter().map(|&text| text.into()).collect()))
    }

    /// The same without these.
    pub(super) fn without(&self, refused: &[&str]) -> Domains {
        let left: Vec<&str> = self.iter().filter(|text| !refused.contains(text)).collect();
        Self::sorted(&left)
    }

    /// How many.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Short { .. } => 1,
            Kept::Long(texts) => texts.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (short, long) = match &self.0 {
            Kept::Short { len, text } => (Some(as_text(&text[..usize::from(*len)])), &[][..]),
            Kept::Long(texts) => (None, &texts[..]),
        };
        short.into_iter().chain(long.iter().map(|text| &**text))
    }

    /// Whether this one is among them.
    pub fn contains(&self, domain: &str) -> bool {
        match &self.0 {
            Kept::Short { len, text } => text[..usize::from(*len)] == *domain.as_bytes(),
            Kept::Long(texts) => texts.binary_search_by(|text| (**text).cmp(domain)).is_ok(),
        }
    }

    /// How specific the best match is: see [`matched`].
    #[inline]
    pub(super) fn matched(&self, wildcard: bool, host: &[u8], path: &[u8]) -> Option<usize> {
        match &self.0 {
            Kept::Short { len, text } => matched(&text[..usize::from(*len)], wildcard, host, path),
            Kept::Long(texts) => of_host(texts, wildcard, host)
                .filter_map(|text| matched(text.as_bytes(), wildcard, host, path))
                .max(),
        }
    }

    /// Those with the host of this one, whatever their prefix.
    pub(super) fn of_host_of<'a>(&'a self, domain: &Domain<'a>) -> impl Iterator<Item = &'a str> {
        let (wildcard, host) = (domain.wildcard, domain.host);
        self.iter().filter(move |text| {
            let own = Domain::of(text);
            own.wildcard == wildcard && own.host == host
        })
    }

    /// Bytes outside the app.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Kept::Short { .. } => 0,
            Kept::Long(texts) => {
                heap_bytes(size_of_val(&**texts))
                    + texts
                        .iter()
                        .map(|text| heap_bytes(text.len()))
                        .sum::<usize>()
            }
        }
    }
}

fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a domain must be the text it was made of")
}

/// The texts that begin with a host and end there, or go on with `/`. In order
/// these are two runs, as `.` and `-` sort between the two.
fn of_host<'t>(
    texts: &'t [Box<str>],
    wildcard: bool,
    host: &'t [u8],
) -> impl Iterator<Item = &'t str> {
    let star: &[u8] = if wildcard { b"*." } else { b"" };
    let compare = move |text: &str, end: &[u8]| -> Ordering {
        let key = star.iter().chain(host).chain(end);
        text.as_bytes().iter().cmp(key)
    };
    let bare = texts.binary_search_by(|text| compare(text, b""));
    let from = texts.partition_point(|text| compare(text, b"/").is_lt());
    // `0` follows `/`.
    let prefixed = texts[from..]
        .iter()
        .take_while(move |text| compare(text, b"0").is_lt());
    let bare = bare.ok().map(|at| &texts[at]);
    bare.into_iter().chain(prefixed).map(|text| &**text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_was_given() {
        for given in [
            vec![],
            vec!["a.example"],
            vec!["a-domain-of-thirty-bytes.examp"],
            vec!["a-domain-of-thirty-one-bytes.ex"],
            vec!["b.example", "*.a.example", "b.example", "a.example/x"],
        ] {
            let domains = Domains::of(given.clone());
            let mut sorted = given.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(domains.iter().collect::<Vec<_>>(), sorted);
            assert_eq!(domains.len(), sorted.len());
            assert!(given.iter().all(|domain| domains.contains(domain)));
            assert!(!domains.contains("a.exampl"));
        }
    }

    #[test]
    fn finds_all_of_a_host_among_its_neighbours() {
        let domains = Domains::of(vec![
            "a.example",
            "a.example-x.org",
            "a.example.org",
            "a.example/x",
            "a.example/x/y",
            "a.example0",
            "*.a.example",
            "*.a.example/x",
        ]);
        let best = |wildcard, path: &str| domains.matched(wildcard, b"a.example", path.as_bytes());
        assert_eq!(best(false, "/z"), Some(1));
        assert_eq!(best(false, "/x/y/z"), Some(5));
        assert_eq!(best(false, "*"), Some(1));
        assert_eq!(best(true, "/x"), Some(3));
        assert_eq!(best(true, "/y"), Some(1));
        assert_eq!(domains.matched(false, b"a.exampl", b"/"), None);
    }

    #[test]
    fn gives_up_what_was_refused() {
        let domains = Domains::of(vec!["a.example", "b.example"]);
        assert_eq!(
            domains.without(&["a.example"]),
            Domains::of(vec!["b.example"])
        );
        assert!(domains.without(&["a.example", "b.example"]).is_empty());
    }
}
