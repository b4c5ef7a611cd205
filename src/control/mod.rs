//! The control API: HTTP/JSON on a unix socket, asked by the command line and by `curl --unix-socket`.
//!
//! | path | answer |
//! |---|---|
//! | `GET /v1/peers`, `/v1/peers/{name}` | sessions with state, counters, last error |
//! | `GET /v1/routes?prefix&longer&family&received&advertised` | routes, a JSON object a line |
//! | `GET /v1/explain?prefix` | every candidate and its fate, whom the prefix goes to, the kernel's state |
//! | `GET /v1/explain/peer/{name}` | which resource asked for a peer, or why there is none |
//! | `GET /v1/kernel?prefix&state` | what the kernel should hold and holds |
//! | `GET /v1/mrt` | all peers' Adj-RIB-In as an MRT table dump |
//! | `GET /v1/agents`, `POST /v1/agents/{name}` | the local agents; one agent's conversation, lines of JSON both ways: [`agents`] |
//! | `GET /v1/problems`, `/v1/config` | what is wrong with the resources; the configuration in force |
//! | `GET /v1/events?since&peer&prefix&follow` | what has happened, or happens, a JSON object a line |
//! | `GET /v1/complete/peers?text`, `/v1/complete/prefixes?text` | session names and prefixes that begin so, a few, for the shell's Tab key |
//! | `POST /v1/diff?add` | what the resources in the question would change, if they were all (or were added); changes nothing |
//! | `POST /v1/confirm?undo&next` | a change of the files that is on trial counts for good, or is undone; or the next one is on trial |
//! | `POST /v1/peers/{name}/reset?soft&hard&reason` | reset a session |
//! | `GET /v1/drain`, `POST /v1/drain?shutdown`, `POST /v1/undrain` | whether the node is drained (RFC 8326); drain it, or end that |
//! | `GET /v1/health` | whether the daemon is live and ready, its sessions, problems and datastore in one |
//! | `GET /livez`, `/readyz`, `/metrics` | health, and what is counted; over TCP too with `--metrics` |
//!
//! `--page` serves some of it, and a page made of that, over TCP: [`page`].
//!
//! Handlers read the published [`Directory`] and ask the owners of the state;
//! they own nothing themselves.

pub mod agents;
mod api;
pub(crate) mod ask;
mod asker;
pub mod bird;
mod birdwatcher;
mod capabilities;
mod complete;
mod diff;
mod events;
mod explain_peer;
pub mod health;
pub mod metrics;
mod mrt;
pub mod node_status;
pub mod page;
mod rows;
mod view;

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use prometheus_client::registry::Registry;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::runtime::directory::Directory;

/// Who may use the socket: its owner and group.
const MODE: u32 = 0o660;

/// The control API without a socket, and with everything allowed: for whoever asks from inside.
pub fn router(directory: watch::Receiver<Arc<Directory>>) -> axum::Router {
    api::router(directory)
}

/// Serves the control API on `socket` until the process ends.
///
/// # Errors
/// The folder cannot be made, another daemon answers on the socket, or it cannot be bound.
pub fn serve(socket: &Path, registry: Arc<Registry>, directory: watch::Receiver<Arc<Directory>>) -> Result<JoinHandle<Result<()>>> {
    let other = "stop it, take its place with --replace, or give this one its own --socket";
    let listener = bind(socket, other).with_context(|| format!("cannot open the control socket {}", socket.display()))?;
    let owner = std::fs::metadata(socket).context("the control socket has just been made")?.uid();
    let guard = axum::middleware::from_fn(move |asker, request, next| asker::guard(owner, asker, request, next));
    let app = api::router(directory).merge(metrics::router(registry)).layer(guard).into_make_service_with_connect_info::<asker::Asker>();
    Ok(tokio::spawn(async move { axum::serve(listener, app).await.context("serving the control socket") }))
}

/// Opens a unix socket; `other` says what to do where somebody else answers there.
fn bind(socket: &Path, other: &str) -> Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}: give a place that can be written", folder.display()))?;
    }
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => bail!("another one answers there: {other}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Left behind by a process that is gone.
        Err(_) => std::fs::remove_file(socket).context("a stale socket cannot be removed")?,
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}
