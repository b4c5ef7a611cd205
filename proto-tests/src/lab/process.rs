//! Commands on the host with an end, and processes by their id.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// What a command printed, when it succeeded; when not, the error holds the command, its status and what it said.
pub fn run(mut command: Command, input: Option<&str>) -> Result<String> {
    let output = capture(&mut command, input)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [&output.stdout[..], &output.stderr[..]].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned()).join("\n");
    bail!("`{}` failed ({}): {}", shown(&command), output.status, said.trim())
}

/// Runs a command to its end, with `input` on its standard input.
///
/// Its words go to files, not to pipes: a daemon that it leaves behind may hold them open for as long as it likes.
pub fn capture(command: &mut Command, input: Option<&str>) -> Result<Output> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", shown(command)))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A command that ends without reading everything says why in its own words.
        let _ = stdin.write_all(text.as_bytes());
    }
    let status = child.wait()?;
    Ok(Output { status, stdout: all_of(&mut stdout)?, stderr: all_of(&mut stderr)? })
}

fn all_of(file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The command as a person would type it, without the way into the node.
fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    let start = words.iter().rposition(|word| word == "--").map_or(0, |at| at + 1);
    words[start.min(words.len() - 1)..].join(" ")
}

/// Sends `signal`; a process that is gone is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether the process exists and is more than a zombie.
pub fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// All processes whose `/proc/PID/ns/<kind>` is the same namespace as that of `holder`.
pub fn sharing(holder: u32, kind: &str) -> Vec<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let Some(wanted) = namespace(holder) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| namespace(*pid).is_some_and(|found| found == wanted)).collect()
}

/// Looks until `look` has given the same answer for `calm`, which is then the answer; an error begins anew. After `within` it is an error:
/// the last one, or that nothing stays as it is.
pub fn wait_until_calm<T: PartialEq>(within: Duration, calm: Duration, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let mut steady: Option<(T, Instant)> = None;
    wait_until(within, what, || {
        let seen = match look() {
            Ok(seen) => seen,
            Err(error) => {
                steady = None;
                return Err(error);
            }
        };
        match steady.take() {
            Some((before, since)) if before == seen && since.elapsed() >= calm => return Ok(seen),
            Some((before, since)) if before == seen => steady = Some((seen, since)),
            _ => steady = Some((seen, Instant::now())),
        }
        bail!("it has not stayed as it is for {calm:?}")
    })
}

/// Tries `attempt` until it succeeds; after `within` the last error is the answer. The only place of the lab that waits.
pub fn wait_until<T>(within: Duration, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    // Nobody ever sends: receiving is a pause that a message could end, were there anything to tell.
    let (_tell, pause) = mpsc::channel::<()>();
    let deadline = Instant::now() + within;
    let mut patience = Duration::from_millis(20);
    loop {
        let error = match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(error.context(format!("not true within {within:?}: {what}")));
        }
        let _ = pause.recv_timeout(patience);
        patience = (patience * 2).min(Duration::from_millis(250));
    }
}
