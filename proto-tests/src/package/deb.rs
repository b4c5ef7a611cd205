//! The Debian package, by cargo-deb.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::image::{Missing, repository};
use crate::lab::process::run;

/// Where cargo-deb finds what Cargo.toml names, below `target`.
const FOLDER: &str = "target/package";

/// Shells, and the file of each.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "margay.bash"), ("zsh", "_margay"), ("fish", "margay.fish")];

/// Packs `margay` with its manual pages, its completions and what Cargo.toml lists; the answer is the path of the package. `options` are cargo-deb's.
///
/// # Errors
/// [`Missing`] without cargo-deb, the libraries' names or `strip`; what cargo-deb says.
pub fn build(margay: &Path, output: &Path, options: &[&str]) -> Result<PathBuf> {
    for (program, from) in [("cargo-deb", "cargo install cargo-deb --locked"), ("dpkg-shlibdeps", "apt-get install dpkg-dev")] {
        if Command::new(program).arg("--version").output().is_err() {
            return Err(Missing(format!("{program} not found: {from}")).into());
        }
    }
    let folder = repository().join(FOLDER);
    words(margay, &folder)?;
    // cargo-deb packs the release build of its target folder: give it one in which nothing else is.
    let build = folder.join("build");
    fs::create_dir_all(build.join("release"))?;
    let packed = build.join("release/margay");
    let _ = fs::remove_file(&packed);
    fs::copy(margay, &packed).with_context(|| format!("{}: cargo build first", margay.display()))?;
    let mut command = Command::new("cargo-deb");
    command.args(["deb", "--locked", "--no-build", "--strip", "--quiet", "--output"]).arg(output);
    command.args(options).current_dir(repository()).env("CARGO_TARGET_DIR", &build);
    let said = run(command, None)?;
    let path = PathBuf::from(said.lines().last().unwrap_or_default());
    ensure!(path.is_file(), "cargo-deb named no package: {said}");
    Ok(path)
}

/// Manual pages and completions: what margay itself writes, anew, so that no page of a verb that is gone is packed.
fn words(margay: &Path, folder: &Path) -> Result<()> {
    for name in ["man", "completion"] {
        let _ = fs::remove_dir_all(folder.join(name));
        fs::create_dir_all(folder.join(name))?;
    }
    let mut man = Command::new(margay);
    man.arg("man").arg(folder.join("man"));
    run(man, None)?;
    for (shell, file) in COMPLETIONS {
        let mut completion = Command::new(margay);
        completion.args(["completion", shell]);
        fs::write(folder.join("completion").join(file), run(completion, None)?)?;
    }
    Ok(())
}
