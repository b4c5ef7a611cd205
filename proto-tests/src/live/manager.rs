//! The service manager's end of `NOTIFY_SOCKET` (`sd_notify(3)`).

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Listens where a service of any user may write.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    folder: TempDir,
    patience: Duration,
}

impl ServiceManager {
    /// One that waits so long for each of the words that it waits for.
    ///
    /// # Errors
    /// The system's.
    pub fn new(patience: Duration) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777))?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Self { socket, folder, patience })
    }

    /// What `NOTIFY_SOCKET` is to be.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    /// The next thing that is said.
    ///
    /// # Errors
    /// Nothing is.
    pub fn hear(&self) -> Result<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).context("the service manager hears nothing more")?;
        Ok(String::from_utf8(buffer[..length].to_vec())?)
    }

    /// Lets `judge` hear what is said until nothing has been for so long.
    ///
    /// # Errors
    /// What `judge` says, at once.
    pub fn until_silent(&self, silence: Duration, judge: impl Fn(&str) -> Result<()>) -> Result<()> {
        self.socket.set_read_timeout(Some(silence))?;
        while let Ok(said) = self.hear() {
            judge(&said)?;
        }
        Ok(self.socket.set_read_timeout(Some(self.patience))?)
    }

    /// Reads until something is said that holds these words; what was said before it is handed back.
    ///
    /// # Errors
    /// It is not said.
    pub fn wait_for(&self, words: &str) -> Result<Vec<String>> {
        let deadline = Instant::now() + self.patience;
        let mut before = Vec::new();
        while Instant::now() < deadline {
            let said = self.hear().with_context(|| format!("`{words}` was not said, but {before:?}"))?;
            if said.contains(words) {
                return Ok(before);
            }
            before.push(said);
        }
        bail!("`{words}` was not said, but {before:?}")
    }
}
