//! Answers of many rows, told as they come: neither the daemon nor whoever asks need hold a table as a whole.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::control::api::{Refusal, bad, family, find};
use crate::control::ask;
use crate::control::view::RouteView;
use crate::fib::{self, FibState, FibStatus};
use crate::rib::{self, Answer};
use crate::runtime::directory::Directory;
use crate::types::{PeerId, canonical};

#[derive(Debug, Deserialize)]
pub struct RoutesQuery {
    prefix: Option<IpNet>,
    #[serde(default)]
    longer: bool,
    family: Option<String>,
    received: Option<String>,
    advertised: Option<String>,
}

/// Routes, a JSON object a line, made as the shards tell them; with each part the FibSyncer is asked about its prefixes.
pub async fn routes(
    State(directory): State<watch::Receiver<Arc<Directory>>>,
    Query(query): Query<RoutesQuery>,
) -> Result<Response, Refusal> {
    let directory = Arc::clone(&directory.borrow());
    let peer = |name: Option<&str>| name.map(|name| find(&directory, name).map(|(_, entry)| entry.id)).transpose();
    let question = rib::Query::Routes {
        prefix: query.prefix.map(canonical),
        longer: query.longer,
        family: query.family.as_deref().map(family).transpose()?,
        received: peer(query.received.as_deref())?,
        advertised: peer(query.advertised.as_deref())?,
    };
    let answers = ask::routes(&directory, question).await;
    let names: Arc<BTreeMap<PeerId, String>> = Arc::new(directory.peers.iter().map(|(name, entry)| (entry.id, name.clone())).collect());
    let parts = stream::iter(answers).flat_map(parts);
    let chunks = parts.then(move |part| {
        let (directory, names) = (Arc::clone(&directory), Arc::clone(&names));
        async move {
            let Answer::Routes(rows) = part else { return Vec::new() };
            let kernel = ask::kernel(&directory, rows.iter().map(|row| row.prefix).collect()).await;
            let mut text = Vec::new();
            for row in rows {
                append(&mut text, &RouteView::new(&row, &names, kernel.get(&row.prefix)), b"\n");
            }
            text
        }
    });
    Ok(body("application/x-ndjson", chunks))
}

/// The parts of an answer as they come.
pub fn parts<T: Send>(answer: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    stream::unfold(answer, |mut answer| async move { answer.recv().await.map(|part| (part, answer)) })
}

#[derive(Debug, Deserialize)]
pub struct KernelQuery {
    prefix: Option<IpNet>,
    state: Option<String>,
}

/// What the kernel should hold and holds: one JSON array, told as the FibSyncer tells it.
pub async fn kernel(
    State(directory): State<watch::Receiver<Arc<Directory>>>,
    Query(query): Query<KernelQuery>,
) -> Result<Response, Refusal> {
    let directory = Arc::clone(&directory.borrow());
    let question = match (query.prefix, query.state.as_deref().map(state).transpose()?) {
        (Some(prefix), _) => fib::Query::Prefixes(vec![canonical(prefix)]),
        (None, Some(state)) => fib::Query::InState(state),
        (None, None) => fib::Query::All,
    };
    let rows = stream::iter(ask::kernel_rows(&directory, question).await).flat_map(parts);
    let begin = stream::once(async { b"[".to_vec() });
    let rows = rows.scan(true, |first, rows: Vec<FibStatus>| {
        let mut text = Vec::new();
        for row in rows {
            if !std::mem::take(first) {
                text.push(b',');
            }
            append(&mut text, &row, b"\n");
        }
        std::future::ready(Some(text))
    });
    Ok(body("application/json", begin.chain(rows).chain(stream::once(async { b"]\n".to_vec() }))))
}

fn state(text: &str) -> Result<FibState, Refusal> {
    let all = [FibState::Installed, FibState::Pending, FibState::Failed, FibState::NotWanted, FibState::Adopted];
    let known = all.into_iter().find(|state| serde_json::to_value(state).is_ok_and(|name| name == text));
    known.ok_or_else(|| bad(format!("state `{text}`: it is installed, pending, failed, not wanted or adopted")))
}

fn append(text: &mut Vec<u8>, row: &impl Serialize, end: &[u8]) {
    // Plain data with text keys always serialises.
    if serde_json::to_writer(&mut *text, row).is_ok() {
        text.extend_from_slice(end);
    }
}

fn body(kind: &'static str, chunks: impl Stream<Item = Vec<u8>> + Send + 'static) -> Response {
    let chunks = chunks.map(|text| Ok::<_, Infallible>(Bytes::from(text)));
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(chunks)).into_response()
}
