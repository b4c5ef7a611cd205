//! The plan as SVG.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::facts::Facts;
use super::plan::{BOX_HEIGHT, LANE, Place, Plan};
use crate::lab::image::Speaker;
use crate::lab::topology::{End, Link, Topology};

/// A switch is a bar.
const BAR: f64 = 22.0;

const STYLE: &str = "\
  text { font-family: system-ui, 'DejaVu Sans', sans-serif; fill: #1c2733; text-anchor: middle; }
  .sheet { fill: #ffffff; } .title { font-size: 17px; font-weight: 600; text-anchor: start; }
  .name { font-size: 13px; font-weight: 600; } .what { font-size: 11px; } .small { font-size: 10px; fill: #4b5b6b; }
  .port { font-size: 9.5px; fill: #4b5b6b; stroke: #ffffff; stroke-width: 3px; paint-order: stroke; }
  .link { fill: none; stroke: #7b8a99; stroke-width: 1.4; }
  .box { stroke: #52616f; stroke-width: 1.2; } .switch { fill: #d9dfe5; } .host { fill: #f4f5f7; }
  .margay { fill: #ffe2b8; } .bird { fill: #cfe8d2; } .frr { fill: #cfe0f7; } .gobgp { fill: #cdeef0; } .openbgpd { fill: #f6ddeb; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .sheet { fill: #14191f; } .small { fill: #a9b6c2; } .port { fill: #a9b6c2; stroke: #14191f; }
    .link { stroke: #6f7f8e; } .box { stroke: #91a0ae; } .switch { fill: #39434d; } .host { fill: #222a32; }
    .margay { fill: #6b4710; } .bird { fill: #1f5130; } .frr { fill: #23426b; } .gobgp { fill: #17515a; } .openbgpd { fill: #5c2a48; }
  }
";

type Point = (f64, f64);

pub(super) fn write(topology: &Topology, facts: &BTreeMap<String, Facts>, plan: &Plan) -> String {
    let (width, height) = (plan.width, plan.height);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n<rect class=\"sheet\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"16\" y=\"27\">{}</text>\n",
        described(topology, facts),
        escaped(&topology.name)
    );
    let ends = ports(topology, facts, plan);
    let mut labels = String::new();
    for link in &topology.links {
        cable(&mut out, &mut labels, plan, facts, link, &ends);
    }
    for (name, fact) in facts {
        node(&mut out, name, fact, &plan.places[name]);
    }
    out.push_str(&labels);
    out.push_str("</svg>\n");
    out
}

/// For who cannot see it.
fn described(topology: &Topology, facts: &BTreeMap<String, Facts>) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    facts.values().for_each(|fact| *kinds.entry(fact.word()).or_default() += 1);
    let kinds = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ");
    escaped(&format!("{}: {kinds}; {} links", topology.name, topology.links.len()))
}

/// Where each end's cable leaves its node: on the side of the other end, in the order in which the others stand.
fn ports<'a>(topology: &'a Topology, facts: &BTreeMap<String, Facts>, plan: &Plan) -> BTreeMap<(&'a str, &'a str), Point> {
    let mut sides: BTreeMap<(&str, bool), Vec<(f64, &End)>> = BTreeMap::new();
    for link in &topology.links {
        for (own, other) in [(&link.ends[0], &link.ends[1]), (&link.ends[1], &link.ends[0])] {
            let there = &plan.places[&other.node];
            // Above a switch, its end of a cable is right below.
            let x = if facts[&other.node].is_switch { plan.places[&own.node].x } else { there.x };
            sides.entry((&own.node, there.rank < plan.places[&own.node].rank)).or_default().push((x, other));
        }
    }
    let mut all = BTreeMap::new();
    for ((name, up), others) in &mut sides {
        others.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| (&a.1.node, &a.1.interface).cmp(&(&b.1.node, &b.1.interface))));
        let place = &plan.places[*name];
        let pitch = place.width / others.len() as f64;
        for (at, (_, other)) in others.iter().enumerate() {
            let x = place.x - place.width / 2.0 + pitch * (at as f64 + 0.5);
            let height = if facts[*name].is_switch { BAR } else { BOX_HEIGHT };
            let y = if *up { place.y } else { place.y + height };
            all.insert((other.node.as_str(), other.interface.as_str()), (x.round(), y));
        }
    }
    all
}

fn cable(
    out: &mut String,
    labels: &mut String,
    plan: &Plan,
    facts: &BTreeMap<String, Facts>,
    link: &Link,
    ends: &BTreeMap<(&str, &str), Point>,
) {
    // The port of an end is found by the end at the other side.
    let [a, b] = &link.ends;
    let (mut from, mut to) = (ends[&(b.node.as_str(), b.interface.as_str())], ends[&(a.node.as_str(), a.interface.as_str())]);
    let (here, there) = (&plan.places[&a.node], &plan.places[&b.node]);
    if here.rank == there.rank && a.node != b.node {
        return beside(out, labels, (a, here), (b, there));
    }
    // A switch's port is where the cable meets it.
    if facts[&a.node].is_switch {
        from.0 = lane(there).unwrap_or(to.0);
    } else if facts[&b.node].is_switch {
        to.0 = lane(here).unwrap_or(from.0);
    }
    let turned = if facts[&a.node].is_switch && there.row > 0 {
        Some((from, to))
    } else {
        (facts[&b.node].is_switch && here.row > 0).then_some((to, from))
    };
    let path = match turned {
        Some((bar, host)) => format!("M{} {} V{} H{} V{}", bar.0, bar.1, host.1 - 26.0, host.0, host.1),
        None => format!("M{} {} L{} {}", from.0, from.1, to.0, to.1),
    };
    let _ = writeln!(out, "<path class=\"link\" d=\"{path}\"/>");
    for (end, own, other) in [(a, from, to), (b, to, from)] {
        let crowded = facts[&end.node].is_switch && plan.places.values().any(|place| place.row > 0);
        label(labels, end, own, if turned.is_some() { (own.0, other.1) } else { other }, crowded);
    }
}

/// Where a cable passes by the boxes of the rows above, for a node that is not in the first row.
fn lane(place: &Place) -> Option<f64> {
    (place.row > 0).then(|| place.x + place.width / 2.0 + 4.0 + LANE * place.row as f64)
}

/// Two of one rank: from side to side where they are neighbours, an arc below where somebody stands between.
fn beside(out: &mut String, labels: &mut String, a: (&End, &Place), b: (&End, &Place)) {
    let (left, right) = if a.1.x < b.1.x { (a, b) } else { (b, a) };
    let (from, to) = (left.1.x + left.1.width / 2.0, right.1.x - right.1.width / 2.0);
    let y = left.1.y + BOX_HEIGHT / 2.0;
    let sag = if to - from > 130.0 { BOX_HEIGHT } else { 0.0 };
    let _ = writeln!(out, "<path class=\"link\" d=\"M{from} {y} Q{} {} {to} {y}\"/>", (from + to) / 2.0, y + sag * 1.6);
    for (x, anchor, end) in [(from + 4.0, "start", left.0), (to - 4.0, "end", right.0)] {
        let (up, text) = (if anchor == "start" { y - 5.0 } else { y + 12.0 }, escaped(&end.interface));
        let _ = writeln!(labels, "<text class=\"port\" x=\"{x}\" y=\"{up}\" style=\"text-anchor: {anchor}\">{text}</text>");
    }
}

fn label(labels: &mut String, end: &End, own: Point, other: Point, crowded: bool) {
    let down = other.1 > own.1;
    let (distance, text) = (if down { 14.0 } else { -7.0 }, escaped(&end.interface));
    let x = own.0 + (other.0 - own.0) * (distance / (other.1 - own.1));
    let y = own.1 + distance;
    if crowded {
        let _ = writeln!(
            labels,
            "<text class=\"port\" transform=\"translate({} {}) rotate(90)\" style=\"text-anchor: start\">{text}</text>",
            own.0 - 3.0,
            own.1 + 4.0
        );
    } else {
        let _ = writeln!(labels, "<text class=\"port\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
    }
}

fn node(out: &mut String, name: &str, fact: &Facts, place: &Place) {
    let (x, y, width) = (place.x, place.y, place.width);
    let class = match fact.speaker {
        Speaker::Margay => "margay",
        Speaker::Bird => "bird",
        Speaker::Frr => "frr",
        Speaker::Gobgp => "gobgp",
        Speaker::Openbgpd => "openbgpd",
        Speaker::None if fact.is_switch => "switch",
        Speaker::None => "host",
    };
    let (height, round) = if fact.is_switch { (BAR, 4) } else { (BOX_HEIGHT, if fact.speaker == Speaker::None { 14 } else { 5 }) };
    let _ = writeln!(
        out,
        "<rect class=\"box {class}\" x=\"{}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{round}\"/>",
        x - width / 2.0
    );
    let mut text = |class: &str, down: f64, words: &str| {
        let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{}\">{}</text>", y + down, escaped(words));
    };
    if fact.is_switch {
        return text("name", 15.5, name);
    }
    let asn = fact.asn.as_ref().map(|asn| format!(" · AS {asn}")).unwrap_or_default();
    text("name", 18.0, name);
    text("what", 33.0, &format!("{}{asn}", fact.word()));
    if let Some(address) = &fact.address {
        text("small", 47.0, address);
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
