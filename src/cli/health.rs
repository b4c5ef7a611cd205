//! `margay show health`: is the daemon live and ready, and if not, why?

use serde_json::Value;

use crate::cli::client::{Reply, Target};
use crate::cli::show::{cell, pretty};
use crate::cli::terminal::Paper;
use crate::cli::{Ended, Failure};

/// Asks the daemon and prints; "no" when it is not live or not ready.
pub fn draw(target: &Target, paper: &mut Paper) -> Result<Ended, Failure> {
    let health = match target.get::<Value>("/v1/health")? {
        Reply::Found(health) => health,
        Reply::Missing(why) => return Err(Failure::Other(anyhow::anyhow!("this daemon has no health to show: {}", why.trim()))),
    };
    paper.put(&if target.json { pretty(&health) } else { text(&health) })?;
    let well = ["live", "ready"].iter().all(|what| health[*what] == true);
    Ok(if well { Ended::Done } else { Ended::No })
}

fn text(health: &Value) -> String {
    let names = |value: &Value| value.as_array().map_or(String::new(), |all| all.iter().map(cell).collect::<Vec<_>>().join(", "));
    let verdict = |well: &Value, why: String| match (well == true, why.as_str()) {
        (true, _) => "yes".to_owned(),
        (false, "") => "no".to_owned(),
        (false, why) => format!("no: {why}"),
    };
    let silent = names(&health["silent"]);
    let silent = if silent.is_empty() { silent } else { format!("no answer of {silent}") };
    let (sessions, problems) = (&health["sessions"], &health["problems"]);
    let down = names(&sessions["down"]);
    let datastore = &health["datastore"];
    let collectors = health["collectors"].as_array().into_iter().flatten().map(|status| {
        let state = if status["connected"] == true { "connected".to_owned() } else { format!("away: {}", cell(&status["why"])) };
        ("bmp", format!("{} {state}, since {}", cell(&status["collector"]), cell(&status["since"])))
    });
    let rows = [
        ("live", verdict(&health["live"], silent)),
        ("ready", verdict(&health["ready"], cell(&health["because"]))),
        (
            "sessions",
            format!(
                "{} of {} Established{}",
                cell(&sessions["established"]),
                cell(&sessions["configured"]),
                if down.is_empty() { down } else { format!("; down: {down}") }
            ),
        ),
        (
            "problems",
            format!("{} errors, {} warnings, {} remarks", cell(&problems["error"]), cell(&problems["warning"]), cell(&problems["info"])),
        ),
        ("datastore", [cell(&datastore["kind"]), cell(&datastore["state"]), cell(&datastore["why"])].join(" ").trim().to_owned()),
        ("restart", if health["restarting"] == true { "waiting for End-of-RIB of peers" } else { "over" }.to_owned()),
        ("drained", if health["drained"] == true { "yes" } else { "no" }.to_owned()),
        ("since", cell(&health["started"])),
    ];
    rows.into_iter().chain(collectors).map(|(what, words)| format!("{what:<10} {words}\n")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_daemon_that_hangs_and_one_that_waits_say_why() {
        let health = json!({
            "live": false, "silent": ["shard-0"], "ready": false, "because": "no session is Established: tor",
            "sessions": {"established": 0, "configured": 1, "down": ["tor"]}, "problems": {"error": 1, "warning": 0, "info": 2},
            "datastore": {"kind": "file", "state": "in-sync"}, "restarting": false, "drained": true, "started": "2026-01-01T00:00:00Z",
            "collectors": [{"collector": "192.0.2.1:1790", "connected": false, "since": "2026-01-01T00:00:09Z", "why": "cannot connect"}],
        });
        let expected = "live       no: no answer of shard-0\nready      no: no session is Established: tor\n\
                        sessions   0 of 1 Established; down: tor\nproblems   1 errors, 0 warnings, 2 remarks\n\
                        datastore  file in-sync\nrestart    over\ndrained    yes\nsince      2026-01-01T00:00:00Z\n\
                        bmp        192.0.2.1:1790 away: cannot connect, since 2026-01-01T00:00:09Z\n";
        assert_eq!(text(&health), expected);
    }
}
