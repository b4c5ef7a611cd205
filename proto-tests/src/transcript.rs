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
//! | `START`, `STOP reset\|hard\|shutdown [TEXT]`, `STOP out-of-resources SECONDS TEXT`, `STOP change\|deconfigured\|handed-over\|restart`, `RECOVERED`, `REFRESH FAMILY` | |
//! | `CONFIGURE …` | as `config`, from the defaults |
//! | `N CONNECTED in\|out`, `N FAILED TEXT`, `N CLOSED [TEXT]`, `N WRITTEN OCTETS`, `N PAUSED on\|off` | an accepted connection is allocated the next number |
//! | `N FRAMES SHARD OCTETS [ended FAMILY…]` | one frame of that size, none for 0 |
//! | `COUNTS SHARD RECEIVED` | IPv4 unicast |
//! | `N OPEN …`, `N KEEPALIVE`, `N NOTIFICATION CODE SUBCODE [HEX]`, `N ROUTE-REFRESH FAMILY SUBTYPE`, `N END-OF-RIB FAMILY` | messages; an OPEN without capabilities named has the usual ones, `bare` has none |
//! | `N UPDATE announce PREFIX`, `N UPDATE withdraw PREFIX` | IPv4 unicast |
//! | `N BYTES HEX` | octets as they are |
//!
//! A file of `margay run --record DIR` is such a transcript as it is. Its scene is `recorded`: times are told to the nanosecond, and a deadline
//! that was met is the input `DUE`. `CONNECTED`, `COUNTS` and `FRAMES` have all that was said in them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use margay::config::{AddPath, Authentication, ConsecutiveRestarts, MaxPrefixAction, MaxPrefixes, PeerConfig, SendHold};
use margay::node::transcript::{self, session_output};
use margay::session::{Input, Output, Peer, PrefixCounts, Settings, StopReason};
use margay::types::{AsPath, Asn, Attributes, ConnectionId, Family, Nlri, NlriList, Outbox, PathId, PeerId, PerFamily, RouterId, ShardId};
use margay::wire::{Capability, Context, GracefulRestart, Message, Notification, Open, RouteRefresh, Update};

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
            let new = Stage::new(tail)?;
            script.fine = new.recorded;
            *stage = Some(new);
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
            if tail == "DUE" {
                return stage.due(script);
            }
            let input = stage.input(tail)?;
            stage.tell(input, script);
        }
        _ => bail!("a line begins with <, >, at, until, config or #"),
    }
    Ok(())
}

fn time(text: &str) -> Result<Duration> {
    let number = text.strip_suffix('s').context("a time is written like 1.5s")?;
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
    ensure!(fraction.len() <= 9, "nanoseconds are as fine as it gets");
    Ok(Duration::new(seconds.parse()?, format!("{fraction:0<9}").parse()?))
}

/// The text that comes out.
#[derive(Default)]
struct Script {
    text: String,
    shown: Option<Duration>,
    /// Times are told to the nanosecond.
    fine: bool,
}

impl Script {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn at(&mut self, now: Duration) {
        if self.fine {
            if self.shown != Some(now) {
                self.line(&format!("at {}", transcript::time(now)));
            }
        } else if self.shown.unwrap_or_default() != now {
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
    /// Deadlines come as inputs too, at the times at which they were met.
    recorded: bool,
}

impl Stage {
    fn new(options: &str) -> Result<Self> {
        let (config, settings) = configuration(options)?;
        let words = || options.split_whitespace();
        let number = words().find_map(|word| word.strip_prefix("number=")).map_or(Ok(1), str::parse)?;
        let peer = Peer::new(PeerId(number), Arc::new(config.clone()), settings);
        Ok(Self { peer, config, origin: Instant::now(), now: Duration::ZERO, recorded: words().any(|word| word == "recorded") })
    }

    fn run(&mut self, until: Duration, script: &mut Script) {
        while !self.recorded
            && let Some(at) = self.peer.deadline().map(|at| at.saturating_duration_since(self.origin)).filter(|at| *at <= until)
        {
            self.now = self.now.max(at);
            let mut out = Outbox::new();
            self.peer.on_deadline(self.origin + self.now, &mut out);
            self.show(out, script);
        }
        self.now = until;
    }

    fn due(&mut self, script: &mut Script) -> Result<()> {
        ensure!(self.recorded, "deadlines come by themselves");
        let mut out = Outbox::new();
        self.peer.on_deadline(self.origin + self.now, &mut out);
        self.show(out, script);
        Ok(())
    }

    fn tell(&mut self, input: Input, script: &mut Script) {
        let mut out = Outbox::new();
        self.peer.handle(self.origin + self.now, input, &mut out);
        self.show(out, script);
    }

    fn show(&mut self, mut out: Outbox<Output>, script: &mut Script) {
        for output in out.drain() {
            script.at(self.now);
            script.line(&format!("> {}", session_output(&output)));
        }
    }

    fn input(&mut self, text: &str) -> Result<Input> {
        let words: Vec<&str> = text.split(' ').collect();
        if let Some(connection) = words.first().and_then(|word| word.parse().ok()).map(ConnectionId) {
            return self.on_connection(connection, &words[1..]);
        }
        Ok(match words.as_slice() {
            ["START"] => Input::Start,
            ["STOP", "reset", text @ ..] => Input::Stop(StopReason::AdministrativeReset(text.join(" "))),
            ["STOP", "hard", text @ ..] => Input::Stop(StopReason::HardReset(text.join(" "))),
            ["STOP", "out-of-resources", after, text @ ..] => {
                Input::Stop(StopReason::OutOfResources { text: text.join(" "), after: Duration::from_secs(after.parse()?) })
            }
            ["STOP", "handed-over"] => Input::Stop(StopReason::HandedOver),
            ["LINGER"] => Input::Linger,
            ["LINK-DOWN", text @ ..] => Input::LinkDown(text.join(" ")),
            ["LINK-UP"] => Input::LinkUp,
            ["RESEND", name] => Input::Resend(family(name)?),
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
            ["COUNTS", shard, ipv4, ipv6] => {
                Input::Counts { shard: ShardId(shard.parse()?), counts: PerFamily { ipv4: counts(ipv4)?, ipv6: counts(ipv6)? } }
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
            ["CONNECTED", way, local, remote, link @ ..] => {
                let outgoing = *way == "out";
                ensure!(outgoing || self.peer.allocate() == connection, "the next accepted connection has another number");
                let local_link = match link {
                    [address, index] => Some((address.parse()?, index.parse()?)),
                    _ => None,
                };
                Input::Connected { connection, outgoing, local: local.parse()?, remote: remote.parse()?, local_link }
            }
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
                let frames = match octets.strip_prefix("hex:") {
                    Some("0") => Vec::new(),
                    Some(all) => all.split(',').map(self::octets).collect::<Result<_>>()?,
                    None => {
                        Some(octets.parse()?).filter(|octets| *octets > 0).map(|octets| Bytes::from(vec![0; octets])).into_iter().collect()
                    }
                };
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
            "recorded" | "number" => {}
            "peer" => config.address = value.parse()?,
            "retry" => config.connect_retry = time(value)?,
            "idle-hold" => {
                let (least, greatest) = value.split_once('/').context("idle-hold=LEAST/GREATEST")?;
                config.idle_hold = (time(least)?, time(greatest)?);
            }
            "families" => config.families = set_of(value)?,
            "forwards" => settings.forwarding = set_of(value)?,
            "send-hold" => config.send_hold = if value == "off" { SendHold::Off } else { SendHold::After(time(value)?) },
            "long-lived" => config.long_lived = Some(value.parse()?),
            "host" => config.host_name = Some(value.into()),
            "discard" => _ = config.discard_attributes.insert(value.parse()?),
            "extended-next-hop" => config.extended_next_hop = true,
            "drop-consecutive" => config.consecutive_restarts = ConsecutiveRestarts::Drop,
            "allow-sets" => config.as_path.allow_sets = true,
            "max-restart" => {
                let (limit, after) = value.split_once('/').context("max-restart=LIMIT/TIME")?;
                config.max_prefixes = MaxPrefixes { limit: limit.parse()?, action: MaxPrefixAction::Restart(time(after)?) };
            }
            "bfd" | "role" => bail!("a session with {name} cannot be run again yet"),
            "passive" => config.passive = true,
            "ipv6" => config.families.ipv6 = true,
            "add-path" => {
                config.add_path = match value {
                    "off" => AddPath::Off,
                    "receive" => AddPath::Receive,
                    "send" => AddPath::Send,
                    _ => AddPath::Both,
                }
            }
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

fn set_of(names: &str) -> Result<PerFamily<bool>> {
    let mut set = PerFamily::default();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        *set.of_mut(family(name)?).context("a family that is not routed")? = true;
    }
    Ok(set)
}

fn counts(text: &str) -> Result<PrefixCounts> {
    let numbers: Vec<u64> = text.split('/').map(str::parse).collect::<Result<_, _>>()?;
    let [received, accepted, advertised] = numbers[..] else { bail!("RECEIVED/ACCEPTED/ADVERTISED") };
    Ok(PrefixCounts { received, accepted, advertised })
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
