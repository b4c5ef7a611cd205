//! BMP: what is told to collectors (RFC 7854), Adj-RIB-Out (RFC 8671) and Loc-RIB (RFC 9069) included.
//!
//! ```text
//!   shard ─words (pulled)─▶ teller ─messages─▶ session ─▶ collector's socket
//!   peers' tasks, shards ─numbers─▶ statistics ─┘   ▲
//!   directory ─our AS, shards───────────────────────┘     task: connects, waits, connects again
//! ```
//!
//! margay connects; a collector that is away is tried again after 1 s, then twice as long each time, up to 30 s. On a new connection
//! everything is told anew: Initiation, Peer Up of the Loc-RIB and of each Established session, the tables in steps, End-of-RIB of each view and
//! family, and then what changes.
//!
//! - **Views**: Adj-RIB-In before and after import policy, and Loc-RIB, unless told otherwise; Adj-RIB-Out (after export policy) where asked for, since
//!   it is as large as all sessions together.
//! - **A slow collector** holds up nobody: shards keep for it which paths have changed, not how ([`rib::Watch`]), and its task asks for more when
//!   the socket has taken what there was. At [`WAITING`] changed paths it is given up, with a Termination that says so, and begins anew.
//! - **Peer Down** has reason 1 or 3 with the NOTIFICATION where there was one, whatever its cause (6/3 where a peer is no longer configured), else
//!   2 (we closed), 4 (the peer closed, or TCP failed) or 5 (no longer configured, and closed without a word).
//! - **Statistics** are those of [`Statistic`](crate::telemetry::bmp::Statistic); rejected paths as they stand, the needless words of peers since the
//!   collector is there.
//! - **Timestamps** say when a message was made. The Loc-RIB's UPDATEs have no path identifiers: it is the best path of each prefix.

mod session;
mod statistics;
mod task;
mod teller;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::rib::{self, MONITORS, MonitorId};
use crate::runtime::directory::Directory;
use crate::runtime::metrics::Metrics;
use crate::telemetry::bmp::View;

/// Changed paths that may wait for a collector: some 50 MiB (IPv4) to 80 MiB.
pub const WAITING: usize = 2_000_000;
/// Collectors at most.
pub const COLLECTORS: usize = MONITORS as usize;

/// What `margay run` was told of BMP.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whom we tell.
    pub collectors: Vec<SocketAddr>,
    /// Which tables.
    pub views: Vec<View>,
    /// The pause between Statistics Reports.
    pub statistics: Duration,
}

impl Settings {
    fn watch(&self) -> rib::Watch {
        let wants = |view| self.views.contains(&view);
        rib::Watch {
            pre: wants(View::PrePolicy),
            post: wants(View::PostPolicy),
            out: wants(View::AdjRibOut),
            loc: wants(View::LocRib),
            limit: WAITING,
        }
    }
}

/// How a collector is, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CollectorStatus {
    /// Its address and port.
    pub collector: SocketAddr,
    /// It is being told.
    pub connected: bool,
    /// Since when (RFC 3339).
    pub since: String,
    /// Why it is not.
    pub why: Option<String>,
}

/// The collectors' tasks.
#[derive(Debug)]
pub struct Collectors {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Collectors {
    /// Starts a task for each collector; they wait for the first configuration, and are in the directory from now on.
    pub fn start(settings: &Settings, directory: &watch::Sender<Arc<Directory>>, metrics: &Metrics) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut statuses = Vec::new();
        let mut tasks = Vec::new();
        for (number, address) in (0..MONITORS).zip(&settings.collectors) {
            let (status, known) = watch::channel(CollectorStatus {
                collector: *address,
                connected: false,
                since: format!("{:.0}", jiff::Timestamp::now()),
                why: Some("not tried yet".to_owned()),
            });
            statuses.push(known);
            let collector = task::Collector {
                id: MonitorId(number),
                address: *address,
                watch: settings.watch(),
                statistics: settings.statistics,
                directory: directory.subscribe(),
                status,
                meter: metrics.collector(*address),
                stop: stopped.clone(),
            };
            tasks.push(tokio::spawn(collector.run()));
        }
        directory.send_modify(|now| *now = Arc::new(Directory { collectors: statuses, ..Directory::clone(now) }));
        Self { stop, tasks }
    }

    /// Says goodbye to all of them.
    pub async fn stop(self) {
        // Nobody listens where there is no collector.
        let _ = self.stop.send(true);
        futures::future::join_all(self.tasks).await;
    }
}
