//! BGPFilter.
//!
//! Words that Calico gives a meaning to (operators, actions, communities) stay text here: one that is unknown
//! concerns its rule only, and [`filter`](crate::calico::filter) says so. A rule of the wrong shape is kept
//! as unreadable for the same reason.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::or_default;
use crate::calico::{Document, Report};
use crate::types::Asn;

/// `spec` of a BGPFilter: four independent lists of rules, tried in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpFilterSpec {
    /// What IPv4 sessions send.
    #[serde(deserialize_with = "or_default")]
    pub export_v4: Vec<FilterRule>,
    /// What IPv4 sessions receive.
    #[serde(deserialize_with = "or_default")]
    pub import_v4: Vec<FilterRule>,
    /// What IPv6 sessions send.
    #[serde(deserialize_with = "or_default")]
    pub export_v6: Vec<FilterRule>,
    /// What IPv6 sessions receive.
    #[serde(deserialize_with = "or_default")]
    pub import_v6: Vec<FilterRule>,
}

/// One entry of a rule list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterRule {
    /// A rule.
    Readable(Box<BgpFilterRule>),
    /// Something that has not the shape of one, for instance a number where there should be text.
    Unreadable {
        /// Its `action`, if that much can be read.
        action: Option<String>,
        /// What is wrong, in words.
        what: String,
    },
}

impl<'de> Deserialize<'de> for FilterRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(BgpFilterRule::deserialize(&value).map_or_else(
            |error| Self::Unreadable { action: value.get("action").and_then(Value::as_str).map(str::to_owned), what: error.to_string() },
            |rule| Self::Readable(Box::new(rule)),
        ))
    }
}

/// A rule: all criteria that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpFilterRule {
    /// Prefix to compare with; needs `matchOperator`.
    #[serde(deserialize_with = "or_default")]
    pub cidr: String,
    /// `Equal`, `NotEqual`, `In` or `NotIn`.
    #[serde(deserialize_with = "or_default")]
    pub match_operator: String,
    /// Lengths that the route may have; needs `cidr`.
    pub prefix_length: Option<PrefixLength>,
    /// `RemotePeers`: learned over BGP.
    #[serde(deserialize_with = "or_default")]
    pub source: String,
    /// Shell-like pattern of the outgoing interface's name.
    #[serde(deserialize_with = "or_default")]
    pub interface: String,
    /// `eBGP` or `iBGP`: the kind of session that the rule is for.
    #[serde(deserialize_with = "or_default")]
    pub peer_type: String,
    /// Community that the route carries.
    pub communities: Option<MatchCommunities>,
    /// ASes that the path begins with.
    #[serde(deserialize_with = "or_default")]
    pub as_path_prefix: Vec<Asn>,
    /// Priority of the route, 1 to 2147483646.
    pub priority: Option<i64>,
    /// `Accept` or `Reject`.
    #[serde(deserialize_with = "or_default")]
    pub action: String,
    /// Changes, in order; only with `Accept`.
    #[serde(deserialize_with = "or_default")]
    pub operations: Vec<Operation>,
}

/// `prefixLength` of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PrefixLength {
    /// Least length; none means the length of the cidr.
    pub min: Option<i64>,
    /// Greatest length; none means 32 or 128.
    pub max: Option<i64>,
}

/// `communities` of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MatchCommunities {
    /// Exactly one: `aa:nn` or `aa:nn:mm`.
    #[serde(deserialize_with = "or_default")]
    pub values: Vec<String>,
}

/// One change: exactly one of the fields is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Adds a community.
    pub add_community: Option<AddCommunity>,
    /// Prepends to the AS path.
    #[serde(rename = "prependASPath")]
    pub prepend_as_path: Option<PrependAsPath>,
    /// Sets the priority.
    pub set_priority: Option<SetPriority>,
}

/// Operand of `addCommunity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AddCommunity {
    /// `aa:nn` or `aa:nn:mm`.
    #[serde(deserialize_with = "or_default")]
    pub value: String,
}

/// Operand of `prependASPath`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PrependAsPath {
    /// The path will start with these, in this order.
    #[serde(deserialize_with = "or_default")]
    pub prefix: Vec<Asn>,
}

/// Operand of `setPriority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SetPriority {
    /// 1 to 2147483646.
    pub value: Option<i64>,
}

/// Fields of each object of a BGPFilter, by the field that holds the object.
const FIELDS: [(&str, &[&str]); 8] = [
    ("spec", &["exportV4", "importV4", "exportV6", "importV6"]),
    (
        "rule",
        &[
            "cidr",
            "matchOperator",
            "prefixLength",
            "source",
            "interface",
            "peerType",
            "communities",
            "asPathPrefix",
            "priority",
            "action",
            "operations",
        ],
    ),
    ("prefixLength", &["min", "max"]),
    ("communities", &["values"]),
    ("operations", &["addCommunity", "prependASPath", "setPriority"]),
    ("addCommunity", &["value"]),
    ("prependASPath", &["prefix"]),
    ("setPriority", &["value"]),
];

/// Names every field that no BGPFilter has.
pub(super) fn name_unknown(document: &Document, report: &mut Report<'_>) {
    if let Some(spec) = document.object.get("spec") {
        name_unknown_in("spec", "spec".to_owned(), spec, report);
    }
}

fn name_unknown_in(object: &str, path: String, value: &Value, report: &mut Report<'_>) {
    let holder = if object.ends_with("V4") || object.ends_with("V6") { "rule" } else { object };
    let known = FIELDS.iter().find(|(name, _)| *name == holder).map(|(_, fields)| *fields);
    match (value, known) {
        (Value::Array(items), Some(_)) => {
            for (index, item) in items.iter().enumerate() {
                name_unknown_in(object, format!("{path}[{index}]"), item, report);
            }
        }
        (Value::Object(fields), Some(known)) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                if known.contains(&name.as_str()) {
                    name_unknown_in(name, path, value, report);
                } else {
                    report.info(&path, "margay does not know this field", "ignored, as Calico ignores it");
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_every_field() {
        let spec: BgpFilterSpec = serde_json::from_value(json!({
            "exportV4": [{
                "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 24, "max": 32}, "source": "RemotePeers",
                "interface": "eth*", "peerType": "eBGP", "communities": {"values": ["64512:1"]}, "asPathPrefix": [64512, "1.10"],
                "priority": 512, "action": "Accept",
                "operations": [
                    {"addCommunity": {"value": "1:2:3"}}, {"prependASPath": {"prefix": [65000]}}, {"setPriority": {"value": 100}},
                ],
            }],
            "importV6": null,
            "somethingNew": true,
        }))
        .unwrap();
        let expected = BgpFilterRule {
            cidr: "10.0.0.0/8".into(),
            match_operator: "In".into(),
            prefix_length: Some(PrefixLength { min: Some(24), max: Some(32) }),
            source: "RemotePeers".into(),
            interface: "eth*".into(),
            peer_type: "eBGP".into(),
            communities: Some(MatchCommunities { values: vec!["64512:1".into()] }),
            as_path_prefix: vec![Asn(64512), Asn(65546)],
            priority: Some(512),
            action: "Accept".into(),
            operations: vec![
                Operation { add_community: Some(AddCommunity { value: "1:2:3".into() }), ..Operation::default() },
                Operation { prepend_as_path: Some(PrependAsPath { prefix: vec![Asn(65000)] }), ..Operation::default() },
                Operation { set_priority: Some(SetPriority { value: Some(100) }), ..Operation::default() },
            ],
        };
        assert_eq!(spec, BgpFilterSpec { export_v4: vec![FilterRule::Readable(Box::new(expected))], ..BgpFilterSpec::default() });
    }

    #[test]
    fn a_rule_of_the_wrong_shape_spoils_no_other() {
        let spec: BgpFilterSpec =
            serde_json::from_value(json!({"importV4": [{"cidr": 10, "action": "Accept"}, {"action": "Reject"}, "what?"]})).unwrap();
        assert!(matches!(&spec.import_v4[0], FilterRule::Unreadable { action: Some(action), .. } if action == "Accept"));
        assert!(matches!(&spec.import_v4[1], FilterRule::Readable(_)));
        assert!(matches!(&spec.import_v4[2], FilterRule::Unreadable { action: None, .. }));
    }
}
