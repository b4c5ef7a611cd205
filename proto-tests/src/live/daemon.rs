//! A margay process: its resources, its start, its end.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::Open;
use crate::lab::image;
use crate::lab::process::{self, wait_until};

/// margay's AS.
pub const ASN: u32 = 64512;
/// margay's address and identifier.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// margay's IPv6 address.
pub const ADDRESS_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 1);
/// `listenPort`.
const PORT: u16 = 1790;
/// Where margay looks for its peers; nobody listens there unless a test does.
const PEER_PORT: u16 = 1791;
/// margay must have started by then.
const START: Duration = Duration::from_secs(30);

/// One configured peer.
#[derive(Clone, Debug)]
pub struct PeerPlan {
    /// Name of its BGPPeer.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
    /// `margay.io/` annotations.
    pub annotations: Vec<(&'static str, &'static str)>,
    /// TCP-MD5 key, kept in a Secret.
    pub key: Option<String>,
}

impl PeerPlan {
    /// A good OPEN of this peer.
    pub fn open(&self) -> Open {
        let identifier = match self.address {
            // The same number as an IPv4 address would give, but above margay's.
            IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) | 0x8000_0000),
            IpAddr::V6(address) => Ipv4Addr::from(0xc800_0000 | u32::from(address.segments()[7])),
        };
        let open = Open::new(self.asn, identifier);
        if self.address.is_ipv6() { open.ipv6() } else { open }
    }

    /// With an annotation.
    #[must_use]
    pub fn annotated(mut self, key: &'static str, value: &'static str) -> Self {
        self.annotations.push((key, value));
        self
    }

    /// With a TCP-MD5 key.
    #[must_use]
    pub fn keyed(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Where margay connects to for this peer, to be listened on before the start.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(&self) -> Result<TcpListener> {
        Ok(TcpListener::bind(SocketAddr::new(self.address, PEER_PORT))?)
    }

    /// Its BGPPeer.
    pub fn document(&self) -> String {
        let host = if self.address.is_ipv6() { format!("[{}]", self.address) } else { self.address.to_string() };
        let annotations: Vec<String> = self.annotations.iter().map(|(key, value)| format!("margay.io/{key}: \"{value}\"")).collect();
        let password = match self.key {
            Some(_) => format!(", password: {{secretKeyRef: {{name: keys, key: {}}}}}", self.name),
            None => String::new(),
        };
        format!(
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {}, annotations: {{{}}}}}\n\
             spec: {{node: bench, peerIP: \"{host}:{PEER_PORT}\", asNumber: {}, filters: [all]{password}}}\n",
            self.name,
            annotations.join(", "),
            self.asn
        )
    }
}

/// What is configured.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The peers, by name on disk.
    pub peers: Vec<PeerPlan>,
    /// We reflect for the iBGP peers.
    pub reflector: bool,
    /// More documents of the resource folder.
    pub documents: Vec<String>,
    /// More arguments of `margay run`.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// The peers' documents are in a datastore, not in the resource folder.
    pub peers_elsewhere: bool,
    /// A state folder that outlives the daemon.
    pub state: Option<PathBuf>,
    /// Routes are written to the kernel of the test's namespace, instead of only looked at.
    pub kernel: bool,
}

impl Plan {
    /// `count` peers in as many other ASes: 127.1.x.y.
    #[must_use]
    pub fn external(mut self, count: u16) -> Self {
        for _ in 0..count {
            let peer = external(self.peers.len() as u16);
            self.peers.push(peer);
        }
        self
    }

    /// `count` peers in our AS: 127.2.x.y.
    #[must_use]
    pub fn internal(mut self, count: u16) -> Self {
        for _ in 0..count {
            let peer = internal(self.peers.len() as u16);
            self.peers.push(peer);
        }
        self
    }

    /// One more peer.
    #[must_use]
    pub fn peer(mut self, peer: PeerPlan) -> Self {
        self.peers.push(peer);
        self
    }

    /// iBGP peers are clients of our cluster.
    #[must_use]
    pub fn reflecting(mut self) -> Self {
        self.reflector = true;
        self
    }

    /// Starts margay.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(self) -> Result<Daemon> {
        Daemon::start(self)
    }
}

/// The peer of another AS with this number: 127.1.x.y, AS 64600 + number.
pub fn external(number: u16) -> PeerPlan {
    let address = Ipv4Addr::new(127, 1, (number / 200) as u8, (number % 200 + 10) as u8);
    PeerPlan { name: format!("external-{number}"), address: address.into(), asn: 64600 + u32::from(number), annotations: vec![], key: None }
}

/// The peer of our AS with this number: 127.2.x.y.
pub fn internal(number: u16) -> PeerPlan {
    let address = Ipv4Addr::new(127, 2, (number / 200) as u8, (number % 200 + 10) as u8);
    PeerPlan { name: format!("internal-{number}"), address: address.into(), asn: ASN, annotations: vec![], key: None }
}

/// The peer with this IPv6 address (`a` or `b`: there are no others) in another AS.
pub fn external_6(last: u16) -> PeerPlan {
    let address = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, last);
    PeerPlan { name: format!("external-v6-{last}"), address: address.into(), asn: 64800 + u32::from(last), annotations: vec![], key: None }
}

/// A running margay. Dropping it ends it and keeps the end of its log for the case that the test has failed.
#[derive(Debug)]
pub struct Daemon {
    /// margay's AS.
    pub asn: u32,
    /// Its peers.
    pub peers: Vec<PeerPlan>,
    child: Child,
    command: Command,
    folder: TempDir,
}

impl Daemon {
    fn start(plan: Plan) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("margay-live-").tempdir()?;
        fs::create_dir(folder.path().join("resources"))?;
        fs::create_dir(folder.path().join("state"))?;
        write_resources(&folder.path().join("resources"), &plan)?;
        let log = File::create(folder.path().join("log"))?;
        // The guard goes into the same process as margay: its id is the one to end.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program()?)
            .args(["run", "--node", "bench"])
            .args((!plan.kernel).then_some("--dry-run"))
            .arg("--resources")
            .arg(folder.path().join("resources"))
            .arg("--socket")
            .arg(folder.path().join("socket"))
            .arg("--state")
            .arg(plan.state.clone().unwrap_or_else(|| folder.path().join("state")))
            .args(&plan.arguments)
            .envs(plan.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().context("setpriv (package util-linux)")?;
        let mut daemon = Self { asn: ASN, peers: plan.peers, child, command, folder };
        wait_until(START, "margay has its peers", || daemon.has_peers(daemon.peers.len()))?;
        Ok(daemon)
    }

    /// Starts margay again after its end, with the same flags and folders.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.spawn_again()?;
        wait_until(START, "margay has its peers again", || self.has_peers(self.peers.len()))
    }

    /// Starts margay again after its end, and does not wait until it is up.
    ///
    /// # Errors
    /// The system's.
    pub fn spawn_again(&mut self) -> Result<()> {
        self.child = self.command.spawn().context("setpriv (package util-linux)")?;
        Ok(())
    }

    fn has_peers(&mut self, count: usize) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(anyhow::anyhow!("margay has ended: {status}"));
        }
        let peers = self.api("/v1/peers")?;
        let known = peers.as_array().map_or(0, Vec::len);
        ensure!(known == count, "{known} of {count} peers: {}", self.api("/v1/problems")?);
        Ok(())
    }

    /// Where margay listens.
    pub fn address(&self, ipv4: bool) -> SocketAddr {
        SocketAddr::new(if ipv4 { ADDRESS.into() } else { ADDRESS_6.into() }, PORT)
    }

    /// The control API's answer.
    ///
    /// # Errors
    /// There is none, or it is no JSON.
    pub fn api(&self, path: &str) -> Result<Value> {
        let text = self.api_text(path)?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// What a verb of the command line answers through a pipe.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn margay(&self, words: &[&str]) -> Result<Output> {
        Ok(Command::new(program()?).args(words).arg("--socket").arg(self.socket()).output()?)
    }

    /// The control API's answer as it is.
    ///
    /// # Errors
    /// There is none.
    pub fn api_text(&self, path: &str) -> Result<String> {
        self.request("GET", path)
    }

    /// The control API's answer to an order.
    ///
    /// # Errors
    /// There is none, or it is no JSON.
    pub fn post(&self, path: &str) -> Result<Value> {
        let text = self.request("POST", path)?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    fn request(&self, method: &str, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(START))?;
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        stream.write_all(format!("{method} {path} HTTP/1.0\r\nHost: margay\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {answer}"))?;
        Ok(body.to_owned())
    }

    /// One peer as `show peers` has it.
    ///
    /// # Errors
    /// The API's.
    pub fn peer_view(&self, plan: &PeerPlan) -> Result<Value> {
        let peers = self.api("/v1/peers")?;
        let address = plan.address.to_string();
        let found = peers.as_array().and_then(|all| all.iter().find(|peer| peer["address"] == address.as_str()));
        found.cloned().with_context(|| format!("no peer {address} in {peers}"))
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The resource folder.
    pub fn resources(&self) -> PathBuf {
        self.folder.path().join("resources")
    }

    /// Everything that margay has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Writes the document of a peer anew (`None`: takes it away).
    ///
    /// # Errors
    /// The file system's.
    pub fn rewrite(&self, name: &str, plan: Option<&PeerPlan>) -> Result<()> {
        let path = self.resources().join(format!("{name}.yaml"));
        match plan {
            Some(plan) => replace(&path, &plan.document()),
            None => Ok(fs::remove_file(path)?),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many file descriptors it has open.
    ///
    /// # Errors
    /// It has ended.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Its memory in octets (`VmRSS`).
    ///
    /// # Errors
    /// It has ended.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes << 10)
    }

    /// Whether the process runs.
    ///
    /// # Errors
    /// How it ended.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(anyhow::anyhow!("margay has ended: {status}")),
        }
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        process::signal(self.child.id(), signal);
        wait_until(START, "margay ends", || self.child.try_wait()?.context("it runs"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n");
        let words = format!("--- the end of margay's log\n{tail}\n");
        if std::thread::panicking() {
            eprintln!("{words}");
        }
        LAST_WORDS.set(words);
    }
}

thread_local! {
    static LAST_WORDS: Cell<String> = const { Cell::new(String::new()) };
}

/// The end of the log of the margay that ended last.
pub fn last_words() -> String {
    LAST_WORDS.take()
}

/// The program under test.
///
/// # Errors
/// This program has no path.
pub fn program() -> Result<PathBuf> {
    Ok(image::margay_folder()?.join("margay"))
}

/// Replaces a file in one step, so that nobody reads half of it.
///
/// # Errors
/// The file system's.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text)?;
    Ok(fs::rename(fresh, path)?)
}

fn write_resources(folder: &Path, plan: &Plan) -> Result<()> {
    let cluster = if plan.reflector { ", routeReflectorClusterID: 10.7.0.1" } else { "" };
    let node = format!("ipv4Address: {ADDRESS}/8, ipv6Address: \"{ADDRESS_6}/64\", asNumber: {ASN}{cluster}");
    // Routes of the test's own interfaces stay at home: everything that a neighbour hears comes from a neighbour.
    let home = |cidr: &str| format!("{{action: Reject, matchOperator: In, cidr: \"{cidr}\"}}");
    let filter = format!(
        "importV4: [{{action: Accept}}], exportV4: [{}, {{action: Accept}}], importV6: [{{action: Accept}}], exportV6: [{}, {}, {{action: Accept}}]",
        home("192.0.2.0/24"),
        home("2001:db8:2::/64"),
        home("2001:db8:7::/64")
    );
    let mut text = String::new();
    for document in [
        format!("kind: Node\nmetadata: {{name: bench}}\nspec: {{bgp: {{{node}}}}}"),
        format!(
            "kind: BGPConfiguration\nmetadata: {{name: default}}\n\
             spec: {{nodeToNodeMeshEnabled: false, asNumber: {ASN}, listenPort: {PORT}}}"
        ),
        format!("kind: BGPFilter\nmetadata: {{name: all}}\nspec: {{{filter}}}"),
    ] {
        writeln!(text, "apiVersion: projectcalico.org/v3\n{document}\n---")?;
    }
    text.push_str(&keys(&plan.peers));
    fs::write(folder.join("base.yaml"), text)?;
    for peer in plan.peers.iter().filter(|_| !plan.peers_elsewhere) {
        fs::write(folder.join(format!("{}.yaml", peer.name)), peer.document())?;
    }
    for (number, document) in plan.documents.iter().enumerate() {
        fs::write(folder.join(format!("more-{number}.yaml")), document)?;
    }
    Ok(())
}

fn keys(peers: &[PeerPlan]) -> String {
    let keys: Vec<String> = peers.iter().filter_map(|peer| Some(format!("  {}: \"{}\"\n", peer.name, peer.key.as_ref()?))).collect();
    if keys.is_empty() {
        return String::new();
    }
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: keys, namespace: kube-system}}\nstringData:\n{}", keys.concat())
}
