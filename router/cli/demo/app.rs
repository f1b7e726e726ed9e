//! The sample app: three instances on free loopback ports, in one thread.
//! Each answers with a page that says which one it is and what it received.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Html;

use super::DemoError;

/// Backend id, release, colour.
const CAST: [(&str, &str, &str); 3] = [
    ("web.1", "v1", "#2563eb"),
    ("web.2", "v1", "#059669"),
    ("web.3", "v2", "#c026d3"),
];

/// One instance, as it is registered.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub id: &'static str,
    pub release: &'static str,
    pub address: SocketAddr,
}

struct Actor {
    instance: Instance,
    colour: &'static str,
    answered: AtomicU64,
}

/// Binds and serves all instances until the process ends.
pub(super) fn start() -> Result<Vec<Instance>, DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut instances = Vec::new();
    let mut bound = Vec::new();
    for (id, release, colour) in CAST {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let instance = Instance {
            id,
            release,
            address,
        };
        instances.push(instance.clone());
        let actor = Actor {
            instance,
            colour,
            answered: AtomicU64::new(0),
        };
        bound.push((listener, Arc::new(actor)));
    }
    let serve = async move {
        let mut servers = tokio::task::JoinSet::new();
        for (listener, actor) in bound {
            let routes = axum::Router::new().fallback(answer).with_state(actor);
            servers.spawn(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, routes).await
            });
        }
        while servers.join_next().await.is_some() {}
    };
    std::thread::Builder::new()
        .name("sample app".into())
        .spawn(move || runtime.block_on(serve))?;
    Ok(instances)
}

async fn answer(
    State(actor): State<Arc<Actor>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Html<String> {
    let count = actor.answered.fetch_add(1, Ordering::Relaxed) + 1;
    Html(page(&actor, count, &format!("{method} {uri}"), &headers))
}

fn page(actor: &Actor, count: u64, request: &str, headers: &HeaderMap) -> String {
    let Instance {
        id,
        release,
        address,
    } = &actor.instance;
    let colour = actor.colour;
    let refreshing = request.contains("refresh");
    let (meta, link) = if refreshing {
        (
            "<meta http-equiv=refresh content=1>",
            "<a href=\"/\">stop refreshing</a>",
        )
    } else {
        ("", "<a href=\"/?refresh\">refresh every second</a>")
    };
    let mut rows = String::new();
    for (name, value) in headers {
        let value = escaped(&String::from_utf8_lossy(value.as_bytes()));
        // Writing to a String cannot fail.
        let _ = write!(
            rows,
            "<tr><th>{}</th><td>{value}</td></tr>",
            escaped(name.as_str())
        );
    }
    let request = escaped(request);
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>{meta}<title>{id} · Portico</title>\
         <meta name=viewport content=\"width=device-width\"><style>\
         body{{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;\
         color:#1f2937;background:#f9fafb}}\
         .who{{background:{colour};color:#fff;border-radius:1rem;padding:1.5rem 2rem}}\
         .who b{{font-size:3rem;display:block;line-height:1.1}}\
         table{{border-collapse:collapse;width:100%;font-size:.875rem}}\
         th,td{{text-align:left;padding:.3rem .5rem;border-bottom:1px solid #e5e7eb;\
         vertical-align:top;word-break:break-all}}th{{white-space:nowrap}}a{{color:{colour}}}\
         </style><div class=who>answered by<b>{id}</b>release {release} · {address} · \
         request {count} of this instance</div>\
         <p>Portico picked this instance among three. Reload, and another may answer; {link}.\
         <h2>What the instance received</h2><p><code>{request}</code><table>{rows}</table></html>\n"
    )
}

/// Text that is safe inside HTML.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_who_answered_and_escapes_what_it_got() {
        let actor = Actor {
            instance: Instance {
                id: "web.3",
                release: "v2",
                address: SocketAddr::from(([127, 0, 0, 1], 9)),
            },
            colour: "#123456",
            answered: AtomicU64::new(0),
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-bad", "<script>".parse().unwrap());
        let page = page(&actor, 7, "GET /<b>", &headers);
        assert!(page.contains("<b>web.3</b>release v2"));
        assert!(page.contains("request 7 of"));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
        assert!(page.contains("GET /&lt;b&gt;"));
    }
}
