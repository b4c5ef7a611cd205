//! `margay show routes`: the table, in parts, as the daemon tells it.

use clap::Args;
use ipnet::IpNet;
use serde_json::Value;

use crate::cli::client::{Reply, Target, escape};
use crate::cli::complete;
use crate::cli::progress::Progress;
use crate::cli::show::{cell, ended, kernel_tone};
use crate::cli::table::{Cell, Column, Table, column};
use crate::cli::terminal::{Paper, Screen};
use crate::cli::{Ended, Failure};

/// Columns of the table.
const COLUMNS: [Column; 10] = [
    column(""),
    column("PREFIX"),
    column("NEXT HOP"),
    column("FROM").text(14),
    column("AS PATH").text(12),
    column("PREF").spare(2),
    column("MED").spare(3),
    column("COMMUNITIES").text(11).spare(4),
    column("KERNEL").spare(1),
    column("WHY NOT").text(10),
];
/// Rows that are laid out together.
const ROWS_A_PART: usize = 1000;

/// Which routes.
#[derive(Clone, Debug, Args)]
pub struct Routes {
    /// Only this prefix.
    #[arg(add = complete::prefixes())]
    prefix: Option<IpNet>,
    /// With PREFIX: everything inside it too.
    #[arg(long, requires = "prefix")]
    longer: bool,
    /// Only ipv4 or ipv6.
    #[arg(long, value_name = "FAMILY")]
    family: Option<String>,
    /// What this peer sent, before policy.
    #[arg(long, value_name = "PEER", conflicts_with = "advertised", add = complete::peers())]
    received: Option<String>,
    /// What this peer is told.
    #[arg(long, value_name = "PEER", add = complete::peers())]
    advertised: Option<String>,
}

impl Routes {
    fn path(&self) -> String {
        let mut query = Vec::new();
        if let Some(prefix) = self.prefix {
            query.push(format!("prefix={prefix}"));
        }
        if self.longer {
            query.push("longer=true".to_owned());
        }
        let texts = [("family", &self.family), ("received", &self.received), ("advertised", &self.advertised)];
        query.extend(texts.iter().filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={}", escape(value)))));
        format!("/v1/routes?{}", query.join("&"))
    }

    /// Asks the daemon and prints.
    pub fn draw(&self, target: &Target, screen: &Screen, paper: &mut Paper) -> Result<Ended, Failure> {
        if target.json { self.json(target, paper) } else { self.table(target, screen, paper) }
    }

    fn json(&self, target: &Target, paper: &mut Paper) -> Result<Ended, Failure> {
        let (mut first, mut progress) = (true, Progress::new("routes"));
        let reply = target.lines(&self.path(), |line| {
            progress.step();
            paper.put(&format!("{}{line}", if first { "[\n" } else { ",\n" }))?;
            first = false;
            Ok(())
        })?;
        paper.put(match (&reply, first) {
            (Reply::Missing(_), _) => "",
            (Reply::Found(()), true) => "[]\n",
            (Reply::Found(()), false) => "\n]\n",
        })?;
        Ok(ended(reply, paper))
    }

    /// Prints in parts, so that a full table starts to appear at once: columns fit the rows of their part.
    fn table(&self, target: &Target, screen: &Screen, paper: &mut Paper) -> Result<Ended, Failure> {
        let (mut table, mut rows, mut note, mut progress) = (Table::new(&COLUMNS), 0, None, Progress::new("routes"));
        let reply = target.lines(&self.path(), |line| {
            let row: Value = serde_json::from_str(line)?;
            table.row(route_cells(&row));
            progress.step();
            rows += 1;
            if rows % ROWS_A_PART == 0 {
                let part = std::mem::replace(&mut table, Table::new(&COLUMNS));
                note = part.note(screen).or(note.take());
                paper.put(&part.render(screen))?;
            }
            Ok(())
        })?;
        if !table.is_empty() {
            note = table.note(screen).or(note);
            paper.put(&table.render(screen))?;
        }
        match (&reply, rows, note) {
            (Reply::Found(()), 0, _) => paper.put(&self.nothing())?,
            (_, _, Some(note)) => paper.put(&note)?,
            _ => {}
        }
        Ok(ended(reply, paper))
    }

    /// No route, and what to ask next.
    fn nothing(&self) -> String {
        match self.prefix {
            Some(prefix) if !self.longer => format!("no route: `margay explain {prefix}` says why, `--longer` shows what lies inside it\n"),
            _ if self.received.is_some() => "no route: `margay show peers` says whether the session is up\n".to_owned(),
            _ => "no route: `margay show peers` says which sessions are up\n".to_owned(),
        }
    }
}

fn route_cells(row: &Value) -> [Cell; 10] {
    let flag = |name: &str| row[name].as_bool().unwrap_or(false);
    let mark = match (flag("best"), flag("multipath"), flag("valid")) {
        (true, ..) => "*>",
        (_, true, _) => "*=",
        (_, _, true) => "*",
        _ => "!",
    };
    let stale = if flag("stale") { "S" } else { "" };
    let from = match &row["peer"] {
        Value::Null => cell(&row["source"]),
        peer => cell(peer),
    };
    let joined = |name: &str| row[name].as_array().map_or(String::new(), |list| list.iter().map(cell).collect::<Vec<_>>().join(" "));
    let communities =
        [joined("communities"), joined("large_communities")].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
    let why = match &row["rejected_by"] {
        Value::Null => cell(&row["lost_at"]),
        rule => cell(rule),
    };
    [
        format!("{mark}{stale}").into(),
        cell(&row["prefix"]).into(),
        cell(&row["next_hop"]).into(),
        from.into(),
        format!("{} {}", joined("as_path"), cell(&row["origin"])).trim().to_owned().into(),
        cell(&row["local_pref"]).into(),
        cell(&row["med"]).into(),
        communities.into(),
        Cell::new(cell(&row["kernel"]), kernel_tone(&row["kernel"])),
        why.into(),
    ]
}
