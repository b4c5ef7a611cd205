//! `margay.io/` annotations: what Calico's API has no field for.
//!
//! One row of the table below is one annotation: the field that it fills, its name, what its values are (in the words of
//! a problem and of the README), and the function that reads one. The struct, reading, defaults and the list of known names
//! all come from the table.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Fields, Text, duration};
use crate::calico::{Document, Report};
use crate::config::{AddPath, AoAlgorithm, AsPathRules, ConsecutiveRestarts, MaxPrefixAction, MaxPrefixes, Role, RoleConfig, SendHold};
use crate::types::AttributeCodes;

/// Defines [`Annotations`] from rows `field: type = "name", "values", reader;`.
macro_rules! annotations {
    ($($(#[$documentation:meta])* $field:ident: $kind:ty = $name:literal, $values:literal, $read:expr;)*) => {
        /// The settings that the annotations of a BGPPeer make, or of a BGPConfiguration as the default for all sessions. A
        /// setting that is not made is none.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Annotations {
            $($(#[$documentation])* pub $field: Option<$kind>,)*
        }

        impl Annotations {
            /// The names without `margay.io/`, and their values in words.
            pub const KNOWN: &[(&str, &str)] = &[$(($name, $values)),*];

            /// These settings where they are made, else those of `defaults`.
            #[must_use]
            pub fn or(&self, defaults: &Self) -> Self {
                Self { $($field: self.$field.clone().or_else(|| defaults.$field.clone()),)* }
            }

            /// Reads one annotation; what is wrong with it, if anything.
            fn read(&mut self, name: &str, value: &str) -> Result<(), Fault> {
                match name {
                    $($name => {
                        self.$field = Some($read(value).ok_or(Fault::BadValue($values))?);
                        Ok(())
                    })*
                    _ => Err(Fault::Unknown),
                }
            }
        }
    };
}

annotations! {
    /// Hold time that we propose, seconds.
    hold_time: u16 = "hold-time", "a hold time (0, or 3 to 65535 seconds)", hold_time;
    /// How long the peer may take no byte (RFC 9687).
    send_hold: SendHold = "send-hold-time", "`off` or a time of at least a second (RFC 9687)", send_hold;
    /// How many prefixes a family are expected, and what happens when there are more.
    max_prefixes: MaxPrefixes = "max-prefixes", "a number, then `warn`, `idle`, or `restart` and a time", max_prefixes;
    /// ADD-PATH (RFC 7911).
    add_path: AddPath = "add-path", "one of off, receive, send, both", add_path;
    /// Messages of up to 65535 octets are offered (RFC 8654).
    extended_messages: bool = "extended-messages", "`on` or `off`", switch;
    /// The peer is on a network of ours: packets are sent with TTL 1, and the session ends with the link.
    directly_connected: bool = "directly-connected", "`on` or `off`", switch;
    /// The interface of a link-local peer; on a BGPPeer only.
    interface: String = "interface", "the name of an interface", text;
    /// What happens on eBGP sessions to routes that no BGPFilter accepts or rejects (RFC 8212).
    default_policy: DefaultPolicy = "default-policy", "`calico` or `reject`", default_policy;
    /// Our role (RFC 9234).
    role: RoleConfig = "role", "one of provider, rs, rs-client, customer, peer (RFC 9234), then perhaps `strict`", role;
    /// The node's name is told to the peer (capability 73).
    host_name: bool = "host-name", "`on` or `off`", switch;
    /// Attributes that are dropped from what the peer says.
    discard_attributes: AttributeCodes = "discard-attributes", "attribute codes such as `23 28 40`, but none of 1, 2, 3, 14, 15", attribute_codes;
    /// What becomes of AS paths.
    as_path: AsPathRules = "as-path", "one or more of remove-private, replace-peer, allow-sets", as_path;
    /// BFD (RFC 5880) beside the session.
    bfd: Bfd = "bfd", "`off`, or interval (50 ms at least) × multiplier such as `300ms*3`, then any of single-hop, multihop, strict, graceful", bfd;
    /// Long-lived graceful restart (RFC 9494); inside: for how many seconds, or off.
    long_lived: Option<u32> = "llgr-stale-time", "`off`, or a time of 1 to 16777215 seconds (RFC 9494)", stale_time;
    /// Long-lived stale paths are told, as the last choice, to nodes of our AS that do not know what they are (RFC 9494 section 4.6).
    long_lived_partial: bool = "llgr-partial", "`on` or `off`", switch;
    /// What becomes of stale paths when a restarting peer is lost again.
    consecutive_restarts: ConsecutiveRestarts = "consecutive-restarts", "`keep` or `drop`", consecutive_restarts;
    /// After our restart kernel routes stay until some peer is up; on a BGPConfiguration only.
    keep_without_peers: bool = "keep-without-peers", "`on` or `off`", switch;
    /// TCP-AO (RFC 5925).
    tcp_ao: TcpAo = "tcp-ao", "the name of a Secret of keys, then perhaps the number of the key to use, and hmac-sha1 or cmac-aes128", tcp_ao;
}

/// `margay.io/default-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DefaultPolicy {
    /// What Calico's own rules say.
    #[default]
    Calico,
    /// Refused, in both directions (RFC 8212).
    Reject,
}

/// `margay.io/tcp-ao`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpAo {
    /// The Secret; its keys are named by numbers from 0 to 255.
    pub secret: String,
    /// The key to use; none: the one with the greatest number.
    pub current: Option<u8>,
    /// How segments are signed.
    pub algorithm: AoAlgorithm,
}

/// `margay.io/bfd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bfd {
    /// No BFD.
    Off,
    /// BFD with this interval and multiplier.
    On {
        /// Between packets.
        interval: Duration,
        /// Packets that may be missed.
        multiplier: u8,
        /// `multihop` or `single-hop`; none: by whether the peer is on a network of the node.
        multihop: Option<bool>,
        /// `strict`.
        strict: bool,
        /// `graceful`.
        graceful: bool,
    },
}

/// What is wrong with an annotation.
enum Fault {
    /// Its value is none of these.
    BadValue(&'static str),
    /// Nobody knows its name.
    Unknown,
}

impl Annotations {
    /// Reads the annotations of a document. A bad value is a problem and counts as absent.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Self {
        let mut settings = Self::default();
        let mut metadata = Fields::of(document, "metadata");
        let all: BTreeMap<String, Option<Text>> = metadata.get(report, "annotations").unwrap_or_default();
        for (key, value) in &all {
            let Some(name) = key.strip_prefix("margay.io/") else { continue };
            let value = value.as_ref().map(|text| text.0.trim()).unwrap_or_default();
            let field = format!("metadata.annotations.{key}");
            match settings.read(name, value) {
                Ok(()) => {}
                Err(Fault::BadValue(wanted)) => report.warning(&field, format!("`{value}` is not {wanted}"), "the default stays"),
                Err(Fault::Unknown) => {
                    let known: Vec<&str> = Self::KNOWN.iter().map(|(name, _)| *name).collect();
                    report.warning(&field, "margay knows no such annotation", format!("ignored; it knows {}", known.join(", ")));
                }
            }
        }
        settings
    }
}

fn hold_time(value: &str) -> Option<u16> {
    u16::try_from(seconds(value)?).ok().filter(|seconds| *seconds == 0 || *seconds >= 3)
}

fn send_hold(value: &str) -> Option<SendHold> {
    match switch(value) {
        Some(false) => Some(SendHold::Off),
        Some(true) => None,
        None => seconds(value).filter(|seconds| *seconds > 0).map(|seconds| SendHold::After(Duration::from_secs(seconds))),
    }
}

/// `90`, `90s`, `1m30s`.
fn seconds(value: &str) -> Option<u64> {
    match value.parse::<u64>() {
        Ok(seconds) => Some(seconds).filter(|seconds| *seconds <= u32::MAX.into()),
        Err(_) => Some(duration(value)?.as_secs()),
    }
}

/// Shorter intervals than this hold on no host that does anything else.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

fn tcp_ao(value: &str) -> Option<TcpAo> {
    let mut words = value.split_whitespace();
    let mut settings = TcpAo { secret: words.next()?.to_owned(), current: None, algorithm: AoAlgorithm::default() };
    for word in words {
        match word {
            "hmac-sha1" => settings.algorithm = AoAlgorithm::HmacSha1,
            "cmac-aes128" => settings.algorithm = AoAlgorithm::CmacAes128,
            number if settings.current.is_none() => settings.current = Some(number.parse().ok()?),
            _ => return None,
        }
    }
    Some(settings)
}

fn role(value: &str) -> Option<RoleConfig> {
    let mut words = value.split_whitespace();
    let role = match words.next()? {
        "provider" => Role::Provider,
        "rs" => Role::RouteServer,
        "rs-client" => Role::RouteServerClient,
        "customer" => Role::Customer,
        "peer" => Role::Peer,
        _ => return None,
    };
    let strict = match words.next() {
        None => false,
        Some("strict") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some(RoleConfig { role, strict })
}

fn as_path(value: &str) -> Option<AsPathRules> {
    let mut rules = AsPathRules::default();
    for word in value.split_whitespace() {
        match word {
            "remove-private" => rules.remove_private = true,
            "replace-peer" => rules.replace_peer = true,
            "allow-sets" => rules.allow_sets = true,
            _ => return None,
        }
    }
    Some(rules).filter(|rules| *rules != AsPathRules::default())
}

/// Without these there is no route, or no way to tell which.
const NEEDED: [u8; 5] = [1, 2, 3, 14, 15];

fn attribute_codes(value: &str) -> Option<AttributeCodes> {
    let mut codes = AttributeCodes::default();
    for word in value.split([' ', ',']).filter(|word| !word.is_empty()) {
        codes.insert(word.parse().ok().filter(|code| !NEEDED.contains(code))?);
    }
    Some(codes)
}

fn bfd(value: &str) -> Option<Bfd> {
    if switch(value) == Some(false) {
        return Some(Bfd::Off);
    }
    let mut words = value.split_whitespace();
    let (interval, multiplier) = words.next()?.split_once('*')?;
    let interval = duration(interval).filter(|interval| (LEAST_INTERVAL..=Duration::from_secs(60)).contains(interval))?;
    let multiplier = multiplier.parse().ok().filter(|multiplier| *multiplier > 0)?;
    let (mut multihop, mut strict, mut graceful) = (None, false, false);
    for word in words {
        match word {
            "single-hop" if multihop != Some(true) => multihop = Some(false),
            "multihop" if multihop != Some(false) => multihop = Some(true),
            "strict" => strict = true,
            "graceful" => graceful = true,
            _ => return None,
        }
    }
    Some(Bfd::On { interval, multiplier, multihop, strict, graceful })
}

/// The capability has 24 bits for the seconds.
fn stale_time(value: &str) -> Option<Option<u32>> {
    if switch(value) == Some(false) {
        return Some(None);
    }
    u32::try_from(seconds(value)?).ok().filter(|seconds| (1..1 << 24).contains(seconds)).map(Some)
}

fn consecutive_restarts(value: &str) -> Option<ConsecutiveRestarts> {
    match value {
        "keep" => Some(ConsecutiveRestarts::Keep),
        "drop" => Some(ConsecutiveRestarts::Drop),
        _ => None,
    }
}

fn max_prefixes(value: &str) -> Option<MaxPrefixes> {
    let mut words = value.split_whitespace();
    let limit = words.next()?.parse().ok().filter(|limit| *limit > 0)?;
    let action = match words.next() {
        None | Some("warn") => MaxPrefixAction::Warn,
        Some("idle") => MaxPrefixAction::Idle,
        Some("restart") => MaxPrefixAction::Restart(duration(words.next()?).filter(|time| *time >= Duration::from_secs(1))?),
        Some(_) => return None,
    };
    words.next().is_none().then_some(MaxPrefixes { limit, action })
}

fn add_path(value: &str) -> Option<AddPath> {
    match value {
        // A bare `off` is a boolean to YAML, and comes as `false`.
        "off" | "false" => Some(AddPath::Off),
        "receive" => Some(AddPath::Receive),
        "send" => Some(AddPath::Send),
        "both" => Some(AddPath::Both),
        _ => None,
    }
}

/// Bare `on` and `off` are booleans to YAML, and come as `true` and `false`.
fn switch(value: &str) -> Option<bool> {
    match value {
        "on" | "true" => Some(true),
        "off" | "false" => Some(false),
        _ => None,
    }
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty() && !value.contains(char::is_whitespace)).then(|| value.to_owned())
}

fn default_policy(value: &str) -> Option<DefaultPolicy> {
    match value {
        "calico" => Some(DefaultPolicy::Calico),
        "reject" => Some(DefaultPolicy::Reject),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfd_words() {
        let on = |millis, multiplier, multihop, strict, graceful| {
            Some(Bfd::On { interval: Duration::from_millis(millis), multiplier, multihop, strict, graceful })
        };
        let rows = [
            ("off", Some(Bfd::Off)),
            ("false", Some(Bfd::Off)),
            ("50ms*3", on(50, 3, None, false, false)),
            ("1s*5 strict", on(1000, 5, None, true, false)),
            ("300ms*3 multihop strict graceful", on(300, 3, Some(true), true, true)),
            ("300ms*3 single-hop", on(300, 3, Some(false), false, false)),
            ("49ms*3", None),
            ("2m*3", None),
            ("50ms*0", None),
            ("50ms*256", None),
            ("50ms", None),
            ("50*3", None),
            ("50ms*3 lax", None),
            ("50ms*3 multihop single-hop", None),
            ("", None),
            ("on", None),
        ];
        for (text, expected) in rows {
            assert_eq!(bfd(text), expected, "{text}");
        }
    }

    #[test]
    fn roles_codes_and_limits() {
        let rows = [
            ("provider", Some((Role::Provider, false))),
            ("rs-client strict", Some((Role::RouteServerClient, true))),
            ("peer lax", None),
            ("peer strict strict", None),
            ("boss", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(role(text), expected.map(|(role, strict)| RoleConfig { role, strict }), "{text}");
        }
        let codes = attribute_codes("23, 28 40 255").unwrap();
        assert!([23, 28, 40, 255].into_iter().all(|code| codes.has(code)) && !codes.has(24));
        assert_eq!(["2", "23 14", "256", "x"].map(attribute_codes), [None; 4]);
        let restart = |text| max_prefixes(text).map(|limit| limit.action);
        assert_eq!(restart("9 restart 30m"), Some(MaxPrefixAction::Restart(Duration::from_secs(1800))));
        assert_eq!(["9 restart", "9 restart 1ms", "9 idle 30m"].map(restart), [None; 3]);
    }

    #[test]
    fn stale_times() {
        let rows = [
            ("off", Some(None)),
            ("1h", Some(Some(3600))),
            ("16777215", Some(Some(16_777_215))),
            ("16777216", None),
            ("0", None),
            ("x", None),
        ];
        for (text, expected) in rows {
            assert_eq!(stale_time(text), expected, "{text}");
        }
    }
}
