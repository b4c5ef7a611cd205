//! `margay show events` and `margay monitor`: what has happened, and what happens.

use clap::Args;
use ipnet::IpNet;
use serde_json::Value;

use crate::cli::client::{Reply, Target, escape};
use crate::cli::progress::Progress;
use crate::cli::show::{cell, ended};
use crate::cli::terminal::Paper;
use crate::cli::{Ended, Failure, complete};

/// Which events; all that is given must fit.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    /// Only of this session.
    #[arg(long, value_name = "PEER", add = complete::peers())]
    peer: Option<String>,
    /// Only of this prefix and those inside it.
    #[arg(long, value_name = "PREFIX", add = complete::prefixes())]
    prefix: Option<IpNet>,
}

impl Selection {
    fn query(&self) -> Vec<String> {
        let peer = self.peer.as_ref().map(|peer| format!("peer={}", escape(peer)));
        let prefix = self.prefix.map(|prefix| format!("prefix={prefix}"));
        peer.into_iter().chain(prefix).collect()
    }
}

/// What is remembered.
#[derive(Clone, Debug, Args)]
pub struct Events {
    /// Only of the last so long, for instance `10m` or `2h30m`, or since a time such as `2026-11-23T10:00:00Z`.
    #[arg(long, value_name = "WHEN", value_parser = seconds_ago)]
    since: Option<u64>,
    #[command(flatten)]
    selection: Selection,
}

impl Events {
    /// Asks the daemon and prints, oldest first.
    pub fn draw(&self, target: &Target, paper: &mut Paper) -> Result<Ended, Failure> {
        let mut query = self.selection.query();
        query.extend(self.since.map(|seconds| format!("since={seconds}")));
        if !target.json {
            return stream(target, &query, paper);
        }
        let mut events = Vec::new();
        let reply = target.lines(&path(&query), |line| {
            events.push(serde_json::from_str::<Value>(line)?);
            Ok(())
        })?;
        if matches!(reply, Reply::Found(())) {
            paper.put(&crate::cli::show::pretty(&Value::Array(events)))?;
        }
        Ok(ended(reply, paper))
    }
}

/// What happens, as it happens.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay monitor                         sessions, configuration, problems, the kernel's refusals
  margay monitor --peer Mesh_10_0_0_2    one session
  margay monitor --prefix 10.244.0.0/16  every change of a best path inside it
  margay monitor --json                  a JSON object a line")]
pub struct Monitor {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    selection: Selection,
}

impl Monitor {
    /// Prints until the daemon ends or this is interrupted.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let mut query = self.selection.query();
        query.push("follow=true".into());
        stream(&self.target, &query, &mut Paper::Stdout)
    }
}

fn path(query: &[String]) -> String {
    format!("/v1/events?{}", query.join("&"))
}

/// A line an event: as JSON, or in words.
fn stream(target: &Target, query: &[String], paper: &mut Paper) -> Result<Ended, Failure> {
    let mut progress = Progress::new("events");
    let reply = target.lines(&path(query), |line| {
        progress.step();
        if target.json {
            return paper.put(&format!("{line}\n"));
        }
        paper.put(&words(&serde_json::from_str(line)?))
    })?;
    Ok(ended(reply, paper))
}

fn words(event: &Value) -> String {
    let again = match event["repeated"].as_u64() {
        None | Some(0) => String::new(),
        Some(times) => format!(" (and {times} times more, last at {})", cell(&event["last"])),
    };
    format!("{}  {}{again}\n", cell(&event["at"]), cell(&event["summary"]))
}

/// A span such as `10m`, or a time of RFC 3339, as seconds before now.
fn seconds_ago(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is neither a span such as 10m or 2h30m, nor a time such as 2026-11-23T10:00:00Z that has passed");
    let span = match (text.parse::<jiff::SignedDuration>(), text.parse::<jiff::Timestamp>()) {
        (Ok(span), _) => span,
        (_, Ok(time)) => jiff::Timestamp::now().duration_since(time),
        _ => return Err(wrong()),
    };
    u64::try_from(span.as_secs()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_spans_and_times() {
        assert_eq!(seconds_ago("10m"), Ok(600));
        assert_eq!(seconds_ago("2h30m"), Ok(9000));
        assert!(seconds_ago("2026-01-01T00:00:00Z").is_ok_and(|seconds| seconds > 0));
        assert!(seconds_ago("2999-01-01T00:00:00Z").is_err(), "the future");
        assert!(seconds_ago("yesterday").is_err());
    }

    #[test]
    fn a_repeated_event_says_so() {
        let event = serde_json::json!({"at": "T1", "last": "T2", "repeated": 4, "summary": "a: connection refused"});
        assert_eq!(words(&event), "T1  a: connection refused (and 4 times more, last at T2)\n");
    }
}
