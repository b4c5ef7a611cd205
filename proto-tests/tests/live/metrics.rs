//! What Prometheus is told, judged by Prometheus' own tool.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::message::{announce, basics, notification};
use proto_tests::live::{Daemon, Neighbour, Observer, Plan, enclosed};

use crate::session::WAIT;

/// The value of the one sample whose line begins so.
fn sample(daemon: &Daemon, series: &str) -> Result<f64> {
    let text = daemon.api_text("/metrics")?;
    let line = text.lines().find(|line| line.starts_with(series)).with_context(|| format!("no {series} in\n{text}"))?;
    let value = line.rsplit(' ').next().context("no value")?;
    value.parse().with_context(|| line.to_owned())
}

fn is(daemon: &Daemon, series: &str, value: f64) -> Result<()> {
    wait_until(WAIT, series, || {
        let found = sample(daemon, series)?;
        ensure!(found == value, "{series} is {found}, not {value}");
        Ok(())
    })
}

fn promtool(arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("promtool").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("no input")?, input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "promtool {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn a_session_is_counted_and_promtool_has_nothing_to_say() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let plan = &daemon.peers[0];
        let name = daemon.peer_view(plan)?["name"].as_str().context("no name")?.to_owned();
        let up = format!("margay_bgp_peer_up{{peer=\"{name}\"");
        is(&daemon, &up, 0.0)?;
        let mut neighbour = Neighbour::establish(&daemon, plan)?;
        neighbour.send(&announce(&basics(plan.asn), &["10.1.0.0/16", "10.2.0.0/16"]))?;
        observer.route("10.2.0.0/16")?;
        is(&daemon, &up, 1.0)?;
        is(&daemon, &format!("margay_bgp_peer_prefixes{{peer=\"{name}\",family=\"ipv4-unicast\",stage=\"received\"}}"), 2.0)?;
        is(&daemon, &format!("margay_bgp_peer_messages_total{{peer=\"{name}\",direction=\"received\",type=\"update\"}}"), 1.0)?;
        is(&daemon, &format!("margay_bgp_peer_messages_total{{peer=\"{name}\",direction=\"sent\",type=\"open\"}}"), 1.0)?;
        // Both announced, and what margay's own devices are.
        wait_until(WAIT, "two prefixes", || {
            let found = sample(&daemon, "margay_rib_prefixes{shard=\"0\",family=\"ipv4-unicast\"}")?;
            ensure!(found >= 2.0, "{found}");
            Ok(())
        })?;
        for part in ["destinations", "attributes", "advertised"] {
            ensure!(sample(&daemon, &format!("margay_rib_octets{{shard=\"0\",part=\"{part}\"}}"))? > 0.0, "{part}");
        }
        for stage in ["receive", "prepare", "walk", "decide", "encode", "answer", "deliver"] {
            ensure!(sample(&daemon, &format!("margay_stage_seconds_total{{shard=\"0\",stage=\"{stage}\"}}"))? > 0.0, "{stage}");
        }
        ensure!(sample(&daemon, "margay_rib_decisions_total")? >= 2.0);
        promtool(&["check", "metrics"], &daemon.api_text("/metrics")?)?;

        neighbour.send(&notification(6, 4, &[]))?;
        is(&daemon, &format!("margay_bgp_peer_last_down_subcode{{peer=\"{name}\""), 4.0)?;
        is(&daemon, &format!("margay_bgp_peer_flaps_total{{peer=\"{name}\""), 1.0)?;
        Ok(())
    });
}

#[test]
fn the_alerts_parse_name_existing_metrics_and_have_a_page_in_the_runbook() {
    enclosed(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus");
        let alerts = folder.join("alerts.yaml");
        promtool(&["check", "rules", alerts.to_str().context("no text")?], "")?;
        let daemon = Plan::default().external(1).start()?;
        let known = daemon.api_text("/metrics")?;
        let (rules, runbook) = (std::fs::read_to_string(&alerts)?, std::fs::read_to_string(folder.join("RUNBOOK.md"))?);
        let dashboard = std::fs::read_to_string(folder.join("dashboard.json"))?;
        serde_json::from_str::<serde_json::Value>(&dashboard)?;
        for name in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
            ensure!(runbook.contains(&format!("## {name}\n")), "{name} has no page in RUNBOOK.md");
        }
        let metrics = [rules, dashboard].concat();
        let names = metrics.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("margay_"));
        for name in names {
            // Families whose samples appear with the first event are declared all the same, or named here.
            let late = [
                "margay_bmp_connected",
                "margay_bmp_messages_total",
                "margay_kernel_refusals_total",
                "margay_kernel_writes_total",
                "margay_bgp_peer_messages_total",
            ];
            ensure!(late.contains(&name) || known.contains(name), "{name} is no metric of margay's");
        }
        Ok(())
    });
}
