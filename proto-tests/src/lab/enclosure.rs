//! A place where labs can be built and from which nothing can leak: this program, run again in namespaces of its own.
//!
//! Inside, the program is the first process of a PID namespace: when it ends, by whatever way, the kernel ends everything that it
//! started, and with the last process go the network and mount namespaces. Root needs nothing else; anybody else gets a user
//! namespace, where the host allows it, in which only their own user exists (as root).

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use super::image;

/// Set inside, so that the program knows that it has arrived; the value is `root` or `user`.
const MARK: &str = "MARGAY_LAB_ENCLOSURE";

/// What the enclosure can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Made by root: every user of the host exists inside.
    Root,
    /// Made by an ordinary user: inside there is only root, so programs that change to another user cannot run.
    User,
}

/// The enclosure in which this process runs, if it does.
pub fn current() -> Option<Kind> {
    match env::var(MARK).ok()?.as_str() {
        "root" => Some(Kind::Root),
        _ => Some(Kind::User),
    }
}

/// The kind that this host lets us make; the error says what to do.
pub fn possible() -> Result<Kind> {
    let mut reasons = Vec::new();
    for kind in [Kind::Root, Kind::User] {
        let [program, arguments @ ..] = &unshare(kind)[..] else { continue };
        let output = Command::new(program).args(arguments).arg("true").output().context("cannot run unshare (package util-linux)")?;
        if output.status.success() {
            return Ok(kind);
        }
        reasons.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    bail!(
        "this host lets us make no namespaces ({}): run as root with CAP_SYS_ADMIN, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
         or kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu)",
        reasons.join("; ")
    )
}

/// The `unshare` command line, without the program to run.
fn unshare(kind: Kind) -> Vec<&'static str> {
    let mut words = vec!["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if kind == Kind::User {
        words.extend(["--user", "--map-root-user"]);
    }
    words.push("--");
    words
}

/// The command that runs this program again in an enclosure, with `arguments`; it dies with us when `guarded`.
pub fn command(kind: Kind, arguments: impl IntoIterator<Item = String>, guarded: bool) -> Result<Command> {
    // With the death signal `unshare` is killed when this process ends, and its child with it (--kill-child).
    let mut words = if guarded { vec!["setpriv", "--pdeathsig", "KILL"] } else { vec!["setsid"] };
    words.extend(unshare(kind));
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(env::current_exe()?).args(arguments);
    mark(&mut command, kind);
    Ok(command)
}

/// Lets the program that `command` runs know that it runs in an enclosure.
pub fn mark(command: &mut Command, kind: Kind) {
    command.env(MARK, if kind == Kind::Root { "root" } else { "user" });
}

/// Runs this program again in an enclosure and waits for it; `None` when this is already the inside.
pub fn enter() -> Result<Option<ExitCode>> {
    if current().is_some() {
        return Ok(None);
    }
    let status = command(possible()?, env::args().skip(1), true)?.status().context("cannot run setpriv (package util-linux)")?;
    Ok(Some(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))))
}

/// The same with a freshly built margay: inside nothing can be fetched.
///
/// # Errors
/// margay does not build, or see [`enter`].
pub fn enter_with_margay() -> Result<Option<ExitCode>> {
    if current().is_none() {
        image::build_margay()?;
    }
    enter()
}
