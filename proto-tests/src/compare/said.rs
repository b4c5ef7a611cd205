//! What an UPDATE says, as numbers of prefixes. What a speaker tells ten receivers is decoded and looked up once: it is the speaker that
//! is to be measured, and the generator has the same two cores.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use foldhash::fast::FixedState;
use ipnet::IpNet;
use margay::types::{Asn, Family, NlriList};
use margay::wire::{Context, Kind, Message};

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

impl Known {
    /// Where a body stands, which is looked for at `next` first.
    fn find(&self, next: usize, hash: impl FnOnce() -> u64, body: &[u8]) -> Option<usize> {
        let is_it = |place: &usize| self.messages.get(*place).is_some_and(|(other, _)| **other == *body);
        Some(next).filter(is_it).or_else(|| self.places.get(&hash()).copied().filter(is_it))
    }

    fn push(&mut self, hash: u64, body: &[u8], said: Rc<Said>) -> usize {
        if self.messages.len() >= MANY {
            *self = Self::default();
        }
        let place = self.messages.len();
        self.places.insert(hash, place);
        self.messages.push((body.into(), said));
        place
    }
}

impl Sayings {
    /// Of these prefixes, to so many who hear.
    pub fn new(index: Arc<Index>, receivers: usize) -> Self {
        Self { index, known: Default::default(), next: vec![0; receivers] }
    }

    /// What the body of an UPDATE says to a receiver, decoded unless one of them has heard it before.
    ///
    /// # Errors
    /// It is of a prefix that nobody has told, or it has a fault.
    pub fn hear(&mut self, receiver: usize, context: &Context, body: &[u8]) -> Result<Rc<Said>> {
        if self.next.len() < 2 {
            return Ok(Rc::new(self.read(body, context)?));
        }
        let hash = || FixedState::default().hash_one(body);
        let (kind, next) = (kind(context), self.next[receiver]);
        let place = match self.known[kind].find(next, hash, body) {
            Some(place) => place,
            None => {
                let said = Rc::new(self.read(body, context)?);
                self.known[kind].push(hash(), body, said)
            }
        };
        self.next[receiver] = place + 1;
        Ok(Rc::clone(&self.known[kind].messages[place].1))
    }

    fn read(&self, body: &[u8], context: &Context) -> Result<Said> {
        let Message::Update(update) = Message::decode(Kind::Update, body, context)? else { bail!("no UPDATE") };
        if let Some(fault) = update.faults.first() {
            bail!("an UPDATE is faulty: {fault:?}");
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

    fn numbers(&self, list: &NlriList) -> Result<Vec<u32>> {
        let one = |prefix: IpNet| match self.index.find(prefix) {
            Some(number) => Some(Ok(number)),
            // Its own addresses are the speaker's to tell.
            None if prefix.addr() == IpAddr::from(TARGET) || is_loopback6(prefix) => None,
            None => Some(Err(anyhow!("nobody has told {prefix}"))),
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
    use margay::types::{AsPath, Attributes, NextHop};
    use margay::wire::HEADER;

    use super::*;
    use crate::compare::feed;

    /// The body of an UPDATE with these prefixes.
    fn body(prefixes: &[&str], context: &Context) -> Vec<u8> {
        let prefixes: Vec<IpNet> = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        let attributes = Attributes::originated(NextHop::Global("192.0.2.1".parse().unwrap()));
        let attributes = Attributes { as_path: AsPath::sequence([Asn(65000), Asn(7)]), local_pref: Some(100), ..attributes };
        let mut frames = Vec::new();
        feed::announce_run(&prefixes, &attributes, context, &mut frames);
        frames.concat()[HEADER..].to_vec()
    }

    #[test]
    fn what_was_heard_by_one_is_not_decoded_for_the_next_of_its_kind() {
        let prefixes: Vec<IpNet> = ["10.0.0.0/26", "20.0.0.0/24"].map(|prefix| prefix.parse().unwrap()).to_vec();
        let (external, internal) = (feed::context(true, Family::IPV4_UNICAST), feed::context(false, Family::IPV4_UNICAST));
        let (one, other) = (body(&["20.0.0.0/24", "10.7.0.2/32"], &external), body(&["10.0.0.0/26"], &external));
        let nobodys = body(&["30.0.0.0/24"], &external);
        for receivers in [2, 1] {
            let mut sayings = Sayings::new(Arc::new(Index::new(&prefixes)), receivers);
            let first = [&one, &other].map(|body| sayings.hear(0, &external, body).unwrap());
            let but_its_own = Said { withdrawn: vec![], announced: vec![(Some(Asn(7)), vec![1])], any: true };
            assert_eq!(*first[0], but_its_own, "but for the speaker's own address");
            // In the same order, and in another one.
            for (body, said) in [(&one, &first[0]), (&other, &first[1]), (&one, &first[0])] {
                let heard = sayings.hear(receivers - 1, &external, body).unwrap();
                assert_eq!((&heard, Rc::ptr_eq(&heard, said)), (said, receivers > 1));
            }
            assert!(sayings.hear(0, &external, &nobodys).is_err());
            assert!(sayings.hear(receivers - 1, &external, &nobodys).is_err(), "what is wrong is wrong each time");
            let within = body(&["10.0.0.0/26"], &internal);
            assert!(sayings.hear(0, &internal, &within).is_ok());
            assert!(sayings.hear(0, &external, &within).is_err(), "LOCAL_PREF from another AS");
            assert_eq!(sayings.known.iter().any(|known| !known.messages.is_empty()), receivers > 1, "one alone needs no memory");
        }
    }

    #[test]
    fn more_than_are_kept_are_heard_all_the_same() {
        let mut known = Known::default();
        for number in 0..MANY as u64 {
            known.push(number, &number.to_be_bytes(), Rc::default());
        }
        let last = MANY as u64;
        assert_eq!(known.push(last, &last.to_be_bytes(), Rc::default()), 0, "they begin anew");
        assert_eq!(known.find(5, || last, &last.to_be_bytes()), Some(0));
        assert_eq!(known.find(5, || 1, &1u64.to_be_bytes()), None);
        assert_eq!(known.find(0, || last, b"another of the same hash"), None);
    }
}
