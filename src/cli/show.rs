//! `margay show …`: what the daemon knows.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde_json::Value;

use crate::cli::client::{Reply, Target, escape};
use crate::cli::events::Events;
use crate::cli::health;
use crate::cli::routes::Routes;
use crate::cli::table::{Cell, Table, column};
use crate::cli::terminal::{Look, Paper, Screen, Tone};
use crate::cli::{Ended, Failure, complete, watch};

/// What to show.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  margay show peers                     who is there, and how many routes come and go
  margay show peers --watch             the same every two seconds, until Ctrl-C
  margay show routes 10.244.0.0/16 --longer   everything inside a pool
  margay show problems --json           for a program

On a terminal a table is cut to its width (--wide shows all of it) and states are coloured; NO_COLOR turns colours off.")]
pub struct Show {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    look: Look,
    /// Show it again every so many seconds, in the place of the last time, until Ctrl-C [2 where no number is given].
    #[arg(long, global = true, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = watch::seconds)]
    watch: Option<Duration>,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// All sessions, a line each.
    #[command(after_help = "Examples:
  margay show peers             a line a session; on a narrow terminal the columns that matter most
  margay show peers --wide      all columns
  margay show peers --watch=5   every five seconds, until Ctrl-C")]
    Peers,
    /// One session in full.
    #[command(after_help = "Examples:
  margay show peer Mesh_10_0_0_2          state, counters, timers, capabilities of both sides, the last error
  margay show peer 10.0.0.2 --json        the same by its address, for a program")]
    Peer {
        /// Session name (`Mesh_10_0_0_2`) or address.
        #[arg(add = complete::peers())]
        name: String,
    },
    /// Routes: the best and the others, with the step at which each lost.
    #[command(after_help = "Examples:
  margay show routes                                all of them; *> is the best, *= another hop of it, ! is refused, S is stale
  margay show routes 10.244.1.0/26                  one prefix
  margay show routes 10.244.0.0/16 --longer         everything inside it
  margay show routes --received Mesh_10_0_0_2       what a peer sent, before policy
  margay show routes --advertised Global_10_0_0_9  what a peer is told")]
    Routes(Routes),
    /// What the kernel should hold, and whether it does.
    #[command(after_help = "Examples:
  margay show kernel                  each prefix: installed, pending, failed, not wanted, and why
  margay show kernel 10.244.1.0/26    one of them
  margay show kernel --state failed   what the kernel did not take, and why")]
    Kernel {
        /// Only this prefix.
        #[arg(add = complete::prefixes())]
        prefix: Option<IpNet>,
        /// Only what is in this state.
        #[arg(long, conflicts_with = "prefix")]
        state: Option<KernelState>,
    },
    /// Local agents: connected or since when gone, their routes, and what of them waits.
    #[command(after_help = "Examples:
  margay show agents             who tells this node's routes at the control socket
  margay show agents --json      with the routes that wait, and what for")]
    Agents,
    /// Everything that is wrong with the resources, and what was done instead.
    #[command(after_help = "Examples:
  margay show problems             file, line, resource, field, and what was done instead
  margay show problems --watch     while resources are being mended")]
    Problems,
    /// The configuration in force.
    #[command(after_help = "Examples:
  margay show config               what the resources were compiled to, as JSON
  margay show config --json        the same")]
    Config,
    /// What has happened, oldest first, with reasons.
    #[command(after_help = "Examples:
  margay show events --since 10m                      of the last ten minutes
  margay show events --peer Mesh_10_0_0_2             one session
  margay show events --since 2026-11-23T10:00:00Z     since a time")]
    Events(Events),
    /// Whether the daemon is live and ready, and why not: what /livez, /readyz and the service manager are told. Exit 1 if it is not.
    #[command(after_help = "Examples:
  margay show health             sessions, problems, the datastore, and what is waited for
  margay show health --watch     during a restart")]
    Health,
}

/// What became of a route in the kernel.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KernelState {
    Installed,
    Pending,
    Failed,
    NotWanted,
    Adopted,
}

impl KernelState {
    /// In the control API.
    fn word(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::NotWanted => "not wanted",
            Self::Adopted => "adopted",
        }
    }
}

impl Show {
    /// Asks the daemon and prints, once or again and again.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let screen = Screen::of_stdout(self.look);
        match self.watch {
            None => self.draw(&screen, &mut Paper::Stdout),
            Some(every) => watch::redraw(every, screen, move |paper| self.draw(&screen, paper)),
        }
    }

    fn draw(&self, screen: &Screen, paper: &mut Paper) -> Result<Ended, Failure> {
        let target = &self.target;
        let mut document = |path: &str, table: &dyn Fn(&Value, &Screen) -> String| document(target, path, screen, paper, table);
        match &self.what {
            What::Peers => document("/v1/peers", &peers),
            What::Peer { name } => document(&format!("/v1/peers/{}", escape(name)), &peer),
            What::Routes(routes) => routes.draw(target, screen, paper),
            What::Kernel { prefix, state } => {
                let query = match (prefix, state) {
                    (Some(prefix), _) => format!("?prefix={prefix}"),
                    (None, Some(state)) => format!("?state={}", escape(state.word())),
                    (None, None) => String::new(),
                };
                document(&format!("/v1/kernel{query}"), if state.is_some() { &some_of_kernel } else { &kernel })
            }
            What::Agents => document("/v1/agents", &agents),
            What::Problems => document("/v1/problems", &problems),
            What::Config => document("/v1/config", &|value, _| pretty(value)),
            What::Events(events) => events.draw(target, paper),
            What::Health => health::draw(target, paper),
        }
    }
}

/// Asks for one document and prints it, as JSON or as `table` words it.
fn document(
    target: &Target,
    path: &str,
    screen: &Screen,
    paper: &mut Paper,
    table: &dyn Fn(&Value, &Screen) -> String,
) -> Result<Ended, Failure> {
    match target.get::<Value>(path)? {
        Reply::Found(value) => {
            paper.put(&if target.json { pretty(&value) } else { table(&value, screen) })?;
            Ok(Ended::Done)
        }
        Reply::Missing(why) => Ok(ended(Reply::Missing(why), paper)),
    }
}

/// JSON for people: indented, with an ended last line.
pub fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// A field as a cell: text as it is, nothing for null, the rest as JSON.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Why the last session or attempt ended. Beside a session that is up it is history, and says so.
fn last_error(peer: &Value) -> String {
    let error = &peer["last_error"];
    match (peer["state"].as_str(), error["text"].as_str()) {
        (Some("Established"), Some(text)) => format!("(before, at {}) {text}", cell(&error["at"])),
        (_, text) => text.unwrap_or_default().to_owned(),
    }
}

/// How a session's state is meant.
fn state_tone(state: &Value) -> Tone {
    match state.as_str() {
        Some("Established") => Tone::Good,
        Some("Idle") | None => Tone::Bad,
        Some(_) => Tone::Uneasy,
    }
}

/// How a route's state in the kernel is meant.
pub fn kernel_tone(state: &Value) -> Tone {
    match state.as_str() {
        Some("installed") => Tone::Good,
        Some("pending") => Tone::Uneasy,
        Some("failed") => Tone::Bad,
        _ => Tone::Plain,
    }
}

fn peers(value: &Value, screen: &Screen) -> String {
    let mut table = Table::new(&[
        column("NAME").text(16),
        column("ADDRESS").spare(1),
        column("AS"),
        column("TYPE").spare(4),
        column("STATE"),
        column("SINCE").spare(5),
        column("RECEIVED"),
        column("ACCEPTED").spare(3),
        column("ADVERTISED").spare(2),
        column("LAST ERROR").text(16),
    ]);
    for peer in rows(value) {
        let count = |what: &str| sum(&peer["families"], what).to_string();
        table.row([
            cell(&peer["name"]).into(),
            cell(&peer["address"]).into(),
            cell(&peer["asn"]).into(),
            cell(&peer["type"]).into(),
            Cell::new(cell(&peer["state"]), state_tone(&peer["state"])),
            cell(&peer["since"]).into(),
            count("received").into(),
            count("accepted").into(),
            count("advertised").into(),
            Cell::from(last_error(peer)),
        ]);
    }
    if table.is_empty() { "no peers: `margay show problems` may say why\n".into() } else { whole(&table, screen) }
}

fn agents(value: &Value, screen: &Screen) -> String {
    let mut table = Table::new(&[
        column("AGENT").text(16),
        column("STATE"),
        column("SINCE").spare(2),
        column("ROUTES"),
        column("WAITING"),
        column("WITHDRAWN AT").spare(1),
        column("WAITS FOR").text(16),
    ]);
    for agent in rows(value) {
        let connected = agent["connected"].as_bool().unwrap_or(false);
        let first = &agent["waiting_for"][0];
        let waits = first["because"].as_str().map(|because| format!("{}: {because}", cell(&first["prefix"]))).unwrap_or_default();
        table.row([
            cell(&agent["name"]).into(),
            if connected { Cell::new("connected".to_owned(), Tone::Good) } else { Cell::new("gone".to_owned(), Tone::Uneasy) },
            cell(&agent["since"]).into(),
            cell(&agent["routes"]).into(),
            cell(&agent["waiting"]).into(),
            cell(&agent["withdrawn_at"]).into(),
            Cell::from(waits),
        ]);
    }
    if table.is_empty() { "no local agents\n".into() } else { whole(&table, screen) }
}

/// The table and what it had no room for.
fn whole(table: &Table, screen: &Screen) -> String {
    table.render(screen) + &table.note(screen).unwrap_or_default()
}

fn sum(families: &Value, what: &str) -> u64 {
    families.as_object().map_or(0, |families| families.values().filter_map(|counts| counts[what].as_u64()).sum())
}

fn peer(value: &Value, screen: &Screen) -> String {
    let mut text = String::new();
    lines(&mut text, value, 0, screen);
    text
}

/// Nested JSON as indented `key: value` lines.
fn lines(text: &mut String, value: &Value, depth: usize, screen: &Screen) {
    let Some(fields) = value.as_object() else { return };
    for (key, value) in fields {
        let indent = "  ".repeat(depth);
        if value.is_object() {
            text.push_str(&format!("{indent}{key}:\n"));
            lines(text, value, depth + 1, screen);
        } else {
            let tone = if key == "state" && depth == 0 { state_tone(value) } else { Tone::Plain };
            text.push_str(&format!("{indent}{key}: {}\n", screen.paint(tone, &cell(value))));
        }
    }
}

fn kernel(value: &Value, screen: &Screen) -> String {
    kernel_or(value, screen, "nothing: no route here is meant for the kernel (`margay show routes` lists them)\n")
}

fn some_of_kernel(value: &Value, screen: &Screen) -> String {
    kernel_or(value, screen, "nothing is in this state\n")
}

/// The rows in order of their prefixes: the daemon tells them as they come.
fn kernel_or(value: &Value, screen: &Screen, nothing: &str) -> String {
    let mut table = Table::new(&[column("PREFIX"), column("STATE"), column("BECAUSE").text(20)]);
    let mut sorted: Vec<&Value> = rows(value).iter().collect();
    sorted.sort_by_cached_key(|row| row["prefix"].as_str().and_then(|prefix| prefix.parse::<IpNet>().ok()));
    for row in sorted {
        let state = Cell::new(cell(&row["state"]), kernel_tone(&row["state"]));
        table.row([cell(&row["prefix"]).into(), state, Cell::from(cell(&row["because"]))]);
    }
    if table.is_empty() { nothing.into() } else { whole(&table, screen) }
}

/// Problems as lines that an editor can jump to.
pub fn problems(value: &Value, screen: &Screen) -> String {
    let mut text = String::new();
    for problem in rows(value) {
        let location = &problem["location"];
        let place = match (cell(&location["file"]), cell(&location["line"])) {
            (file, _) if file.is_empty() => String::new(),
            (file, line) if line.is_empty() || line == "0" => file,
            (file, line) => format!("{file}:{line}:{}", cell(&location["column"])),
        };
        let name = match &problem["resource"] {
            Value::Null => String::new(),
            resource => format!("{} {}", cell(&resource["kind"]), cell(&resource["name"])),
        };
        let tone = match problem["severity"].as_str() {
            Some("error") => Tone::Bad,
            Some("warning") => Tone::Uneasy,
            _ => Tone::Plain,
        };
        let severity = screen.paint(tone, &cell(&problem["severity"]));
        let parts = [place, severity, name, cell(&problem["field"]), cell(&problem["what"])];
        text.push_str(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "));
        let instead = cell(&problem["instead"]);
        text.push_str(&if instead.is_empty() { "\n".to_owned() } else { format!("; {instead}\n") });
    }
    if text.is_empty() { "no problems\n".into() } else { text }
}

/// Exit code of an answer in lines; says what is missing.
pub fn ended(reply: Reply<()>, paper: &mut Paper) -> Ended {
    match reply {
        Reply::Found(()) => Ended::Done,
        Reply::Missing(why) => {
            paper.complain(&why);
            Ended::No
        }
    }
}
