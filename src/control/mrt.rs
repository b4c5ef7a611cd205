//! `GET /v1/mrt`: all peers' Adj-RIB-In as an MRT dump, made as the shards tell it, in bounded steps and with bounded memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use crate::control::api::{Refusal, missing};
use crate::control::ask;
use crate::control::rows::parts;
use crate::rib::{self, Answer};
use crate::runtime::directory::{Directory, PeerEntry};
use crate::session::State as SessionState;
use crate::telemetry::mrt::{DumpedPeer, TableDump};
use crate::types::RouterId;

/// See the module.
pub async fn mrt(State(directory): State<watch::Receiver<Arc<Directory>>>) -> Result<Response, Refusal> {
    let directory = Arc::clone(&directory.borrow());
    let collector = directory.config.as_ref().map(|config| config.router_id);
    let collector = collector.ok_or_else(|| missing("no configuration yet, and so no routes: see `margay show problems`".into()))?;
    let peers = futures::future::join_all(directory.peers.values().map(peer)).await;
    let mut head = Vec::new();
    let mut dump = TableDump::begin(seconds(Instant::now()), collector, &peers, &mut head);
    let answers = ask::routes(&directory, rib::Query::AdjRibIn).await;
    let records = stream::iter(answers).flat_map(parts).map(move |part| {
        let mut records = Vec::new();
        if let Answer::AdjRibIn(paths) = part {
            dump.append(&paths, &mut records);
        }
        records
    });
    let octets = stream::once(async { head }).chain(records).map(|octets| Ok::<_, Infallible>(Bytes::from(octets)));
    Ok(([(header::CONTENT_TYPE, "application/mrt")], Body::from_stream(octets)).into_response())
}

async fn peer(entry: &PeerEntry) -> DumpedPeer {
    let status = ask::status(entry).await;
    let up = status.as_ref().filter(|status| status.state == SessionState::Established);
    DumpedPeer {
        peer: entry.id,
        identifier: status.as_ref().and_then(|status| status.identifier).unwrap_or(RouterId([0; 4].into())),
        address: entry.config.address,
        asn: entry.config.remote_asn,
        since: up.map_or(0, |status| seconds(status.since)),
    }
}

/// A moment in seconds since 1970.
fn seconds(moment: Instant) -> u32 {
    let at = SystemTime::now().checked_sub(moment.elapsed()).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    at.and_then(|since| u32::try_from(since.as_secs()).ok()).unwrap_or(0)
}
