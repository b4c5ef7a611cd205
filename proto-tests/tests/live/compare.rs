//! The comparing bench itself, with a hundredth of the prefixes and margay alone: its receivers get what they should in every scenario.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use proto_tests::compare::run::Prepared;
use proto_tests::compare::scenario::Scenario;
use proto_tests::compare::speaker::Speaker;
use proto_tests::compare::{furnish, report};
use proto_tests::lab::process;
use proto_tests::live::enclosed;

/// A world without the link and the addresses that other tests need: margay would tell their subnets.
pub fn prepare() -> Result<Speaker> {
    for words in ["link delete link0", "-6 address flush dev lo scope global"] {
        let mut ip = Command::new("ip");
        ip.args(words.split(' '));
        process::run(ip, None)?;
    }
    furnish()?;
    Speaker::named("margay", None)
}

#[test]
fn margay_converges_in_every_scenario_of_the_comparing_bench() {
    enclosed(|| {
        let margay = prepare()?;
        let mut rows = Vec::new();
        // S8 would idle for twenty seconds, and larger meshes show nothing more.
        for name in ["S1", "S2", "S3", "S4-herd", "S7", "S7-reload", "D1"] {
            let scenario = Scenario::named(name).expect("a scenario of that name");
            let scenario = Scenario { senders: scenario.senders.min(20), ..scenario.scaled(0.005) };
            rows.extend(Prepared::new(scenario).run(&margay, Duration::from_secs(60)));
        }
        for row in &rows {
            ensure!(row.error.is_none(), "{}: {:?}", row.row, row.error);
            ensure!(row.messages > 0 && row.resident > 0, "nothing was counted: {row:?}");
        }
        let of = |name: &str| rows.iter().find(|row| row.row == name).expect("a row");
        ensure!((of("S1").announced, of("S6").withdrawn, of("S5").announced) == (5_000, 5_000, 5_000), "each prefix once: {rows:?}");
        ensure!(of("S1").again == 0 && of("S2").again == 0 && of("S4-herd").again == 0, "nothing is told twice: {rows:?}");
        ensure!(of("S2").announced == 10 * 5_000 && of("S4-herd").announced == 20 * 190, "to everybody: {rows:?}");
        ensure!(of("S7").latency.is_some_and(|(half, worst)| half > 0.0 && half <= worst), "changes are timed: {rows:?}");
        let reload = of("S7-reload");
        ensure!(reload.rounds > 0 && reload.latency.is_some() && reload.withdrawn > 0, "another sender's table came again: {reload:?}");
        ensure!(of("D1").announced == 5_000 + 1_000 && of("D1").again == 0, "both families: {:?}", of("D1"));
        let lines = report::lines(&rows);
        let all = ["S1", "S6", "refeed", "S5", "S2", "S3", "S4-herd", "S7", "S7-reload-rest", "S7-reload", "D1"];
        ensure!(lines.iter().map(|line| &*line.row).collect::<Vec<_>>() == all);
        Ok(())
    });
}
