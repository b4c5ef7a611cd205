//! What `margay run` was told: flags and environment, already checked.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::datastore;
use crate::runtime::bmp;
use crate::runtime::log::Log;
use crate::runtime::memory_guard::MemoryLimit;

/// Settings of the daemon; see `margay run --help`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which Node resource is ours, and where resources come from.
    pub datastore: datastore::Settings,
    /// Addresses to listen on; empty means all.
    pub listen: Vec<IpAddr>,
    /// Control socket.
    pub socket: PathBuf,
    /// Folder of `bird.ctl` and `bird6.ctl`.
    pub bird_sockets: Option<PathBuf>,
    /// Where metrics and health checks are served over TCP.
    pub metrics: Option<SocketAddr>,
    /// Where the page is served over TCP.
    pub page: Option<SocketAddr>,
    /// The page may be served on an address that is no loopback one.
    pub page_beyond_loopback: bool,
    /// Whom monitoring data go to.
    pub bmp: bmp::Settings,
    /// Folder for the last known configuration.
    pub state: PathBuf,
    /// How long the routes of a local agent stay when its connection is gone.
    pub agent_hold: Duration,
    /// Folder for transcripts of what machines hear and say.
    pub record: Option<PathBuf>,
    /// Only say what would be written to the kernel.
    pub dry_run: bool,
    /// This node forwards nothing: nothing is written to the kernel, nor kept for it.
    pub no_fib: bool,
    /// Routes go by next-hop objects of the kernel.
    pub next_hop_objects: bool,
    /// Threads that the table is divided among, 1 to 8.
    pub shards: u16,
    /// How much memory the process may use.
    pub memory_limit: MemoryLimit,
    /// The log.
    pub log: Log,
}
