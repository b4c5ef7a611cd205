//! Whose turn it is to be written: rows in the order that Linux takes fastest.
//!
//! IPv4 prefixes that are neighbours and come in a row make Linux rebuild the same trie nodes again and again, so they are sent far away from
//! each other. That takes a third off additions and two thirds off deletions, the more prefixes are there to be mixed: with 8,192 at a time
//! nothing is gained, with a few hundred thousand nearly all. Hence what has come is put among what waits each time that has doubled.
//!
//! The place of a prefix in the order depends on the prefix alone, so that routes are replaced and deleted in the order in which they were added,
//! which is the order of their memory in the kernel. Mixed in another way each time they took a third longer to replace, and twice as long
//! to delete (`cargo bench --workspace --bench kernel`).
//!
//! IPv6 is sorted, which Linux likes better by as much.

use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::rows::{RowId, Rows};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// As they came.
    queue: Vec<RowId>,
    /// Before those, the next one last: the first of all, then IPv4 with its place, then IPv6.
    first: Vec<RowId>,
    ipv4: Vec<(u32, RowId)>,
    ipv6: Vec<RowId>,
}

impl Turns {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.first.len() + self.ipv4.len() + self.ipv6.len()
    }

    /// One more, which does not wait yet.
    pub(super) fn push(&mut self, id: RowId) {
        self.queue.push(id);
    }

    /// These go before everybody else.
    pub(super) fn push_first(&mut self, ids: Vec<RowId>) {
        self.first.extend(ids.into_iter().rev());
    }

    /// The next one; where nobody waits their memory goes back.
    pub(super) fn next(&mut self, rows: &Rows) -> Option<RowId> {
        if self.len() == 0 {
            *self = Self::default();
            return None;
        }
        if let Some(id) = self.first.pop() {
            return Some(id);
        }
        if self.queue.len() > self.ipv4.len() + self.ipv6.len() {
            self.line_up(rows);
        }
        self.ipv4.pop().map(|(_, id)| id).or_else(|| self.ipv6.pop())
    }

    /// Puts what has come among what waits already, in the order of writing.
    fn line_up(&mut self, rows: &Rows) {
        let (ipv4, mut ipv6): (Vec<_>, Vec<_>) = std::mem::take(&mut self.queue).into_iter().partition(|id| id.is_ipv4());
        let place = |id| match rows.get(id)?.prefix {
            IpNet::V4(prefix) => Some((scattered(prefix.addr()), id)),
            IpNet::V6(_) => None,
        };
        self.ipv4.extend(ipv4.into_iter().filter_map(place));
        // Stable: what was lined up before is a run, and not sorted again.
        self.ipv4.sort_by(|a, b| b.cmp(a));
        if !ipv6.is_empty() {
            ipv6.append(&mut self.ipv6);
            let mut named: Vec<_> = ipv6.into_iter().filter_map(|id| Some((rows.get(id)?.prefix, id))).collect();
            named.sort_unstable_by(|a, b| b.cmp(a));
            self.ipv6 = named.into_iter().map(|(_, id)| id).collect();
        }
    }
}

/// The place of an IPv4 prefix.
fn scattered(address: Ipv4Addr) -> u32 {
    // An odd multiplier keeps all numbers apart.
    u32::from(address).wrapping_mul(0x9e37_79b1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(rows: &mut Rows, prefix: &str) -> RowId {
        rows.enter(prefix.parse().unwrap())
    }

    fn ipv4(rows: &mut Rows, numbers: std::ops::Range<u32>) -> Vec<RowId> {
        numbers.map(|n| enter(rows, &format!("10.{}.{}.0/24", n / 256, n % 256))).collect()
    }

    #[test]
    fn ipv4_is_mixed_the_same_way_each_time_and_ipv6_is_sorted() {
        let (mut rows, mut turns) = (Rows::new(7), Turns::default());
        let mut all = ipv4(&mut rows, 0..4096);
        let six: Vec<RowId> = ["2001:db8:2::/48", "2001:db8:1::/48"].iter().map(|prefix| enter(&mut rows, prefix)).collect();
        all.extend(&six);
        let mut order = |ids: &[RowId]| {
            ids.iter().for_each(|id| turns.push(*id));
            assert_eq!(turns.len(), 4098);
            std::iter::from_fn(|| turns.next(&rows)).collect::<Vec<_>>()
        };
        let told = order(&all);
        assert_eq!(told[4096..], [six[1], six[0]]);
        let neighbours = told.windows(2).filter(|pair| all[..4096].windows(2).any(|known| known == *pair)).count();
        assert!(neighbours < 10, "{neighbours}");
        all.reverse();
        assert_eq!(order(&all), told);
        assert_eq!((turns.queue.capacity(), turns.first.capacity(), turns.ipv4.capacity(), turns.ipv6.capacity()), (0, 0, 0, 0));
    }

    #[test]
    fn who_comes_later_is_put_among_who_waits_once_there_are_as_many() {
        let (mut rows, mut turns) = (Rows::new(7), Turns::default());
        let (early, late) = (ipv4(&mut rows, 0..100), ipv4(&mut rows, 100..400));
        early.iter().for_each(|id| turns.push(*id));
        let mut told: Vec<_> = (0..10).filter_map(|_| turns.next(&rows)).collect();
        late[..90].iter().for_each(|id| turns.push(*id));
        told.extend(turns.next(&rows));
        assert!(told.iter().all(|id| early.contains(id)), "fewer have come than wait");
        late[90..].iter().for_each(|id| turns.push(*id));
        told.extend((0..100).filter_map(|_| turns.next(&rows)));
        assert!(told[11..].iter().filter(|id| late.contains(id)).count() > 50, "mixed");
        turns.push_first(vec![early[5], early[3]]);
        assert_eq!([turns.next(&rows), turns.next(&rows)], [Some(early[5]), Some(early[3])]);
        told.extend(std::iter::from_fn(|| turns.next(&rows)));
        told.sort_unstable();
        assert_eq!(told, [early, late].concat());
    }
}
