//! A systemd unit as far as a test can do what systemd does, where systemd is not the first process.
//!
//! [`Unit::script`] keeps: the environment file and nothing else of the environment, the user and its group, the bounding and the ambient
//! capabilities, `NoNewPrivileges`, `UMask`, `LimitNOFILE`, the runtime and the state directory with their modes, `ProtectSystem=strict`
//! (every mount but those two directories is read-only), the command line, `NOTIFY_SOCKET`. [`Unit::allowed`] is the system calls that
//! `SystemCallFilter` lets through, to be compared with those that a daemon makes. Not kept: the other protections and restrictions, a private
//! `/tmp`, the watchdog's time, and restarts.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::image::Missing;
use crate::lab::process::run;

/// What every mount but the service's own directories is under `ProtectSystem=strict`, in a mount namespace of the service.
const STRICT: &str = "\
for own in \"$@\"; do mount --bind \"$own\" \"$own\"; done
while read -r _ place _; do
  case $place in /proc|/proc/*|/sys|/sys/*|/dev|/dev/*) continue;; esac
  for own in \"$@\"; do [ \"$place\" = \"$own\" ] && continue 2; done
  # Another mount covers it: nobody gets there.
  [ -e \"$place\" ] || continue
  mount -o remount,bind,ro \"$place\"
done < /proc/self/mounts
";

/// The lines `Key=Value` of a unit file, in order.
#[derive(Clone, Debug)]
pub struct Unit(Vec<(String, String)>);

impl Unit {
    /// Reads a unit file's text.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with(['#', ';', '[']));
        Self(lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
    }

    /// The last value of a key.
    ///
    /// # Errors
    /// There is none.
    pub fn value(&self, key: &str) -> Result<&str> {
        let last = self.0.iter().rfind(|(found, _)| found == key).map(|(_, value)| value.as_str());
        last.with_context(|| format!("the unit has no {key}="))
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// A shell script that starts the service as systemd would, given the text of its environment file; see the module.
    ///
    /// # Errors
    /// The unit lacks something of what is kept.
    pub fn script(&self, environment: &str, notify: &str) -> Result<String> {
        let (user, group) = (self.value("User")?, self.value("Group")?);
        let runtime = format!("/run/{}", self.value("RuntimeDirectory")?);
        let state = format!("/var/lib/{}", self.value("StateDirectory")?);
        ensure!(self.value("ProtectSystem")? == "strict" && self.value("NoNewPrivileges")? == "yes", "the unit protects less");
        let rights = |key: &str| Ok::<_, anyhow::Error>(capabilities(self.value(key)?));
        let (bounding, ambient) = (rights("CapabilityBoundingSet")?, rights("AmbientCapabilities")?);
        let variables = environment.lines().filter(|line| !line.starts_with(['#', ';']) && line.contains('='));
        let variables: Vec<String> = variables.map(|line| format!("'{line}'")).collect();
        Ok(format!(
            "set -eu\n\
             install -d -o {user} -g {group} -m {} {runtime}\n\
             install -d -o {user} -g {group} -m {} {state}\n\
             set -- {runtime} {state}\n\
             {STRICT}\
             ulimit -n {}\n\
             umask {}\n\
             cd /\n\
             exec setpriv --reuid {user} --regid {group} --init-groups --bounding-set {bounding} --inh-caps {ambient} --ambient-caps {ambient} \
             --no-new-privs -- env -i PATH=/usr/bin:/bin USER={user} NOTIFY_SOCKET={notify} {} {}\n",
            self.value("RuntimeDirectoryMode")?,
            self.value("StateDirectoryMode")?,
            self.value("LimitNOFILE")?,
            self.value("UMask")?,
            variables.join(" "),
            self.value("ExecStart")?,
        ))
    }

    /// The names of the system calls that `SystemCallFilter` allows: its first line starts the list, `~` takes away, the rest adds.
    ///
    /// # Errors
    /// [`Missing`] without systemd-analyze, which knows the groups.
    pub fn allowed(&self) -> Result<BTreeSet<String>> {
        let mut allowed = BTreeSet::new();
        for line in self.values("SystemCallFilter") {
            let (taken, words) = line.strip_prefix('~').map_or((false, line), |rest| (true, rest));
            for word in words.split_whitespace() {
                let calls = calls(word)?;
                if taken { allowed.retain(|call| !calls.contains(call)) } else { allowed.extend(calls) }
            }
        }
        Ok(allowed)
    }
}

/// `CAP_A CAP_B` as setpriv writes the set of just these.
fn capabilities(words: &str) -> String {
    let names = words.split_whitespace().map(|word| format!(",+{}", word.trim_start_matches("CAP_").to_lowercase()));
    ["-all".to_owned()].into_iter().chain(names).collect()
}

/// A system call, or those of a group and of the groups in it.
fn calls(word: &str) -> Result<BTreeSet<String>> {
    if !word.starts_with('@') {
        return Ok(BTreeSet::from([word.to_owned()]));
    }
    let mut command = Command::new("systemd-analyze");
    command.args(["syscall-filter", "--no-pager", word]);
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return Err(Missing("systemd-analyze not found: apt-get install systemd".to_owned()).into());
    }
    let said = run(command, None)?;
    let words = said.lines().filter(|line| line.starts_with(' ')).map(str::trim).filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut found = BTreeSet::new();
    for word in words {
        found.extend(calls(word)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_becomes_a_command_line_with_its_user_its_rights_and_its_environment() {
        let text = std::fs::read_to_string(crate::lab::image::repository().join("packaging/margay.service")).unwrap();
        let unit = Unit::parse(&text);
        let script = unit.script("# A comment\nNODENAME=node1\n#MARGAY_PAGE=x\nMARGAY_RESOURCES=/a:/b\n", "/n").unwrap();
        let last = script.lines().last().unwrap();
        let rights = "-all,+net_admin,+net_bind_service,+sys_nice";
        let wanted = format!(
            "exec setpriv --reuid margay --regid margay --init-groups --bounding-set {rights} --inh-caps {rights} --ambient-caps {rights} \
             --no-new-privs -- env -i PATH=/usr/bin:/bin USER=margay NOTIFY_SOCKET=/n 'NODENAME=node1' 'MARGAY_RESOURCES=/a:/b' /usr/bin/margay run"
        );
        assert_eq!(last, wanted);
        assert!(Unit::parse("[Service]\nUser=x\n").script("", "/n").is_err());
    }
}
