//! `/birdwatcher/…` on the page's listener: what the looking glass alice-lg asks a birdwatcher, answered in birdwatcher's JSON.
//!
//! | path | answer |
//! |---|---|
//! | `/birdwatcher/status` | version, router ID, times |
//! | `/birdwatcher/protocols/bgp` | the peers by session name: state, address, AS, description, last error, how many routes |
//! | `/birdwatcher/protocols/short` | the peers by session name: state and since when |
//! | `/birdwatcher/routes/protocol/ID` | routes of the peer that were accepted, after policy |
//! | `/birdwatcher/routes/filtered/ID` | routes of the peer that were refused, as received, with `rejected_by` |
//! | `/birdwatcher/routes/noexport/ID` | best routes of others that the peer is not told; none while its session is down |
//! | `/birdwatcher/routes/table/T` | all accepted routes; `T` is `master`, or `master4` and `master6` for one family |
//! | `/birdwatcher/routes/table/T/filtered` | all refused routes, peer by peer |
//!
//! ```text
//! [source.node1.birdwatcher]
//! api = http://127.0.0.1:9181/birdwatcher
//! type = single_table
//! timezone = UTC
//! servertime = 2006-01-02T15:04:05Z07:00
//! servertime_short = 2006-01-02 15:04:05
//! servertime_ext = 2006-01-02 15:04:05
//! ```
//!
//! The rules of [`page`](super::page) hold: GET alone, a `Host` that is an address or the node, connections bounded in number and time. An answer
//! has at most [`ROUTES`] routes; one that stopped there ends in `"truncated":true`, and a line of the log says so. It is written
//! as the shards tell their rows. `noexport` remembers what the peer is told, at most [`TOLD`] prefixes, for one asker at a time.
//!
//! Read by alice-lg 6.2.0 with these settings: status, neighbours with their counts and uptime, received, filtered and not exported routes.
//!
//! What differs from birdwatcher:
//!
//! - Nothing is cached: `result_from_cache` is false, `ttl` and `cached_at` are now, and `uncached` changes nothing.
//! - All times are in UTC, with date and time; `age` is since when the session (or margay) runs, as paths carry no time of their own.
//! - Both families are in one answer; `protocols` has the peers alone, and no `preferred` count; there are no pipes (alice-lg's `multi_table`).
//! - A refused route goes nowhere: its `gateway` is its peer, by which alice-lg tells whose it is.
//! - A path whose next hop is an address of this node is listed with the refused ones, though the counts, which are of what policy let in,
//!   have it with the accepted ones.
//! - An AS_SET's members stand in `as_path` like others. `local_pref` and `med` are 100 and 0 where the route has none.
//! - An unknown peer or table is a 404 with `error`, where birdwatcher answers with an empty list.

mod dump;
mod protocols;
mod route;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::control::bird::VERSION;
use crate::runtime::directory::Directory;
use dump::{Dump, Which};

/// Routes in an answer.
pub const ROUTES: usize = 100_000;
/// Prefixes that a peer is told, of those that `noexport` remembers; with more it is refused.
pub const TOLD: usize = 500_000;
/// Pieces of an answer that wait to be read; with no room for more the shards' walks pause.
const PIECES: usize = 4;

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    directory: watch::Receiver<Arc<Directory>>,
    /// The place of the one who asks for `noexport`.
    comparing: Arc<Semaphore>,
}

/// A refusal, as alice-lg looks for it.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// All paths.
pub fn router(directory: watch::Receiver<Arc<Directory>>) -> Router {
    Router::new()
        .route("/birdwatcher/status", get(status))
        .route("/birdwatcher/protocols/bgp", get(bgp))
        .route("/birdwatcher/protocols/short", get(short))
        .route("/birdwatcher/routes/protocol/{id}", get(accepted))
        .route("/birdwatcher/routes/filtered/{id}", get(refused))
        .route("/birdwatcher/routes/noexport/{id}", get(not_told))
        .route("/birdwatcher/routes/table/{table}", get(table))
        .route("/birdwatcher/routes/table/{table}/filtered", get(table_refused))
        .with_state(Shared { directory, comparing: Arc::new(Semaphore::new(1)) })
}

impl Shared {
    /// Who is there now; refused without a configuration, so that nobody takes it for a node without peers.
    fn now(&self) -> Result<Arc<Directory>, Refusal> {
        let directory = Arc::clone(&self.directory.borrow());
        if directory.config.is_none() {
            let words = format!("no configuration yet: Node `{}` has not been seen; see `margay show problems`", directory.node);
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, words));
        }
        Ok(directory)
    }
}

/// What every answer begins with.
fn envelope(now: Timestamp) -> Value {
    json!({
        "Version": VERSION,
        "result_from_cache": false,
        "cache_status": { "cached_at": { "date": stamp(now), "timezone_type": "UTC", "timezone": "UTC" } },
    })
}

/// RFC 3339, alice-lg's `servertime`.
fn stamp(moment: Timestamp) -> String {
    format!("{moment:.0}")
}

/// Date and time in UTC, alice-lg's `servertime_short` and `servertime_ext`.
fn time(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn whole(name: &str, value: &Value) -> Json<Value> {
    let now = Timestamp::now();
    Json(json!({ "api": envelope(now), "ttl": stamp(now), name: value }))
}

async fn status(State(shared): State<Shared>) -> Result<Json<Value>, Refusal> {
    let directory = shared.now()?;
    let status = json!({
        "version": VERSION,
        "router_id": directory.config.as_ref().map(|config| config.router_id.to_string()),
        "current_server": time(Timestamp::now()),
        "last_reboot": time(directory.started),
        "last_reconfig": time(directory.configured),
        "message": "Daemon is up and running",
    });
    Ok(whole("status", &status))
}

async fn bgp(State(shared): State<Shared>) -> Result<Json<Value>, Refusal> {
    Ok(whole("protocols", &protocols::all(&*shared.now()?, protocols::long).await))
}

async fn short(State(shared): State<Shared>) -> Result<Json<Value>, Refusal> {
    Ok(whole("protocols", &protocols::all(&*shared.now()?, protocols::short).await))
}

async fn accepted(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let directory = shared.now()?;
    let which = Which::Accepted(dump::find(&directory, &id)?);
    Ok(answer(Dump::new(directory, which)))
}

async fn refused(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let directory = shared.now()?;
    let which = Which::Refused(vec![dump::find(&directory, &id)?], None);
    Ok(answer(Dump::new(directory, which)))
}

async fn not_told(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let directory = shared.now()?;
    let peer = dump::find(&directory, &id)?;
    let busy = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "another asks for `noexport` just now: ask again".into());
    let place = Arc::clone(&shared.comparing).try_acquire_owned().map_err(busy)?;
    let which = dump::not_told(&directory, &id, peer, place).await?;
    Ok(answer(Dump::new(directory, which)))
}

async fn table(State(shared): State<Shared>, Path(table): Path<String>) -> Result<Response, Refusal> {
    let which = Which::Table(dump::family(&table)?);
    Ok(answer(Dump::new(shared.now()?, which)))
}

async fn table_refused(State(shared): State<Shared>, Path(table): Path<String>) -> Result<Response, Refusal> {
    let family = dump::family(&table)?;
    let directory = shared.now()?;
    let which = Which::Refused(dump::with_refused(&directory).await, family);
    Ok(answer(Dump::new(directory, which)))
}

/// The answer, written while it is read.
fn answer(dump: Dump) -> Response {
    let (out, pieces) = mpsc::channel::<Bytes>(PIECES);
    tokio::spawn(async move {
        // An error: whoever asked is gone.
        let _ = dump.write(&out).await;
    });
    let body =
        stream::unfold(
            pieces,
            |mut pieces| async move { pieces.recv().await.map(|piece| (Ok::<_, std::convert::Infallible>(piece), pieces)) },
        );
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_what_alice_lg_asserts() {
        let Json(answer) = whole("status", &json!({}));
        assert!(answer["api"]["Version"].is_string());
        assert_eq!(answer["api"]["result_from_cache"], false);
        for date in [&answer["api"]["cache_status"]["cached_at"]["date"], &answer["ttl"]] {
            let date = date.as_str().unwrap();
            assert!(date.len() == "2026-08-22T10:00:05Z".len() && date.parse::<Timestamp>().is_ok(), "{date}");
        }
        assert_eq!(time("2026-08-22T10:00:05.7Z".parse().unwrap()), "2026-08-22 10:00:05");
    }
}
