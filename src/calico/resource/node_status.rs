//! CalicoNodeStatus: what a node is asked to tell of itself, and how often.

use std::collections::BTreeSet;

use super::Fields;
use crate::calico::{Document, Report};

/// The longest period that Calico takes: a day, in seconds.
const LONGEST: u64 = 86_400;

/// A class of information (`spec.classes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusClass {
    /// `Agent`: the process.
    Agent,
    /// `BGP`: its peers.
    Bgp,
    /// `Routes`: its routes.
    Routes,
}

/// A v3 CalicoNodeStatus, without what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// `spec.node`: who is asked. The others ignore the object.
    pub node: String,
    /// `spec.classes`.
    pub classes: BTreeSet<StatusClass>,
    /// `spec.updatePeriodSeconds`, in seconds; none for 0: it is filled once after each change of the object.
    pub period: Option<u32>,
}

impl NodeStatus {
    /// Reads the document; none without a node or a period, for which Calico ignores the object too.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Option<Self> {
        let mut spec = Fields::of(document, "spec");
        let node = spec.text(report, "node");
        let period = spec.raw("updatePeriodSeconds");
        let mut classes = BTreeSet::new();
        for (path, class) in spec.items(report, "classes") {
            match class.as_str() {
                Some("Agent") => drop(classes.insert(StatusClass::Agent)),
                Some("BGP") => drop(classes.insert(StatusClass::Bgp)),
                Some("Routes") => drop(classes.insert(StatusClass::Routes)),
                _ => report.warning(&path, format!("{class} is none of Agent, BGP, Routes"), "the class is left out"),
            }
        }
        spec.finish(report, &[]);
        let period = period.map(|period| period.as_u64().filter(|seconds| *seconds <= LONGEST));
        match (node, period) {
            (None, _) => report.error("spec.node", "must be given", "nobody fills the object"),
            (_, None) => report.error("spec.updatePeriodSeconds", "must be given (0: once after each change)", "nobody fills the object"),
            (_, Some(None)) => {
                report.error("spec.updatePeriodSeconds", format!("is not a whole number from 0 to {LONGEST}"), "nobody fills the object");
            }
            (Some(node), Some(Some(seconds))) => {
                return Some(Self { node, classes, period: u32::try_from(seconds).ok().filter(|seconds| *seconds != 0) });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::calico::ResourceKey;

    fn decode(spec: Value) -> (Option<NodeStatus>, Vec<String>) {
        let key = ResourceKey { kind: "CalicoNodeStatus".to_owned(), namespace: String::new(), name: "mine".to_owned() };
        let document = Document::new(json!({ "spec": spec }), "sample");
        let mut report = Report::new(&key, &document);
        let status = NodeStatus::decode(&document, &mut report);
        (status, report.into_problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_asked_is_read() {
        let (status, problems) = decode(json!({ "node": "a", "classes": ["Routes", "Agent", "BGP", "BGP"], "updatePeriodSeconds": 10 }));
        let classes = BTreeSet::from([StatusClass::Agent, StatusClass::Bgp, StatusClass::Routes]);
        assert_eq!(status, Some(NodeStatus { node: "a".to_owned(), classes, period: Some(10) }));
        assert!(problems.is_empty(), "{problems:?}");
        let (once, _) = decode(json!({ "node": "a", "updatePeriodSeconds": 0 }));
        assert_eq!(once, Some(NodeStatus { node: "a".to_owned(), classes: BTreeSet::new(), period: None }));
    }

    #[test]
    fn what_cannot_be_met_is_named() {
        for (spec, wanted) in [
            (json!({ "classes": ["BGP"], "updatePeriodSeconds": 10 }), "spec.node"),
            (json!({ "node": "a" }), "spec.updatePeriodSeconds"),
            (json!({ "node": "a", "updatePeriodSeconds": 86_401 }), "from 0 to 86400"),
            (json!({ "node": "a", "updatePeriodSeconds": -1 }), "from 0 to 86400"),
            (json!({ "node": "a", "updatePeriodSeconds": "10s" }), "from 0 to 86400"),
        ] {
            let (status, problems) = decode(spec);
            assert!(status.is_none() && problems.len() == 1 && problems[0].contains(wanted), "{problems:?}");
        }
        let (status, problems) = decode(json!({ "node": "a", "classes": ["Agent", "Felix"], "updatePeriodSeconds": 86_400 }));
        assert_eq!(status.unwrap().classes.len(), 1);
        assert!(problems[0].contains("\"Felix\" is none of Agent, BGP, Routes"), "{problems:?}");
    }
}
