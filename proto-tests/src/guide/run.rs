//! Does what a guide says, in its lab.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::compare::fits;
use super::{Guide, Step};
use crate::lab::image::Speaker;
use crate::lab::process::{Signal, capture, run as command, wait_until};
use crate::lab::skip::skipped;
use crate::lab::{Lab, Node};

/// How long an answer may take to become what the guide shows.
const PATIENCE: Duration = Duration::from_secs(60);

/// Commands that only ask begin so.
const QUESTIONS: [&str; 9] = [
    "margay show ",
    "margay explain ",
    "margay check ",
    "margay render ",
    "birdc show ",
    "ip route show",
    "ip -6 route show",
    "ip neigh show",
    "ping ",
];

/// Where margay's resources are in the nodes of the labs.
const RESOURCES: &str = "/etc/margay/resources";

/// Runs every step of the guide called `name`; the error names the line of the step that failed.
///
/// # Errors
/// A node does not answer as the guide says.
pub fn run(name: &str, guide: &Guide, lab: &mut Lab) -> Result<()> {
    own_resources(lab)?;
    lab.expect()?;
    for (line, step) in &guide.steps {
        do_step(name, step, lab).with_context(|| format!("{name}: line {line}"))?;
    }
    Ok(())
}

/// Each margay that reads a folder of the repository is started again on a copy, so that the guide may write there.
fn own_resources(lab: &mut Lab) -> Result<()> {
    let nodes = lab.topology().nodes.iter().filter(|(_, node)| node.binds.iter().any(|bind| bind.target.ends_with("margay/resources")));
    let names: Vec<String> = nodes.map(|(name, _)| name.clone()).collect();
    for name in names {
        let margay = lab.node(&name)?.speaker() == Speaker::Margay;
        if margay {
            lab.kill(&name, Signal::KILL)?;
        }
        let script = format!("cp -r {RESOURCES} /run/copy && umount {RESOURCES} && cp -r /run/copy/. {RESOURCES} && rm -r /run/copy");
        command(lab.node(&name)?.command(&["sh", "-ec", &script])?, None)?;
        if margay {
            lab.restart(&name)?;
        }
    }
    Ok(())
}

fn do_step(name: &str, step: &Step, lab: &mut Lab) -> Result<()> {
    match step {
        Step::Command { node, line, shown } => {
            let node = lab.node(node)?;
            let patience = if asks(line) { PATIENCE } else { Duration::ZERO };
            wait_until(patience, line, || once(&node, line, shown))
        }
        Step::File { node, path, text } => {
            // As an editor does it: a new file takes the place of the old one.
            let script = format!("mkdir -p $(dirname '{path}') && cat > '{path}.new' && mv '{path}.new' '{path}'");
            command(lab.node(node)?.command(&["sh", "-ec", &script])?, Some(text)).map(drop)
        }
        Step::Kill(node) => lab.kill(node, Signal::KILL),
        Step::Restart(node) => lab.restart(node),
        Step::Skip(reason) => {
            skipped(name, reason);
            Ok(())
        }
    }
}

/// Whether the command only asks, so that asking again does no harm.
fn asks(line: &str) -> bool {
    QUESTIONS.iter().any(|question| format!("{line} ").starts_with(question))
}

fn once(node: &Node<'_>, line: &str, shown: &[String]) -> Result<()> {
    // What goes on until somebody ends it has done well when that is what ended it.
    let endless = line.starts_with("margay monitor");
    let words = if endless { ["timeout", "2", "sh", "-c", line].to_vec() } else { ["sh", "-c", line].to_vec() };
    let output = capture(&mut node.command(&words)?, None)?;
    let succeeded = output.status.success() || (endless && output.status.code() == Some(124));
    let said = [&output.stdout[..], &output.stderr[..]].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    if shown.is_empty() {
        ensure!(succeeded, "`{line}` on {} ended with {}:\n{said}", node.name(), output.status);
    } else if !fits(shown, &said) {
        bail!("`{line}` on {} said\n{said}\nbut the guide shows\n{}", node.name(), shown.join("\n"));
    }
    Ok(())
}
