//! Named limits on a request's way: after its app was looked up, before
//! anything is chosen or waited for.
//!
//! Owns what a request is to [`Limits`](crate::table::limits::Limits), and who
//! its client is. Decides nothing: that is the limits'.

use std::net::{IpAddr, SocketAddr};

use super::Work;
use super::client::{Client, Wire};
use super::ledger::Ledger;
use crate::edge::http1::known::Known;
use crate::settings::Settings;
use crate::table::limits::Subject;

/// Lets the request pass the limits that are for it. False: one refuses it, and
/// the ledger knows which. Where there is no limit at all it costs one load.
#[inline]
pub(super) fn admits<S: Wire>(client: &Client<S>, work: &Work, ledger: &mut Ledger) -> bool {
    let limits = &client.thread.table.limits;
    !limits.is_any() || asked(client, work, ledger)
}

#[cold]
fn asked<S: Wire>(client: &Client<S>, work: &Work, ledger: &mut Ledger) -> bool {
    let now_ns = ledger.began.saturating_mul(1_000);
    let asked = Asked {
        client,
        work,
        app: ledger.app().map(|app| &*app.name),
    };
    match client.thread.table.limits.admit(&asked, now_ns) {
        Ok(holds) => {
            ledger.holds = holds;
            true
        }
        Err(refused) => {
            ledger.limited = Some(refused);
            false
        }
    }
}

/// A request, as limits see it.
struct Asked<'a, S> {
    client: &'a Client<S>,
    work: &'a Work,
    app: Option<&'a str>,
}

impl<'a, S> Asked<'a, S> {
    /// The values of a header, in order.
    fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let input = self.work.input.data();
        let lines = self.work.head.headers.iter();
        let named = lines.filter(move |line| {
            let sent = line.name.of(input);
            sent.eq_ignore_ascii_case(name.as_bytes())
        });
        named.map(move |line| line.value.of(input))
    }
}

impl<S: Wire> Subject for Asked<'_, S> {
    fn app(&self) -> Option<&str> {
        self.app
    }

    fn path(&self) -> &[u8] {
        self.work.head.path(self.work.input.data())
    }

    fn client(&self) -> IpAddr {
        let peer = self.client.peer.ip();
        let is_said = self.work.head.seen.holds(Known::XForwardedFor);
        if !self.client.forwarded.trusted() || !is_said {
            return peer;
        }
        let settings = &self.client.thread.shared.settings;
        said_client(peer, self.values("x-forwarded-for"), settings)
    }

    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.values(name)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.values(name).any(|sent| sent == value.as_bytes())
    }
}

/// Who sent a request that a trusted proxy passed on: of the addresses in its
/// `X-Forwarded-For`, from the right, the first that is no trusted proxy's. What
/// stands left of something that is no address was said by nobody known.
fn said_client<'v>(
    peer: IpAddr,
    lines: impl DoubleEndedIterator<Item = &'v [u8]>,
    settings: &Settings,
) -> IpAddr {
    let proxies = &settings.edge.trusted_proxies;
    let mut client = peer;
    let said = lines
        .rev()
        .flat_map(|line| line.rsplit(|&byte| byte == b','));
    for said in said {
        let Some(address) = address(said) else {
            return client;
        };
        client = address;
        if !proxies.iter().any(|net| net.contains(&client)) {
            return client;
        }
    }
    client
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let alone = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    alone
        .or_else(with_port)
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_whom_the_last_trusted_proxy_saw() {
        let mut settings = Settings::default();
        settings.edge.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let client = |lines: &[&str]| {
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            let peer = "10.0.0.1".parse().unwrap();
            said_client(peer, lines.into_iter(), &settings).to_string()
        };
        assert_eq!(client(&["203.0.113.9"]), "203.0.113.9");
        // What the client wrote itself stands to the left.
        assert_eq!(client(&["1.2.3.4, 203.0.113.9, 10.3.3.3"]), "203.0.113.9");
        assert_eq!(
            client(&["203.0.113.9", "10.1.1.1 ,10.2.2.2"]),
            "203.0.113.9"
        );
        assert_eq!(client(&["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(client(&["[2001:db8::7]", "10.1.1.1"]), "2001:db8::7");
        assert_eq!(client(&["203.0.113.9:5000"]), "203.0.113.9");
        assert_eq!(client(&["::ffff:203.0.113.9"]), "203.0.113.9");
        // Nothing to go by: whoever said it is the client.
        assert_eq!(client(&["unknown"]), "10.0.0.1");
        assert_eq!(client(&["203.0.113.9, unknown, 10.1.1.1"]), "10.1.1.1");
        assert_eq!(client(&[""]), "10.0.0.1");
        assert_eq!(client(&["10.9.9.9"]), "10.9.9.9");
    }
}
