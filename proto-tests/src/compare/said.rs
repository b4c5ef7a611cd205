//! What an UPDATE says, as numbers of prefixes. What a speaker tells ten receivers is decoded and looked up once: it is the speaker that
//! is to be measured, and the generator has the same two cores.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::FixedState;
use ipnet::IpNet;
use margay::types::{Asn, Family, NlriList};
use margay::wire::{Context, Update};

use super::scenario::{TARGET, TARGET6};
use super::table::Index;

/// Messages that are kept, for each kind of session.
const MANY: usize = 256 << 10;

/// What one UPDATE says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Prefixes that it withdraws.
    pub withdrawn: Vec<u32>,
    /// Prefixes that it announces, and the AS behind the speaker's own on their path.
    pub announced: Vec<(Option<Asn>, Vec<u32>)>,
    /// There are prefixes in it, if only the speaker's own.
    pub any: bool,
}

/// What was said already.
#[derive(Debug)]
pub struct Sayings {
    index: Arc<Index>,
    /// By [`kind`]; nothing is kept where only one hears it.
    known: [Known; 4],
    shared: bool,
    /// By receiver: where what it hears next stands, if it goes on as the one who heard it first.
    next: Vec<usize>,
}

/// Messages of one kind of session, in the order in which they were heard first.
#[derive(Debug, Default)]
struct Known {
    messages: Vec<(Box<[u8]>, Rc<Said>)>,
    /// By the hash of the body.
    places: HashMap<u64, usize, FixedState>,
}

/// Sessions of one kind understand the same by the same octets.
fn kind(context: &Context) -> usize {
    usize::from(context.ebgp) * 2 + usize::from(context.families.has(Family::IPV6_UNICAST))
}

fn hash(body: &[u8]) -> u64 {
    FixedState::default().hash_one(body)
}

impl Sayings {
    /// Of these prefixes, to so many who hear.
    pub fn new(index: Arc<Index>, receivers: usize) -> Self {
        Self { index, known: Default::default(), shared: receivers > 1, next: vec![0; receivers] }
    }

    /// What the body of an UPDATE says to a receiver, if one of them has heard it before.
    pub fn find(&mut self, receiver: usize, context: &Context, body: &[u8]) -> Option<Rc<Said>> {
        if !self.shared {
            return None;
        }
        let known = &self.known[kind(context)];
        let is_it = |place: &usize| known.messages.get(*place).is_some_and(|(other, _)| **other == *body);
        let next = &mut self.next[receiver];
        let place = Some(*next).filter(is_it).or_else(|| known.places.get(&hash(body)).copied().filter(is_it))?;
        *next = place + 1;
        Some(Rc::clone(&known.messages[place].1))
    }

    /// What it says, decoded.
    ///
    /// # Errors
    /// It is of a prefix that nobody has told, or it has a fault.
    pub fn enter(&mut self, receiver: usize, context: &Context, body: &[u8], update: &Update) -> Result<Rc<Said>, String> {
        let said = Rc::new(self.read(update)?);
        if self.shared {
            let known = &mut self.known[kind(context)];
            if known.messages.len() >= MANY {
                *known = Known::default();
            }
            known.places.insert(hash(body), known.messages.len());
            known.messages.push((body.into(), Rc::clone(&said)));
            self.next[receiver] = known.messages.len();
        }
        Ok(said)
    }

    fn read(&self, update: &Update) -> Result<Said, String> {
        if let Some(fault) = update.faults.first() {
            return Err(format!("an UPDATE is faulty: {fault:?}"));
        }
        let mut said = Said { any: !update.withdrawn.is_empty() || !update.announced.is_empty(), ..Said::default() };
        for list in &update.withdrawn {
            said.withdrawn.extend(self.numbers(list)?);
        }
        for (attributes, list) in &update.announced {
            // On eBGP the first AS is the speaker's own.
            said.announced.push((attributes.as_path.asns().nth(1), self.numbers(list)?));
        }
        Ok(said)
    }

    fn numbers(&self, list: &NlriList) -> Result<Vec<u32>, String> {
        let one = |prefix: IpNet| match self.index.find(prefix) {
            Some(number) => Some(Ok(number)),
            // Its own addresses are the speaker's to tell.
            None if prefix.addr() == IpAddr::from(TARGET) || is_loopback6(prefix) => None,
            None => Some(Err(format!("nobody has told {prefix}"))),
        };
        match list {
            NlriList::Ipv4(items) => items.iter().filter_map(|item| one(item.prefix.into())).collect(),
            NlriList::Ipv6(items) => items.iter().filter_map(|item| one(item.prefix.into())).collect(),
        }
    }
}

/// Of the loopback's addresses (`furnish`).
fn is_loopback6(prefix: IpNet) -> bool {
    matches!(prefix, IpNet::V6(prefix) if prefix.addr().segments()[0] == TARGET6.segments()[0])
}

#[cfg(test)]
mod tests {
    use margay::types::{AsPath, Attributes, Nlri, PathId};

    use super::*;
    use crate::compare::feed;

    fn update(prefixes: &[&str]) -> Update {
        let items = prefixes.iter().map(|prefix| Nlri { prefix: prefix.parse().unwrap(), path_id: PathId(0) }).collect();
        let attributes = Attributes { as_path: AsPath::sequence([Asn(65000), Asn(7)]), ..Attributes::default() };
        Update { announced: vec![(Arc::new(attributes), NlriList::Ipv4(items))], ..Update::default() }
    }

    #[test]
    fn what_was_heard_by_one_need_not_be_decoded_for_the_next_of_its_kind() {
        let prefixes: Vec<IpNet> = ["10.0.0.0/26", "20.0.0.0/24"].map(|prefix| prefix.parse().unwrap()).to_vec();
        let (external, internal) = (feed::context(true, Family::IPV4_UNICAST), feed::context(false, Family::IPV4_UNICAST));
        for receivers in [2, 1] {
            let mut sayings = Sayings::new(Arc::new(Index::new(&prefixes)), receivers);
            assert!(sayings.find(0, &external, b"one").is_none());
            let said = sayings.enter(0, &external, b"one", &update(&["20.0.0.0/24", "10.7.0.2/32"])).unwrap();
            assert_eq!(*said, Said { withdrawn: vec![], announced: vec![(Some(Asn(7)), vec![1])], any: true }, "but for its own address");
            let other = sayings.enter(0, &external, b"other", &update(&["10.0.0.0/26"])).unwrap();
            let last = receivers - 1;
            for (body, said) in [(&b"one"[..], &said), (b"other", &other), (b"one", &said)] {
                assert_eq!(sayings.find(last, &external, body).as_ref(), (receivers > 1).then_some(said));
            }
            assert!(sayings.find(0, &internal, b"one").is_none() && sayings.find(0, &external, b"two").is_none());
            assert!(sayings.enter(0, &external, b"two", &update(&["30.0.0.0/24"])).is_err(), "nobody's");
            assert!(sayings.find(0, &external, b"two").is_none(), "what is wrong is wrong each time");
        }
    }
}
