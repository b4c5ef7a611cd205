//! The speakers: where their programs are, how each is configured for a scenario, how it is started and ended.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::scenario::{ASN, HOLD, PORT, Scenario, TARGET};
use super::usage;
use crate::lab::image;
use crate::lab::process::{self, Signal, wait_until, wait_until_calm};

/// Which configuration a program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Calico resources.
    Margay,
    /// BIRD, of any version.
    Bird,
    /// FRR's bgpd alone.
    Frr,
    /// GoBGP's, which RustyBGP reads too.
    Gobgp,
    /// OpenBGPD.
    Openbgpd,
}

/// A program to be measured.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Under which name it is reported; it begins with the name of its kind.
    pub name: String,
    /// How it is configured.
    pub kind: Kind,
    /// Its path.
    pub program: PathBuf,
}

/// Names of speakers begin with one of these; where the program is by default.
const KINDS: [(&str, Kind, &str); 6] = [
    ("margay", Kind::Margay, ""),
    ("bird", Kind::Bird, "/usr/sbin/bird"),
    ("frr", Kind::Frr, "/usr/lib/frr/bgpd"),
    ("gobgp", Kind::Gobgp, "/usr/bin/gobgpd"),
    ("rustybgp", Kind::Gobgp, "/usr/local/bin/rustybgpd"),
    ("openbgpd", Kind::Openbgpd, "/usr/sbin/bgpd"),
];

/// It must listen, and have read its configuration, by then.
const START: Duration = Duration::from_secs(60);
/// As long without using CPU it has read its configuration.
const CALM: Duration = Duration::from_millis(600);

impl Speaker {
    /// The speaker of a name like `bird` or `bird3`; `program` where it is not the one of the system.
    ///
    /// # Errors
    /// The name begins with no known one.
    pub fn named(name: &str, program: Option<PathBuf>) -> Result<Self> {
        let row = KINDS.iter().find(|(known, ..)| name.starts_with(known));
        let known = || KINDS.map(|(known, ..)| known).join(", ");
        let (_, kind, usual) = row.with_context(|| format!("speaker `{name}` begins with none of {}", known()))?;
        let program = match (program, kind) {
            (Some(program), _) => std::path::absolute(program)?,
            (None, Kind::Margay) => image::margay_folder()?.join("margay"),
            (None, _) => PathBuf::from(usual),
        };
        Ok(Self { name: name.to_owned(), kind: *kind, program })
    }

    /// All that are installed, margay first.
    pub fn installed() -> Vec<Self> {
        let all = KINDS.iter().filter_map(|(name, ..)| Self::named(name, None).ok());
        all.filter(|speaker| speaker.program.exists()).collect()
    }

    /// Those of these names, else all that are installed; and for each `NAME=PATH` that program in the place of its name's own.
    ///
    /// # Errors
    /// A name that begins with no known one, or a program that is not there.
    pub fn chosen(names: &[String], programs: &[String]) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = match names {
            [] => Self::installed(),
            names => names.iter().map(|name| Self::named(name, None)).collect::<Result<_>>()?,
        };
        for pair in programs {
            let (name, path) = pair.split_once('=').with_context(|| format!("--bin {pair}: NAME=PATH is wanted"))?;
            all.retain(|speaker| speaker.name != name);
            all.push(Self::named(name, Some(path.into()))?);
        }
        for speaker in &all {
            ensure!(speaker.program.exists(), "{}: there is no {}", speaker.name, speaker.program.display());
        }
        Ok(all)
    }

    /// Writes its configuration and starts it; returns when it listens and has become calm.
    ///
    /// # Errors
    /// It does not start; with the end of what it said.
    pub fn start(&self, scenario: &Scenario) -> Result<Running> {
        let folder = tempfile::Builder::new().prefix("margay-compare-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let arguments = self.configure(folder.path(), scenario)?;
        let log = File::create(folder.path().join("log"))?;
        let child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let mut running = Running { child, folder };
        wait_until(START, "it listens", || running.listens())
            .and_then(|()| wait_until_calm(START, CALM, "it is calm", || Ok((running.usage()?.cpu * 50.0) as u64)))
            .with_context(|| format!("{} has not started: {}", self.name, running.last_words()))?;
        Ok(running)
    }

    /// Its version, as it tells it.
    pub fn version(&self) -> String {
        let flag = if self.kind == Kind::Openbgpd { "-V" } else { "--version" };
        let program = if self.kind == Kind::Openbgpd { self.program.with_file_name("bgpctl") } else { self.program.clone() };
        let Ok(output) = Command::new(program).arg(flag).output() else { return String::new() };
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
    }

    fn configure(&self, folder: &Path, scenario: &Scenario) -> Result<Vec<String>> {
        let place = folder.display();
        let arguments = match self.kind {
            Kind::Margay => return margay(folder, scenario),
            Kind::Bird => {
                fs::write(folder.join("bird.conf"), bird(scenario, self.name.contains('3')))?;
                format!("-f -c {place}/bird.conf -s {place}/bird.ctl -P {place}/bird.pid")
            }
            Kind::Frr => {
                fs::write(folder.join("frr.conf"), frr(scenario))?;
                fs::create_dir_all("/var/run/frr")?;
                format!("-f {place}/frr.conf -l {TARGET} -p {PORT} -n -Z -S -i {place}/frr.pid -u root -g root -P 0 --vty_socket {place}")
            }
            Kind::Gobgp => {
                fs::write(folder.join("gobgp.toml"), gobgp(scenario))?;
                match self.name.starts_with("gobgp") {
                    true => format!("-f {place}/gobgp.toml --api-hosts 127.0.0.1:50999 -l error --pprof-disable"),
                    false => format!("-f {place}/gobgp.toml"),
                }
            }
            Kind::Openbgpd => {
                let path = folder.join("bgpd.conf");
                fs::write(&path, openbgpd(scenario, folder))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                fs::create_dir_all("/run/openbgpd")?;
                format!("-d -f {place}/bgpd.conf")
            }
        };
        Ok(arguments.split(' ').map(str::to_owned).collect())
    }
}

fn margay(folder: &Path, scenario: &Scenario) -> Result<Vec<String>> {
    let cluster = if scenario.mesh { ", routeReflectorClusterID: 10.7.0.1" } else { "" };
    let accept = "[{action: Accept}]";
    let mut text = format!(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: bench}}\nspec: {{bgp: {{ipv4Address: {TARGET}/8, asNumber: {ASN}{cluster}}}}}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
         spec: {{nodeToNodeMeshEnabled: false, asNumber: {ASN}, listenPort: {PORT}}}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {{name: all}}\n\
         spec: {{importV4: {accept}, exportV4: {accept}, importV6: {accept}, exportV6: {accept}}}\n"
    );
    for (number, (address, asn)) in scenario.peers().iter().enumerate() {
        write!(
            text,
            "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: p{number:04}}}\n\
             spec: {{node: bench, peerIP: {address}, asNumber: {asn}, filters: [all]}}\n"
        )?;
    }
    for name in ["resources", "state"] {
        fs::create_dir(folder.join(name))?;
    }
    fs::write(folder.join("resources/all.yaml"), text)?;
    let place = |name: &str| folder.join(name).display().to_string();
    let kernel = if scenario.keeps_kernel_rows { "--dry-run" } else { "--no-fib" };
    let words = ["run", "--node", "bench", kernel, "--log-level", "error", "--resources"].map(str::to_owned).into_iter();
    Ok(words.chain([place("resources"), "--socket".into(), place("socket"), "--state".into(), place("state")]).collect())
}

fn bird(scenario: &Scenario, threads: bool) -> String {
    let mut text = String::from(if threads { "threads 2;\n" } else { "" }) + "router id 10.7.0.1;\nprotocol device {}\n";
    let client = if scenario.mesh { " rr client;" } else { "" };
    for (number, (address, asn)) in scenario.peers().iter().enumerate() {
        text += &format!(
            "protocol bgp p{number} {{ local {TARGET} port {PORT} as {ASN}; neighbor {address} as {asn}; multihop; passive; \
             hold time {HOLD};{client} ipv4 {{ import all; export all; }}; }}\n"
        );
    }
    text
}

fn frr(scenario: &Scenario) -> String {
    let mut text = format!(
        "frr defaults datacenter\nlog file /dev/null\nrouter bgp {ASN}\n bgp router-id 10.7.0.1\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n no bgp network import-check\n timers bgp {} {HOLD}\n bgp cluster-id 10.7.0.1\n",
        HOLD / 3
    );
    for (address, asn) in scenario.peers() {
        for line in [
            format!("remote-as {asn}"),
            "passive".to_owned(),
            format!("update-source {TARGET}"),
            "disable-connected-check".to_owned(),
            "advertisement-interval 0".to_owned(),
        ] {
            text += &format!(" neighbor {address} {line}\n");
        }
        if !scenario.mesh {
            text += &format!(" neighbor {address} ebgp-multihop 64\n");
        }
    }
    text += " address-family ipv4 unicast\n";
    for (address, _) in scenario.peers() {
        text += &format!("  neighbor {address} activate\n");
        if scenario.mesh {
            text += &format!("  neighbor {address} route-reflector-client\n");
        }
    }
    text + " exit-address-family\n"
}

fn gobgp(scenario: &Scenario) -> String {
    let mut text = format!("[global.config]\nas = {ASN}\nrouter-id = \"10.7.0.1\"\nport = {PORT}\nlocal-address-list = [\"{TARGET}\"]\n");
    for (address, asn) in scenario.peers() {
        text += &format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {asn}\n[neighbors.transport.config]\n\
             passive-mode = true\nlocal-address = \"{TARGET}\"\n[neighbors.timers.config]\nhold-time = {HOLD}\nkeepalive-interval = {}\n",
            HOLD / 3
        );
        text += match scenario.mesh {
            true => "[neighbors.route-reflector.config]\nroute-reflector-client = true\nroute-reflector-cluster-id = \"10.7.0.1\"\n",
            false => "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 64\n",
        };
        text += "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n";
    }
    text
}

fn openbgpd(scenario: &Scenario, folder: &Path) -> String {
    let mut text = format!(
        "AS {ASN}\nrouter-id 10.7.0.1\nlisten on {TARGET} port {PORT}\nfib-update no\nholdtime {HOLD}\nsocket \"{}/bgpd.sock\"\n",
        folder.display()
    );
    let client = if scenario.mesh { " route-reflector\n" } else { "" };
    for (address, asn) in scenario.peers() {
        text += &format!(
            "neighbor {address} {{\n remote-as {asn}\n passive\n multihop 64\n local-address {TARGET}\n announce IPv4 unicast\n{client}}}\n"
        );
    }
    text + "allow from any\nallow to any\n"
}

/// A speaker that runs. Dropping it ends it and what it has started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    folder: TempDir,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its configuration, socket and log are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> Result<usage::Usage> {
        usage::of(self.pid())
    }

    /// Whether its process runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// The end of what it has said.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" / ")
    }

    fn listens(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it has ended: {status}");
        }
        let wanted = format!(":{PORT:04X}");
        let sockets = fs::read_to_string("/proc/net/tcp")? + &fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
        let listens = sockets.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|local| local.ends_with(&wanted)) && fields.get(3) == Some(&"0A")
        });
        ensure!(listens, "nobody listens on port {PORT}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in usage::tree(self.child.id()) {
            process::signal(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
