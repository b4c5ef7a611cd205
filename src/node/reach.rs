//! Reach: which peers our own links and addresses let us reach. A directly connected peer is told at once when its link has gone (F16),
//! and a peer that waits for its source address or its link is told to try when what it waits for has come.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::PeerConfig;
use crate::fib::{InterfaceAddress, KernelEvent, Link};
use crate::session::Input;
use crate::types::{PeerId, Sync};

/// Words for peers.
pub type Words = Vec<(PeerId, Input)>;

/// See the module.
#[derive(Debug, Default)]
pub struct Reach {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, IpNet)>,
    /// Links and addresses not named again since `Begin`.
    unnamed_links: BTreeSet<u32>,
    unnamed_addresses: BTreeSet<(u32, IpNet)>,
    peers: BTreeMap<PeerId, Arc<PeerConfig>>,
    /// Directly connected peers whose link is there and up.
    linked: BTreeSet<PeerId>,
}

impl Reach {
    /// The peers there are now. Nobody is told anything: a new peer finds out by trying.
    pub fn configure(&mut self, peers: BTreeMap<PeerId, Arc<PeerConfig>>) {
        self.peers = peers;
        self.linked = self.peers.iter().filter(|(_, config)| self.is_linked(config)).map(|(id, _)| *id).collect();
    }

    /// Takes a fact of the kernel; what peers are to be told of it.
    pub fn hear(&mut self, event: KernelEvent) -> Words {
        let mut words = match event {
            KernelEvent::Link(word) => {
                self.hear_link(word);
                Vec::new()
            }
            KernelEvent::Address(word) => self.hear_address(word),
            _ => return Vec::new(),
        };
        let linked: BTreeSet<PeerId> = self.peers.iter().filter(|(_, config)| self.is_linked(config)).map(|(id, _)| *id).collect();
        let lost = self.linked.difference(&linked).filter_map(|id| Some((*id, Input::LinkDown(self.loss(self.peers.get(id)?)))));
        words.extend(lost);
        words.extend(linked.difference(&self.linked).map(|id| (*id, Input::LinkUp)));
        self.linked = linked;
        words
    }

    fn hear_link(&mut self, word: Sync<u32, Link>) {
        match word {
            Sync::Begin => self.unnamed_links = self.links.keys().copied().collect(),
            Sync::Upsert(index, link) => {
                self.unnamed_links.remove(&index);
                self.links.insert(index, link);
            }
            Sync::Remove(index) => drop(self.links.remove(&index)),
            Sync::End => {
                for index in std::mem::take(&mut self.unnamed_links) {
                    self.links.remove(&index);
                }
            }
        }
    }

    /// An address that is told again counts as come: an IPv6 address is told when it is added, and again when it may be used.
    fn hear_address(&mut self, word: Sync<(u32, IpNet), InterfaceAddress>) -> Words {
        match word {
            Sync::Begin => self.unnamed_addresses = self.addresses.clone(),
            Sync::Upsert(key, _) => {
                self.unnamed_addresses.remove(&key);
                self.addresses.insert(key);
                return self.waiting_for(key).map(|id| (id, Input::LinkUp)).collect();
            }
            Sync::Remove(key) => drop(self.addresses.remove(&key)),
            Sync::End => {
                for key in std::mem::take(&mut self.unnamed_addresses) {
                    self.addresses.remove(&key);
                }
            }
        }
        Vec::new()
    }

    /// Peers whose source is this address, or whose interface has it.
    fn waiting_for(&self, (index, address): (u32, IpNet)) -> impl Iterator<Item = PeerId> {
        let name = self.links.get(&index).map(|link| link.name.clone());
        let waits = move |config: &PeerConfig| {
            config.local_address == Some(address.addr())
                || config.interface.as_deref().is_some_and(|wanted| name.as_deref() == Some(wanted))
        };
        self.peers.iter().filter(move |(_, config)| waits(config)).map(|(id, _)| *id)
    }

    /// Whether the link of a directly connected peer is there and up.
    fn is_linked(&self, config: &PeerConfig) -> bool {
        if !config.is_directly_connected() {
            return false;
        }
        match &config.interface {
            Some(name) => self.links.values().any(|link| link.up && *link.name == **name),
            None => self.addresses.iter().any(|(index, subnet)| {
                self.links.get(index).is_some_and(|link| link.up)
                    && subnet.contains(&config.address)
                    && config.local_address.is_none_or(|local: IpAddr| subnet.addr() == local)
            }),
        }
    }

    fn loss(&self, config: &PeerConfig) -> String {
        match &config.interface {
            Some(name) => format!("interface {name} went down"),
            None => {
                let up = |index: &u32| self.links.get(index).is_some_and(|link| link.up);
                let down = self.addresses.iter().find(|(index, subnet)| subnet.contains(&config.address) && !up(index));
                match down.and_then(|(index, _)| self.links.get(index)) {
                    Some(link) => format!("interface {} went down", link.name),
                    None => "our address on the peer's network is gone".to_owned(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ttl;
    use crate::types::{Asn, RouterId};

    fn peer(address: &str, change: impl FnOnce(&mut PeerConfig)) -> Arc<PeerConfig> {
        let mut config = PeerConfig::new("p", (Asn(64512), RouterId([10, 0, 0, 1].into())), (address.parse().unwrap(), Asn(65001)));
        change(&mut config);
        Arc::new(config)
    }

    fn link(up: bool) -> KernelEvent {
        KernelEvent::Link(Sync::Upsert(2, Link { name: "eth0".into(), up }))
    }

    fn address(text: &str, here: bool) -> KernelEvent {
        let key = (2, text.parse().unwrap());
        let facts = InterfaceAddress { global: true, secondary: false };
        KernelEvent::Address(if here { Sync::Upsert(key, facts) } else { Sync::Remove(key) })
    }

    /// What each peer is told: its number, and `up` or the loss in words.
    fn told(words: Words) -> Vec<(u32, String)> {
        let word = |input| match input {
            Input::LinkUp => "up".to_owned(),
            Input::LinkDown(what) => what,
            other => panic!("{other:?}"),
        };
        words.into_iter().map(|(id, input)| (id.0, word(input))).collect()
    }

    fn reach() -> Reach {
        let mut reach = Reach::default();
        let direct = |config: &mut PeerConfig| config.ttl = Ttl::Direct;
        reach.configure(BTreeMap::from([
            (PeerId(1), peer("10.0.0.9", direct)),
            (PeerId(2), peer("10.0.0.9", |_| {})),
            (PeerId(3), peer("fe80::9", |config| config.interface = Some("eth0".to_owned()))),
            (PeerId(4), peer("192.0.2.9", |config| config.local_address = Some([10, 0, 0, 1].into()))),
        ]));
        reach
    }

    #[test]
    fn f16_link_loss_concerns_directly_connected_peers_only() {
        let mut reach = reach();
        assert_eq!(told(reach.hear(link(true))), [(3, "up".to_owned())]);
        assert_eq!(told(reach.hear(address("10.0.0.1/24", true))), [(3, "up".to_owned()), (4, "up".to_owned()), (1, "up".to_owned())]);
        let lost = "interface eth0 went down".to_owned();
        assert_eq!(told(reach.hear(link(false))), [(1, lost.clone()), (3, lost)]);
        assert_eq!(told(reach.hear(link(true))), [(1, "up".to_owned()), (3, "up".to_owned())]);
    }

    #[test]
    fn f16_the_loss_of_our_address_is_one_of_the_link() {
        let mut reach = reach();
        reach.hear(link(true));
        reach.hear(address("10.0.0.1/24", true));
        let lost = "our address on the peer's network is gone".to_owned();
        assert_eq!(told(reach.hear(address("10.0.0.1/24", false))), [(1, lost)]);
    }

    #[test]
    fn what_is_not_told_again_is_gone() {
        let mut reach = reach();
        reach.hear(link(true));
        reach.hear(address("10.0.0.1/24", true));
        assert_eq!(told(reach.hear(KernelEvent::Link(Sync::Begin))), []);
        let lost: Vec<u32> = told(reach.hear(KernelEvent::Link(Sync::End))).into_iter().map(|(peer, _)| peer).collect();
        assert_eq!(lost, [1, 3]);
    }
}
