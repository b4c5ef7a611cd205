//! The root filesystem of the container image: what `packaging/container/Containerfile` makes in its stages, made here without an engine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::image::repository;
use crate::lab::process::run;

/// The script that both the Containerfile and this program run.
pub const SCRIPT: &str = "packaging/container/assemble";

/// Fills the folder `root`, which must be empty or not there, with what a container of this `margay` holds.
///
/// # Errors
/// The script's, such as no `ldd` or no `strip`.
pub fn assemble(margay: &Path, root: &Path) -> Result<()> {
    let filled = root.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!filled, "{} is not empty: name another folder", root.display());
    let mut command = Command::new(repository().join(SCRIPT));
    command.arg(margay).arg(root);
    run(command, None).map(drop)
}

/// The files below `root`, as the container sees their paths.
///
/// # Errors
/// The file system's.
pub fn files(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir()? {
            let path = entry?.path();
            if path.symlink_metadata()?.is_dir() {
                folders.push(path);
            } else {
                found.insert(Path::new("/").join(path.strip_prefix(root)?));
            }
        }
    }
    Ok(found)
}

/// The shared objects that the loader needs for a program, by their names.
///
/// # Errors
/// There is no `ldd`, or the program is static.
pub fn objects(program: &Path) -> Result<BTreeSet<String>> {
    let mut command = Command::new("ldd");
    command.arg(program);
    let said = run(command, None)?;
    let names = said.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| !name.starts_with("linux-vdso"));
    names.map(|name| Ok(Path::new(name).file_name().context("no name")?.to_string_lossy().into_owned())).collect()
}

/// The instructions of a Containerfile, in order: keyword and the rest, lines that go on joined.
pub fn instructions(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).map(|(word, rest)| (word.to_owned(), rest.to_owned())).collect()
}
