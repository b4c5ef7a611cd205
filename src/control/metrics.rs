//! `GET /metrics`: what is counted, as Prometheus reads it; and, where `--metrics` asks for it, a TCP port with that and
//! the health checks alone.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::control::api;
use crate::runtime::directory::Directory;

/// The format that counters, histograms and units come in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older one, for whoever does not ask for OpenMetrics.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The path, for a router.
pub fn router(registry: Arc<Registry>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(registry)
}

/// Serves `/metrics`, `/livez` and `/readyz` on `address` until the process ends.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: SocketAddr, registry: Arc<Registry>, directory: watch::Receiver<Arc<Directory>>) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for metrics: give --metrics an address of this host and a free port"))?;
    let app = router(registry).merge(api::checks(directory));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(())
}

async fn metrics(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> Response {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/openmetrics-text") {
        ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
    } else {
        ([(header::CONTENT_TYPE, PROMETHEUS)], classic(&text)).into_response()
    }
}

/// OpenMetrics in the words of the older format: a counter is declared under the name of its samples, an info is a
/// gauge, and nothing marks the end.
fn classic(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    let kinds: std::collections::BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let declared = line.strip_prefix("# TYPE ").or_else(|| line.strip_prefix("# HELP ")).and_then(|rest| rest.split_once(' '));
        match declared.and_then(|(name, rest)| Some((name, rest, *kinds.get(name)?))) {
            Some((name, rest, "counter")) => classic.push_str(&format!("{}{name}_total {rest}", &line[..7])),
            Some((name, _, "info")) if line.starts_with("# TYPE") => classic.push_str(&format!("# TYPE {name}_info gauge")),
            Some((name, rest, "info")) => classic.push_str(&format!("# HELP {name}_info {rest}")),
            _ => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_declares_what_it_shows() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total 1\n# HELP b Build.\n# TYPE b info\nb_info{version=\"1\"} 1\n# HELP c Now.\n# TYPE c gauge\nc 2\n# EOF\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n# HELP b_info Build.\n# TYPE b_info gauge\nb_info{version=\"1\"} 1\n# HELP c Now.\n# TYPE c gauge\nc 2\n";
        assert_eq!(classic(open), expected);
    }
}
