//! A real etcd (Debian's `etcd-server`, `etcd-client`) on free ports of the loopback, with a store of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::process::{capture, run, wait_until};

/// It answers by then.
const START: Duration = Duration::from_secs(60);
/// Operations that one transaction may have (etcd's own limit is 128).
const BATCH: usize = 100;

/// One member, alone in its cluster. Dropping it ends it.
#[derive(Debug)]
pub struct Etcd {
    child: Option<Child>,
    folder: PathBuf,
    port: u16,
    peer_port: u16,
    tls: Option<Tls>,
    user: Option<String>,
}

/// Certificate files.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// A certificate and its key, of the server and of its clients.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Etcd {
    /// Starts one that keeps its data in `folder`.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, None)
    }

    /// Starts one that speaks TLS, and asks its clients for certificates.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_with(folder: &Path, tls: Option<Tls>) -> Result<Self> {
        let (port, peer_port) = (free_port()?, free_port()?);
        let mut etcd = Self { child: None, folder: folder.to_owned(), port, peer_port, tls, user: None };
        etcd.restart()?;
        Ok(etcd)
    }

    /// Starts it again, with what it kept.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        fs::create_dir_all(&self.folder)?;
        let log = File::options().create(true).append(true).open(self.folder.with_extension("log"))?;
        let peers = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "etcd", "--name", "test", "--data-dir"]).arg(&self.folder);
        command.args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url(), "--listen-peer-urls", &peers]);
        command.args(["--initial-advertise-peer-urls", &peers, "--initial-cluster", &format!("test={peers}")]);
        if let Some(tls) = &self.tls {
            command.arg("--cert-file").arg(&tls.certificate).arg("--key-file").arg(&tls.key);
            command.arg("--trusted-ca-file").arg(&tls.ca).arg("--client-cert-auth");
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("etcd (package etcd-server)")?;
        self.child = Some(child);
        wait_until(START, "etcd answers", || {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                let log = fs::read_to_string(self.folder.with_extension("log")).unwrap_or_default();
                anyhow::bail!("etcd has ended: {status}: {log}");
            }
            self.ctl(&["get", "/nothing"])
        })?;
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Whether it has been started and not been killed.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Throws away what it kept; it must not run.
    ///
    /// # Errors
    /// The file system's.
    pub fn forget(&self) -> Result<()> {
        Ok(fs::remove_dir_all(&self.folder)?)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Signs in as `name:password` from now on.
    pub fn sign_in(&mut self, user: &str) {
        self.user = Some(user.to_owned());
    }

    /// What `etcdctl` answers.
    ///
    /// # Errors
    /// Its own.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command();
        command.args(arguments);
        run(command, None)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url()]);
        if let Some(tls) = &self.tls {
            command.arg("--cacert").arg(&tls.ca).arg("--cert").arg(&tls.certificate).arg("--key").arg(&tls.key);
        }
        if let Some(user) = &self.user {
            command.args(["--user", user]);
        }
        command
    }

    /// Puts keys, many in one transaction.
    ///
    /// # Errors
    /// etcdctl's.
    pub fn put(&self, entries: &[(String, String)]) -> Result<()> {
        for batch in entries.chunks(BATCH) {
            // No comparison, what to do if all of none holds, nothing otherwise.
            let mut text = "\n".to_owned();
            for (key, value) in batch {
                // etcdctl reads a quoted word as Go does, which for what is in JSON is as JSON does.
                writeln!(text, "put {key} {}", serde_json::to_string(value)?)?;
            }
            text.push_str("\n\n");
            let output = capture(self.command().arg("txn"), Some(&text))?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success() && said.contains("SUCCESS"), "etcdctl txn: {said} {complaint}");
        }
        Ok(())
    }

    /// The revision of the store now.
    ///
    /// # Errors
    /// etcdctl's.
    pub fn revision(&self) -> Result<i64> {
        let answer: serde_json::Value = serde_json::from_str(&self.ctl(&["get", "/nothing", "-w", "json"])?)?;
        answer["header"]["revision"].as_i64().context("no revision")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

/// Whether both programs are installed.
pub fn installed() -> bool {
    ["etcd", "etcdctl"].iter().all(|program| Path::new("/usr/bin").join(program).exists())
}

/// The keys and values of a dump: a line with a key, a line with its value.
pub fn dump(text: &str) -> Vec<(String, String)> {
    let mut lines = text.lines();
    let mut entries = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with('/') {
            entries.push((line.to_owned(), lines.next().unwrap_or_default().to_owned()));
        }
    }
    entries
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
