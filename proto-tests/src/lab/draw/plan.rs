//! Who stands where: ranks from the cables, places so that cables are short, ports so that they do not cross needlessly.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use crate::lab::topology::{Link, Topology};

/// The size of things, in the picture's own units (pixels where nothing scales it).
pub(super) const BOX_HEIGHT: f64 = 54.0;
const RANK: f64 = 138.0;
const GAP: f64 = 26.0;
const PORT: f64 = 46.0;
const MARGIN: f64 = 28.0;
const TITLE: f64 = 44.0;
/// Above this a rank of nodes on one switch is folded into rows.
const WIDE: usize = 12;
const COLUMNS: usize = 10;
/// Between the cables that pass by the boxes of other rows.
pub(super) const LANE: f64 = 11.0;

/// A node's place: the middle of its upper edge, and its width.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    /// From the top.
    pub(super) rank: usize,
    /// In a folded rank: which row.
    pub(super) row: usize,
}

/// The whole picture.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) places: BTreeMap<String, Place>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// `node2` before `node10`.
pub(super) fn natural(name: &str) -> (String, u64, String) {
    let stem = stem(name);
    let digits: String = name[stem.len()..].chars().take_while(char::is_ascii_digit).collect();
    (stem.to_owned(), digits.parse().unwrap_or(0), name.to_owned())
}

fn stem(name: &str) -> &str {
    name.split(|c: char| c.is_ascii_digit()).next().unwrap_or(name)
}

impl Plan {
    pub(super) fn of(topology: &Topology, facts: &BTreeMap<String, Facts>) -> Self {
        let ranks = ranks(topology, facts);
        let top = ranks.values().copied().max().unwrap_or(0);
        let mut plan = Self::default();
        for (name, rank) in &ranks {
            let level = topology.nodes[name].labels.get("graph-level").and_then(|level| level.parse::<usize>().ok());
            let place = Place { rank: level.map_or(top - rank, |level| level.saturating_sub(1)), ..Place::default() };
            plan.places.insert(name.clone(), place);
        }
        plan.measure(topology, facts);
        plan.place_across(topology, facts);
        plan.place_down(topology, facts);
        plan
    }

    fn rows(&self) -> BTreeMap<usize, Vec<String>> {
        let mut rows: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (name, place) in &self.places {
            rows.entry(place.rank).or_default().push(name.clone());
        }
        rows.values_mut().for_each(|names| names.sort_by_key(|name| natural(name)));
        rows
    }

    /// Wide enough for the words in it and the ports on its busier side.
    fn measure(&mut self, topology: &Topology, facts: &BTreeMap<String, Facts>) {
        for name in topology.nodes.keys() {
            let sides = neighbours(topology, name).into_iter().map(|(_, other)| self.places[&other].rank < self.places[name].rank);
            let (up, down): (Vec<bool>, Vec<bool>) = sides.partition(|up| *up);
            let busy = up.len().max(down.len()) as f64 * PORT + 8.0;
            let fact = &facts[name];
            let words = [
                name.len(),
                fact.word().len() + fact.asn.as_ref().map_or(0, |asn| asn.len() + 5),
                fact.address.as_ref().map_or(0, String::len),
            ];
            let text = words.into_iter().max().unwrap_or(0) as f64 * 6.7 + 18.0;
            if let Some(place) = self.places.get_mut(name) {
                place.width = text.max(busy).max(72.0).round();
            }
        }
    }

    /// Hosts in their order, with room for their workloads; everybody else as near to the neighbours as the others let them.
    fn place_across(&mut self, topology: &Topology, facts: &BTreeMap<String, Facts>) {
        let rows = self.rows();
        let Some(base) =
            rows.iter().max_by_key(|(_, names)| names.iter().filter(|name| !facts[*name].is_workload).count()).map(|(rank, _)| *rank)
        else {
            return;
        };
        let folded = self.fold(topology, facts, &rows[&base]);
        if !folded {
            let mut x = 0.0;
            for name in &rows[&base] {
                let room = self.room(topology, facts, name);
                self.move_to(name, x + room / 2.0);
                x += room + GAP;
            }
        }
        let below = rows.keys().copied().filter(|rank| *rank > base);
        let above = rows.keys().copied().filter(|rank| *rank < base).rev();
        let order: Vec<usize> = below.chain(above).collect();
        // Twice: the second time everybody has a place to be near to.
        for pass in 0..2 {
            let mut known: BTreeSet<String> = rows[&base].iter().cloned().collect();
            for rank in &order {
                self.settle(topology, facts, &rows[rank], (pass == 0).then_some(&known));
                known.extend(rows[rank].iter().cloned());
            }
        }
        // A switch is not yet as wide as it will be: no wider than its neighbours.
        let boxes = self.places.iter().filter(|(name, _)| !facts[*name].is_switch || topology.nodes.len() == 1).map(|(_, place)| place);
        let left = boxes.map(|place| place.x - place.width / 2.0).fold(f64::INFINITY, f64::min);
        self.places.values_mut().for_each(|place| place.x = (place.x - left + MARGIN).round());
        self.stretch_switches(topology, facts);
        self.width = self.places.values().map(|place| place.x + place.width / 2.0).fold(0.0, f64::max).max(300.0) + MARGIN;
        if folded {
            self.width += LANE * (rows[&base].len() / COLUMNS) as f64 + MARGIN;
        }
    }

    /// A host's own width or that of its workloads side by side.
    fn room(&self, topology: &Topology, facts: &BTreeMap<String, Facts>, name: &str) -> f64 {
        let workloads = neighbours(topology, name).into_iter().filter(|(_, other)| facts[other].is_workload);
        let wide: f64 = workloads.map(|(_, other)| self.places[&other].width + GAP / 2.0).sum();
        wide.max(self.places[name].width)
    }

    /// Many nodes on one switch stand in rows, their cables passing between the columns.
    fn fold(&mut self, topology: &Topology, facts: &BTreeMap<String, Facts>, names: &[String]) -> bool {
        let upward = |name: &String| {
            neighbours(topology, name).into_iter().map(|(_, other)| other).filter(|other| !facts[other].is_workload).collect::<Vec<_>>()
        };
        let one_switch = names.iter().all(|name| matches!(&upward(name)[..], [other] if facts[other].is_switch));
        if names.len() <= WIDE || !one_switch {
            return false;
        }
        let rows = names.len().div_ceil(COLUMNS);
        // Below the last row there is room for workloads.
        let mut names: Vec<&String> = names.iter().collect();
        names.sort_by_key(|name| neighbours(topology, name).iter().any(|(_, other)| facts[other].is_workload));
        let widest = names.iter().map(|name| self.room(topology, facts, name)).fold(0.0, f64::max);
        for (at, name) in names.into_iter().enumerate() {
            self.move_to(name, (at % COLUMNS) as f64 * (widest + GAP + LANE * (rows - 1) as f64));
            if let Some(place) = self.places.get_mut(name) {
                place.row = at / COLUMNS;
            }
        }
        true
    }

    fn move_to(&mut self, name: &str, x: f64) {
        if let Some(place) = self.places.get_mut(name) {
            place.x = x;
        }
    }

    /// The rank's nodes as near as possible to their neighbours (of `known`, if given) with nobody in another's place.
    fn settle(&mut self, topology: &Topology, facts: &BTreeMap<String, Facts>, names: &[String], known: Option<&BTreeSet<String>>) {
        let wish = |name: &String| {
            let near: Vec<f64> = neighbours(topology, name)
                .into_iter()
                .filter(|(_, other)| known.is_none_or(|known| known.contains(other)) && self.places[other].rank != self.places[name].rank)
                .map(|(_, other)| self.places[&other].x)
                .collect();
            if near.is_empty() { self.places[name].x } else { near.iter().sum::<f64>() / near.len() as f64 }
        };
        let mut wishes: Vec<(f64, String)> = names.iter().map(|name| (wish(name), name.clone())).collect();
        wishes.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| natural(&a.1).cmp(&natural(&b.1))));
        // How far from the first one each must stand; without that, wishes that only have to be in order.
        let (mut offset, mut offsets, mut last) = (0.0, Vec::new(), None);
        for (_, name) in &wishes {
            let half = self.places[name].width / 2.0;
            if let Some(before) = last {
                let gap = if facts[name].is_workload { GAP / 2.0 } else { GAP };
                offset += before + gap + half;
            }
            last = Some(half);
            offsets.push(offset);
        }
        let plain: Vec<f64> = wishes.iter().zip(&offsets).map(|((wish, _), offset)| wish - offset).collect();
        for ((_, name), x) in wishes.iter().zip(in_order(&plain).iter().zip(&offsets).map(|(x, offset)| x + offset)) {
            self.move_to(name, x);
        }
    }

    /// A switch reaches from its first to its last neighbour.
    fn stretch_switches(&mut self, topology: &Topology, facts: &BTreeMap<String, Facts>) {
        for name in topology.nodes.keys().filter(|name| facts[*name].is_switch) {
            let near: Vec<&Place> = neighbours(topology, name).into_iter().map(|(_, other)| &self.places[&other]).collect();
            let rows = near.iter().map(|place| place.row).max().unwrap_or(0) as f64;
            let left = near.iter().map(|place| place.x - 24.0).fold(self.places[name].x - 36.0, f64::min);
            let right = near.iter().map(|place| place.x + 24.0 + if rows > 0.0 { place.width / 2.0 + rows * LANE } else { 0.0 });
            let right = right.fold(self.places[name].x + 36.0, f64::max);
            if let Some(place) = self.places.get_mut(name) {
                (place.x, place.width) = (((left + right) / 2.0).round(), right - left);
            }
        }
    }

    fn place_down(&mut self, topology: &Topology, facts: &BTreeMap<String, Facts>) {
        let mut y = TITLE;
        for names in self.rows().values() {
            let deepest = names.iter().map(|name| self.places[name].row).max().unwrap_or(0);
            for name in names {
                if let Some(place) = self.places.get_mut(name) {
                    // Cables turn above the rows that are not the first.
                    place.y = y + place.row as f64 * (RANK - 30.0) + if facts[name].is_switch { BOX_HEIGHT / 2.0 - 11.0 } else { 0.0 };
                }
            }
            y += RANK + deepest as f64 * (RANK - 30.0);
        }
        // Workloads of nodes in rows stand below their node, not below all rows.
        for name in topology.nodes.keys().filter(|name| facts[*name].is_workload) {
            let owner = neighbours(topology, name).into_iter().next().map(|(_, other)| self.places[&other].clone());
            if let (Some(owner), Some(place)) = (owner, self.places.get_mut(name))
                && owner.rank < place.rank
            {
                place.y = place.y.max(owner.y + RANK);
            }
        }
        self.height = self.places.values().map(|place| place.y + BOX_HEIGHT).fold(0.0, f64::max) + MARGIN;
    }
}

/// The nearest sequence that never goes down (pool adjacent violators).
fn in_order(wishes: &[f64]) -> Vec<f64> {
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for wish in wishes {
        let mut block = (*wish, 1);
        while let Some(last) = blocks.last().copied().filter(|last| last.0 > block.0) {
            blocks.pop();
            let count = last.1 + block.1;
            block = ((last.0 * last.1 as f64 + block.0 * block.1 as f64) / count as f64, count);
        }
        blocks.push(block);
    }
    blocks.into_iter().flat_map(|(value, count)| std::iter::repeat_n(value, count)).collect()
}

/// The links of a node and the node at the other end.
pub(super) fn neighbours<'a>(topology: &'a Topology, name: &str) -> Vec<(&'a Link, String)> {
    let mut all = Vec::new();
    for link in &topology.links {
        match &link.ends {
            [a, b] if a.node == name && b.node != name => all.push((link, b.node.clone())),
            [a, b] if b.node == name && a.node != name => all.push((link, a.node.clone())),
            _ => {}
        }
    }
    all
}

/// Workloads are 0, the nodes that they are on and those of the same name but for the number 1, then by distance. Without workloads the
/// margays are 1.
fn ranks(topology: &Topology, facts: &BTreeMap<String, Facts>) -> BTreeMap<String, usize> {
    let mut ranks: BTreeMap<String, usize> = facts.iter().filter(|(_, fact)| fact.is_workload).map(|(name, _)| (name.clone(), 0)).collect();
    let stems: BTreeSet<String> =
        ranks.keys().flat_map(|name| neighbours(topology, name)).map(|(_, other)| stem(&other).to_owned()).collect();
    let speaks = |name: &String| facts[name].speaker != crate::lab::image::Speaker::None;
    let margay = |name: &String| facts[name].speaker == crate::lab::image::Speaker::Margay;
    let mut near: Vec<String> = topology.nodes.keys().filter(|name| speaks(name) && stems.contains(stem(name))).cloned().collect();
    if near.is_empty() {
        near = topology.nodes.keys().filter(|name| margay(name)).cloned().collect();
    }
    let mut rank = 1;
    while !near.is_empty() {
        for name in &near {
            ranks.entry(name.clone()).or_insert(rank);
        }
        let next = near.iter().flat_map(|name| neighbours(topology, name)).map(|(_, other)| other);
        near = next.filter(|other| !ranks.contains_key(other)).collect::<BTreeSet<_>>().into_iter().collect();
        rank += 1;
    }
    topology.nodes.keys().for_each(|name| {
        ranks.entry(name.clone()).or_insert(1);
    });
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_order_is_the_mean_of_who_contradicts() {
        assert_eq!(in_order(&[1.0, 3.0, 2.0, 2.0, 9.0]), [1.0, 7.0 / 3.0, 7.0 / 3.0, 7.0 / 3.0, 9.0]);
        assert_eq!(in_order(&[]), [] as [f64; 0]);
    }

    #[test]
    fn numbers_count_as_numbers() {
        let mut names = ["node10", "node2", "sw", "node1"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["node1", "node2", "node10", "sw"]);
    }
}
