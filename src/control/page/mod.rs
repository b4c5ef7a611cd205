//! `--page ADDR:PORT`: a page for eyes, over TCP.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the page: peers and their last hour, the topology as a picture, a route search with its explanation, events as they happen |
//! | `/v1/peers`, `/v1/health`, `/v1/explain?prefix`, `/v1/complete/prefixes?text` | as on the control socket |
//! | `/page/hour` | the events of the last hour, at most some thousands, as a JSON list |
//! | `/page/news` | events as they happen (server-sent events) |
//! | `/birdwatcher/…` | peers and routes in birdwatcher's JSON, for alice-lg |
//!
//! Nothing can be ordered here: only GET is answered. What anybody who reaches the port can read is what `margay show` tells of peers and
//! routes; resources, the configuration and its secrets are not among it. Rules, in the order in which they are asked:
//!
//! 1. The address is a loopback one, unless `--page-beyond-loopback` says that every host that reaches it may look. There is no user here.
//! 2. At most [`CONNECTIONS`] connections at a time, a request each, each for [`LIFETIME`] at most; the next ones wait in the backlog.
//! 3. `Host` names an address, `localhost` or the node: a page of another site whose name was bound to our address (DNS rebinding) is sent away.
//! 4. The page may load and ask nothing but ourselves: its script and style are named by their hashes, all else is forbidden
//!    (Content-Security-Policy). Text of peers goes in as text, never as HTML.
//! 5. At most [`READERS`] read news at a time; one that reads too slowly is let go, and comes again by itself.

mod news;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use data_encoding::BASE64;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::control::{api, birdwatcher};
use crate::runtime::directory::Directory;

/// Connections at a time.
pub const CONNECTIONS: usize = 32;
/// Readers of news among them.
pub const READERS: usize = 8;
/// A connection ends after this, whatever it does; news come again by themselves.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// Somebody who has connected asks within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// The page.
const PAGE: &str = include_str!("page.html");

/// Serves the page on `address` until the process ends.
///
/// # Errors
/// The address is no loopback one and `beyond_loopback` does not allow it, or it cannot be bound.
pub async fn serve(address: SocketAddr, beyond_loopback: bool, directory: watch::Receiver<Arc<Directory>>) -> Result<()> {
    if !address.ip().is_loopback() && !beyond_loopback {
        bail!(
            "--page {address} is no loopback address: every host that reaches it could read peers and routes; use 127.0.0.1:{0} or [::1]:{0} (and \
             `ssh -L {0}:127.0.0.1:{0}` from elsewhere), or say --page-beyond-loopback if that is meant",
            address.port()
        );
    }
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for the page: give --page an address of this host and a free port"))?;
    tokio::spawn(accept(listener, router(directory)));
    Ok(())
}

fn router(directory: watch::Receiver<Arc<Directory>>) -> Router {
    let node = directory.borrow().node.clone();
    let readers = Arc::new(Semaphore::new(READERS));
    let policy = policy();
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .merge(news::router(readers, directory.clone()))
        .merge(birdwatcher::router(directory.clone()))
        .merge(api::glance(directory))
        .layer(axum::middleware::from_fn(move |request, next| guard(node.clone(), policy.clone(), request, next)))
}

async fn accept(listener: TcpListener, app: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Descriptors are short: whoever holds them will let go of some.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
            // Who breaks off is told nothing more; who stays for too long, neither.
            let _ = tokio::time::timeout(LIFETIME, http.serve_connection(TokioIo::new(stream), service)).await;
            drop(place);
        });
    }
}

/// Lets GET through that is meant for us, and says to the browser what the answer may do.
async fn guard(node: String, policy: HeaderValue, request: Request, next: Next) -> Response {
    let mut response = if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, "only GET: orders are for the control socket (`margay reset`, `margay drain`)\n").into_response()
    } else if !meant_for_us(request.headers(), &node) {
        (StatusCode::MISDIRECTED_REQUEST, "the Host of this request is no address and not this node: ask by its address\n").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether `Host` is an address, `localhost`, or this node's name, with any port: no name that somebody else can bind to us.
fn meant_for_us(headers: &HeaderMap, node: &str) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    if host.parse::<SocketAddr>().is_ok() || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || name.eq_ignore_ascii_case(node)
}

/// The page's own script and style, by their hashes, and questions to ourselves; nothing else.
fn policy() -> HeaderValue {
    let hash = |tag: &str| {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let text = PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map_or("", |(text, _)| text);
        BASE64.encode(&Sha256::digest(text.as_bytes()))
    };
    let text = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    );
    // Letters and signs of base64 alone: it cannot fail, and would forbid everything.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_meant_for_us() {
        let rows = [
            ("127.0.0.1:9181", true),
            ("127.0.0.1", true),
            ("[::1]:9181", true),
            ("[2001:db8::1]", true),
            ("localhost:9181", true),
            ("LOCALHOST", true),
            ("node1:9181", true),
            ("node1.evil.example:9181", false),
            ("evil.example", false),
            ("127.0.0.1.evil.example:9181", false),
            ("", false),
        ];
        for (host, meant) in rows {
            let headers = [(header::HOST, HeaderValue::from_static(host))].into_iter().collect();
            assert_eq!(meant_for_us(&headers, "node1"), meant, "{host}");
        }
        assert!(!meant_for_us(&HeaderMap::new(), "node1"));
    }

    #[test]
    fn the_page_asks_nobody_else_and_builds_no_html() {
        assert!(policy().to_str().unwrap().contains("script-src 'sha256-"));
        assert_eq!(PAGE.matches("<script>").count() + PAGE.matches("<style>").count(), 2);
        for wrong in ["http://", "https://", "innerHTML", "outerHTML", "document.write", "eval(", "style=", "onclick="] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "").contains(wrong);
            assert!(!found, "{wrong}");
        }
        assert!(PAGE.len() < 32 * 1024, "{}", PAGE.len());
    }
}
