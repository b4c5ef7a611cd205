//! The second look: a listing that would take away most of what is in force may be a mistake (a datastore restored
//! from nothing, a wrong prefix, a role that hides what is there), so it is looked at again before it counts.
//!
//! The rule. A listing is *of concern* when more than half of the resources of one cluster-wide kind that are in force
//! are missing from it: [`KINDS`]. It is then held back as a whole; what is in force stays, and the datastore is listed
//! anew every [`LOOK_EVERY`]. From then on half is not enough, for a store that is being restored passes through every
//! half: it counts before its time only once nothing of those kinds is missing any more, in a look or by live changes. The
//! first look [`HOLD`] or more after the first of concern counts whatever it says: the datastore has stood by it.
//! The intake applies it to tables that are told as a whole. The Kubernetes datastore, which tells a listing anew as its
//! differences, applies it to each kind by itself, before it tells them (`kubernetes/roll.rs`).
//! A deletion that the datastore tells as a deletion is no listing: it is what somebody did, and counts at once.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::calico::{Document, ResourceKey};

/// A listing of concern is held back for this long.
pub const HOLD: Duration = Duration::from_secs(60);

/// While it is, the datastore is listed anew this often.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Kinds whose loss would end sessions or change them on every node.
pub const KINDS: [&str; 5] = ["BGPConfiguration", "BGPFilter", "BGPPeer", "IPPool", "Node"];

/// Names that a problem gives of each kind.
const NAMED: usize = 3;

/// Resources by key.
pub type Table = BTreeMap<ResourceKey, Document>;

/// One kind of which a listing lacks most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// The kind.
    pub kind: &'static str,
    /// How many are in force.
    pub in_force: usize,
    /// How many of them are missing.
    pub missing: usize,
    /// Some of the missing.
    pub names: Vec<String>,
}

/// Whether a listing is of concern that lacks so many of a kind that is in force; nothing in force is none.
pub fn is_of_concern(in_force: usize, missing: usize) -> bool {
    missing * 2 > in_force
}

/// What is of concern about `listing`, where `in_force` counts now; nothing is the rule.
pub fn concerns(in_force: &Table, listing: &Table) -> Vec<Concern> {
    let of_concern = |lack: &Concern| is_of_concern(lack.in_force, lack.missing);
    KINDS.iter().map(|kind| lack(kind, in_force, listing)).filter(of_concern).collect()
}

/// What still is, once a listing is held back: everything that is missing.
pub fn remaining(in_force: &Table, listing: &Table) -> Vec<Concern> {
    KINDS.iter().map(|kind| lack(kind, in_force, listing)).filter(|lack| lack.missing > 0).collect()
}

fn lack(kind: &'static str, in_force: &Table, listing: &Table) -> Concern {
    let first = ResourceKey { kind: kind.to_owned(), namespace: String::new(), name: String::new() };
    let (mut before, mut missing, mut names) = (0, 0, Vec::new());
    for (key, _) in in_force.range(first..).take_while(|(key, _)| key.kind == kind) {
        before += 1;
        if !listing.contains_key(key) {
            missing += 1;
            if names.len() < NAMED {
                names.push(key.name.clone());
            }
        }
    }
    Concern { kind, in_force: before, missing, names }
}

/// `980 of 1000 Node (node-1, node-2, node-3, …), 2 of 2 BGPPeer (tor-a, tor-b)`.
pub fn in_words(concerns: &[Concern]) -> String {
    let mut words = String::new();
    for Concern { kind, in_force, missing, names } in concerns {
        let (comma, more) = (if words.is_empty() { "" } else { ", " }, if *missing > names.len() { ", …" } else { "" });
        // Writing into a String cannot fail.
        let _ = write!(words, "{comma}{missing} of {in_force} {kind} ({}{more})", names.join(", "));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    type Kinds<'a> = &'a [(&'a str, usize)];

    fn table(kinds: Kinds<'_>) -> Table {
        let names = |(kind, count): &(&str, usize)| {
            let kind = (*kind).to_owned();
            (0..*count)
                .map(move |n| ResourceKey { kind: kind.clone(), namespace: String::new(), name: format!("n{n}") })
                .collect::<Vec<_>>()
        };
        kinds.iter().flat_map(names).map(|key| (key, Document::new(serde_json::Value::Null, ""))).collect()
    }

    #[test]
    fn more_than_half_of_a_kind_is_of_concern() {
        let cases: [(Kinds<'_>, Kinds<'_>, &str); 9] = [
            (&[("Node", 10)], &[], "10 of 10 Node (n0, n1, n2, …)"),
            (&[("Node", 10)], &[("Node", 5)], ""),
            (&[("Node", 10)], &[("Node", 4)], "6 of 10 Node (n4, n5, n6, …)"),
            (&[("Node", 10), ("BGPPeer", 2)], &[("Node", 10)], "2 of 2 BGPPeer (n0, n1)"),
            (&[("BGPPeer", 2)], &[("BGPPeer", 1)], ""),
            (&[("BGPConfiguration", 1), ("Node", 3)], &[("Node", 1)], "1 of 1 BGPConfiguration (n0), 2 of 3 Node (n1, n2)"),
            (&[("BlockAffinity", 4), ("Secret", 4)], &[], ""),
            (&[], &[("Node", 3)], ""),
            (&[], &[], ""),
        ];
        for (in_force, listing, expected) in cases {
            assert_eq!(in_words(&concerns(&table(in_force), &table(listing))), expected, "{in_force:?} → {listing:?}");
        }
    }
}
