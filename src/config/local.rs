//! The daemon's own settings: what flags and environment say and no resource has.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;

/// Settings of one `margay run`, with the defaults of its flags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocalConfig {
    /// `--node`: which Node resource is ours.
    pub node: String,
    /// `--datastore`: where resources come from.
    pub datastore: DatastoreKind,
    /// `--resources`: files and folders of resources.
    pub resources: Vec<PathBuf>,
    /// `--listen`: addresses to listen on; empty means all.
    pub listen: Vec<IpAddr>,
    /// `--socket`: the control API.
    pub socket: PathBuf,
    /// `--bird-sockets`: folder of `bird.ctl` and `bird6.ctl`.
    pub bird_sockets: Option<PathBuf>,
    /// `--metrics`: Prometheus and health endpoints.
    pub metrics: Option<SocketAddr>,
    /// `--state`: folder of the last known configuration.
    pub state: PathBuf,
    /// `--dry-run`: nothing is written to the kernel.
    pub dry_run: bool,
    /// `--record`: folder of transcripts.
    pub record: Option<PathBuf>,
}

/// `--datastore`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DatastoreKind {
    /// Files and folders.
    #[default]
    File,
    /// etcd, as Calico's etcdv3 datastore has it.
    Etcd,
    /// The Kubernetes API.
    Kubernetes,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            node: String::new(),
            datastore: DatastoreKind::File,
            resources: vec![PathBuf::from("/etc/margay/resources")],
            listen: Vec::new(),
            socket: PathBuf::from("/run/margay/margay.sock"),
            bird_sockets: None,
            metrics: None,
            state: PathBuf::from("/var/lib/margay"),
            dry_run: false,
            record: None,
        }
    }
}
