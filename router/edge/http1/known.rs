//! The header names that mean something to the router, told apart once per
//! line.
//!
//! Owns the list and the comparison. What each name leads to is decided where
//! heads are read and written.

macro_rules! known {
    ($($name:ident $text:literal $doc:literal;)*) => {
        /// A header name the router acts on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            $(#[doc = $doc] $name,)*
            /// Any other name: passes as it came.
            Other,
        }

        impl Known {
            /// Every known name and its text in lower case.
            pub const ALL: &'static [(Known, &'static str)] = &[$((Known::$name, $text),)*];
        }
    };
}

known! {
    Host "host" "Routing.";
    ContentLength "content-length" "Framing.";
    TransferEncoding "transfer-encoding" "Framing.";
    Connection "connection" "Hop-by-hop, and names others that are.";
    KeepAlive "keep-alive" "Hop-by-hop.";
    ProxyConnection "proxy-connection" "Hop-by-hop, never standard.";
    Te "te" "Hop-by-hop; `trailers` is forwarded.";
    Upgrade "upgrade" "Hop-by-hop; forwarded when the hop upgrades.";
    Http2Settings "http2-settings" "Belongs to `Upgrade: h2c`, which is not forwarded.";
    Expect "expect" "Answered by the router.";
    ProxyAuthorization "proxy-authorization" "For this hop (RFC 9110, section 11.7).";
    ProxyAuthenticate "proxy-authenticate" "For this hop.";
    ProxyAuthenticationInfo "proxy-authentication-info" "For this hop.";
    XForwardedFor "x-forwarded-for" "Appended to.";
    XForwardedProto "x-forwarded-proto" "Set.";
    XForwardedPort "x-forwarded-port" "Set.";
    XForwardedHost "x-forwarded-host" "Set.";
    Forwarded "forwarded" "RFC 7239; believed from trusted proxies only.";
    XRequestId "x-request-id" "Kept if well-formed, else set.";
    XRequestStart "x-request-start" "Set.";
    Via "via" "Appended to.";
    Traceparent "traceparent" "Continued or begun.";
    Tracestate "tracestate" "Goes with a traceparent that is continued.";
    Accept "accept" "Chooses the form of the router's own answers.";
    IdempotencyKey "idempotency-key" "Makes any method safe to retry.";
    RetryAfter "retry-after" "Read from answers.";
    Trailer "trailer" "Announces trailers; passes.";
    Authorization "authorization" "Never a trailer.";
    Cookie "cookie" "Never a trailer.";
    SetCookie "set-cookie" "Never a trailer.";
    ContentEncoding "content-encoding" "Never a trailer.";
    ContentType "content-type" "Never a trailer.";
    ContentRange "content-range" "Never a trailer.";
    CacheControl "cache-control" "Never a trailer.";
    Location "location" "Never a trailer.";
}

/// Whether a token equals a lower-case name. `| 0x20` maps no token character
/// but a letter onto a letter, so the comparison is exact.
#[inline(always)]
fn is<const N: usize>(name: &[u8], text: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else {
        return false;
    };
    let mut differs = 0;
    for at in 0..N {
        differs |= (name[at] | 0x20) ^ text[at];
    }
    differs == 0
}

/// Names a header; `name` must be a token (RFC 9110, section 5.6.2).
#[inline]
pub fn known(name: &[u8]) -> Known {
    macro_rules! among {
        ($($kind:ident $text:literal),*) => {{
            $(if is(name, $text) { return Known::$kind; })*
            Known::Other
        }};
    }
    match name.len() {
        2 => among!(Te b"te"),
        3 => among!(Via b"via"),
        4 => among!(Host b"host"),
        6 => among!(Accept b"accept", Cookie b"cookie", Expect b"expect"),
        7 => among!(Upgrade b"upgrade", Trailer b"trailer"),
        8 => among!(Location b"location"),
        9 => among!(Forwarded b"forwarded"),
        10 => among!(
            Connection b"connection", KeepAlive b"keep-alive",
            SetCookie b"set-cookie", Tracestate b"tracestate"
        ),
        11 => among!(RetryAfter b"retry-after", Traceparent b"traceparent"),
        12 => among!(ContentType b"content-type", XRequestId b"x-request-id"),
        13 => among!(
            Authorization b"authorization", CacheControl b"cache-control",
            ContentRange b"content-range"
        ),
        14 => among!(ContentLength b"content-length", Http2Settings b"http2-settings"),
        15 => among!(
            XForwardedFor b"x-forwarded-for", XRequestStart b"x-request-start",
            IdempotencyKey b"idempotency-key"
        ),
        16 => among!(
            ProxyConnection b"proxy-connection", ContentEncoding b"content-encoding",
            XForwardedPort b"x-forwarded-port", XForwardedHost b"x-forwarded-host"
        ),
        17 => among!(TransferEncoding b"transfer-encoding", XForwardedProto b"x-forwarded-proto"),
        18 => among!(ProxyAuthenticate b"proxy-authenticate"),
        19 => among!(ProxyAuthorization b"proxy-authorization"),
        25 => among!(ProxyAuthenticationInfo b"proxy-authentication-info"),
        _ => Known::Other,
    }
}

/// Names the header that a CGI-like backend would read from a name with
/// underscores (`Content_Length` becomes `CONTENT_LENGTH`, like the real one).
/// Such names have two readings: heads that use them for a known name are
/// refused or lose the line.
#[cold]
pub(super) fn disguised(name: &[u8]) -> Known {
    let mut dashed = [0_u8; 32];
    let Some(dashed) = dashed.get_mut(..name.len()) else {
        return Known::Other;
    };
    for (to, from) in dashed.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    known(dashed)
}

/// Names a header, whether spelled with dashes or underscores.
pub(super) fn spelled_out(name: &[u8]) -> Known {
    match known(name) {
        Known::Other if name.contains(&b'_') => disguised(name),
        kind => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_told_in_any_case_and_fits_the_set() {
        assert!(Known::Other as u8 <= 63, "Seen is 64 bits");
        for (kind, text) in Known::ALL {
            assert_eq!(known(text.as_bytes()), *kind, "{text}");
            assert_eq!(known(text.to_uppercase().as_bytes()), *kind, "{text}");
            assert_eq!(disguised(text.replace('-', "_").as_bytes()), *kind);
            for at in 0..text.len() {
                let mut near = text.as_bytes().to_vec();
                near[at] = if near[at] == b'!' { b'~' } else { b'!' };
                assert_eq!(known(&near), Known::Other, "{text} at {at}");
            }
        }
        assert_eq!(known(b""), Known::Other);
        assert_eq!(disguised(&[b'_'; 200]), Known::Other);
    }
}
