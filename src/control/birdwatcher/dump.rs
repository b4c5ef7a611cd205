//! Lists of routes, written as the shards tell their rows.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, error::SendError};

use super::route::Route;
use super::{ROUTES, Refusal, TOLD, envelope, stamp, time};
use crate::control::ask;
use crate::control::bird::{Clock, local_protocol, sessions};
use crate::rib::{self, Answer, RouteRow};
use crate::runtime::directory::Directory;
use crate::session::State;
use crate::types::{Family, PeerId};

/// Which routes.
#[derive(Debug)]
pub enum Which {
    /// Accepted ones of a peer.
    Accepted(PeerId),
    /// Refused ones of these peers, of one family if given.
    Refused(Vec<PeerId>, Option<Family>),
    /// Best ones of others that a peer is not told.
    NotTold {
        /// The peer.
        peer: PeerId,
        /// What it is told; none where its session is down.
        told: Option<HashSet<IpNet>>,
        /// Kept as long as `told` is.
        _place: OwnedSemaphorePermit,
    },
    /// Accepted ones of all, of one family if given.
    Table(Option<Family>),
}

/// The peer of that session name.
pub fn find(directory: &Directory, name: &str) -> Result<PeerId, Refusal> {
    let entry = directory.peers.get(name).filter(|entry| !entry.leaving);
    entry
        .map(|entry| entry.id)
        .ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("no peer `{name}`: /birdwatcher/protocols/bgp lists them")))
}

/// The families of a table's name; none for both.
pub fn family(table: &str) -> Result<Option<Family>, Refusal> {
    match table {
        "master" => Ok(None),
        "master4" => Ok(Some(Family::IPV4_UNICAST)),
        "master6" => Ok(Some(Family::IPV6_UNICAST)),
        other => {
            Err(Refusal(StatusCode::NOT_FOUND, format!("no table `{other}`: there are `master`, and its halves `master4` and `master6`")))
        }
    }
}

/// Peers of which something is refused.
pub async fn with_refused(directory: &Directory) -> Vec<PeerId> {
    let mut peers = Vec::new();
    for entry in directory.peers.values().filter(|entry| !entry.leaving) {
        let Some(status) = ask::status(entry).await else { continue };
        peers.extend(status.families.iter().any(|(_, counts)| counts.received > counts.accepted).then_some(entry.id));
    }
    peers
}

/// What is needed to say which routes a peer is not told.
pub async fn not_told(directory: &Directory, name: &str, peer: PeerId, place: OwnedSemaphorePermit) -> Result<Which, Refusal> {
    let status = match directory.peers.get(name) {
        Some(entry) => ask::status(entry).await,
        None => None,
    };
    if status.is_none_or(|status| status.state != State::Established) {
        return Ok(Which::NotTold { peer, told: None, _place: place });
    }
    let mut told = HashSet::new();
    for mut rows in ask::routes(directory, question(None, None, Some(peer))).await {
        while let Some(part) = rows.recv().await {
            let Answer::Routes(rows) = part else { continue };
            told.extend(rows.iter().map(|row| row.prefix));
            if told.len() > TOLD {
                let words = format!(
                    "{name} is told more than {TOLD} prefixes, too many to compare: `margay explain PREFIX` says why one is not told"
                );
                return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, words));
            }
        }
    }
    Ok(Which::NotTold { peer, told: Some(told), _place: place })
}

fn question(family: Option<Family>, received: Option<PeerId>, advertised: Option<PeerId>) -> rib::Query {
    rib::Query::Routes { prefix: None, longer: false, family, received, advertised }
}

impl Which {
    fn questions(&self) -> Vec<rib::Query> {
        match self {
            Self::Refused(peers, family) => peers.iter().map(|peer| question(*family, Some(*peer), None)).collect(),
            Self::NotTold { told: None, .. } => Vec::new(),
            Self::NotTold { .. } | Self::Accepted(_) => vec![question(None, None, None)],
            Self::Table(family) => vec![question(*family, None, None)],
        }
    }

    fn wants(&self, row: &RouteRow) -> bool {
        match self {
            Self::Accepted(peer) => row.peer == Some(*peer) && row.rejected_by.is_none(),
            Self::Refused(..) => row.rejected_by.is_some(),
            Self::NotTold { peer, told, .. } => {
                row.best && row.peer != Some(*peer) && told.as_ref().is_some_and(|told| !told.contains(&row.prefix))
            }
            Self::Table(_) => row.rejected_by.is_none(),
        }
    }
}

/// An answer with routes.
#[derive(Debug)]
pub struct Dump {
    directory: Arc<Directory>,
    which: Which,
}

/// What is written so far.
struct Pen {
    text: Vec<u8>,
    routes: usize,
}

impl Pen {
    /// Writes a route; whether there was room for it.
    fn route(&mut self, route: &Route<'_>) -> bool {
        if self.routes == ROUTES {
            return false;
        }
        if self.routes > 0 {
            self.text.push(b',');
        }
        self.routes += 1;
        // Plain data with text keys always serialises.
        let _ = serde_json::to_writer(&mut self.text, route);
        true
    }

    async fn hand_out(&mut self, out: &mpsc::Sender<Bytes>) -> Result<(), SendError<Bytes>> {
        if self.text.is_empty() {
            return Ok(());
        }
        out.send(std::mem::take(&mut self.text).into()).await
    }
}

impl Dump {
    /// See the struct.
    pub fn new(directory: Arc<Directory>, which: Which) -> Self {
        Self { directory, which }
    }

    /// Hands the answer to `out`; an error: whoever asked is gone.
    pub async fn write(self, out: &mpsc::Sender<Bytes>) -> Result<(), SendError<Bytes>> {
        let now = Timestamp::now();
        let head = format!("{{\"api\":{},\"ttl\":{},\"routes\":[", envelope(now), json!(stamp(now)));
        let mut pen = Pen { text: head.into_bytes(), routes: 0 };
        let truncated = self.routes(&mut pen, out).await?;
        if truncated {
            let routes = pen.routes;
            tracing::warn!(
                routes,
                "an answer under /birdwatcher was cut off: it has no room for more routes; `margay show routes` shows all"
            );
        }
        pen.text.extend(format!("],\"truncated\":{truncated}}}\n").into_bytes());
        pen.hand_out(out).await
    }

    /// Whether there was no room for all.
    async fn routes(&self, pen: &mut Pen, out: &mpsc::Sender<Bytes>) -> Result<bool, SendError<Bytes>> {
        let peers = self.peers().await;
        let started = time(self.directory.started);
        for query in self.which.questions() {
            for mut answer in ask::routes(&self.directory, query).await {
                while let Some(part) = answer.recv().await {
                    let Answer::Routes(rows) = part else { continue };
                    for row in rows.iter().filter(|row| self.which.wants(row)) {
                        let peer = row.peer.and_then(|id| peers.get(&id));
                        let (from, age) = peer.map_or((local_protocol(row.source), &started), |(name, _, age)| (name, age));
                        if !pen.route(&Route::new(row, from, peer.map(|(_, address, _)| *address), age)) {
                            return Ok(true);
                        }
                    }
                    pen.hand_out(out).await?;
                }
            }
        }
        Ok(false)
    }

    /// Name, address and since when, by peer.
    async fn peers(&self) -> BTreeMap<PeerId, (String, IpAddr, String)> {
        let sessions = sessions(&self.directory, &Clock::now()).await;
        sessions.into_iter().map(|(id, (name, address, since))| (id, (name, address, time(since)))).collect()
    }
}
