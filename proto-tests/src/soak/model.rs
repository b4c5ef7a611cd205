//! What the peers announce, and what must follow from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::live::PeerPlan;
use crate::live::daemon::{external, external_6};
use crate::story::Dice;

/// Peers that speak IPv4, and those that speak IPv6.
const PEERS: (u16, u16) = (40, 10);
/// Prefixes of each family.
const PREFIXES: (u16, u16) = (3000, 500);
/// Peers that may announce a prefix.
const CANDIDATES: usize = 3;
/// The longest AS path that a peer gives a prefix.
const LONGEST: u64 = 3;

/// Prefix → length of the AS path.
pub type Table = BTreeMap<IpNet, u8>;

/// One peer.
#[derive(Debug)]
pub struct Member {
    /// Who it is.
    pub plan: PeerPlan,
    /// The next hop of all its routes.
    pub next_hop: IpAddr,
    /// What it may announce.
    pub may: Vec<IpNet>,
    /// What it announces.
    pub says: Table,
}

/// What must be held of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Best {
    /// Length of the AS path.
    pub length: u8,
    /// ASes of the peers with a path of that length: the best one is among them.
    pub ases: BTreeSet<u32>,
    /// Their next hops: all of them are in the kernel's route.
    pub hops: BTreeSet<IpAddr>,
}

/// See the module.
#[derive(Debug)]
pub struct Model {
    /// The peers.
    pub members: Vec<Member>,
}

impl Model {
    /// The peers, each with about half of what it may announce.
    pub fn new(dice: &mut Dice) -> Self {
        let mut members: Vec<Member> = (0..PEERS.0).map(|number| member(external(number), number)).collect();
        members.extend((0..PEERS.1).map(|number| member(external_6(0x10 + number), number)));
        let (four, six) = members.split_at_mut(usize::from(PEERS.0));
        share((0..PREFIXES.0).map(prefix_4), four, dice);
        share((0..PREFIXES.1).map(prefix_6), six, dice);
        let mut model = Self { members };
        for at in 0..model.members.len() {
            let all = model.members[at].may.len();
            model.change(at, all, dice);
        }
        model
    }

    /// So many prefixes of a peer change, each to a path of some length or to none; what is new of them.
    pub fn change(&mut self, at: usize, count: usize, dice: &mut Dice) -> Vec<(IpNet, Option<u8>)> {
        let member = &mut self.members[at];
        let mut changes = Vec::with_capacity(count);
        for _ in 0..count {
            let prefix = member.may[dice.below(member.may.len() as u64) as usize];
            let length = (dice.below(2) == 0).then(|| 1 + dice.below(LONGEST) as u8);
            match length {
                Some(length) => drop(member.says.insert(prefix, length)),
                None => drop(member.says.remove(&prefix)),
            }
            changes.push((prefix, length));
        }
        changes
    }

    /// What follows, by prefix.
    pub fn best(&self) -> BTreeMap<IpNet, Best> {
        let mut all: BTreeMap<IpNet, Best> = BTreeMap::new();
        for Member { plan, next_hop, says, .. } in &self.members {
            for (prefix, length) in says {
                let best = all.entry(*prefix).or_insert_with(|| Best { length: u8::MAX, ..Best::default() });
                if *length < best.length {
                    *best = Best { length: *length, ..Best::default() };
                }
                if *length == best.length {
                    best.ases.insert(plan.asn);
                    best.hops.insert(*next_hop);
                }
            }
        }
        all
    }

    /// A prefix that somebody may announce.
    pub fn any_prefix(&self, dice: &mut Dice) -> IpNet {
        let member = &self.members[dice.below(self.members.len() as u64) as usize];
        member.may[dice.below(member.may.len() as u64) as usize]
    }
}

fn member(plan: PeerPlan, number: u16) -> Member {
    let next_hop = if plan.address.is_ipv6() {
        Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x100 + number).into()
    } else {
        Ipv4Addr::new(192, 0, 2, 10 + number as u8).into()
    };
    Member { plan, next_hop, may: Vec::new(), says: Table::new() }
}

fn share(prefixes: impl Iterator<Item = IpNet>, members: &mut [Member], dice: &mut Dice) {
    for prefix in prefixes {
        for _ in 0..CANDIDATES {
            let member = &mut members[dice.below(members.len() as u64) as usize];
            if member.may.last() != Some(&prefix) {
                member.may.push(prefix);
            }
        }
    }
}

fn prefix_4(number: u16) -> IpNet {
    let [high, low] = number.to_be_bytes();
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, high, low, 0), 24))
}

fn prefix_6(number: u16) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0x4000, number, 0, 0, 0, 0), 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_paths_are_best_and_a_seed_says_all() {
        let (mut dice, mut again) = (Dice(7), Dice(7));
        let (mut model, same) = (Model::new(&mut dice), Model::new(&mut again));
        assert_eq!((model.members.len(), model.best() == same.best()), (50, true));
        assert!(model.best().len() > 2000, "{}", model.best().len());
        let prefix = prefix_4(1);
        for member in &mut model.members {
            member.says.remove(&prefix);
        }
        for (at, length) in [(3, 2), (5, 1), (8, 1)] {
            model.members[at].says.insert(prefix, length);
        }
        let best = &model.best()[&prefix];
        assert_eq!((best.length, best.ases.len(), best.hops.len()), (1, 2, 2));
        assert!(!best.ases.contains(&model.members[3].plan.asn));
    }
}
