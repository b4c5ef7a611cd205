//! BlockAffinity: which IPAM blocks belong to which node.

use ipnet::IpNet;

use super::Fields;
use crate::calico::{Document, Report};
use crate::types::canonical;

/// How far a block belongs to its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AffinityState {
    /// It does; the empty state of old versions counts as this.
    #[default]
    Confirmed,
    /// Not yet: ignored.
    Pending,
    /// Not much longer: its blackhole stays, its aggregation is over.
    PendingDeletion,
}

/// A v3 BlockAffinity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockAffinity {
    /// `spec.node`.
    pub node: String,
    /// `spec.cidr`, canonical.
    pub cidr: IpNet,
    /// `spec.state`.
    pub state: AffinityState,
    /// `spec.deleted`, or of a type that is no host's (`virtual`): not ours.
    pub void: bool,
}

impl BlockAffinity {
    /// Reads the document; none where node or cidr are missing.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Option<Self> {
        let mut spec = Fields::of(document, "spec");
        let node = spec.text(report, "node");
        let text = spec.text(report, "cidr");
        let states = [
            ("confirmed", AffinityState::Confirmed),
            ("pending", AffinityState::Pending),
            ("pendingDeletion", AffinityState::PendingDeletion),
        ];
        let state = spec.word(report, "state", &states).unwrap_or_default();
        let kind = spec.text(report, "type");
        let deleted = spec.text(report, "deleted").is_some_and(|text| text == "true");
        spec.finish(report, &[]);
        let (Some(node), Some(text)) = (node, text) else {
            report.error("spec", "node and cidr must be given", "no block is made of it");
            return None;
        };
        let Ok(cidr) = text.parse::<IpNet>() else {
            report.error("spec.cidr", format!("`{text}` is no CIDR"), "no block is made of it");
            return None;
        };
        Some(Self { node, cidr: canonical(cidr), state, void: deleted || kind.is_some_and(|kind| kind != "host") })
    }
}
