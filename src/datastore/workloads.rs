//! The files that Felix writes about local endpoints, watched: `endpoint-status/` below `CALICO_ENDPOINT_STATUS_PATH_PREFIX`
//! (`/var/run/calico` unless set).
//!
//! A file that is half written keeps what it last said and is looked at again shortly. The folder need not exist: where there is no
//! Felix, there are no such peers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Variables;
use super::file::Watch;
use crate::calico::LocalWorkload;

/// Look again at a file that was half written.
const SOON: Duration = Duration::from_millis(50);

/// Look again at least this often, should the watch miss something.
const AUDIT: Duration = Duration::from_secs(30);

/// The folder, and what its files last said.
#[derive(Debug)]
pub struct Workloads {
    folder: PathBuf,
    known: BTreeMap<PathBuf, Option<LocalWorkload>>,
    told: Option<Vec<LocalWorkload>>,
}

impl Workloads {
    /// The folder that the environment names.
    pub fn new(variables: &Variables) -> Self {
        let prefix = variables.exactly("CALICO_ENDPOINT_STATUS_PATH_PREFIX").filter(|prefix| !prefix.is_empty());
        Self::of(Path::new(prefix.unwrap_or("/var/run/calico")).join("endpoint-status"))
    }

    /// That folder.
    pub fn of(folder: PathBuf) -> Self {
        Self { folder, known: BTreeMap::new(), told: None }
    }

    /// The workloads now, if they are others than told last; and whether some file could not be read.
    pub fn read(&mut self) -> (Option<Vec<LocalWorkload>>, bool) {
        let mut half = false;
        let mut present = BTreeMap::new();
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
            let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
            let workload = text.and_then(|text| LocalWorkload::parse(&text)).unwrap_or_else(|error| {
                tracing::debug!(file = %path.display(), error, "not a whole endpoint status (yet)");
                half = true;
                self.known.remove(&path).flatten()
            });
            present.insert(path, workload);
        }
        self.known = present;
        let mut workloads: Vec<LocalWorkload> = self.known.values().flatten().cloned().collect();
        workloads.sort();
        if self.told.as_ref() == Some(&workloads) {
            return (None, half);
        }
        self.told = Some(workloads.clone());
        (Some(workloads), half)
    }

    /// Tells every change until nobody listens any more.
    pub async fn watch(mut self, out: mpsc::Sender<Vec<LocalWorkload>>) {
        let (note, mut notes) = mpsc::channel(1);
        let mut watch = Watch::new(vec![self.folder.clone()], note);
        loop {
            watch.renew();
            let (workloads, half) = self.read();
            if let Some(workloads) = workloads
                && out.send(workloads).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = out.closed() => return,
                _ = timeout(if half { SOON } else { AUDIT }, notes.recv()) => {}
            }
        }
    }
}
