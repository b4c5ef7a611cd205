//! Reads a guide: what there is to do, in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// A guide as a test sees it.
#[derive(Debug)]
pub struct Guide {
    /// Its lab, relative to the repository.
    pub lab: PathBuf,
    /// The steps, with the line of each.
    pub steps: Vec<(usize, Step)>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Run a command in a node; its output must fit, or, where none is shown, it must succeed.
    Command {
        /// Where.
        node: String,
        /// For `sh`.
        line: String,
        /// The output, with `…` for anything.
        shown: Vec<String>,
    },
    /// Write a file in a node.
    File {
        /// Where.
        node: String,
        /// The file.
        path: String,
        /// What is in it.
        text: String,
    },
    /// End the node's program by SIGKILL.
    Kill(String),
    /// Start the node's program again.
    Restart(String),
    /// What cannot be run here, and why.
    Skip(String),
}

/// What marks a block that is not run.
const NOT_RUN: &str = "Not run by the tests:";

/// Programs whose commands in rows of tables are run.
const INLINE: [&str; 2] = ["margay", "birdc"];

impl Guide {
    /// Reads the text of a guide.
    ///
    /// # Errors
    /// Something in it could be run, but is not said well enough; the line is named.
    pub fn parse(text: &str) -> Result<Self> {
        let mut reader =
            Reader { lines: text.lines().enumerate().collect(), at: 0, steps: Vec::new(), inline: BTreeMap::new(), reason: None };
        while let Some((number, line)) = reader.next() {
            reader.line(number, line).with_context(|| format!("line {number}"))?;
        }
        let end = text.find(".clab.yml").context("it names no topologies/….clab.yml")? + ".clab.yml".len();
        let start = text[..end].rfind(['(', '[', ' ', '`', '\n']).map_or(0, |at| at + 1);
        let name = Path::new(&text[start..end]).file_name().context("no name")?;
        Ok(Self { lab: Path::new("topologies").join(name), steps: reader.steps })
    }
}

struct Reader<'a> {
    lines: Vec<(usize, &'a str)>,
    at: usize,
    steps: Vec<(usize, Step)>,
    /// Program → node for commands in tables.
    inline: BTreeMap<String, String>,
    /// The last paragraph said that what follows is not run.
    reason: Option<String>,
}

impl<'a> Reader<'a> {
    /// The next line and its number, from 1.
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let (index, line) = *self.lines.get(self.at)?;
        self.at += 1;
        Some((index + 1, line))
    }

    fn line(&mut self, number: usize, line: &'a str) -> Result<()> {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            return self.block(number, language);
        }
        if let Some(comment) = line.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->")) {
            return self.comment(number, comment.trim());
        }
        if let Some(reason) = line.trim_matches(['*', '_', ' ']).strip_prefix(NOT_RUN) {
            self.reason = Some(reason.trim().to_owned());
        }
        if line.starts_with('|') {
            self.row(number, line)?;
        }
        Ok(())
    }

    fn block(&mut self, number: usize, language: &str) -> Result<()> {
        let mut body = Vec::new();
        loop {
            match self.next().context("the block does not end")? {
                (_, end) if end.trim() == "```" => break,
                line => body.push(line),
            }
        }
        match language.split_once(' ').unwrap_or((language, "")) {
            ("console", _) => self.console(&body),
            ("yaml", place) => {
                let (node, path) = place.split_once(':').context("say where the file goes: ```yaml node1:/path")?;
                let text = body.iter().map(|(_, line)| format!("{line}\n")).collect();
                self.steps.push((number, Step::File { node: node.to_owned(), path: path.to_owned(), text }));
                Ok(())
            }
            ("sh", _) => {
                let reason = self.reason.take().with_context(|| format!("a block that is not run needs a line `{NOT_RUN} …` above it"))?;
                self.steps.push((number, Step::Skip(reason)));
                Ok(())
            }
            _ => bail!("a block of `{language}`: use console, yaml or sh"),
        }
    }

    fn console(&mut self, body: &[(usize, &str)]) -> Result<()> {
        for (number, line) in body {
            if let Some((node, line)) = prompt(line) {
                self.steps.push((*number, Step::Command { node, line, shown: Vec::new() }));
            } else {
                let Some((_, Step::Command { shown, .. })) = self.steps.last_mut() else { bail!("output without a command: {line}") };
                shown.push((*line).to_owned());
            }
        }
        ensure!(
            body.first().is_some_and(|(_, line)| prompt(line).is_some()),
            "the block does not begin with a command such as `node1$ margay …`"
        );
        Ok(())
    }

    fn comment(&mut self, number: usize, comment: &str) -> Result<()> {
        let step = match comment.split_once(' ') {
            Some(("kill", node)) => Step::Kill(node.to_owned()),
            Some(("restart", node)) => Step::Restart(node.to_owned()),
            Some(("inline:", pairs)) => {
                for pair in pairs.split(", ") {
                    let (program, node) = pair.split_once(" on ").with_context(|| format!("`{pair}` is not `PROGRAM on NODE`"))?;
                    self.inline.insert(program.to_owned(), node.to_owned());
                }
                return Ok(());
            }
            _ => match prompt(comment) {
                Some((node, line)) => Step::Command { node, line, shown: Vec::new() },
                None => return Ok(()),
            },
        };
        self.steps.push((number, step));
        Ok(())
    }

    /// The commands in a row of a table.
    fn row(&mut self, number: usize, line: &str) -> Result<()> {
        for code in line.split('`').skip(1).step_by(2) {
            let Some(program) = INLINE.iter().find(|program| code.strip_prefix(**program).is_some_and(|rest| rest.starts_with(' '))) else {
                continue;
            };
            let node = self.inline.get(*program).with_context(|| format!("`{code}`: no comment says on which node {program} runs"))?;
            let command = Step::Command { node: node.clone(), line: code.replace("\\|", "|"), shown: Vec::new() };
            self.steps.push((number, command));
        }
        Ok(())
    }
}

/// `node1$ command`.
fn prompt(line: &str) -> Option<(String, String)> {
    let (node, command) = line.split_once("$ ")?;
    let name = !node.is_empty() && node.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.then(|| (node.to_owned(), command.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guide_is_steps_in_order() {
        let text = "# G\n[lab](../x.clab.yml)\n<!-- inline: margay on a -->\n```console\na$ ip route\n…\nb$ true\n```\n<!-- kill a -->\n| `birdc` | `margay show peers` |\n\
                    ```yaml a:/etc/x\nkind: Y\n```\nNot run by the tests: no cluster.\n```sh\nkubectl\n```\n<!-- a$ rm x -->\n";
        let guide = Guide::parse(text).unwrap();
        assert_eq!(guide.lab, Path::new("topologies/x.clab.yml"));
        let command = |node: &str, line: &str, shown: &[&str]| Step::Command {
            node: node.into(),
            line: line.into(),
            shown: shown.iter().map(|line| (*line).to_owned()).collect(),
        };
        let steps: Vec<Step> = guide.steps.into_iter().map(|(_, step)| step).collect();
        let wanted = [
            command("a", "ip route", &["…"]),
            command("b", "true", &[]),
            Step::Kill("a".into()),
            command("a", "margay show peers", &[]),
            Step::File { node: "a".into(), path: "/etc/x".into(), text: "kind: Y\n".into() },
            Step::Skip("no cluster.".into()),
            command("a", "rm x", &[]),
        ];
        assert_eq!(steps, wanted);
    }

    #[test]
    fn nothing_is_left_out_silently() {
        for (bad, why) in [
            ("x.clab.yml\n```sh\nkubectl\n```\n", "Not run by the tests"),
            ("x.clab.yml\n```\nmargay\n```\n", "a block of ``"),
            ("x.clab.yml\n```console\nmargay show\n```\n", "without a command"),
            ("x.clab.yml\n| `margay show peers` |\n", "on which node"),
            ("x.clab.yml\n```console\na$ b\n", "does not end"),
            ("nothing", "names no"),
        ] {
            let error = Guide::parse(bad).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
    }
}
