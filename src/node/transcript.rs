//! What machines hear and say as lines of text, so that what happened in the field can be run again as a test: the transcripts of
//! `proto-tests` and the files that `margay run --record DIR` writes are the same.
//!
//! So far this is the session: [`session_config`] begins a scene, [`session_input`] and [`session_output`] are a line each. The transcripts'
//! reader (`proto_tests::transcript`) has the table of lines. Keys of TCP-MD5 and TCP-AO are not written: the machine does not look at them.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};

use crate::config::{AddPath, Authentication, ConsecutiveRestarts, MaxPrefixAction, PeerConfig, SendHold};
use crate::session::{Event, Input, Output, RouteChange, Settings, StopReason};
use crate::types::{NlriList, PeerId, PerFamily};
use crate::wire::{Capability, Context, Message, Open, Update, frame};

/// The `config` line of a recorded session: the machine `number` with all that it reads of its configuration. Of BFD and roles the replay
/// knows nothing; such a session is marked.
pub fn session_config(number: PeerId, config: &PeerConfig, settings: &Settings) -> String {
    let mut line = format!("config recorded number={number} seed={} shards={}", settings.seed, settings.shards);
    if settings.restarting {
        line.push_str(" restarting");
    }
    let _ = write!(line, " forwards={} {}", members(settings.forwarding), options(config));
    line
}

fn options(config: &PeerConfig) -> String {
    let mut line = format!(
        "peer={} id={} as={} peer-as={} hold={} delay={} retry={} restart={} idle-hold={}/{} families={}",
        config.address,
        config.router_id,
        config.local_asn,
        config.remote_asn,
        config.hold_time,
        time(config.connect_delay),
        time(config.connect_retry),
        config.restart_time,
        time(config.idle_hold.0),
        time(config.idle_hold.1),
        members(config.families),
    );
    let _ = match config.send_hold {
        SendHold::Derived => Ok(()),
        SendHold::Off => write!(line, " send-hold=off"),
        SendHold::After(pause) => write!(line, " send-hold={}", time(pause)),
    };
    let _ = write!(
        line,
        " add-path={}",
        match config.add_path {
            AddPath::Off => "off",
            AddPath::Receive => "receive",
            AddPath::Send => "send",
            AddPath::Both => "both",
        }
    );
    let limit = config.max_prefixes.limit;
    let _ = match config.max_prefixes.action {
        MaxPrefixAction::Warn => write!(line, " max-warn={limit}"),
        MaxPrefixAction::Idle => write!(line, " max-idle={limit}"),
        MaxPrefixAction::Restart(after) => write!(line, " max-restart={limit}/{}", time(after)),
    };
    if let Some(pause) = config.keepalive {
        let _ = write!(line, " keepalive={}", time(pause));
    }
    if let Some(seconds) = config.long_lived {
        let _ = write!(line, " long-lived={seconds}");
    }
    if let Some(name) = config.host_name.as_ref().filter(|name| !name.contains(char::is_whitespace)) {
        let _ = write!(line, " host={name}");
    }
    for code in config.discard_attributes.iter() {
        let _ = write!(line, " discard={code}");
    }
    let flags = [
        ("passive", config.passive),
        ("extended", config.extended_messages),
        ("extended-next-hop", config.extended_next_hop),
        ("drop-consecutive", config.consecutive_restarts == ConsecutiveRestarts::Drop),
        ("key-missing", matches!(config.authentication, Authentication::Missing(_))),
        ("bfd", config.bfd.is_some()),
        ("role", config.role.is_some()),
        ("allow-sets", config.as_path.allow_sets),
    ];
    for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
        let _ = write!(line, " {name}");
    }
    line
}

fn members(set: PerFamily<bool>) -> String {
    let names: Vec<String> = set.iter().filter(|(_, on)| **on).map(|(family, _)| family.to_string()).collect();
    names.join(",")
}

/// A time as transcripts have it, to the nanosecond: `1.5s`.
pub fn time(time: std::time::Duration) -> String {
    let text = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// What a session hears, behind `< `. Octets are told in full.
pub fn session_input(input: &Input) -> String {
    match input {
        Input::Start => "START".to_owned(),
        Input::Stop(reason) => one_line(&format!("STOP {}", stop(reason))),
        Input::Linger => "LINGER".to_owned(),
        Input::Configure(config) => format!("CONFIGURE {}", options(config)),
        Input::Connected { connection, outgoing, local, remote, local_link } => {
            let link = local_link.map_or(String::new(), |(address, index)| format!(" {address} {index}"));
            format!("{connection} CONNECTED {} {local} {remote}{link}", if *outgoing { "out" } else { "in" })
        }
        Input::ConnectFailed { connection, error } => one_line(&format!("{connection} FAILED {error}")),
        Input::Received { connection, bytes } => format!("{connection} BYTES {}", hex(bytes)),
        Input::Closed { connection, error: None } => format!("{connection} CLOSED"),
        Input::Closed { connection, error: Some(error) } => one_line(&format!("{connection} CLOSED {error}")),
        Input::Written { connection, waiting } => format!("{connection} WRITTEN {waiting}"),
        Input::Paused { connection, paused } => format!("{connection} PAUSED {}", if *paused { "on" } else { "off" }),
        Input::Frames { connection, shard, frames, ended } => {
            let octets =
                if frames.is_empty() { "0".to_owned() } else { frames.iter().map(|frame| hex(frame)).collect::<Vec<_>>().join(",") };
            let ended: String = ended.iter().map(|family| format!(" {family}")).collect();
            let ended = if ended.is_empty() { ended } else { format!(" ended{ended}") };
            format!("{connection} FRAMES {shard} hex:{octets}{ended}")
        }
        Input::Counts { shard, counts } => {
            let counts: String = counts.iter().map(|(_, c)| format!(" {}/{}/{}", c.received, c.accepted, c.advertised)).collect();
            format!("COUNTS {shard}{counts}")
        }
        Input::Bfd(report) => format!("BFD {report:?}"),
        Input::RecoveryDone => "RECOVERED".to_owned(),
        Input::LinkDown(what) => one_line(&format!("LINK-DOWN {what}")),
        Input::LinkUp => "LINK-UP".to_owned(),
        Input::RequestRefresh(family) => format!("REFRESH {family}"),
        Input::Resend(family) => format!("RESEND {family}"),
    }
}

fn stop(reason: &StopReason) -> String {
    match reason {
        StopReason::AdministrativeShutdown(text) => format!("shutdown {text}"),
        StopReason::AdministrativeReset(text) => format!("reset {text}"),
        StopReason::HardReset(text) => format!("hard {text}"),
        StopReason::Deconfigured => "deconfigured".to_owned(),
        StopReason::ConfigurationChange => "change".to_owned(),
        StopReason::ProcessRestart => "restart".to_owned(),
        StopReason::OutOfResources { text, after } => format!("out-of-resources {} {text}", after.as_secs()),
        StopReason::HandedOver => "handed-over".to_owned(),
    }
}

fn one_line(text: &str) -> String {
    text.trim_end().replace(char::is_control, " ")
}

/// Octets in hexadecimal.
pub fn hex(octets: &[u8]) -> String {
    let mut text = String::with_capacity(2 * octets.len());
    for octet in octets {
        let _ = write!(text, "{octet:02x}");
    }
    text
}

/// What a session says, behind `> `.
pub fn session_output(output: &Output) -> String {
    match output {
        Output::Connect { connection } => format!("{connection} CONNECT"),
        Output::Send { connection, bytes } => format!("{connection} {}", sent(bytes)),
        Output::Close { connection, linger } => format!("{connection} CLOSE{}", if *linger { " linger" } else { "" }),
        Output::Up(facts) => format!("UP {} {}", facts.connection, families(facts.context.families)),
        Output::Down { keep, .. } => format!("DOWN keep {}", families(*keep)),
        Output::Reload(_) => "RELOAD".to_owned(),
        Output::LongLived(family) => format!("LONG-LIVED {family}"),
        Output::SweepStale(family) => format!("SWEEP {family}"),
        Output::Routes(shard, batch) => {
            format!("ROUTES {shard} {}", batch.changes.iter().map(change_text).collect::<Vec<_>>().join("; "))
        }
        Output::RefreshRequested(family) => format!("REFRESH-REQUESTED {family}"),
        Output::Pull { shard, credit } => format!("PULL {shard} {credit}"),
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
    let families = PerFamily { ipv4: true, ipv6: true };
    let context = Context { four_octet_as: true, families, receive_limit: 65535, ..Context::default() };
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
            let data = hex(&notification.data);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Password;
    use crate::types::{Asn, RouterId};

    #[test]
    fn no_key_is_written() {
        let mut config = PeerConfig::new("peer", (Asn(1), RouterId([1; 4].into())), ([10, 0, 0, 2].into(), Asn(2)));
        config.authentication = Authentication::Md5(Password(b"secret".as_slice().into()));
        let line = session_config(PeerId(7), &config, &Settings::default());
        assert!(line.starts_with("config recorded number=7 ") && !line.contains("secret") && !line.contains(&hex(b"secret")), "{line}");
    }

    #[test]
    fn a_word_stays_on_its_line() {
        let input = Input::Stop(StopReason::AdministrativeShutdown("now\n< START".to_owned()));
        assert_eq!(session_input(&input), "STOP shutdown now < START");
        assert_eq!(time(std::time::Duration::new(3, 40)), "3.00000004s");
    }
}
