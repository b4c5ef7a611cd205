//! A picture of a lab, drawn from its file alone: the same file always gives the same SVG.
//!
//! ```text
//! Topology ──facts→ what runs in each node, AS, address ──┐
//!          ──plan→  ranks, places, ports ─────────────────┴──svg→ text
//! ```
//!
//! Workloads are at the bottom, above them the nodes that they are on, and above those whatever is one cable farther away, rank by rank.
//! containerlab's label `graph-level` (1 is the top) moves a node to another rank, and a label `as` names an AS that no configuration
//! tells. A switch (a node that makes a bridge and speaks nothing) is drawn as the cable that it stands for. The picture has the colours of
//! the reader's scheme, light or dark, and no fonts of its own.

mod facts;
mod plan;
mod svg;

use anyhow::Result;

use super::Topology;

/// The picture of `topology` as SVG.
///
/// # Errors
/// An image that stands for no program; a configuration that the file names and that cannot be read is no error, its AS is left out.
pub fn draw(topology: &Topology) -> Result<String> {
    let facts = facts::gather(topology)?;
    let plan = plan::Plan::of(topology, &facts);
    Ok(svg::write(topology, &facts, &plan))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::lab::cli;

    /// The pictures beside the lab files are those of the files. `BLESS=1` draws them anew.
    #[test]
    fn every_lab_of_the_repository_has_its_picture() {
        for file in cli::all().unwrap() {
            let topology = Topology::read(&file).unwrap();
            let picture = file.with_file_name(&topology.name).join(format!("{}.svg", topology.name));
            let fresh = draw(&topology).unwrap();
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(&picture, &fresh).unwrap();
            }
            let kept = std::fs::read_to_string(&picture).unwrap_or_default();
            assert!(kept == fresh, "{} is not the picture of {}: BLESS=1 draws it", picture.display(), file.display());
        }
    }

    #[test]
    fn a_picture_shows_every_node_and_every_end_once_and_no_two_nodes_in_one_place() {
        let text = "name: x\ntopology:\n  defaults: {kind: linux, image: \"margay:local\", network-mode: none}\n  nodes:\n    a: {labels: {as: \"65001\"}}\n    \
                    b: {exec: [\"ip addr add 192.0.2.1/24 dev e0\"]}\n    c: {image: \"workload:local\", labels: {graph-level: \"1\"}}\n    lonely:\n  \
                    links:\n    - endpoints: [\"a:e<0\", \"b:e0\"]\n    - endpoints: [\"b:e1\", \"c:e2\"]\n";
        let topology = Topology::parse(text, Path::new("/labs/x.clab.yml"), &std::collections::BTreeMap::new()).unwrap();
        let picture = draw(&topology).unwrap();
        for word in
            [">a<", ">b<", ">c<", ">lonely<", ">e&lt;0<", ">e0<", ">e1<", ">e2<", "AS 65001", "192.0.2.1", "prefers-color-scheme: dark"]
        {
            assert_eq!(picture.matches(word).count(), 1, "{word}:\n{picture}");
        }
        assert_eq!(draw(&topology).unwrap(), picture);
        let places: Vec<&str> = picture.lines().filter(|line| line.contains("<rect class=\"box")).collect();
        assert!(places.len() == 4 && (1..4).all(|at| !places[at..].contains(&places[at - 1])), "{places:#?}");
    }
}
