//! Transcripts: what a Peer machine hears and says as lines of text.
//!
//! ```text
//! # comments stay where they are
//! config hold=9 passive
//! < START
//! at 1s
//! < 1 CONNECTED in
//! > 1 OPEN as=64512 hold=9 id=10.0.0.1 mp=ipv4-unicast …
//! until 20s
//! ```
//!
//! A `config` line begins a new scene with a new machine. `<` is an input, with the connection's number before it where it belongs to one; `>` is an output. `at T` says when
//! the inputs after it come; an `at` with outputs only is one of the machine's own deadlines. `until T` lets time pass.
//! Reading a file runs its inputs and writes the whole text anew: it must come out the same. With `BLESS=1` in the
//! environment the file is rewritten instead, so a new case is written as inputs only.
//!
//! | input | |
//! |---|---|
//! | `START`, `STOP reset\|change\|deconfigured\|restart\|shutdown [TEXT]`, `RECOVERED`, `REFRESH FAMILY` | |
//! | `CONFIGURE …` | as `config`, from the defaults |
//! | `N CONNECTED in\|out`, `N FAILED TEXT`, `N CLOSED [TEXT]`, `N WRITTEN OCTETS`, `N PAUSED on\|off` | an accepted connection is allocated the next number |
//! | `N FRAMES SHARD OCTETS [ended FAMILY…]` | one frame of that size, none for 0 |
//! | `COUNTS SHARD RECEIVED` | IPv4 unicast |
//! | `N OPEN …`, `N KEEPALIVE`, `N NOTIFICATION CODE SUBCODE [HEX]`, `N ROUTE-REFRESH FAMILY SUBTYPE`, `N END-OF-RIB FAMILY` | messages; an OPEN without capabilities named has the usual ones, `bare` has none |
//! | `N UPDATE announce PREFIX`, `N UPDATE withdraw PREFIX` | IPv4 unicast |
//! | `N BYTES HEX` | octets as they are |

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use margay::config::{AddPath, Authentication, MaxPrefixAction, MaxPrefixes, PeerConfig};
use margay::session::{Event, Input, Output, Peer, PrefixCounts, RouteChange, Settings, StopReason};
use margay::types::{AsPath, Asn, Attributes, ConnectionId, Family, Nlri, NlriList, Outbox, PathId, PeerId, PerFamily, RouterId, ShardId};
use margay::wire::{Capability, Context, GracefulRestart, Message, Notification, Open, RouteRefresh, Update, frame};

use crate::story;

/// Runs every transcript of a folder; says which came out differently, and how.
pub fn run_folder(folder: &Path) -> Result<()> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    ensure!(!files.is_empty(), "no transcript in {}", folder.display());
    let mut wrong = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let now = replay(&text).with_context(|| file.display().to_string())?;
        if now != text && std::env::var_os("BLESS").is_some() {
            std::fs::write(&file, &now)?;
        } else if now != text {
            writeln!(wrong, "{}: {}", file.display(), first_difference(&text, &now))?;
        }
    }
    ensure!(wrong.is_empty(), "{wrong}(BLESS=1 takes the new text over)");
    Ok(())
}

fn first_difference(old: &str, new: &str) -> String {
    let (mut old, mut new) = (old.lines(), new.lines());
    for line in 1.. {
        match (old.next(), new.next()) {
            (a, b) if a == b && a.is_some() => {}
            (a, b) => return format!("line {line}: expected {}, came {}", a.unwrap_or("the end"), b.unwrap_or("the end")),
        }
    }
    String::new()
}

/// Runs the inputs of a transcript; the whole text as it comes out.
pub fn replay(text: &str) -> Result<String> {
    let mut stage = None;
    let mut script = Script::default();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        read_line(line, &lines[index + 1..], &mut stage, &mut script).with_context(|| format!("line {}: {line}", index + 1))?;
    }
    Ok(script.text)
}

fn read_line(line: &str, rest: &[&str], stage: &mut Option<Stage>, script: &mut Script) -> Result<()> {
    let (word, tail) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        ">" => {}
        "" => script.line(line),
        "#" => script.line(line),
        "config" => {
            script.line(line);
            script.shown = None;
            *stage = Some(Stage::new(tail)?);
        }
        "at" => {
            // Only outputs follow: the machine's own deadline, which comes again by itself.
            if rest.iter().take_while(|line| !line.starts_with("at ") && !line.starts_with("until ")).any(|line| line.starts_with('<')) {
                let stage = stage.as_mut().context("no config line yet")?;
                stage.run(time(tail)?, script);
                script.at(stage.now);
            }
        }
        "until" => {
            let stage = stage.as_mut().context("no config line yet")?;
            let until = time(tail)?;
            stage.run(until, script);
            script.line(line);
            script.shown = Some(until);
        }
        "<" => {
            let stage = stage.as_mut().context("no config line yet")?;
            script.line(line);
            let input = stage.input(tail)?;
            stage.tell(input, script);
        }
        _ => bail!("a line begins with <, >, at, until, config or #"),
    }
    Ok(())
}

fn time(text: &str) -> Result<Duration> {
    let seconds: f64 = text.strip_suffix('s').and_then(|number| number.parse().ok()).context("a time is written like 1.5s")?;
    Ok(Duration::from_secs_f64(seconds))
}

/// The text that comes out.
#[derive(Default)]
struct Script {
    text: String,
    shown: Option<Duration>,
}

impl Script {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn at(&mut self, now: Duration) {
        if self.shown.unwrap_or_default() != now {
            let seconds = format!("{:.3}", now.as_secs_f64());
            self.line(&format!("at {}s", seconds.trim_end_matches('0').trim_end_matches('.')));
        }
        self.shown = Some(now);
    }
}

/// The machine and its clock.
struct Stage {
    peer: Peer,
    config: PeerConfig,
    origin: Instant,
    now: Duration,
}

impl Stage {
    fn new(options: &str) -> Result<Self> {
        let (config, settings) = configuration(options)?;
        let peer = Peer::new(PeerId(1), Arc::new(config.clone()), settings);
        Ok(Self { peer, config, origin: Instant::now(), now: Duration::ZERO })
    }

    fn run(&mut self, until: Duration, script: &mut Script) {
        while let Some(at) = self.peer.deadline().map(|at| at.saturating_duration_since(self.origin)).filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let mut out = Outbox::new();
            self.peer.on_deadline(self.origin + self.now, &mut out);
            self.show(out, script);
        }
        self.now = until;
    }

    fn tell(&mut self, input: Input, script: &mut Script) {
        let mut out = Outbox::new();
        self.peer.handle(self.origin + self.now, input, &mut out);
        self.show(out, script);
    }

    fn show(&mut self, mut out: Outbox<Output>, script: &mut Script) {
        for output in out.drain() {
            script.at(self.now);
            script.line(&format!("> {}", output_text(&output)));
        }
    }

    fn input(&mut self, text: &str) -> Result<Input> {
        let words: Vec<&str> = text.split(' ').collect();
        if let Some(connection) = words.first().and_then(|word| word.parse().ok()).map(ConnectionId) {
            return self.on_connection(connection, &words[1..]);
        }
        Ok(match words.as_slice() {
            ["START"] => Input::Start,
            ["STOP", "reset"] => Input::Stop(StopReason::AdministrativeReset(String::new())),
            ["STOP", "change"] => Input::Stop(StopReason::ConfigurationChange),
            ["STOP", "deconfigured"] => Input::Stop(StopReason::Deconfigured),
            ["STOP", "restart"] => Input::Stop(StopReason::ProcessRestart),
            ["STOP", "shutdown", text @ ..] => Input::Stop(StopReason::AdministrativeShutdown(text.join(" "))),
            ["RECOVERED"] => Input::RecoveryDone,
            ["REFRESH", name] => Input::RequestRefresh(family(name)?),
            ["CONFIGURE", options @ ..] => {
                self.config = configuration(&options.join(" "))?.0;
                Input::Configure(Arc::new(self.config.clone()))
            }
            ["COUNTS", shard, received] => {
                let counts = PrefixCounts { received: received.parse()?, accepted: received.parse()?, advertised: 0 };
                Input::Counts { shard: ShardId(shard.parse()?), counts: PerFamily { ipv4: counts, ipv6: PrefixCounts::default() } }
            }
            _ => bail!("no such input"),
        })
    }

    fn on_connection(&mut self, connection: ConnectionId, words: &[&str]) -> Result<Input> {
        Ok(match words {
            ["CONNECTED", way] => {
                let outgoing = *way == "out";
                if !outgoing {
                    let given = self.peer.allocate();
                    ensure!(given == connection, "the next accepted connection is number {given}");
                }
                let (ours, theirs) = if outgoing { (40_000, 179) } else { (179, 40_000) };
                let local = SocketAddr::new(self.config.local_address.context("a local address")?, ours);
                let remote = SocketAddr::new(self.config.address, theirs);
                Input::Connected { connection, outgoing, local, remote, local_link: None }
            }
            ["FAILED", text @ ..] => Input::ConnectFailed { connection, error: text.join(" ") },
            ["CLOSED", text @ ..] => Input::Closed { connection, error: (!text.is_empty()).then(|| text.join(" ")) },
            ["WRITTEN", octets] => Input::Written { connection, waiting: octets.parse()? },
            ["PAUSED", switch] => Input::Paused { connection, paused: *switch == "on" },
            ["FRAMES", shard, octets, ended @ ..] => {
                let octets: usize = octets.parse()?;
                let frames = if octets == 0 { Vec::new() } else { vec![Bytes::from(vec![0; octets])] };
                let ended = ended.iter().skip(1).map(|name| family(name)).collect::<Result<_>>()?;
                Input::Frames { connection, shard: ShardId(shard.parse()?), frames, ended }
            }
            ["BYTES", hex] => Input::Received { connection, bytes: octets(hex)? },
            words => Input::Received { connection, bytes: self.messages(words)? },
        })
    }

    /// One or more messages, with `+` between them, that come in one read.
    fn messages(&self, words: &[&str]) -> Result<Bytes> {
        let mut bytes = BytesMut::new();
        for words in words.split(|word| *word == "+") {
            bytes.extend_from_slice(&self.message(words)?.encode(&context())?);
        }
        Ok(bytes.freeze())
    }

    fn message(&self, words: &[&str]) -> Result<Message> {
        Ok(match words {
            ["OPEN", options @ ..] => Message::Open(self.open(options)?),
            ["KEEPALIVE"] => Message::Keepalive,
            ["NOTIFICATION", code, subcode, data @ ..] => {
                let data = octets(&data.concat())?;
                Message::Notification(Notification { code: code.parse()?, subcode: subcode.parse()?, data })
            }
            ["ROUTE-REFRESH", name, subtype] => Message::RouteRefresh(RouteRefresh::new(family(name)?, subtype.parse()?)),
            ["END-OF-RIB", name] => Message::Update(Update::end_of_rib(family(name)?)),
            ["UPDATE", "announce", prefix] => {
                let next_hop = self.config.address.into();
                let as_path = if self.config.is_ibgp() { AsPath::default() } else { AsPath::sequence([self.config.remote_asn]) };
                let attributes = Attributes { as_path, local_pref: Some(100), ..Attributes::originated(next_hop) };
                Message::Update(Update { announced: vec![(Arc::new(attributes), list(prefix)?)], ..Update::default() })
            }
            ["UPDATE", "withdraw", prefix] => Message::Update(Update { withdrawn: vec![list(prefix)?], ..Update::default() }),
            _ => bail!("no such input"),
        })
    }

    fn open(&self, options: &[&str]) -> Result<Open> {
        let asn = self.config.remote_asn;
        let std::net::IpAddr::V4(address) = self.config.address else { bail!("an IPv4 peer") };
        let mut open = Open { my_as: asn.two_octets(), hold_time: 90, identifier: RouterId(address), capabilities: Vec::new() };
        let mut usual = true;
        for option in options {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "as" => open.my_as = value.parse()?,
                "hold" => open.hold_time = value.parse()?,
                "id" => open.identifier = RouterId(value.parse()?),
                "bare" => usual = false,
                _ => {
                    usual = false;
                    open.capabilities.extend(capabilities(name, value)?);
                }
            }
        }
        if usual {
            let families: Vec<Family> = self.config.offered().collect();
            open.capabilities.extend(families.iter().map(|family| Capability::Multiprotocol(*family)));
            open.capabilities.push(Capability::RouteRefresh);
            open.capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restarting: false,
                notification: true,
                restart_time: 120,
                families: families.iter().map(|family| (*family, true)).collect(),
            }));
            open.capabilities.push(Capability::FourOctetAs(asn));
            open.capabilities.push(Capability::EnhancedRouteRefresh);
        }
        Ok(open)
    }
}

fn configuration(options: &str) -> Result<(PeerConfig, Settings)> {
    let mut config = story::config([10, 0, 0, 1], [10, 0, 0, 2]);
    config.connect_delay = Duration::ZERO;
    let mut settings = Settings { seed: 1, shards: 1, ..Settings::default() };
    for option in options.split_whitespace() {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "id" => config.router_id = RouterId(value.parse()?),
            "as" => config.local_asn = Asn(value.parse()?),
            "peer-as" => config.remote_asn = Asn(value.parse()?),
            "hold" => config.hold_time = value.parse()?,
            "keepalive" => config.keepalive = Some(time(value)?),
            "delay" => config.connect_delay = time(value)?,
            "restart" => config.restart_time = value.parse()?,
            "passive" => config.passive = true,
            "ipv6" => config.families.ipv6 = true,
            "add-path" => config.add_path = AddPath::Both,
            "extended" => config.extended_messages = true,
            "key-missing" => config.authentication = Authentication::Missing("Secret bgp, key tor".to_owned()),
            "max-warn" => config.max_prefixes = MaxPrefixes { limit: value.parse()?, action: MaxPrefixAction::Warn },
            "max-idle" => config.max_prefixes = MaxPrefixes { limit: value.parse()?, action: MaxPrefixAction::Idle },
            "shards" => settings.shards = value.parse()?,
            "seed" => settings.seed = value.parse()?,
            "restarting" => {
                settings.restarting = true;
                settings.forwarding = PerFamily { ipv4: true, ipv6: true };
            }
            _ => bail!("no such option: {name}"),
        }
    }
    Ok((config, settings))
}

fn family(name: &str) -> Result<Family> {
    Family::ALL.into_iter().find(|family| family.to_string() == name).ok_or_else(|| anyhow!("no such family: {name}"))
}

fn list(prefix: &str) -> Result<NlriList> {
    Ok(NlriList::Ipv4(vec![Nlri { prefix: prefix.parse()?, path_id: PathId(0) }]))
}

fn context() -> Context {
    Context { four_octet_as: true, families: PerFamily { ipv4: true, ipv6: true }, ..Context::default() }
}

fn octets(hex: &str) -> Result<Bytes> {
    ensure!(hex.len().is_multiple_of(2), "hexadecimal octets have two digits each");
    (0..hex.len()).step_by(2).map(|at| Ok(u8::from_str_radix(hex.get(at..at + 2).context("ASCII")?, 16)?)).collect()
}

fn capabilities(name: &str, value: &str) -> Result<Vec<Capability>> {
    let names = || value.split(',').filter(|name| !name.is_empty());
    Ok(match name {
        "mp" => names().map(|name| Ok(Capability::Multiprotocol(family(name)?))).collect::<Result<_>>()?,
        "refresh" => vec![Capability::RouteRefresh],
        "enhanced" => vec![Capability::EnhancedRouteRefresh],
        "llgr" => vec![Capability::LongLivedGracefulRestart(Vec::new())],
        "extended" => vec![Capability::ExtendedMessage],
        "as4" => vec![Capability::FourOctetAs(Asn(value.parse()?))],
        "gr" => {
            let mut gr = GracefulRestart::default();
            for part in names() {
                match (part, part.strip_suffix("/F")) {
                    ("R", _) => gr.restarting = true,
                    ("N", _) => gr.notification = true,
                    (_, Some(name)) => gr.families.push((family(name)?, true)),
                    (part, None) => match part.parse() {
                        Ok(seconds) => gr.restart_time = seconds,
                        Err(_) => gr.families.push((family(part)?, false)),
                    },
                }
            }
            vec![Capability::GracefulRestart(gr)]
        }
        "add-path" => {
            let mode = |part: &str| {
                let (name, mode) = part.split_once('/').context("add-path=FAMILY/MODE")?;
                Ok((family(name)?, mode.parse()?))
            };
            vec![Capability::AddPath(names().map(mode).collect::<Result<_>>()?)]
        }
        "code" => vec![Capability::Unknown { code: value.parse()?, value: Bytes::new() }],
        _ => bail!("no such capability: {name}"),
    })
}

fn output_text(output: &Output) -> String {
    match output {
        Output::Connect { connection } => format!("{connection} CONNECT"),
        Output::Send { connection, bytes } => format!("{connection} {}", sent(bytes)),
        Output::Close { connection, linger } => format!("{connection} CLOSE{}", if *linger { " linger" } else { "" }),
        Output::Up(facts) => format!("UP {} {}", facts.connection, families(facts.context.families)),
        Output::Down { keep, .. } => format!("DOWN keep {}", families(*keep)),
        Output::LongLived(family) => format!("LONG-LIVED {family}"),
        Output::SweepStale(family) => format!("SWEEP {family}"),
        Output::Routes(shard, batch) => {
            format!("ROUTES {shard} {}", batch.changes.iter().map(change_text).collect::<Vec<_>>().join("; "))
        }
        Output::RefreshRequested(family) => format!("REFRESH-REQUESTED {family}"),
        Output::Pull { credit } => format!("PULL {credit}"),
        Output::EndOfRib(family) => format!("END-OF-RIB {family}"),
        Output::Event(event) => event_text(event),
    }
}

fn event_text(event: &Event) -> String {
    match event {
        Event::State { from, to } => format!("STATE {from:?} {to:?}"),
        Event::Down(reason) => {
            let by = format!("{:?}", reason.by).to_lowercase();
            format!("EVENT down by {by} {}/{}: {}", reason.code, reason.subcode, reason.text)
        }
        Event::Superseded(reason) => format!("EVENT superseded {}/{}: {}", reason.code, reason.subcode, reason.text),
        Event::Fault { text, .. } => format!("EVENT fault: {text}"),
        Event::PrefixLimit { family, received, limit } => format!("EVENT {received} of {limit} {family} paths"),
    }
}

fn change_text(change: &RouteChange) -> String {
    let names = |list: &NlriList| list.iter().map(|item| item.prefix.to_string()).collect::<Vec<_>>().join(" ");
    match change {
        RouteChange::Announce(attributes, list) => format!("announce {} via {}", names(list), attributes.next_hop),
        RouteChange::Withdraw(list) => format!("withdraw {}", names(list)),
        RouteChange::EndOfRib(family) => format!("end-of-rib {family}"),
        RouteChange::RefreshBegin(family) => format!("refresh-begin {family}"),
        RouteChange::RefreshEnd(family) => format!("refresh-end {family}"),
    }
}

fn families(set: PerFamily<bool>) -> String {
    let names: Vec<String> = set.iter().filter(|(_, on)| **on).map(|(family, _)| family.to_string()).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
}

/// Messages that the machine sent, or the size of what is none.
fn sent(bytes: &Bytes) -> String {
    let mut buffer = BytesMut::from(&bytes[..]);
    let context = Context { receive_limit: 65535, ..context() };
    let mut texts = Vec::new();
    while let Ok(Some(one)) = frame::next(&mut buffer, &context) {
        match Message::decode(one.kind, &one.body, &context) {
            Ok(message) => texts.push(message_text(&message)),
            Err(error) => texts.push(format!("({error})")),
        }
    }
    if !buffer.is_empty() {
        texts.push(format!("({} octets)", buffer.len()));
    }
    texts.join(" + ")
}

fn message_text(message: &Message) -> String {
    match message {
        Message::Open(open) => open_text(open),
        Message::Update(Update { end_of_rib: Some(family), .. }) => format!("END-OF-RIB {family}"),
        Message::Update(_) => "UPDATE".to_owned(),
        Message::Keepalive => "KEEPALIVE".to_owned(),
        Message::RouteRefresh(refresh) => format!("ROUTE-REFRESH {} {}", refresh.family(), refresh.subtype),
        Message::Notification(notification) => {
            let data: String = notification.data.iter().map(|octet| format!("{octet:02x}")).collect();
            format!("NOTIFICATION {} {} {data}", notification.code, notification.subcode).trim_end().to_owned()
        }
    }
}

fn open_text(open: &Open) -> String {
    let mut text = format!("OPEN as={} hold={} id={}", open.my_as, open.hold_time, open.identifier);
    for capability in &open.capabilities {
        text.push(' ');
        text.push_str(&capability_text(capability));
    }
    text
}

fn capability_text(capability: &Capability) -> String {
    match capability {
        Capability::Multiprotocol(family) => format!("mp={family}"),
        Capability::RouteRefresh => "refresh".to_owned(),
        Capability::EnhancedRouteRefresh => "enhanced".to_owned(),
        Capability::LongLivedGracefulRestart(families) if families.is_empty() => "llgr".to_owned(),
        Capability::ExtendedMessage => "extended".to_owned(),
        Capability::FourOctetAs(asn) => format!("as4={asn}"),
        Capability::GracefulRestart(gr) => {
            let flags = [("R", gr.restarting), ("N", gr.notification)];
            let mut parts: Vec<String> = flags.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()).collect();
            parts.push(gr.restart_time.to_string());
            parts.extend(gr.families.iter().map(|(family, kept)| format!("{family}{}", if *kept { "/F" } else { "" })));
            format!("gr={}", parts.join(","))
        }
        Capability::AddPath(modes) => {
            let parts: Vec<String> = modes.iter().map(|(family, mode)| format!("{family}/{mode}")).collect();
            format!("add-path={}", parts.join(","))
        }
        other => format!("code={}", other.code()),
    }
}
