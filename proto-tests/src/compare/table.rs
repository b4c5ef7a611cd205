//! Tables as the internet's are: which lengths, how nested, which attributes; the same for the same seed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::FixedState;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use margay::types::{AsPath, Asn, Attributes, Community, LargeCommunity, NextHop, Origin, RareAttributes};

/// A small generator of numbers (splitmix64): the same seed gives the same table in every run.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(0x5851_f42d_4c95_7f2d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        b ^ (b >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u32
    }

    /// A run of at least one, whose lengths are geometric with this mean.
    fn run(&mut self, mean: u32) -> usize {
        let mut length = 1;
        while self.below(mean) != 0 {
            length += 1;
        }
        length
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            let other = self.below(at as u32 + 1) as usize;
            list.swap(at, other);
        }
    }
}

/// Prefixes placed at a time: within as many they are in no order.
const PLACED: usize = 1024;

/// Different IPv4 prefixes with different network addresses, /16 to /24 in the internet's shares; half of the /24s lie inside
/// a shorter one.
pub fn ipv4(count: usize, numbers: &mut Numbers) -> Vec<IpNet> {
    // In units of /24, past 1.0.0.0.
    let mut next: u32 = 1 << 16;
    let mut all = Vec::with_capacity(count + PLACED);
    while all.len() < count {
        let wanted = PLACED.min(count - all.len());
        let mut lengths: Vec<u8> = (0..wanted).map(|_| length(numbers)).collect();
        lengths.sort_unstable();
        let mut used = std::collections::BTreeSet::new();
        let mut blocks = Vec::new();
        let mut placed = Vec::with_capacity(wanted);
        for length in lengths {
            let size = 1u32 << (24 - length);
            let inside = (length == 24 && !blocks.is_empty() && numbers.below(2) == 0)
                .then(|| {
                    let (start, size): (u32, u32) = blocks[numbers.below(blocks.len() as u32) as usize];
                    start + numbers.below(size)
                })
                .filter(|unit| used.insert(*unit));
            let unit = inside.unwrap_or_else(|| {
                let unit = free(next, size);
                next = unit + size;
                used.insert(unit);
                unit
            });
            if length < 24 {
                blocks.push((unit, size));
            }
            placed.push(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(unit << 8), length)));
        }
        numbers.shuffle(&mut placed);
        all.extend(placed);
    }
    all
}

fn length(numbers: &mut Numbers) -> u8 {
    match numbers.below(1000) {
        0..600 => 24,
        600..700 => 23,
        700..810 => 22,
        810..865 => 21,
        865..910 => 20,
        910..940 => 19,
        940..956 => 18,
        956..966 => 17,
        966..979 => 16,
        _ => 24,
    }
}

/// The first place at or after `unit` for a block of `size` units that is public unicast space.
fn free(unit: u32, size: u32) -> u32 {
    const RESERVED: [(u32, u32); 6] = [
        (0x0a_0000, 0x0b_0000),
        (0x64_4000, 0x64_8000),
        (0x7f_0000, 0x80_0000),
        (0xa9_fe00, 0xa9_ff00),
        (0xac_1000, 0xac_2000),
        (0xc0_0000, 0xc0_a900),
    ];
    let mut start = unit.next_multiple_of(size);
    for (from, to) in RESERVED {
        if start < to && start + size > from {
            start = to.next_multiple_of(size);
        }
    }
    assert!(start < 0xe0_0000, "no unicast space is left");
    start
}

/// Different IPv6 prefixes of 2400::/16, in no order: three of four are /48s, the others /44s and /40s.
pub fn ipv6(count: usize, numbers: &mut Numbers) -> Vec<IpNet> {
    let mut all = Vec::with_capacity(count);
    for number in 0..count as u128 {
        let length = if numbers.below(4) == 0 { 40 + 4 * numbers.below(2) as u8 } else { 48 };
        // Each has a /40 to itself; seven are in a /32.
        let (block, part) = (number / 7, number % 7);
        let address = (0x2400_u128 << 112) + (block << 96) + (part << 88);
        all.push(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(address), length)));
    }
    numbers.shuffle(&mut all);
    all
}

/// The /26 blocks of a cluster's node.
pub fn blocks(node: usize, count: usize) -> Vec<IpNet> {
    let block = |at: usize| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(0x0a80_0000 + ((node * count + at) as u32) * 64), 26));
    (0..count).map(block).collect()
}

/// Runs of prefixes that share an attribute set: how many prefixes each has.
pub fn runs(count: usize, mean: u32, numbers: &mut Numbers) -> Vec<usize> {
    let mut runs = Vec::new();
    let mut left = count;
    while left > 0 {
        let run = numbers.run(mean).min(left);
        runs.push(run);
        left -= run;
    }
    runs
}

/// An attribute set as the internet has them, told by the AS `first` (none for iBGP): about four ASes and four communities.
/// `hops` fixes the number of ASes after the first, and leaves out what else would decide.
pub fn attributes(first: Option<Asn>, next_hop: IpAddr, hops: Option<usize>, numbers: &mut Numbers) -> Attributes {
    let length = hops.unwrap_or_else(|| match numbers.below(100) {
        0..5 => 1,
        5..25 => 2,
        25..58 => 3,
        58..82 => 4,
        82..94 => 5,
        _ => 6,
    });
    let mut path: Vec<Asn> = first.into_iter().chain((0..length).map(|_| asn(numbers))).collect();
    if hops.is_none() && numbers.below(100) < 15 {
        let last = path[path.len() - 1];
        path.extend((0..=numbers.below(3)).map(|_| last));
    }
    let count = match numbers.below(100) {
        0..20 => 0,
        20..50 => 1 + numbers.below(3),
        50..85 => 3 + numbers.below(5),
        _ => 8 + numbers.below(12),
    };
    let mut communities: Vec<Community> =
        (0..count).map(|_| Community(((1000 + numbers.below(60_000)) << 16) | numbers.below(65_000))).collect();
    communities.sort_unstable();
    communities.dedup();
    let large = if numbers.below(10) == 0 { 1 + numbers.below(3) } else { 0 };
    let large: Vec<LargeCommunity> =
        (0..large).map(|_| LargeCommunity(asn(numbers).0, numbers.below(1000), numbers.below(100_000))).collect();
    let origin = if numbers.below(100) < 88 { Origin::Igp } else { Origin::Incomplete };
    Attributes {
        origin: if hops.is_some() { Origin::Igp } else { origin },
        as_path: AsPath::sequence(path),
        med: (hops.is_none() && numbers.below(100) < 30).then(|| numbers.below(500)),
        local_pref: first.is_none().then_some(100),
        communities: communities.into(),
        rare: RareAttributes { large_communities: large, ..RareAttributes::default() }.into(),
        ..Attributes::originated(NextHop::Global(next_hop))
    }
}

fn asn(numbers: &mut Numbers) -> Asn {
    Asn(if numbers.below(100) < 55 { 1000 + numbers.below(60_000) } else { 262_144 + numbers.below(140_000) })
}

/// Prefixes by number and the other way round. The generator looks up millions a second, so for IPv4 prefixes up to /24 there is an array.
#[derive(Debug)]
pub struct Index {
    /// By the network address's upper 24 bits: number + 1.
    short: Vec<u32>,
    lengths: Vec<u8>,
    rest: HashMap<IpNet, u32, FixedState>,
}

impl Index {
    /// Of these prefixes.
    ///
    /// # Panics
    /// Two prefixes are the same, or two of up to /24 have the same network address.
    pub fn new(prefixes: &[IpNet]) -> Self {
        let mut index = Self { short: vec![0; 1 << 24], lengths: Vec::new(), rest: HashMap::default() };
        for (number, prefix) in (0u32..).zip(prefixes) {
            index.lengths.push(prefix.prefix_len());
            match short(prefix) {
                Some(at) => assert_eq!(std::mem::replace(&mut index.short[at], number + 1), 0, "{prefix} is not the first there"),
                None => assert_eq!(index.rest.insert(*prefix, number), None, "{prefix} is there twice"),
            }
        }
        index
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The number of a prefix.
    pub fn find(&self, prefix: IpNet) -> Option<u32> {
        match short(&prefix) {
            Some(at) => self.short[at].checked_sub(1).filter(|number| self.lengths[*number as usize] == prefix.prefix_len()),
            None => self.rest.get(&prefix).copied(),
        }
    }
}

fn short(prefix: &IpNet) -> Option<usize> {
    match prefix {
        IpNet::V4(prefix) if prefix.prefix_len() <= 24 => Some((u32::from(prefix.addr()) >> 8) as usize),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_the_same_for_the_same_seed_and_has_no_prefix_twice() {
        let table = |seed| {
            let mut numbers = Numbers::new(seed);
            [ipv4(20_000, &mut numbers), blocks(3, 10), ipv6(2_000, &mut numbers)].concat()
        };
        assert_eq!(table(1), table(1));
        assert_ne!(table(1), table(2));
        let (all, other) = (table(1), table(2));
        let index = Index::new(&all);
        assert!((0..).zip(&all).all(|(number, prefix)| index.find(*prefix) == Some(number)));
        assert!(other.iter().any(|prefix| index.find(*prefix).is_none()));
        assert!(all.iter().all(|prefix| prefix.trunc() == *prefix && !margay::types::is_martian(prefix)));
    }

    #[test]
    fn sets_are_shared_by_eight_prefixes_in_the_mean() {
        let mut numbers = Numbers::new(7);
        let runs = runs(100_000, 8, &mut numbers);
        assert_eq!(runs.iter().sum::<usize>(), 100_000);
        assert!((11_000..14_000).contains(&runs.len()), "{}", runs.len());
        let set = attributes(Some(Asn(1)), Ipv4Addr::LOCALHOST.into(), Some(3), &mut numbers);
        assert_eq!((set.as_path.length(), set.as_path.first(), set.med), (4, Some(Asn(1)), None));
    }
}
