//! `margay.io/` annotations: what Calico's API has no field for.

use std::collections::BTreeMap;

use super::{Fields, Text, duration};
use crate::calico::{Document, Report};
use crate::config::{MaxPrefixAction, MaxPrefixes};

/// The settings that the annotations of a BGPPeer make, or of a BGPConfiguration as the default for all sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// `margay.io/hold-time`: seconds, 0 or at least 3.
    pub hold_time: Option<u16>,
    /// `margay.io/max-prefixes`: a number, then `warn` or `idle`.
    pub max_prefixes: Option<MaxPrefixes>,
    /// `margay.io/add-path`: `off` or `both`.
    pub add_path: Option<bool>,
    /// `margay.io/interface`: the interface of a link-local peer.
    pub interface: Option<String>,
    /// `margay.io/tcp-ao` is asked for: such a session waits, since it may not run without.
    pub tcp_ao: bool,
}

/// Understood by later versions; said at level info.
const NOT_YET: [&str; 5] = ["bfd", "role", "llgr-stale-time", "send-hold-time", "default-policy"];

impl Annotations {
    /// Reads the annotations of a document. A bad value is a problem and counts as absent.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Self {
        let mut settings = Self::default();
        let mut metadata = Fields::of(document, "metadata");
        let all: BTreeMap<String, Option<Text>> = metadata.get(report, "annotations").unwrap_or_default();
        for (key, value) in &all {
            if let Some(name) = key.strip_prefix("margay.io/") {
                let value = value.as_ref().map(|text| text.0.trim()).unwrap_or_default();
                settings.read(name, value, &format!("metadata.annotations.{key}"), report);
            }
        }
        settings
    }

    /// These settings where they are made, else those of `defaults`.
    #[must_use]
    pub fn or(&self, defaults: &Self) -> Self {
        Self {
            hold_time: self.hold_time.or(defaults.hold_time),
            max_prefixes: self.max_prefixes.or(defaults.max_prefixes),
            add_path: self.add_path.or(defaults.add_path),
            interface: self.interface.clone(),
            tcp_ao: self.tcp_ao || defaults.tcp_ao,
        }
    }

    fn read(&mut self, name: &str, value: &str, field: &str, report: &mut Report<'_>) {
        let bad = |report: &mut Report<'_>, wanted: &str| report.warning(field, format!("`{value}` is not {wanted}"), "the default stays");
        match name {
            "hold-time" => match hold_time(value) {
                Some(seconds) => self.hold_time = Some(seconds),
                None => bad(report, "a hold time (0, or 3 to 65535 seconds)"),
            },
            "max-prefixes" => match max_prefixes(value) {
                Some(limit) => self.max_prefixes = Some(limit),
                None => bad(report, "a number, then `warn` or `idle`"),
            },
            "add-path" => match value {
                // A bare `off` is a boolean to YAML, and comes as `false`.
                "off" | "false" => self.add_path = Some(false),
                "both" => self.add_path = Some(true),
                "receive" | "send" => report.info(field, format!("`{value}` alone is not supported yet"), "the default stays"),
                _ => bad(report, "one of off, receive, send, both"),
            },
            "interface" if value.is_empty() => bad(report, "an interface"),
            "interface" => self.interface = Some(value.to_owned()),
            "tcp-ao" => {
                self.tcp_ao = true;
                report.warning(field, "TCP-AO is not supported yet", "the session waits rather than run unprotected");
            }
            _ if NOT_YET.contains(&name) => report.info(field, "not supported yet", "ignored"),
            _ => report.warning(field, "margay knows no such annotation", "ignored; see the README for those it knows"),
        }
    }
}

fn hold_time(value: &str) -> Option<u16> {
    let seconds = match value.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => duration(value)?.as_secs(),
    };
    u16::try_from(seconds).ok().filter(|seconds| *seconds == 0 || *seconds >= 3)
}

fn max_prefixes(value: &str) -> Option<MaxPrefixes> {
    let mut words = value.split_whitespace();
    let limit = words.next()?.parse().ok().filter(|limit| *limit > 0)?;
    let action = match words.next() {
        None | Some("warn") => MaxPrefixAction::Warn,
        Some("idle") => MaxPrefixAction::Idle,
        Some(_) => return None,
    };
    words.next().is_none().then_some(MaxPrefixes { limit, action })
}
