//! Metrics: one row each, with the paragraph that explains it.
//!
//! Owns the rows (name, labels, kind, unit, prose) and the enums that index the
//! cells of [`super::EdgeCells`]; what is made of those is
//! [`samples`](super::samples)'s. A series with a reason has no total of its
//! own: the total is the sum of the reasons.
//!
//! To add a counter, a gauge or a histogram: a line in the table below.

pub use super::samples::{collect, sample};

/// What kind of metric a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; starts at 0 with its process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Observations counted by size, in the bounds of [`super::histogram`].
    Histogram,
}

/// How the values of several edges become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Added up.
    Sum,
    /// The smallest.
    Min,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// As exported; the unit is its last word.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// `seconds`, `bytes`, or what is counted.
    pub unit: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// Over several edges.
    pub merge: Merge,
    /// A paragraph: what is counted, when, and what a change in it means.
    pub help: &'static str,
}

macro_rules! metrics {
    (
        $(#[$doc:meta])*
        $enum:ident $kind:ident
        $( $row:ident $name:literal [$unit:literal $merge:ident] ($($label:literal),*) $help:literal {
            $( $variant:ident ($($value:literal),*) )+
        } )+
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum $enum {
            $( $( #[doc = concat!("`", $name, "`", $(" ", $value),*)] $variant, )+ )+
        }

        $(
            static $row: Row = Row {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                merge: Merge::$merge,
                help: $help,
            };
        )+

        impl $enum {
            /// Every series, in the order of the cells.
            pub const ALL: &'static [$enum] = &[$( $( $enum::$variant, )+ )+];

            /// Every row.
            pub fn rows() -> &'static [&'static Row] {
                static ROWS: &[&Row] = &[$( &$row, )+];
                ROWS
            }

            /// The row this series belongs to.
            pub fn row(self) -> &'static Row {
                match self { $( $( $enum::$variant => &$row, )+ )+ }
            }

            /// Its label values, in the order of the row's labels.
            pub fn values(self) -> &'static [&'static str] {
                match self { $( $( $enum::$variant => &[$($value),*], )+ )+ }
            }
        }
    };
}

metrics! {
    /// What edge threads count.
    Counter Counter

    REQUESTS "portico_requests_total" ["requests" Sum] ("class")
    "Requests whose exchange with the client ended, by the class of the status sent (or logged: 499 when the client left first). Counted once a request, whatever its tries; the rate of all classes together is the router's request rate." {
        Responses1xx ("1xx") Responses2xx ("2xx") Responses3xx ("3xx")
        Responses4xx ("4xx") Responses5xx ("5xx")
    }

    ACCEPTED "portico_client_connections_accepted_total" ["connections" Sum] ()
    "Client connections accepted. Divide the request rate by this rate for the requests a connection carries." {
        ConnectionsAccepted ()
    }

    CLOSED "portico_client_connections_closed_total" ["connections" Sum] ("reason")
    "Client connections that ended, by why: the client closed between requests; either side asked for Connection: close or speaks HTTP/1.0; no request in time (idle); a head that did not arrive in time; a body sent, or an answer taken, below the minimum rate (too_slow); idle longest, or its head, or its body before a backend was asked, awaited longest, when another needed its place (evicted); named by a balancer's PROXY header as of an address that has as many as it may (address); a request refused as malformed; the client broke off inside a message; the router cut an answer it could not finish; an upgraded connection ended; idle when its edge had handed over to a successor (handed_over), or the router shut down (draining); still busy at the end of the time that such an edge has (forced, H24); a socket error." {
        ClosedByClient ("client") ClosedAsAsked ("asked") ClosedIdle ("idle")
        ClosedHeadTimeout ("head_timeout") ClosedTooSlow ("too_slow") ClosedEvicted ("evicted") ClosedAddress ("address")
        ClosedMalformed ("malformed")
        ClosedClientAborted ("client_aborted") ClosedAnswerCut ("answer_cut")
        ClosedUpgraded ("upgraded") ClosedHandedOver ("handed_over")
        ClosedDraining ("draining") ClosedForced ("forced") ClosedError ("error")
    }

    REFUSED "portico_client_connections_refused_total" ["connections" Sum] ("reason")
    "Client connections closed at once because there were too many: as many as edge.max_connections allows and none of them idle (full), or as edge.max_connections_per_address allows their address. Not counted as accepted." {
        RefusedFull ("full") RefusedAddress ("address")
    }

    SHED_MEMORY "portico_requests_shed_memory_total" ["requests" Sum] ()
    "Requests answered or cut with H22 because buffers took 85 % or more of edge.buffer_bytes and their app's held twice as much as was left of it. Whose they were says portico_app_coded_requests_total." {
        ShedMemory ()
    }

    ACCEPT_ERRORS "portico_accept_errors_total" ["errors" Sum] ("reason")
    "Calls of accept(2) that failed: no descriptor left (raise the limit, or look for a leak), the client was gone already, or something else." {
        AcceptDescriptors ("descriptors") AcceptAborted ("aborted") AcceptOther ("other")
    }

    CHECKOUTS "portico_backend_checkouts_total" ["checkouts" Sum] ("how")
    "Backend connections taken for a try: reused from this thread's pool, or newly opened. A low share of reuse with steady traffic means backends close idle connections early, or that reuse is off." {
        BackendReused ("reused") BackendOpened ("opened")
    }

    CONNECT_FAILURES "portico_backend_connect_failures_total" ["failures" Sum] ("reason")
    "Attempts to connect to a backend that failed: refused (nothing listens), timed out, unreachable (no route, host down), no descriptor or local port left on the router, or something else." {
        ConnectRefused ("refused") ConnectTimedOut ("timeout") ConnectUnreachable ("unreachable")
        ConnectExhausted ("exhausted") ConnectOther ("other")
    }

    TRY_FAILURES "portico_backend_failures_total" ["failures" Sum] ("reason")
    "Tries that failed after a connection was there: it closed before a byte of the answer (new or reused connection), no first byte in time, the answer was not HTTP, broke a limit or its framing, broke off, or went idle half-way." {
        BackendClosedNew ("closed_new") BackendClosedReused ("closed_reused")
        BackendFirstByteTimeout ("first_byte_timeout") BackendNotHttp ("not_http")
        BackendBadAnswer ("bad_answer") BackendBrokeOff ("broke_off") BackendIdle ("idle")
    }

    RETRIES "portico_retries_total" ["retries" Sum] ("reason")
    "Tries beyond a request's first, by what made the one before fail. Requests answered after one of these succeeded because of it." {
        RetriedConnect ("connect") RetriedClosedReused ("closed_reused")
        RetriedClosedNew ("closed_new") RetriedStatus ("status") RetriedTryTimeout ("try_timeout")
        RetriedBadAnswer ("bad_answer")
    }

    HEDGES "portico_hedges_total" ["tries" Sum] ("outcome")
    "Requests whose try was overdue, so that another was begun beside it on another backend: begun, and those in which the later one answered first (won). Many won ones mean that some backends stall; many begun and few won ones, that an app's latency has a long tail of its own." {
        HedgesBegun ("begun") HedgesWon ("won")
    }

    WITHHELD "portico_retries_withheld_total" ["requests" Sum] ("reason")
    "Failed tries that were not retried, by why: the request may have been processed and is not idempotent; its body was no longer whole in the replay buffer; the answer had begun; the time for a first byte was over; the app's tries, or its budget of retries and hedges, were used up; its thread had more to do than it could, and the app's requests stood in line for it; the limit retries let no more pass (limit); or no other backend was left." {
        WithheldNotIdempotent ("not_idempotent") WithheldBody ("body_not_replayable")
        WithheldAnswerBegun ("answer_begun") WithheldTime ("time") WithheldTries ("tries") WithheldBudget ("budget")
        WithheldOverload ("overload") WithheldLimit ("limit") WithheldNoBackend ("no_backend")
    }

    EJECTIONS "portico_backend_ejections_total" ["ejections" Sum] ("reason")
    "Backends taken out of rotation, by why: connections refused, or not opened in time; three connections closed without an answer, answers out of time or answers that break a rule in a row; five answers of 502, 503 or 504 in a row; overdue tries and no answer since (silent); half of its tries failing while its peers' do not (rate); ten times slower than its peers; the app's own probe. Each is an event too, with its numbers." {
        EjectedConnectRefused ("connect_refused") EjectedConnectTimedOut ("connect_timed_out")
        EjectedReset ("reset") EjectedTimedOut ("timed_out") EjectedBadAnswer ("bad_answer")
        EjectedStatus ("status") EjectedSilent ("silent") EjectedRate ("rate")
        EjectedSlow ("slow") EjectedProbe ("probe")
    }

    EJECTIONS_SPARED "portico_backend_ejections_spared_total" ["decisions" Sum] ()
    "Backends that would have been taken out of rotation and were not: the last one, as many out as may be, or the others failing alike, which is the app's fault. Counted at most once in ten seconds for an app." {
        EjectionsSpared ()
    }

    READMISSIONS "portico_backend_readmissions_total" ["readmissions" Sum] ("by")
    "Backends brought back into rotation: by a request that found them well, by a probe, or by an operator's order." {
        ReadmittedByTrial ("trial") ReadmittedByProbe ("probe") ReadmittedByOrder ("order")
    }

    RESTS "portico_backend_rests_total" ["rests" Sum] ()
    "Answers of 503 with Retry-After: the backend is used last for as long as it asked." {
        Rests ()
    }

    HELD "portico_boot_waits_total" ["requests" Sum] ("outcome")
    "Requests that found no backend of their app accepting connections and were held for one to come up: served, waited as long as they may, nothing left to wait for (its app or its last backend was taken away, and the request is as one that just came), or the client left. A queue that is full counts as one of portico_queue_waits_total." {
        HeldServed ("served") HeldTimedOut ("timeout") HeldGone ("gone")
        HeldClientLeft ("client_left")
    }

    QUEUE "portico_queue_waits_total" ["requests" Sum] ("outcome")
    "Requests that found every backend of their app at its concurrency limit, the one set or the one learned: admitted after a wait, turned away because the queue was full, shed because it stands (more is asked of the app than it can do, and a longer wait would not change that), waited too long (all H11), nothing left to wait for (all went down or away, and the request is as one that just came), or the client left while waiting." {
        QueueAdmitted ("admitted") QueueFull ("full") QueueShed ("shed")
        QueueTimedOut ("timeout") QueueGone ("gone")
        QueueClientLeft ("client_left")
    }

    WANTED_UNTOLD "portico_wanted_untold_total" ["requests" Sum] ()
    "Requests that found no backend of their app, and of which no event app_wanted told because more apps were wanted than are told of: 10 a second, 100 at once after a quiet time. The event apps_wanted sums them up. Many of them mean that somebody asks for apps at random." {
        WantedUntold ()
    }

    SHED "portico_shed_total" ["requests" Sum] ("reason")
    "Requests refused with H22 because the router itself could not do more: its data thread's processor. Those of apps that ask for more than their share; an app that asks for less is not refused. Whose they were says the event overload_ended, and portico_app_coded_requests_total." {
        ShedProcessor ("processor")
    }

    GATED "portico_gate_waits_total" ["requests" Sum] ("outcome")
    "Requests that waited for their app's turn because their data thread had more to do than it could: served, or ended with the client or the edge before that. Those refused are portico_shed_total." {
        GateServed ("served") GateLeft ("left")
    }

    CONTINUES "portico_continues_sent_total" ["answers" Sum] ()
    "100 Continue answers sent by the router itself to clients that expected one." {
        ContinuesSent ()
    }

    UPGRADES "portico_upgrades_total" ["connections" Sum] ()
    "Connections that became byte pipes after a 101, WebSockets mostly." {
        Upgrades ()
    }

    CLIENT_RECEIVED "portico_client_received_bytes_total" ["bytes" Sum] ()
    "Bytes of request bodies and upgraded streams read from clients, framing and heads not counted." {
        ClientReceivedBytes ()
    }

    CLIENT_SENT "portico_client_sent_bytes_total" ["bytes" Sum] ()
    "Bytes of answer bodies and upgraded streams sent to clients, framing and heads not counted." {
        ClientSentBytes ()
    }

    PROBES "portico_probes_total" ["probes" Sum] ("outcome")
    "Probes of backends that ended, by outcome: passed; the connection was refused or no way leads there; no connection or answer in time; closed or reset before the end of its answer's head; answered with a status that does not pass; answered something that is not HTTP or is over a limit; not judged because the app or backend was changed meanwhile (moot); not sent for want of descriptors or ports on the router (exhausted). Both kinds: of backends that are out because nothing answers there, and of apps that have a probe configured." {
        ProbePassed ("passed") ProbeRefused ("refused") ProbeTimedOut ("timeout")
        ProbeClosed ("closed") ProbeStatus ("status") ProbeMalformed ("malformed")
        ProbeMoot ("moot") ProbeExhausted ("exhausted")
    }

    PROBES_LATE "portico_probes_late_total" ["probes" Sum] ()
    "Probes that began 100 ms or more after their time, because the bounds on all probes together or on those of one app held them back. Each is made once, late; none pile up." {
        ProbesLate ()
    }

    PROBE_POSTS_DROPPED "portico_probe_posts_dropped_total" ["posts" Sum] ()
    "Backends that data threads found gone and could not tell the prober of, because its queue was full. It finds them by itself, up to about a second later." {
        ProbePostsDropped ()
    }

    PROBER_PANICS "portico_prober_panics_total" ["panics" Sum] ()
    "Times the prober panicked and started anew. Anything above 0 is a bug in Portico." {
        ProberPanics ()
    }

    FEED_CONNECTS "portico_feed_connects_total" ["connections" Sum] ()
    "Times the edge connected to control. More than one per edge start means that one of the two went away." {
        FeedConnects ()
    }

    FEED_APPLIED "portico_feed_applied_total" ["messages" Sum] ("kind")
    "Changes taken from control: whole snapshots, and deltas." {
        FeedSnapshots ("snapshot") FeedDeltas ("delta")
    }

    FEED_NACKS "portico_feed_nacks_total" ["records" Sum] ()
    "Records of the feed that could not be used; their previous value stands. Anything above 0 is a bug in what wrote them: see the nack events." {
        FeedNacks ()
    }

    TABLES_REFUSED "portico_tables_refused_total" ["tables" Sum] ()
    "Whole tables of control that the edge did not take, since more than 5 % of the apps or 20 % of the backends held would have vanished without having been removed. The table held is served, the connection stays; see the event shrink_refused." {
        TablesRefused ()
    }

    FEED_REFUSED "portico_feed_refused_total" ["connections" Sum] ("reason")
    "Connections to control that the edge ended, by why: another version of the feed; another installation than the table held; an older epoch or table than the one held; a change that does not follow the revision held (the whole table is asked for); a broken protocol. The table held is served meanwhile." {
        FeedRefusedVersion ("version") FeedRefusedCluster ("cluster")
        FeedRefusedOlder ("older") FeedRefusedGap ("gap") FeedRefusedProtocol ("protocol")
    }

    EVENTS_DROPPED "portico_edge_events_dropped_total" ["events" Sum] ()
    "Events for operators that the edge dropped because control took none for long and their queue was full." {
        EventsDropped ()
    }
}

metrics! {
    /// What edge threads keep up to date.
    Gauge Gauge

    OPEN "portico_client_connections" ["connections" Sum] ()
    "Client connections open now, idle ones included." {
        ConnectionsOpen ()
    }

    BUFFERS "portico_buffer_bytes" ["bytes" Sum] ()
    "Memory of the edge's buffers: heads and bodies on their way, and what is kept for the next. Bounded by edge.buffer_bytes." {
        BufferBytes ()
    }

    BUFFERS_TAKEN "portico_buffer_taken_bytes" ["bytes" Sum] ()
    "Of portico_buffer_bytes, what requests of apps hold while they wait: for a client, a backend, their turn. Where it is little beside that, clients hold the rest whose heads are not whole." {
        BufferTakenBytes ()
    }

    LEAVING "portico_client_connections_leaving" ["connections" Sum] ()
    "Client connections still open on edges that handed over to a successor, or drain: WebSockets, downloads and uploads that are left until they end or their edge's time is up. Counted in portico_client_connections too." {
        ConnectionsLeaving ()
    }

    IN_FLIGHT "portico_requests_in_flight" ["requests" Sum] ()
    "Requests being served now: from their head to the end of the answer." {
        InFlight ()
    }

    QUEUED "portico_requests_queued" ["requests" Sum] ()
    "Requests waiting now for a backend with room." {
        Queued ()
    }

    IDLE "portico_backend_connections_idle" ["connections" Sum] ()
    "Idle backend connections kept for reuse." {
        BackendIdleConnections ()
    }

    UPGRADES_OPEN "portico_upgrades_open" ["connections" Sum] ()
    "Upgraded connections open now: each is a client and a backend connection that carry bytes both ways." {
        UpgradesOpen ()
    }

    PROBES_DUE "portico_probes_due" ["probes" Sum] ()
    "Probes whose time has come and which have not begun. Above 0 for long: more probes are asked for than the bound on their rate allows, and backends are probed less often than their policies say." {
        ProbesDue ()
    }

    BACKENDS_PROBED "portico_backends_probed" ["backends" Sum] ()
    "Backends that the prober watches: those of apps that have a probe configured, and those that are out because nothing answers there." {
        BackendsProbed ()
    }

    SATURATED "portico_edge_threads_saturated" ["threads" Sum] ()
    "Data threads that have more to do than they can: what is ready waits 5 ms and more for them though they never rest. Requests take turns there, app by app, and who waits too long is refused (H22). Above 0 for long: the router needs more cores, or more routers." {
        ThreadsSaturated ()
    }

    GATED_NOW "portico_requests_gated" ["requests" Sum] ()
    "Requests waiting now for their app's turn on a data thread that has more to do than it can." {
        Gated ()
    }

    THREADS "portico_edge_threads" ["threads" Sum] ()
    "Data threads serving, over all edges: edge.threads, and twice that during an upgrade." {
        Threads ()
    }

    REVISION "portico_table_revision" ["revision" Min] ()
    "The revision of the table the edge routes by; the oldest where there are several edges. Behind portico_control_revision for longer than a moment: the edge is cut off from control, and goes on with what it has." {
        TableRevision ()
    }

    APPS "portico_table_apps" ["apps" Min] ()
    "Apps in the table the edge routes by; the fewest where there are several edges." {
        TableApps ()
    }

    TABLE_DOUBTED "portico_table_doubted" ["edges" Sum] ()
    "Edges that did not take control's whole table and go on with the one they hold: no change reaches them until an operator confirms what vanished (portico confirm-shrink) or control has it back." {
        TableDoubted ()
    }

    PINNED "portico_table_pinned" ["edges" Sum] ()
    "Edges that stay with the last table that ran well because others crashed one after another on a newer one. Above 0: changes do not reach traffic; see the edge_pinned event and the obituaries of /processes." {
        TablePinned ()
    }

    FEED_CONNECTED "portico_feed_connected" ["edges" Sum] ()
    "Edges connected to control; 0 means that changes do not reach traffic." {
        FeedConnected ()
    }
}

metrics! {
    /// What edge threads time. Observed in microseconds, exported in seconds.
    Histogram Histogram

    TOTAL "portico_request_duration_seconds" ["seconds" Sum] ()
    "From a request's first byte to the end of its answer. Upgraded connections are not observed." {
        Total ()
    }

    FIRST_BYTE "portico_backend_first_byte_seconds" ["seconds" Sum] ()
    "From the end of sending a request to a backend to the first byte of its answer: the app's own time." {
        FirstByte ()
    }

    CONNECT "portico_backend_connect_seconds" ["seconds" Sum] ()
    "Time to open a backend connection; reused ones are not observed." {
        Connect ()
    }

    QUEUE_TIME "portico_queue_wait_seconds" ["seconds" Sum] ()
    "Time that requests which had to wait for a backend with room spent waiting." {
        QueueWait ()
    }

    LOOP_LAG "portico_event_loop_lag_seconds" ["seconds" Sum] ()
    "How late data threads come to what is ready, by a look every 10 ms while there is traffic and every 100 ms else. Up to 2 ms is the timer's grain." {
        LoopLag ()
    }

    GATE_TIME "portico_gate_wait_seconds" ["seconds" Sum] ()
    "Time that requests waited for their app's turn on a data thread that had more to do than it could." {
        GateWait ()
    }
}

/// Requests by code; the index is [`Code`](super::Code) itself, so it is no [`Counter`].
pub static CODES: Row = Row {
    name: "portico_coded_requests_total",
    kind: Kind::Counter,
    unit: "requests",
    labels: &["code", "fault"],
    merge: Merge::Sum,
    help: "Requests that ended with a code of the router's own (H10 and so on), with whose fault it was: client, app or platform. Page on platform; tell the owner on app.",
};

impl Counter {
    /// Counts a request under the class of its status.
    #[inline]
    pub fn responses(status: u16) -> Counter {
        match status / 100 {
            1 => Counter::Responses1xx,
            2 => Counter::Responses2xx,
            3 => Counter::Responses3xx,
            4 => Counter::Responses4xx,
            _ => Counter::Responses5xx,
        }
    }
}

/// Every row that edges report.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    let rows = Counter::rows()
        .iter()
        .chain(Gauge::rows())
        .chain(Histogram::rows())
        .copied();
    let rows = rows.chain([&CODES]).chain(super::access_log::rows());
    rows.chain(super::limits::rows())
}

/// The row of this name, if edges report one.
pub fn row(name: &str) -> Option<&'static Row> {
    rows().find(|row| row.name == name)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
