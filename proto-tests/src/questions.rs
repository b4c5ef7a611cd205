//! Twenty questions that operators ask, and the one margay command that answers each: for the guide, for a test of the answers, and
//! for a bench of how long they take with a million routes.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::Result;

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// As it is asked.
    pub asked: &'static str,
    /// The words after `margay`; `{…}` stands for what [`Places`] has under that name.
    pub words: &'static str,
    /// How others are asked, and what they leave open.
    pub elsewhere: &'static str,
    /// A part of the answer in the world of the test.
    pub says: &'static str,
}

/// What the questions are about.
#[derive(Clone, Debug)]
pub struct Places {
    /// Values by name.
    pub values: Vec<(&'static str, String)>,
}

const fn question(asked: &'static str, words: &'static str, says: &'static str, elsewhere: &'static str) -> Question {
    Question { asked, words, elsewhere, says }
}

/// All of them.
pub const ALL: [Question; 20] = [
    question(
        "Which sessions are up, since when, and how many routes come and go?",
        "show peers",
        "Established",
        "`birdc show protocols all`, `vtysh show bgp summary`, `gobgp neighbor`, `bgpctl show summary`, `cilium bgp peers`, `calicoctl node status` (no counts)",
    ),
    question(
        "What was negotiated with this peer, and which timers run?",
        "show peer {peer}",
        "hold",
        "`birdc show protocols all NAME`, `vtysh show bgp neighbors`, `gobgp neighbor ADDR`, `bgpctl show neighbor`",
    ),
    question(
        "Why is this session down?",
        "explain peer {down}",
        "is Active",
        "`vtysh`, `birdc`, `bgpctl`: the last error, not which side is silent; the others: logs",
    ),
    question("Why is there no session with this address?", "explain peer 192.0.2.99", "There is no peer", "none"),
    question(
        "What has this peer sent inside a range, before policy?",
        "show routes {range} --longer --received {peer}",
        "10.1.0.0/16",
        "`birdc` with `import table`, `vtysh` with `soft-reconfiguration inbound`, `gobgp neighbor ADDR adj-in`, `bgpctl show rib in`",
    ),
    question(
        "What is that peer told inside the range?",
        "show routes {range} --longer --advertised {listener}",
        "10.1.0.0/16",
        "`birdc show route export NAME`, `vtysh … advertised-routes`, `gobgp … adj-out`, `bgpctl show rib out`, `cilium bgp routes advertised`",
    ),
    question(
        "Which path of this prefix is best, and what beat the others?",
        "explain {prefix}",
        "the only path",
        "`vtysh show bgp PREFIX` names a reason; the others show the winner alone",
    ),
    question(
        "To whom is it told, and why not to the others?",
        "explain {prefix} --json",
        "advertised_to",
        "`birdc show route noexport NAME`: that it is not, one peer at a time; none says why",
    ),
    question(
        "Which rule of which filter refused this route?",
        "explain {refused}",
        "refused",
        "`birdc show route filtered`, `vtysh … filtered-routes`: that it was refused, not by what",
    ),
    question(
        "Is this route in the kernel, and if not, why?",
        "show kernel {prefix}",
        "dry run",
        "`vtysh show ip route`: that it is; `ip route` for the rest",
    ),
    question("Which routes does the kernel refuse, and why?", "show kernel --state failed", "nothing is in this state", "logs"),
    question(
        "Which Service has this address, and does this node announce it?",
        "explain {service}",
        "ns/web",
        "none; `cilium bgp routes` shows the outcome",
    ),
    question(
        "What would these resources change, session by session and route by route?",
        "diff {resources}",
        "nothing would change",
        "none",
    ),
    question(
        "Are they valid?",
        "check {resources}",
        "is no address",
        "`bird -p`, `vtysh -C`, `bgpd -n`, for files of their own; Calico: what the API refuses",
    ),
    question("What would another node do with them?", "render {resources} --node other", "other", "none"),
    question("What is wrong with the resources in force?", "show problems", "BGPPeer", "logs of confd and BIRD"),
    question("What has happened in the last ten minutes?", "show events --since 10m", "Established", "logs, where they are kept"),
    question("What has happened to this session?", "show events --peer {peer}", "Established", "logs; `vtysh`: the last reset"),
    question(
        "Is the daemon well, and what does it wait for?",
        "show health",
        "ready",
        "`birdc show status`, `calico-node -bird-ready`: that it is not, not why",
    ),
    question(
        "Which configuration is in force?",
        "show config",
        "router_id",
        "`vtysh show running-config`, `gobgp global`; BIRD and OpenBGPD: the file, if it is the one that was read",
    ),
];

impl Question {
    /// The words, with everything in its place.
    pub fn words(&self, places: &Places) -> Vec<String> {
        let fill =
            |word: &str| places.values.iter().fold(word.to_owned(), |word, (name, value)| word.replace(&format!("{{{name}}}"), value));
        self.words.split(' ').map(fill).collect()
    }

    /// Asks.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn ask(&self, margay: &Path, socket: &Path, places: &Places) -> Result<Output> {
        let offline = ["check", "render"].iter().any(|verb| self.words.starts_with(verb));
        let mut command = Command::new(margay);
        command.args(self.words(places));
        if !offline {
            command.arg("--socket").arg(socket);
        }
        Ok(command.output()?)
    }
}

/// The table of the guide.
pub fn table() -> String {
    let mut text = String::from("| | question | margay | elsewhere |\n|---|---|---|---|\n");
    for (number, question) in ALL.iter().enumerate() {
        let command = question.words.replace(['{', '}'], "");
        text.push_str(&format!("| {} | {} | `margay {command}` | {} |\n", number + 1, question.asked, question.elsewhere));
    }
    text
}
