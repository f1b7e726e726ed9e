//! The codes of the router's own answers and cut-offs, one row each: what the
//! log's `code=` and `Proxy-Status` say, and whose fault it is.
//!
//! **Invariant**: a code, once shipped, keeps its meaning; a retired one is not
//! used again. Customers parse these.

/// Whose fault an outcome is. Only faults of the app's backends or of the
/// platform may drive ejection and retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client sent something wrong or left.
    Client,
    /// The app's backends.
    App,
    /// The router or the platform under it.
    Platform,
}

impl Fault {
    /// As logged.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Client => "client",
            Fault::App => "app",
            Fault::Platform => "platform",
        }
    }
}

macro_rules! codes {
    ($($name:ident $number:literal $status:literal $fault:ident $error:literal $desc:literal;)*) => {
        /// A stable code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $desc] $name,)*
        }

        impl Code {
            /// Every code, in order of number.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// As logged: `H12`.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => stringify!($name),)* }
            }

            /// 12 for H12.
            pub fn number(self) -> u8 {
                match self { $(Code::$name => $number,)* }
            }

            /// The status answered, where the head can still be chosen; the
            /// status logged where it is 499.
            pub fn status(self) -> u16 {
                match self { $(Code::$name => $status,)* }
            }

            /// Whose fault it is.
            pub fn fault(self) -> Fault {
                match self { $(Code::$name => Fault::$fault,)* }
            }

            /// The error type of `Proxy-Status` (RFC 9209, section 2.3).
            pub fn proxy_error(self) -> &'static str {
                match self { $(Code::$name => $error,)* }
            }

            /// The log's `desc=`.
            pub fn desc(self) -> &'static str {
                match self { $(Code::$name => $desc,)* }
            }
        }
    };
}

codes! {
    H10 10 503 App      "destination_unavailable"       "App crashed";
    H11 11 503 App      "connection_limit_reached"      "Backlog too deep";
    H12 12 503 App      "http_response_timeout"         "Request timeout";
    H13 13 503 App      "connection_terminated"         "Connection closed without response";
    H14 14 503 App      "destination_unavailable"       "No backend registered";
    H15 15 503 App      "connection_read_timeout"       "Idle connection";
    H17 17 503 App      "http_protocol_error"           "Poorly formatted HTTP response";
    H18 18 503 App      "http_response_incomplete"      "Server request interrupted";
    H19 19 503 App      "connection_timeout"            "Backend connection timeout";
    H21 21 503 App      "connection_refused"            "Backend connection refused";
    H22 22 503 Platform "connection_limit_reached"      "Router overloaded";
    H24 24 503 Platform "proxy_internal_response"       "Forced close";
    H25 25 502 App      "http_protocol_error"           "HTTP restriction";
    H26 26 400 Client   "http_request_error"            "Request error";
    H27 27 499 Client   "connection_terminated"         "Client request interrupted";
    H28 28 499 Client   "connection_read_timeout"       "Client connection idle";
    H29 29 429 Client   "http_request_denied"           "Rate limited";
    H30 30 404 Client   "destination_not_found"         "No app for this host";
    H31 31 421 Client   "http_request_denied"           "Misdirected request";
    H80 80 503 App      "destination_unavailable"       "Maintenance mode";
    H99 99 500 Platform "proxy_internal_error"          "Platform error";
}
