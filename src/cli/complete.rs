//! Completion of the command line by the shell: verbs and flags as the parser knows them, peers and prefixes as the running daemon does.
//!
//! `margay completion SHELL` prints what registers margay with a shell. From then on the shell asks margay itself (`COMPLETE=bash margay --
//! margay show peer Me`), which asks the daemon: on the socket of `--socket` in the line, else of `MARGAY_SOCKET`, else the usual one, and
//! for a second at most, since somebody's Tab key waits for it.
//!
//! Bash cuts words at `:` and `=` before it asks, which IPv6 prefixes and `--peer=` do not survive: its script, which is our own, puts
//! them together again.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};

use crate::cli::client::{Reply, Target, escape};

/// Says to a shell that it is asked by one.
const VARIABLE: &str = "COMPLETE";
/// How long the Tab key may wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shells that are known.
const SHELLS: Shells<'static> = Shells(&[&Bash, &Elvish, &Fish, &Powershell, &Zsh]);

/// Answers a shell and ends the process, if it is a shell that asks.
pub fn answer(command: fn() -> clap::Command) {
    CompleteEnv::with_factory(command).var(VARIABLE).shells(SHELLS).bin("margay").completer("margay").complete();
}

/// What registers margay with `shell`, by its name.
pub fn script(shell: &str) -> io::Result<Vec<u8>> {
    let completer = SHELLS.completer(shell).ok_or_else(|| io::Error::other(format!("no completion for the shell {shell}")))?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "margay", "margay", "margay", &mut script)?;
    Ok(script)
}

/// Session names, and addresses where somebody has begun to type one.
pub fn peers() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| ask("peers", current))
}

/// Prefixes that have a route.
pub fn prefixes() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| ask("prefixes", current))
}

fn ask(what: &str, current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(text) = current.to_str() else { return Vec::new() };
    let words: Vec<OsString> = std::env::args_os().collect();
    let target = Target::of_line(&words);
    match target.get_within::<Vec<String>>(PATIENCE, &format!("/v1/complete/{what}?text={}", escape(text))) {
        Ok(Reply::Found(words)) => words.into_iter().map(CompletionCandidate::new).collect(),
        // No daemon, no words: the shell's line is not the place to say so.
        _ => Vec::new(),
    }
}

/// Bash, with words as people see them.
#[derive(Debug)]
struct Bash;

const BASH: &str = r#"_margay() {
    local line=${COMP_LINE:0:COMP_POINT} word words=() index reply head
    # COMP_WORDS is cut at the signs of COMP_WORDBREAKS; margay is asked about words that spaces end.
    read -r -a words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    index=$((${#words[@]} - 1))
    word=${words[index]}
    COMPREPLY=()
    while IFS= read -r reply; do
        COMPREPLY+=("$reply")
    done < <(_MARGAY_INDEX=$index VAR=bash margay -- "${words[@]}" 2> /dev/null)
    # Bash puts the reply in the place of what follows the last such sign.
    head=${word%"${word##*[:=]}"}
    [[ -n $head ]] && COMPREPLY=("${COMPREPLY[@]#"$head"}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:/] ]] && compopt -o nospace
    return 0
}
complete -o bashdefault -o nosort -F _margay margay
"#;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(&self, var: &str, _name: &str, _bin: &str, _completer: &str, buf: &mut dyn Write) -> io::Result<()> {
        buf.write_all(BASH.replace("VAR", var).as_bytes())
    }

    fn write_complete(&self, cmd: &mut clap::Command, args: Vec<OsString>, folder: Option<&Path>, buf: &mut dyn Write) -> io::Result<()> {
        let index = std::env::var("_MARGAY_INDEX").ok().and_then(|index| index.parse().ok()).unwrap_or(args.len().saturating_sub(1));
        for candidate in clap_complete::engine::complete(cmd, args, index, folder)? {
            writeln!(buf, "{}", candidate.get_value().to_string_lossy())?;
        }
        Ok(())
    }
}
