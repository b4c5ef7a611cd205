//! What `margay run` was told: flags and environment, already checked.

use std::net::IpAddr;
use std::path::PathBuf;

/// Settings of the daemon; see `margay run --help`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which Node resource is ours.
    pub node: String,
    /// Files or folders of resources.
    pub resources: Vec<PathBuf>,
    /// Addresses to listen on; empty means all.
    pub listen: Vec<IpAddr>,
    /// Control socket.
    pub socket: PathBuf,
    /// Folder for the last known configuration.
    pub state: PathBuf,
    /// Only say what would be written to the kernel.
    pub dry_run: bool,
}
