//! The systemd unit: valid, and as tight as it says.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::image::repository;

const UNIT: &str = "packaging/margay.service";

/// The overall exposure that `systemd-analyze security` computes, 0 (nothing) to 10 (everything); none where it is not installed.
fn exposure() -> Result<Option<f64>> {
    let analysed = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(repository().join(UNIT)).output();
    let output = match analysed {
        Ok(output) => output,
        Err(error) => {
            proto_tests::lab::skip::skipped("q17_the_unit_is_tight", &format!("systemd-analyze (package systemd): {error}"));
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("Overall exposure level")).with_context(|| format!("{output:?}"))?;
    let number = line.split_whitespace().find_map(|word| word.parse().ok()).with_context(|| line.to_owned())?;
    Ok(Some(number))
}

#[test]
fn q17_the_unit_is_tight() -> Result<()> {
    if let Some(exposure) = exposure()? {
        println!("exposure {exposure}");
        ensure!(exposure <= 2.5, "{exposure} of 10 is exposed: systemd-analyze security --offline=true {UNIT} says why");
    }
    Ok(())
}

#[test]
fn t12_q17_the_unit_asks_for_no_more_than_margay_needs() -> Result<()> {
    let unit = std::fs::read_to_string(repository().join(UNIT))?;
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default().to_owned();
    let wanted = "CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_SYS_NICE";
    ensure!(value("CapabilityBoundingSet") == wanted && value("AmbientCapabilities") == wanted, "{unit}");
    ensure!(value("NoNewPrivileges") == "yes" && value("User") == "margay" && unit.contains("SystemCallFilter=@system-service"));
    ensure!(value("Type") == "notify" && value("WatchdogSec").parse::<u64>().is_ok_and(|seconds| seconds >= 20), "{unit}");
    ensure!(value("Restart") == "always" && value("KillSignal") == "SIGTERM", "a restart must be graceful");
    Ok(())
}
