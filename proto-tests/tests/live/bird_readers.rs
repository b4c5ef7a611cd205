//! Readers of BIRD's control socket as Calico's programs and bird_exporter have them, written from the rules that those programs
//! follow, not from what margay writes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Every client waits this long for a line.
const LINE: Duration = Duration::from_secs(2);

/// A connection to a socket, greeted.
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects and reads the greeting.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(LINE))?;
        let mut client = Self { reader: BufReader::new(stream) };
        let greeting = client.line()?;
        ensure!(greeting.starts_with("0001 BIRD v") && greeting.ends_with(" ready."), "{greeting}");
        Ok(client)
    }

    /// Sends one command.
    pub fn ask(&mut self, command: &str) -> Result<()> {
        Ok(self.reader.get_mut().write_all(format!("{command}\n").as_bytes())?)
    }

    /// The next line.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.reader.read_line(&mut line).context("within 2 s")? > 0, "closed");
        Ok(line.trim_end_matches('\n').to_owned())
    }

    /// Everything up to a line `NNNN ` that ends a reply.
    pub fn reply(&mut self, command: &str) -> Result<Vec<String>> {
        self.ask(command)?;
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let end = line.len() >= 5 && line.as_bytes()[..4].iter().all(u8::is_ascii_digit) && line.as_bytes()[4] == b' ';
            lines.push(line);
            if end {
                return Ok(lines);
            }
        }
    }
}

/// A row of `show protocols` as readiness, calicoctl and CalicoNodeStatus cut it.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub state: String,
    pub bgp: String,
    pub info: String,
}

/// BGP rows. Any line that does not begin as a row may is an error for the whole query.
pub fn bgp_rows(socket: &Path) -> Result<Vec<Row>> {
    let mut client = Client::connect(socket)?;
    client.ask("show protocols")?;
    let mut rows = Vec::new();
    loop {
        let line = client.line()?;
        if line.starts_with("0000") {
            return Ok(rows);
        } else if let Some(header) = line.strip_prefix("2002-") {
            let words: Vec<&str> = header.split_whitespace().collect();
            ensure!(words == ["name", "proto", "table", "state", "since", "info"], "{header}");
        } else if let Some(row) = line.strip_prefix("1002-").or_else(|| line.strip_prefix(' ')) {
            let words: Vec<&str> = row.split_whitespace().collect();
            if words.len() >= 6 && words[1] == "BGP" {
                ensure!(words[2] == "master", "{row}");
                rows.push(Row { name: words[0].into(), state: words[3].into(), bgp: words[5].into(), info: words[6..].join(" ") });
            }
        } else if !line.starts_with("0001") {
            bail!("unexpected line `{line}`");
        }
    }
}

/// The rule of calico-node's readiness check; `young`: started less than the threshold ago.
pub fn readiness(socket: &Path, young: bool) -> Result<()> {
    let rows: Vec<Row> = bgp_rows(socket)?.into_iter().filter(|row| counted(&row.name).is_some()).collect();
    let down: Vec<String> =
        rows.iter().filter(|row| row.bgp != "Established").filter_map(|row| counted(&row.name)).map(|(_, ip)| ip).collect();
    if rows.is_empty() {
        return Ok(());
    }
    if !young {
        ensure!(down.len() < rows.len(), "BGP not established with {}", down.join(","));
        return Ok(());
    }
    ensure!(down.is_empty(), "BGP not established with {}", down.join(","));
    ensure!(!recovery_in_progress(socket)?, "graceful restart in progress");
    Ok(())
}

/// Kind and address in a session's name: `Mesh_10_0_0_2`.
fn counted(name: &str) -> Option<(&str, String)> {
    let (kind, rest) = name.split_once('_')?;
    let separator = if rest.matches('_').count() > 3 && !rest.contains("_port_") { ":" } else { "." };
    ["Global", "Node", "Mesh"].contains(&kind).then(|| (kind, rest.replace('_', separator)))
}

/// Whether `show status` says so.
pub fn recovery_in_progress(socket: &Path) -> Result<bool> {
    let mut client = Client::connect(socket)?;
    client.ask("show status")?;
    let mut found = false;
    loop {
        let line = client.line()?;
        match line.get(..4) {
            Some("0013") => return Ok(found),
            Some("0024") => found = true,
            Some("0001" | "1000" | "1011") => {}
            _ if line.starts_with(' ') => {}
            _ => bail!("unexpected line `{line}`"),
        }
    }
}

/// CalicoNodeStatus, class Agent.
#[derive(Debug, Default)]
pub struct Agent {
    pub version: String,
    pub router_id: String,
    pub last_boot: String,
    pub last_reconfiguration: String,
}

/// As the reporter reads it.
pub fn agent(socket: &Path) -> Result<Agent> {
    let mut client = Client::connect(socket)?;
    let mut agent = Agent::default();
    client.ask("show status")?;
    loop {
        let line = client.line()?;
        if let Some(version) = line.strip_prefix("1000-BIRD ") {
            ensure!(version.starts_with('v'), "{version}");
            agent.version = version.into();
        } else if let Some(id) = line.strip_prefix("1011-Router ID is ") {
            agent.router_id = id.into();
        } else if let Some(time) = line.strip_prefix(" Last reboot on ") {
            agent.last_boot = time.into();
        } else if let Some(time) = line.strip_prefix(" Last reconfiguration on ") {
            agent.last_reconfiguration = time.into();
        } else if !line.starts_with(" Current server time is ") {
            ensure!(line.starts_with("0013") || line.starts_with("0024"), "{line}");
            return Ok(agent);
        }
    }
}

/// A peer in CalicoNodeStatus, class BGP.
#[derive(Debug)]
pub struct Peer {
    pub address: String,
    pub kind: String,
    pub state: String,
}

/// Peers, and how many are Established (counted by the protocol's state).
pub fn bgp(socket: &Path) -> Result<(Vec<Peer>, usize)> {
    const STATES: [&str; 7] = ["Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established", "Close"];
    let (mut peers, mut up) = (Vec::new(), 0);
    let mut client = Client::connect(socket)?;
    for row in bgp_rows(socket)? {
        let Some((kind, _)) = counted(&row.name) else { continue };
        let (mut address, mut state) = (String::new(), String::new());
        client.ask(&format!("show protocols all {}", row.name))?;
        loop {
            let line = client.line()?;
            if line.starts_with("0000") {
                break;
            }
            for (text, value) in [("BGP state:", &mut state), ("Neighbor address:", &mut address)] {
                if line.contains(text) {
                    *value = line.replace(text, " ").trim().to_owned();
                }
            }
        }
        up += usize::from(row.state == "up");
        let state = if STATES.contains(&&*state) { state } else { String::new() };
        peers.push(Peer { address, kind: kind.into(), state });
    }
    Ok((peers, up))
}

/// A route in CalicoNodeStatus, class Routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub destination: String,
    pub gateway: String,
    pub interface: String,
    pub learned_from: String,
    pub fib: bool,
}

/// As the reporter reads them: one row that it does not know makes the whole update fail.
pub fn routes(socket: &Path) -> Result<BTreeSet<Route>> {
    let mut client = Client::connect(socket)?;
    client.ask("show route")?;
    let (mut routes, mut destination) = (BTreeSet::new(), String::new());
    loop {
        let line = client.line()?;
        if line.starts_with("0000") {
            return Ok(routes);
        }
        let row = line.strip_prefix("1007-").or_else(|| line.strip_prefix(' ')).with_context(|| format!("row `{line}`"))?;
        let mut words: Vec<&str> = row.split_whitespace().collect();
        if words[0].contains('/') {
            destination = words.remove(0).to_owned();
        }
        let (gateway, interface) = match words[..] {
            ["via", gateway, "on", interface, ..] => (gateway, interface),
            ["dev", interface, ..] => ("N/A", interface),
            [kind @ ("blackhole" | "unreachable"), ..] => ("N/A", kind),
            _ => bail!("row `{row}`"),
        };
        let from = row.split_once('[').with_context(|| row.to_owned())?.1.split_whitespace().next().context("an origin")?;
        let known = ["kernel", "static", "direct", "Mesh_", "Global_", "Node_"].iter().any(|prefix| from.starts_with(prefix));
        ensure!(known, "origin `{from}`");
        routes.insert(Route {
            destination: destination.clone(),
            gateway: gateway.into(),
            interface: interface.into(),
            learned_from: from.into(),
            fib: row.contains("] *"),
        });
    }
}

/// What bird_exporter makes of `show protocols all`: by name, whether it is up, and routes imported, filtered and exported.
pub fn exporter(socket: &Path) -> Result<BTreeMap<String, (bool, u64, u64, u64)>> {
    let mut protocols = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in Client::connect(socket)?.reply("show protocols all")? {
        let text = line.get(5..).filter(|_| line.as_bytes()[0].is_ascii_digit()).unwrap_or(&line);
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            // name, proto, table, state, since, info: a row begins at the margin.
            [name, "BGP" | "Static" | "Kernel" | "Device" | "Direct", "master", state, _, ..] => {
                current = Some(name.to_owned());
                protocols.insert(name.to_owned(), (state == "up", 0, 0, 0));
            }
            ["Routes:", imported, "imported,", filtered, "filtered,", exported, "exported", ..] => {
                let entry = current.as_ref().and_then(|name| protocols.get_mut(name)).context("routes before a protocol")?;
                (entry.1, entry.2, entry.3) = (imported.parse()?, filtered.parse()?, exported.parse()?);
            }
            _ => {}
        }
    }
    Ok(protocols)
}
