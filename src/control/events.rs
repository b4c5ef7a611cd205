//! `GET /v1/events`: what has happened, and what happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::{self, Stream};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::control::view::wall_clock_ms;
use crate::runtime::directory::Directory;
use crate::runtime::history::Chronicle;
use crate::runtime::message::{FibMessage, Watch};
use crate::telemetry::{Entry, Filter};

/// Events that may wait for a follower; one that falls further behind is let go.
const FOLLOWED: usize = 1024;

/// Which events.
#[derive(Debug, Deserialize)]
pub struct EventsQuery {
    /// Only of the last so many seconds.
    since: Option<u64>,
    /// Only of this session.
    peer: Option<String>,
    /// Only of this prefix and those inside it; with `follow` also each change of their best paths.
    prefix: Option<IpNet>,
    /// As they happen, from now on, instead of those remembered.
    #[serde(default)]
    follow: bool,
}

/// An event in JSON: its number, when (RFC 3339), in words, and its fields.
#[derive(Debug, Serialize)]
struct EventView<'a> {
    at: String,
    last: String,
    summary: String,
    #[serde(flatten)]
    entry: &'a Entry,
}

/// A JSON object a line.
pub async fn events(State(directory): State<watch::Receiver<Arc<Directory>>>, Query(query): Query<EventsQuery>) -> Response {
    let directory = Arc::clone(&directory.borrow());
    let body = match &directory.chronicle {
        // Before the machines run nothing has happened to them.
        None => Body::empty(),
        Some(chronicle) if query.follow => Body::from_stream(followed(&directory, chronicle, query).await.map(Ok::<_, Infallible>)),
        Some(chronicle) => Body::from(chronicle.ask(filter(query)).await.iter().flat_map(|entry| line(entry)).collect::<Vec<u8>>()),
    };
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// The events of the last so many seconds, a line of JSON each.
pub async fn recent(directory: &Directory, seconds: u64) -> Vec<Vec<u8>> {
    let Some(chronicle) = &directory.chronicle else { return Vec::new() };
    let query = EventsQuery { since: Some(seconds), peer: None, prefix: None, follow: false };
    chronicle.ask(filter(query)).await.iter().map(|entry| line(entry)).collect()
}

/// What happens from now on, a line of JSON each.
pub async fn news(directory: &Directory) -> futures::stream::BoxStream<'static, Bytes> {
    let Some(chronicle) = &directory.chronicle else { return stream::empty().boxed() };
    let query = EventsQuery { since: None, peer: None, prefix: None, follow: true };
    followed(directory, chronicle, query).await.boxed()
}

fn filter(query: EventsQuery) -> Filter {
    let since = query.since.and_then(|seconds| Instant::now().checked_sub(Duration::from_secs(seconds)));
    Filter { since, peer: query.peer, prefix: query.prefix.map(crate::types::canonical), after: None }
}

/// A session's or prefix's events as they come; the shards' changes of a prefix are told as long as the stream lives.
async fn followed(directory: &Directory, chronicle: &Chronicle, query: EventsQuery) -> impl Stream<Item = Bytes> + use<> {
    let (lease, leased) = mpsc::channel(1);
    if let (Some(prefix), Some(fib)) = (query.prefix, &directory.fib) {
        // A closed inbox means that the process ends.
        let _ = fib.send(FibMessage::Watch(Watch { prefix: crate::types::canonical(prefix), lease })).await;
    }
    let (entries, follower) = mpsc::channel(FOLLOWED);
    chronicle.follow(filter(query), entries).await;
    stream::unfold((follower, leased), |(mut follower, leased)| async move {
        let entry: Arc<Entry> = follower.recv().await?;
        Some((Bytes::from(line(&entry)), (follower, leased)))
    })
}

fn line(entry: &Entry) -> Vec<u8> {
    let view = EventView { at: wall_clock_ms(entry.at), last: wall_clock_ms(entry.last), summary: entry.event.to_string(), entry };
    // Plain data with text keys always serialises.
    let mut text = serde_json::to_vec(&view).unwrap_or_default();
    text.push(b'\n');
    text
}
