//! Resources in files and folders of YAML and JSON, watched.
//!
//! A folder counts with all its files ending in `.yaml`, `.yml` or `.json`, not with its subfolders; names that begin
//! with a dot are passed over (Kubernetes' `..data` of mounted ConfigMaps among them, whose files are reached by their
//! links). A file that cannot be read keeps what it last held. Folders are watched rather than files, so that editors
//! that rename and ConfigMaps that swap a link are seen; whatever changes there, everything is read anew and told as a
//! whole between `Begin` and `End`, so that one consistent state follows another.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use notify::Watcher;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::files::Files;
use super::{Datastore, Link, Word};
use crate::calico::Input;

/// Files are read when nothing has changed for this long, …
const QUIET: Duration = Duration::from_millis(50);

/// … or at the latest this long after the first change.
const PATIENCE: Duration = Duration::from_millis(500);

/// Read anew at least this often, should the watch miss something, …
const AUDIT: Duration = Duration::from_secs(30);

/// … and this often where the system lets us watch no more.
const POLL: Duration = Duration::from_secs(2);

/// Everything that the paths hold now, as [`FileDatastore`] would tell it at its start.
pub fn load(paths: &[PathBuf]) -> Vec<Input> {
    Files::new(paths.to_vec()).read().unwrap_or_default()
}

/// Files and folders as a datastore.
#[derive(Debug)]
pub struct FileDatastore {
    files: Files,
}

impl FileDatastore {
    /// A datastore of these files and folders. They need not exist yet: that is a problem until they do.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { files: Files::new(paths) }
    }

    async fn watch(mut self, mut link: Link) -> anyhow::Result<()> {
        // One pending note is enough: it means "look again".
        let (note, mut notes) = mpsc::channel(1);
        let mut watch = Watch::new(self.files.paths().to_vec(), note);
        loop {
            let pause = if watch.renew() { AUDIT } else { POLL };
            let (files, inputs) = tokio::task::spawn_blocking(move || {
                let inputs = self.files.read();
                (self.files, inputs)
            })
            .await
            .context("reading the resource files")?;
            self = Self { files };
            for input in inputs.into_iter().flatten() {
                if !link.say(Word::Input(input)).await {
                    return Ok(());
                }
            }
            tokio::select! {
                () = link.out.closed() => return Ok(()),
                Some(()) = link.again.recv() => self.files.forget(),
                _ = timeout(pause, notes.recv()) => {}
            }
            let quiet = async { while timeout(QUIET, notes.recv()).await.is_ok_and(|note| note.is_some()) {} };
            drop(timeout(PATIENCE, quiet).await);
        }
    }
}

impl Datastore for FileDatastore {
    fn run(self: Box<Self>, link: Link) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> {
        Box::pin(self.watch(link))
    }
}

/// The inotify watch on everything that can change what the paths hold.
pub(super) struct Watch {
    /// None where no inotify instance is left.
    watcher: Option<notify::RecommendedWatcher>,
    paths: Vec<PathBuf>,
    watched: Vec<PathBuf>,
}

impl Watch {
    pub(super) fn new(paths: Vec<PathBuf>, note: mpsc::Sender<()>) -> Self {
        let concerned = paths.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let ours = match &event {
                Ok(event) => !event.kind.is_access() && event.paths.iter().any(|path| concerns(path, &concerned)),
                Err(_) => true,
            };
            if ours {
                let _full = note.try_send(());
            }
        })
        .inspect_err(|error| {
            tracing::warn!(%error, "cannot watch resource files, so they are polled (raise fs.inotify.max_user_instances)");
        });
        Self { watcher: watcher.ok(), paths, watched: Vec::new() }
    }

    /// Watches what there is now. Watching twice is once; folders that went and came back are taken up again.
    /// Says whether all of it can be watched.
    pub(super) fn renew(&mut self) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let wanted: Vec<PathBuf> = self.paths.iter().flat_map(|path| folders(path)).collect();
        for gone in self.watched.iter().filter(|folder| !wanted.contains(folder)) {
            drop(watcher.unwatch(gone));
        }
        let mut all = true;
        for folder in &wanted {
            if let Err(error) = watcher.watch(folder, notify::RecursiveMode::NonRecursive) {
                tracing::debug!(folder = %folder.display(), %error, "cannot watch");
                all = false;
            }
        }
        self.watched = wanted;
        all
    }
}

/// A folder itself; the folder that a path is in (or the nearest that exists); and where a link leads.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if path.is_dir() {
        folders.push(path.to_path_buf());
    }
    let parents = path.ancestors().skip(1).map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    folders.extend(parents.into_iter().find(|parent| parent.is_dir()).map(Path::to_path_buf));
    let target = std::fs::canonicalize(path).ok().filter(|target| !target.is_dir());
    folders.extend(target.and_then(|target| target.parent().map(Path::to_path_buf)));
    folders.sort();
    folders.dedup();
    folders
}

/// Whether a change there may change what `paths` hold: it is on the way to one of them or inside; or beside one that
/// is a link (whose other links on the way may have been swapped), or where the link leads.
fn concerns(changed: &Path, paths: &[PathBuf]) -> bool {
    let changed = changed.strip_prefix(".").unwrap_or(changed);
    paths.iter().any(|path| {
        let path = path.strip_prefix(".").unwrap_or(path);
        changed.starts_with(path)
            || path.starts_with(changed)
            || (changed.parent() == path.parent() && path.is_symlink())
            || changed.parent().is_some_and(|folder| std::fs::canonicalize(path).is_ok_and(|target| target.parent() == Some(folder)))
    })
}
