//! The handlers: one a path.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::bfd::SessionStatus;
use crate::control::view::{ExplainView, PeerView};
use crate::control::{agents, ask, complete, diff, events, explain_peer, health, mrt, rows};
use crate::datastore::{Judgement, Standing, Status, Verdict};
use crate::runtime::directory::{Directory, PeerEntry};
use crate::runtime::message::{Order, PeerMessage};
use crate::session::{Input, State as SessionState, StopReason};
use crate::types::{Family, PeerId};

type Shared = State<watch::Receiver<Arc<Directory>>>;

/// All paths.
pub fn router(directory: watch::Receiver<Arc<Directory>>) -> Router {
    checks(directory.clone()).merge(questions(directory))
}

/// The health checks alone.
pub fn checks(directory: watch::Receiver<Arc<Directory>>) -> Router {
    Router::new().route("/livez", get(health::livez)).route("/readyz", get(health::readyz)).with_state(directory)
}

/// What the page asks: nothing that changes anything, and nothing of the configuration.
pub fn glance(directory: watch::Receiver<Arc<Directory>>) -> Router {
    Router::new()
        .route("/v1/peers", get(peers))
        .route("/v1/explain", get(explain))
        .route("/v1/health", get(health::health))
        .route("/v1/complete/prefixes", get(complete::prefixes))
        .with_state(directory)
}

fn questions(directory: watch::Receiver<Arc<Directory>>) -> Router {
    Router::new()
        .route("/v1/peers", get(peers))
        .route("/v1/peers/{name}", get(peer))
        .route("/v1/peers/{name}/reset", post(reset))
        .route("/v1/confirm", post(confirm))
        .route("/v1/drain", get(drained).post(drain))
        .route("/v1/undrain", post(undrain))
        .route("/v1/routes", get(rows::routes))
        .route("/v1/explain", get(explain))
        .route("/v1/explain/peer/{name}", get(explain_the_peer))
        .route("/v1/agents", get(agents::agents))
        .route("/v1/agents/{name}", post(agents::converse))
        .route("/v1/kernel", get(rows::kernel))
        .route("/v1/mrt", get(mrt::mrt))
        .route("/v1/problems", get(problems))
        .route("/v1/config", get(config))
        .route("/v1/diff", post(diff::diff).layer(DefaultBodyLimit::max(diff::LIMIT)))
        .route("/v1/datastore", get(datastore))
        .route("/v1/events", get(events::events))
        .route("/v1/health", get(health::health))
        .route("/v1/complete/peers", get(complete::peers))
        .route("/v1/complete/prefixes", get(complete::prefixes))
        .with_state(directory)
}

fn now(State(directory): &Shared) -> Arc<Directory> {
    Arc::clone(&directory.borrow())
}

/// A refusal in words, with the status that says of which sort.
pub struct Refusal(pub StatusCode, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

/// 404.
pub fn missing(what: String) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, what)
}

/// 400.
pub fn bad(what: String) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, what)
}

async fn peers(directory: Shared) -> Json<Vec<PeerView>> {
    let directory = now(&directory);
    let bfd = ask::bfd(&directory).await;
    Json(futures::future::join_all(directory.peers.values().map(|entry| view_of(&directory, entry, &bfd))).await)
}

async fn view_of(directory: &Directory, entry: &PeerEntry, bfd: &BTreeMap<PeerId, SessionStatus>) -> PeerView {
    PeerView::new(&entry.config, ask::status(entry).await.as_ref(), directory.drained, bfd.get(&entry.id).cloned()).leaving(entry.leaving)
}

/// A peer by session name or address.
pub fn find<'a>(directory: &'a Directory, name: &str) -> Result<(&'a String, &'a PeerEntry), Refusal> {
    directory.find(name).ok_or_else(|| {
        missing(format!("no peer `{name}`: `margay show peers` lists them, `margay explain peer {name}` says why there may be none"))
    })
}

async fn peer(directory: Shared, Path(name): Path<String>) -> Result<Json<PeerView>, Refusal> {
    let directory = now(&directory);
    let (_, entry) = find(&directory, &name)?;
    Ok(Json(view_of(&directory, entry, &ask::bfd(&directory).await).await))
}

#[derive(Deserialize)]
struct ResetQuery {
    soft: Option<String>,
    #[serde(default)]
    hard: bool,
    #[serde(default)]
    reason: String,
}

async fn reset(directory: Shared, Path(name): Path<String>, Query(query): Query<ResetQuery>) -> Result<Json<Value>, Refusal> {
    let directory = now(&directory);
    let (name, entry) = find(&directory, &name)?;
    match query.soft.as_deref() {
        None if query.hard => tell(entry, Input::Stop(StopReason::HardReset(query.reason.clone()))).await,
        None => tell(entry, Input::Stop(StopReason::AdministrativeReset(query.reason.clone()))).await,
        Some("in") => {
            if !offers_refresh(entry).await {
                return Err(bad(format!(
                    "{name} cannot be asked for its routes again: it is not Established, or does not offer route refresh; without --soft the session is reset"
                )));
            }
            for family in entry.config.offered() {
                tell(entry, Input::RequestRefresh(family)).await;
            }
        }
        Some("out") => {
            for family in entry.config.offered() {
                tell(entry, Input::Resend(family)).await;
            }
        }
        Some(other) => return Err(bad(format!("soft={other}: it is `in` or `out`"))),
    }
    Ok(Json(json!({ "peer": name, "reset": query.soft.unwrap_or_else(|| "hard".into()) })))
}

#[derive(Deserialize)]
struct DrainQuery {
    /// With it the sessions are shut down, with this text (RFC 9003).
    shutdown: Option<String>,
}

async fn drained(directory: Shared) -> Json<Value> {
    let directory = now(&directory);
    Json(json!({ "drained": directory.drained, "shutdown": directory.shut }))
}

async fn drain(directory: Shared, Query(query): Query<DrainQuery>) -> Result<Json<Value>, Refusal> {
    order(&directory, |done| Order::Drain(true, done)).await?;
    if let Some(text) = query.shutdown {
        order(&directory, |done| Order::Shutdown(text, done)).await?;
    }
    Ok(drained(directory).await)
}

async fn undrain(directory: Shared) -> Result<Json<Value>, Refusal> {
    order(&directory, |done| Order::Drain(false, done)).await?;
    Ok(drained(directory).await)
}

#[derive(Deserialize)]
struct ConfirmQuery {
    #[serde(default)]
    undo: bool,
    /// Seconds that the next change is on trial for.
    next: Option<u64>,
}

async fn confirm(directory: Shared, Query(query): Query<ConfirmQuery>) -> Result<Json<Standing>, Refusal> {
    let verdict = match (query.undo, query.next) {
        (true, None) => Verdict::Undo,
        (false, Some(seconds @ 1..)) => Verdict::Next(Duration::from_secs(seconds)),
        (false, None) => Verdict::Confirm,
        _ => return Err(bad("either undo=true, or next=SECONDS, at least 1".into())),
    };
    let gone = || Refusal(StatusCode::SERVICE_UNAVAILABLE, "the datastore has no task: the daemon is starting or ending".into());
    let verdicts = now(&directory).verdicts.clone().ok_or_else(gone)?;
    let (reply, standing) = oneshot::channel();
    verdicts.send(Judgement { verdict, reply }).await.map_err(|_| gone())?;
    Ok(Json(standing.await.map_err(|_| gone())?.map_err(missing)?))
}

/// Gives the supervisor an order and waits until it is carried out.
async fn order(directory: &Shared, make: impl FnOnce(oneshot::Sender<()>) -> Order) -> Result<(), Refusal> {
    let directory = now(directory);
    let orders = directory.orders.as_ref().ok_or_else(|| {
        Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "there are no sessions yet: the node has no configuration (see `margay show problems`)".into(),
        )
    })?;
    let (done, carried_out) = oneshot::channel();
    let gone = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending".into());
    orders.send(make(done)).await.map_err(|_| gone(()))?;
    carried_out.await.map_err(|_| gone(()))
}

async fn tell(entry: &PeerEntry, input: Input) {
    // A closed inbox: the peer has just been removed, and its session with it.
    let _ = entry.inbox.send(PeerMessage::Input(Box::new(input))).await;
}

async fn offers_refresh(entry: &PeerEntry) -> bool {
    let status = ask::status(entry).await;
    status.is_some_and(|status| {
        status.state == SessionState::Established && status.capabilities.is_some_and(|both| both.remote.route_refresh)
    })
}

/// A family by the names that people use.
pub fn family(text: &str) -> Result<Family, Refusal> {
    match text {
        "ipv4" | "4" | "ipv4-unicast" => Ok(Family::IPV4_UNICAST),
        "ipv6" | "6" | "ipv6-unicast" => Ok(Family::IPV6_UNICAST),
        other => Err(bad(format!("family `{other}`: it is ipv4 or ipv6"))),
    }
}

#[derive(Deserialize)]
struct PrefixQuery {
    prefix: Option<IpNet>,
}

async fn explain(directory: Shared, Query(query): Query<PrefixQuery>) -> Result<Json<ExplainView>, Refusal> {
    let directory = now(&directory);
    let prefix = query.prefix.map(crate::types::canonical).ok_or_else(|| bad("explain needs a prefix".into()))?;
    let explained = ask::explain(&directory, prefix).await;
    let route = explained.route.unwrap_or(prefix);
    let kernel = ask::kernel(&directory, vec![route]).await.remove(&route);
    let services = ask::services(&directory, prefix).await;
    // What waits is not in the table: it is asked for by the prefix itself.
    let agents = match agents::notes(&directory, prefix).await {
        none if none.is_empty() && route != prefix => agents::notes(&directory, route).await,
        notes => notes,
    };
    Ok(Json(ExplainView::new(prefix, explained, kernel, services, &directory).with_agents(agents)))
}

async fn explain_the_peer(directory: Shared, Path(name): Path<String>) -> Json<Value> {
    let directory = now(&directory);
    Json(explain_peer::explain(&directory, &name).await)
}

async fn problems(directory: Shared) -> Json<Value> {
    Json(json!(now(&directory).problems))
}

async fn config(directory: Shared) -> Result<Json<Value>, Refusal> {
    let directory = now(&directory);
    let config = directory
        .config
        .as_ref()
        .ok_or_else(|| missing(format!("no configuration yet: Node `{}` has not been seen; see `margay show problems`", directory.node)))?;
    Ok(Json(json!(config)))
}

async fn datastore(directory: Shared) -> Json<Option<Status>> {
    Json(now(&directory).datastore.as_ref().map(|status| status.borrow().clone()))
}
