//! `margay diff PATH…`: what these resources would change, before they do.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Value, json};

use crate::calico::{Problem, Severity};
use crate::cli::client::{Reply, Target};
use crate::cli::render::compile;
use crate::cli::show::{pretty, problems};
use crate::cli::table::{Table, column};
use crate::cli::terminal::{Look, Screen, print};
use crate::cli::{Ended, Failure};
use crate::node::proposal::{Outlook, PeerOutlook, Prefixes, RouteChanges, Verdict};

/// Prefixes of a list that are printed; all are with --json, as far as the daemon names them.
const SHOWN: usize = 10;

/// What these resources, as the whole configuration, would change in the running daemon: peers added, removed, reset (and which
/// field is to blame) and kept, and the routes that each would be told anew or no more. Nothing is changed.
///
/// Exit codes: 0 nothing would change; 1 something would, or a resource is invalid; 2 usage; 3 no daemon.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  margay diff /srv/new-resources              before the folder takes the place of the old one\n  \
                        margay diff --add tor-b.yaml                before one resource is added or changed\n  \
                        margay diff new/ --against old/ --node a    in a pipeline, without a daemon (and without routes)")]
pub struct Diff {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    look: Look,
    /// Files or folders of Calico v3 resources.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Add the resources to those in force, as `calicoctl apply` does, instead of replacing all of them.
    #[arg(long, conflicts_with = "against")]
    add: bool,
    /// Compare with these files or folders, without a daemon and so without routes.
    #[arg(long, value_name = "PATH", requires = "node")]
    against: Vec<PathBuf>,
    /// With --against: as this node.
    #[arg(long, value_name = "NAME", requires = "against")]
    node: Option<String>,
}

impl Diff {
    /// Asks and prints.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let answer = match &self.node {
            Some(node) => self.without_daemon(node)?,
            None => self.ask()?,
        };
        let outlook: Outlook = serde_json::from_value(answer.clone()).context("the daemon's answer is of another version of margay")?;
        print(&if self.target.json { pretty(&answer) } else { text(&outlook, &answer, &Screen::of_stdout(self.look)) })?;
        let quiet = answer["changes"] == false && answer["valid"] == true;
        Ok(if quiet { Ended::Done } else { Ended::No })
    }

    fn ask(&self) -> Result<Value, Failure> {
        let texts = crate::datastore::texts(&self.paths).context("cannot read the resources")?;
        if texts.is_empty() {
            return Err(Failure::Other(anyhow!("no file there ends in .yaml, .yml or .json: margay would be left without resources")));
        }
        let path = if self.add { "/v1/diff?add=true" } else { "/v1/diff" };
        match self.target.post_json::<Value>(path, &json!(texts))? {
            Reply::Found(answer) => Ok(answer),
            Reply::Missing(why) => Err(Failure::Other(anyhow!("the daemon knows no diff ({}): is it of this version?", why.trim()))),
        }
    }

    fn without_daemon(&self, node: &str) -> Result<Value, Failure> {
        // What cannot be read would look like what is not there.
        for paths in [&self.against, &self.paths] {
            crate::datastore::texts(paths).context("cannot read the resources")?;
        }
        let (old, _) = compile(&crate::datastore::load(&self.against), node);
        let (new, problems) = compile(&crate::datastore::load(&self.paths), node);
        let new = new.ok_or_else(|| anyhow!("Node `{node}` is not among the resources: `margay check` lists what is wrong with them"))?;
        Ok(answer(&Outlook::new(old.as_deref(), &new), &problems))
    }
}

fn answer(outlook: &Outlook, problems: &[Problem]) -> Value {
    let mut value = json!(outlook);
    value["changes"] = json!(!outlook.is_empty());
    value["valid"] = json!(problems.iter().all(|problem| problem.severity != Severity::Error));
    value["problems"] = json!(problems);
    value
}

fn text(outlook: &Outlook, answer: &Value, screen: &Screen) -> String {
    let mut text = String::new();
    let at_fault = |problem: &&Value| problem["severity"] != "info";
    let faults: Vec<&Value> = answer["problems"].as_array().into_iter().flatten().filter(at_fault).collect();
    if !faults.is_empty() {
        text.push_str(&problems(&json!(faults), screen));
    }
    let mut table =
        Table::new(&[column("CHANGE"), column("PEER").text(16), column("ADDRESS").spare(1), column("BECAUSE").text(16), column("TOLD")]);
    for peer in &outlook.peers {
        table.row([word(peer).to_owned(), peer.name.clone(), peer.address.to_string(), because(peer), told(peer.told.as_ref())]);
    }
    if !table.is_empty() {
        text.push_str(&table.render(screen));
        text.push_str(&table.note(screen).unwrap_or_default());
    }
    for peer in &outlook.peers {
        if let Some(told) = peer.told.as_ref().filter(|_| peer.change != Verdict::Remove) {
            routes(&mut text, &format!("{} would be told", peer.name), told);
        }
    }
    if let Some(best) = &outlook.best {
        routes(&mut text, "best paths of this node", best);
    }
    for line in others(outlook) {
        text.push_str(&line);
    }
    text.push_str(&summary(outlook));
    text
}

fn word(peer: &PeerOutlook) -> &'static str {
    match peer.change {
        Verdict::Add => "add",
        Verdict::Remove => "remove",
        Verdict::Reset => "reset",
        Verdict::Keep => "keep",
    }
}

fn because(peer: &PeerOutlook) -> String {
    let mut parts = Vec::new();
    parts.extend(peer.from.as_ref().map(|from| format!("was {from}")));
    parts.extend(peer.lingers.then(|| "stays until others have delivered".to_owned()));
    let fields: Vec<&str> = peer.because.iter().map(String::as_str).filter(|field| *field != "name").collect();
    parts.extend((!fields.is_empty()).then(|| fields.join(", ")));
    parts.join("; ")
}

fn told(changes: Option<&RouteChanges>) -> String {
    match changes {
        Some(RouteChanges { appear, vanish, change }) => format!("+{} -{} ~{}", appear.count, vanish.count, change.count),
        None => String::new(),
    }
}

fn routes(text: &mut String, whose: &str, changes: &RouteChanges) {
    for (what, list) in [("anew", &changes.appear), ("no more", &changes.vanish), ("otherwise", &changes.change)] {
        let Prefixes { count, prefixes } = list;
        let named = prefixes.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let rest = count.saturating_sub(SHOWN as u64);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        if *count > 0 {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{whose}, {what}: {named}{more}");
        }
    }
}

fn others(outlook: &Outlook) -> Vec<String> {
    let words = [
        (outlook.identity, "AS, router identifier or cluster of the node change\n"),
        (outlook.listen, "listening sockets are opened anew; sessions stay\n"),
        (outlook.origin, "blocks, services or host routes of this node change\n"),
        (outlook.kernel, "what is programmed into the kernel changes\n"),
    ];
    let reflects =
        outlook.reflects_for.map(|seconds| format!("this node reflects no longer, but goes on for former clients for {seconds} s\n"));
    words.into_iter().filter(|(changes, _)| *changes).map(|(_, words)| words.to_owned()).chain(reflects).collect()
}

fn summary(outlook: &Outlook) -> String {
    if outlook.is_empty() {
        return "nothing would change\n".to_owned();
    }
    let count = |verdict| outlook.peers.iter().filter(|peer| peer.change == verdict).count();
    format!(
        "peers: {} added, {} removed, {} reset, {} kept\n",
        count(Verdict::Add),
        count(Verdict::Remove),
        count(Verdict::Reset),
        count(Verdict::Keep) + outlook.unchanged
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read() {
        let peer = |name: &str, change, because: &[&str], told| PeerOutlook {
            name: name.to_owned(),
            address: [192, 0, 2, 1].into(),
            change,
            because: because.iter().map(|field| (*field).to_owned()).collect(),
            from: None,
            lingers: change == Verdict::Remove,
            told,
        };
        let vanish = Prefixes { count: 12, prefixes: vec!["10.0.0.0/8".parse().unwrap(); 12] };
        let told = Some(RouteChanges { vanish, ..RouteChanges::default() });
        let outlook = Outlook {
            peers: vec![
                peer("a", Verdict::Reset, &["remote_asn"], None),
                peer("b", Verdict::Keep, &["export"], told),
                peer("c", Verdict::Remove, &[], None),
            ],
            unchanged: 3,
            listen: true,
            ..Outlook::default()
        };
        let text = text(&outlook, &answer(&outlook, &[]), &Screen::default());
        for line in [
            "reset   a     192.0.2.1  remote_asn\n",
            "keep    b     192.0.2.1  export                             +0 -12 ~0\n",
            "remove  c     192.0.2.1  stays until others have delivered\n",
            "b would be told, no more: 10.0.0.0/8 ",
            " and 2 more\n",
            "peers: 0 added, 1 removed, 1 reset, 4 kept\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert_eq!(summary(&Outlook::default()), "nothing would change\n");
    }
}
