//! A real kube-apiserver with its etcd on loopback, where there is one.
//!
//! `MARGAY_KUBE_APISERVER` names the program, else it is looked for on the `PATH`; `etcd` and `kubectl` must be beside it (one
//! program that is all three by its name will do) or on the `PATH` too.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::objects::Group;
use crate::lab::process::{self, wait_until};

/// It must be ready by then.
const START: Duration = Duration::from_secs(120);
/// Who may do everything.
const ADMIN: &str = "admin-of-the-test";

/// Where the program is, or why it cannot be run.
///
/// # Errors
/// What is missing, as the reason of a test that is skipped.
pub fn find() -> Result<PathBuf, String> {
    let named = env::var_os("MARGAY_KUBE_APISERVER").map(PathBuf::from);
    let program = named
        .or_else(|| on_path("kube-apiserver"))
        .ok_or("no kube-apiserver: name one with MARGAY_KUBE_APISERVER or put it on the PATH")?;
    if !program.is_file() {
        return Err(format!("MARGAY_KUBE_APISERVER: there is no {}", program.display()));
    }
    for helper in ["etcd", "kubectl"] {
        if beside(&program, helper).is_none() {
            return Err(format!("no {helper} beside {} or on the PATH", program.display()));
        }
    }
    Ok(program)
}

fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn beside(program: &Path, name: &str) -> Option<PathBuf> {
    let beside = program.with_file_name(name);
    if beside.is_file() { Some(beside) } else { on_path(name) }
}

/// A running server. Dropping it ends both processes.
#[derive(Debug)]
pub struct RealServer {
    program: PathBuf,
    folder: TempDir,
    api: SocketAddr,
    etcd: SocketAddr,
    processes: Vec<Child>,
}

impl RealServer {
    /// Starts etcd and the API server, and waits until it is ready.
    ///
    /// # Errors
    /// What they said.
    pub fn start(program: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("margay-kube-").tempdir()?;
        let mut key = Command::new("openssl");
        key.args(["genrsa", "-out"]).arg(folder.path().join("sa.key")).arg("2048");
        process::run(key, None).context("openssl makes the key of service accounts")?;
        let mut authority = Command::new("openssl");
        authority.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=clients", "-keyout"]);
        authority.arg(folder.path().join("clients.key")).arg("-out").arg(folder.path().join("clients.crt"));
        process::run(authority, None).context("openssl makes the authority of client certificates")?;
        fs::write(folder.path().join("tokens.csv"), format!("{ADMIN},admin,admin,system:masters\n"))?;
        let mut server = Self { program: program.to_path_buf(), folder, api: free_port()?, etcd: free_port()?, processes: Vec::new() };
        let peer = free_port()?;
        let etcd = beside(program, "etcd").context("etcd")?;
        server.spawn(
            "etcd",
            &etcd,
            &[
                "--data-dir",
                &server.path("etcd"),
                "--unsafe-no-fsync",
                "--log-level",
                "error",
                "--listen-client-urls",
                &format!("http://{}", server.etcd),
                "--advertise-client-urls",
                &format!("http://{}", server.etcd),
                "--listen-peer-urls",
                &format!("http://{peer}"),
                "--initial-advertise-peer-urls",
                &format!("http://{peer}"),
                "--initial-cluster",
                &format!("default=http://{peer}"),
            ],
        )?;
        server.start_api()?;
        Ok(server)
    }

    fn start_api(&mut self) -> Result<()> {
        let program = self.program.clone();
        self.spawn(
            "kube-apiserver",
            &program,
            &[
                &format!("--etcd-servers=http://{}", self.etcd),
                "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-account-key-file={}", self.path("sa.key")),
                &format!("--service-account-signing-key-file={}", self.path("sa.key")),
                &format!("--cert-dir={}", self.path("certs")),
                &format!("--token-auth-file={}", self.path("tokens.csv")),
                &format!("--client-ca-file={}", self.path("clients.crt")),
                "--authorization-mode=RBAC",
                "--disable-admission-plugins=ServiceAccount",
                "--endpoint-reconciler-type=none",
                "--bind-address=127.0.0.1",
                "--advertise-address=192.0.2.10",
                &format!("--secure-port={}", self.api.port()),
            ],
        )?;
        wait_until(START, "the API server is ready", || {
            let ready = self.kubectl(&["get", "--raw", "/readyz"], None)?;
            ensure!(ready.trim() == "ok", "{ready}");
            Ok(())
        })
        .with_context(|| {
            fs::read_to_string(self.path("kube-apiserver.log")).unwrap_or_default().lines().rev().take(5).collect::<Vec<_>>().join("\n")
        })
    }

    fn spawn(&mut self, name: &str, program: &Path, arguments: &[&str]) -> Result<()> {
        let log = File::create(self.path(&format!("{name}.log")))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        self.processes.push(child);
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Ends the API server at once (its etcd stays) and starts it again.
    ///
    /// # Errors
    /// It does not come back.
    pub fn restart(&mut self) -> Result<()> {
        if let Some(mut api) = self.processes.pop() {
            api.kill()?;
            api.wait()?;
        }
        self.start_api()
    }

    /// Runs kubectl as administrator.
    ///
    /// # Errors
    /// What it said.
    pub fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = Command::new(beside(&self.program, "kubectl").context("kubectl")?);
        command.arg(format!("--server=https://{}", self.api)).args(["--insecure-skip-tls-verify", "--token", ADMIN]);
        command.args(arguments).env("HOME", self.folder.path()).env_remove("KUBECONFIG");
        process::run(command, input)
    }

    /// What a client of this server needs, as a bearer of this token.
    pub fn variables(&self, token: Option<&str>) -> Vec<(String, String)> {
        let pairs = [
            ("K8S_API_ENDPOINT", format!("https://{}", self.api)),
            ("K8S_CA_FILE", self.path("certs/apiserver.crt")),
            ("K8S_API_TOKEN", token.unwrap_or(ADMIN).to_owned()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.api
    }

    /// The certificate that its own is signed with.
    pub fn authority(&self) -> String {
        self.path("certs/apiserver.crt")
    }

    /// A kubeconfig of an administrator with a client certificate.
    ///
    /// # Errors
    /// What openssl said.
    pub fn kubeconfig_with_a_certificate(&self) -> Result<String> {
        let mut request = Command::new("openssl");
        request.args(["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/O=system:masters/CN=margay"]);
        request.args(["-keyout", &self.path("margay.key"), "-out", &self.path("margay.csr")]);
        process::run(request, None)?;
        // A certificate of version 1, which openssl makes without extensions, is none to a TLS client.
        fs::write(self.path("extensions"), "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n")?;
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", "-days", "2", "-set_serial", "7", "-in", &self.path("margay.csr"), "-out", &self.path("margay.crt")]);
        sign.args(["-CA", &self.path("clients.crt"), "-CAkey", &self.path("clients.key"), "-extfile", &self.path("extensions")]);
        process::run(sign, None)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "margay" } }],
            "clusters": [{ "name": "test", "cluster": { "server": format!("https://{}", self.api), "certificate-authority": self.authority() } }],
            "users": [{ "name": "margay", "user": { "client-certificate": self.path("margay.crt"), "client-key": self.path("margay.key") } }],
        });
        fs::write(self.path("kubeconfig"), config.to_string())?;
        Ok(self.path("kubeconfig"))
    }

    /// Applies objects with kubectl, all at once.
    ///
    /// # Errors
    /// What it said.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], Some(&list.to_string())).map(drop)
    }

    /// Installs Calico's kinds of a group, without schemas.
    ///
    /// # Errors
    /// What kubectl said.
    pub fn install(&self, group: Group) -> Result<()> {
        let kinds = [
            ("BGPConfiguration", "bgpconfigurations"),
            ("BGPFilter", "bgpfilters"),
            ("BGPPeer", "bgppeers"),
            ("BlockAffinity", "blockaffinities"),
            ("CalicoNodeStatus", "caliconodestatuses"),
            ("IPPool", "ippools"),
        ];
        let (name, version) = group.api_version().split_once('/').context("group and version")?;
        let crds: Vec<Value> = kinds.iter().map(|(kind, plural)| definition(name, version, kind, plural)).collect();
        self.apply(&crds)?;
        let mut wait = vec!["wait".to_owned(), "--for=condition=Established".to_owned(), "--timeout=60s".to_owned()];
        wait.extend(kinds.iter().map(|(_, plural)| format!("crd/{plural}.{name}")));
        self.kubectl(&wait.iter().map(String::as_str).collect::<Vec<_>>(), None).map(drop)
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn definition(group: &str, version: &str, kind: &str, plural: &str) -> Value {
    // As Calico has them: the newer group alone has the subresource.
    let subresources = if kind == "CalicoNodeStatus" && version == "v3" { json!({ "status": {} }) } else { json!({}) };
    let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}"), "annotations": { "api-approved.kubernetes.io": "unapproved, for tests" } },
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": { "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase() },
            "versions": [{ "name": version, "served": true, "storage": true, "schema": schema, "subresources": subresources }],
        },
    })
}

fn free_port() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
