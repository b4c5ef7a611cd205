//! Requests to the control API of a daemon that has no configuration yet: any is answered, and none hangs.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, Uri};
use http_body_util::BodyExt;
use margay::control;
use margay::runtime::directory::Directory;
use tokio::sync::watch;
use tower::ServiceExt;

/// The first line is the method and the path, what follows the body.
pub fn body(data: &[u8]) {
    let (line, rest) = data.split_at(data.iter().position(|octet| *octet == b'\n').unwrap_or(data.len()));
    let line = String::from_utf8_lossy(line);
    let Some((method, path)) = line.split_once(' ') else { return };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), path.parse::<Uri>()) else { return };
    if uri.path() == "/v1/events" {
        // It may ask to go on until the other end closes.
        return;
    }
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/json").body(Body::from(rest.to_vec()));
    let Ok(request) = request else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let (_directory, watched) = watch::channel(Arc::new(Directory { node: "node1".to_owned(), ..Directory::default() }));
        let Ok(response) = control::router(watched).oneshot(request).await;
        let status = response.status();
        let octets = response.into_body().collect().await.map(|body| body.to_bytes());
        assert!(status.as_u16() < 500 || status.as_u16() == 503, "{line}: {status} {octets:?}");
        assert!(octets.is_ok(), "{line}: the answer breaks off");
    });
}

/// Each path.
pub fn seeds() -> Vec<Vec<u8>> {
    let requests = [
        "GET /v1/peers",
        "GET /v1/peers/Mesh_10_0_0_1",
        "GET /v1/routes?prefix=10.0.0.0/8&longer=true&family=ipv4&received=x",
        "GET /v1/explain?prefix=10.0.0.0/8",
        "GET /v1/explain/peer/10.0.0.1",
        "GET /v1/kernel?state=failed",
        "GET /v1/agents",
        "GET /v1/problems",
        "GET /v1/config",
        "GET /v1/datastore",
        "GET /v1/complete/prefixes?text=10.",
        "GET /v1/complete/peers?text=M",
        "GET /v1/health",
        "GET /readyz",
        "GET /livez",
        "POST /v1/agents/cni\n{\"word\":\"begin\"}\n{\"word\":\"upsert\",\"prefix\":\"10.1.0.1/32\",\"dev\":\"cali1\"}\n{\"word\":\"end\"}",
        "POST /v1/drain?shutdown=bye",
        "POST /v1/confirm?next=60",
        "POST /v1/peers/x/reset?soft=in&reason=y",
        "POST /v1/diff?add=true\n[{\"file\": \"a.yaml\", \"text\": \"kind: Node\\n\"}]",
    ];
    requests.map(|request| request.as_bytes().to_vec()).into()
}
