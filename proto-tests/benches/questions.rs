//! How long margay takes to answer twenty questions of operators with a million routes in its tables:
//! `cargo bench -p proto-tests --bench questions`. The questions are those of `packaging/guides/questions.md`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto_tests::compare;
use proto_tests::compare::run::Prepared;
use proto_tests::compare::scenario::{Phase, Scenario};
use proto_tests::compare::speaker::{Running, Speaker};
use proto_tests::lab::enclosure;
use proto_tests::questions::{ALL, Places};

/// How often each is asked; the median counts.
const TIMES: usize = 5;

fn main() -> ExitCode {
    match measure() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("questions: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<ExitCode> {
    if let Some(code) = enclosure::enter_with_margay()? {
        return Ok(code);
    }
    compare::furnish()?;
    let margay = Speaker::named("margay", None)?;
    let full = Scenario::named("S1").context("no S1")?;
    let scenario = Scenario { late: 1, keeps_kernel_rows: true, phases: &[(Phase::Feed, Some("feed"))], ..full };
    println!("{}; {} routes from one peer, told to another; a third is down", margay.version(), scenario.ipv4);
    let prepared = Prepared::new(scenario);
    let mut asked = Ok(());
    let rows = prepared.run_then(&margay, Duration::from_secs(300), |running| {
        asked = ask_all(&margay, running, &prepared);
        Ok(())
    });
    for row in rows {
        ensure!(row.error.is_none(), "{:?}", row.error);
    }
    asked.map(|()| ExitCode::SUCCESS)
}

fn ask_all(margay: &Speaker, running: &Running, prepared: &Prepared) -> Result<()> {
    let peers = prepared.peer_names();
    let prefix = prepared.prefixes()[prepared.prefixes().len() / 2];
    let range = ipnet::IpNet::new(prefix.addr(), 12)?.trunc();
    let places = Places {
        values: vec![
            ("peer", peers[0].clone()),
            ("listener", peers[1].clone()),
            ("down", peers[2].clone()),
            ("prefix", prefix.to_string()),
            ("refused", prefix.to_string()),
            ("range", range.to_string()),
            ("service", prefix.addr().to_string()),
            ("resources", running.folder().join("resources").display().to_string()),
        ],
    };
    let mut quick = 0;
    for (number, question) in ALL.iter().enumerate() {
        let mut times = Vec::new();
        let mut lines = 0;
        for _ in 0..TIMES {
            let begin = Instant::now();
            let answer = question.ask(&margay.program, &running.folder().join("socket"), &places)?;
            times.push(begin.elapsed());
            lines = answer.stdout.iter().filter(|octet| **octet == b'\n').count();
            // 1: the answer is no.
            ensure!(matches!(answer.status.code(), Some(0 | 1)), "{}: {answer:?}", question.words);
        }
        times.sort();
        let median = times[TIMES / 2];
        quick += usize::from(median < Duration::from_secs(1));
        println!("{:>2} {:>8.1} ms {lines:>8} lines  {}", number + 1, median.as_secs_f64() * 1e3, question.words(&places).join(" "));
    }
    println!("{quick} of {} in under a second", ALL.len());
    Ok(())
}
