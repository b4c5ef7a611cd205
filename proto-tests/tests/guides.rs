//! The guides of `packaging/guides`: every command in them is run in the lab that the guide names, and says what the guide shows.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use proto_tests::guide::{Guide, run};
use proto_tests::lab::Lab;
use proto_tests::lab::image::repository;
use proto_tests::lab::suite::{self, Story};

const STORIES: [Story; 4] = [
    Story { name: "guide_top_of_rack", file: "topologies/tor-bird.clab.yml", run: |lab| follow("top-of-rack", lab) },
    Story {
        name: "guide_mesh_to_reflectors",
        file: "topologies/mesh-to-reflectors.clab.yml",
        run: |lab| follow("mesh-to-reflectors", lab),
    },
    Story { name: "guide_from_bird", file: "topologies/bird-mesh-migration.clab.yml", run: |lab| follow("from-bird", lab) },
    Story { name: "guide_troubleshooting", file: "topologies/tor-bird.clab.yml", run: |lab| follow("troubleshooting", lab) },
];

fn main() -> ExitCode {
    suite::main(&STORIES)
}

fn follow(name: &str, lab: &mut Lab) -> Result<()> {
    let folder = repository().join("packaging/guides");
    every_guide_has_a_story(&folder)?;
    ensure!(
        std::fs::read_to_string(repository().join("README.md"))?.contains(&format!("packaging/guides/{name}.md")),
        "the README has no link"
    );
    let text = std::fs::read_to_string(folder.join(format!("{name}.md"))).with_context(|| name.to_owned())?;
    let guide = Guide::parse(&text).with_context(|| format!("{name}.md"))?;
    ensure!(lab.topology().file == repository().join(&guide.lab), "{name}.md is about {}", guide.lab.display());
    ensure!(guide.steps.len() >= 8, "{name}.md does little");
    run(name, &guide, lab)
}

/// A file with commands to run has its story; the tables of the others are compared elsewhere (`tests/live/questions.rs`).
fn every_guide_has_a_story(folder: &Path) -> Result<()> {
    let mut guides = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let runs = path.extension().is_some_and(|end| end == "md") && std::fs::read_to_string(&path)?.contains("```console");
        guides += usize::from(runs);
    }
    ensure!(guides == STORIES.len(), "{guides} guides in {}, but {} stories", folder.display(), STORIES.len());
    Ok(())
}
