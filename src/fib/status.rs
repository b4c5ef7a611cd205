//! What became of a prefix, for people.

use super::delta::{Delta, Plan};
use super::failure::{Failures, explain};
use super::interface::Interfaces;
use super::route::Verdict;
use super::rows::Row;
use super::{FibState, FibStatus, KernelRoute};
use crate::config::FibConfig;

/// What is looked at to answer.
pub(super) struct Known<'a> {
    pub config: &'a FibConfig,
    pub delta: &'a Delta,
    pub failures: &'a Failures,
    pub interfaces: &'a Interfaces,
}

impl Known<'_> {
    /// What became of a row, without the words.
    pub(super) fn state(&self, row: &Row<'_>) -> FibState {
        state(self.failures.get(&row.prefix).is_some(), &self.delta.plan(row), row)
    }

    /// The state of one prefix.
    pub(super) fn status(&self, row: &Row<'_>) -> FibStatus {
        let prefix = row.prefix;
        let wanted = row.wanted().map(|shape| shape.route(self.config, prefix));
        let (failure, plan) = (self.failures.get(&prefix), self.delta.plan(row));
        let state = state(failure.is_some(), &plan, row);
        let because = match (failure, plan) {
            (_, Plan::Held) => self.held(row),
            (_, Plan::Blocked(protocol)) => conflict(protocol),
            (Some(failure), _) => self.failed(failure.errno, wanted.as_ref()),
            (None, Plan::Settled) => settled(row),
            (None, Plan::Write(_)) => self.pending(row),
        };
        FibStatus { prefix, state, because, errno: failure.map(|failure| failure.errno), wanted }
    }

    fn held(&self, row: &Row<'_>) -> String {
        match row.decision {
            Some(_) => "kept as found at start until all of its next hops are learned again".into(),
            None => "found at start; kept until it is learned again or the restart is over".into(),
        }
    }

    fn pending(&self, row: &Row<'_>) -> String {
        match (self.delta.is_ready(), row.wanted()) {
            _ if self.delta.is_dry_run() && row.wanted().is_some() => "would be written, but this is a dry run".into(),
            _ if self.delta.is_dry_run() => "would be removed, but this is a dry run".into(),
            (false, _) => "the kernel's table is being read".into(),
            (true, Some(_)) => "about to be written".into(),
            (true, None) => "about to be removed".into(),
        }
    }

    fn failed(&self, errno: i32, wanted: Option<&KernelRoute>) -> String {
        let words = explain(errno).1;
        let down = wanted.into_iter().flat_map(|route| &route.hops).find(|hop| !self.interfaces.is_up(hop.interface));
        match down {
            Some(hop) => format!("{words}; {} is down or gone", self.interfaces.name(hop.interface)),
            None => words,
        }
    }
}

fn state(has_failed: bool, plan: &Plan, row: &Row<'_>) -> FibState {
    match plan {
        Plan::Held => FibState::Adopted,
        Plan::Blocked(_) => FibState::Failed,
        _ if has_failed => FibState::Failed,
        Plan::Write(_) => FibState::Pending,
        Plan::Settled if row.decision.is_some_and(|decision| matches!(decision.verdict, Verdict::NotWanted(_))) => FibState::NotWanted,
        Plan::Settled => FibState::Installed,
    }
}

fn settled(row: &Row<'_>) -> String {
    match row.decision.map(|decision| &decision.verdict) {
        Some(Verdict::NotWanted(reason)) => reason.to_string(),
        _ => match row.wanted().and_then(|wanted| row.have_metric(wanted.metric)).and_then(|have| have.object) {
            Some(object) => format!("the kernel has it, by next-hop object {object}"),
            None => "the kernel has it".into(),
        },
    }
}

/// Who owns the route that is in the way.
fn conflict(protocol: u8) -> String {
    let owner = match protocol {
        1 => "an ICMP redirect",
        2 => "the kernel",
        3 => "boot (Felix or an administrator)",
        4 => "an administrator (static)",
        9 => "router advertisements",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        17 => "mrouted",
        42 => "babel",
        80 => "Felix",
        186 => "bgp (FRR)",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => return format!("a route of protocol {protocol} has the same prefix and metric; it is not ours to replace"),
    };
    format!("a route of {owner} (protocol {protocol}) has the same prefix and metric; it is not ours to replace")
}
