//! Instructions of the hot paths, counted by callgrind, against the counts that stand beside this file.
//!
//! `cargo bench -p proto-tests --bench instructions` fails when a case takes over 3 % more than `instructions.txt` says, and names it.
//! Whoever means to pay that, or has made it faster, runs it with `-- --accept` and commits the file with the reason.
//!
//! Counts are steady to a few in a thousand for one compiler on one architecture, whatever the machine does beside. With another
//! compiler than the file's the comparison is SKIPPED, which is printed and counted, as it is without valgrind (where `CI` is set that
//! fails). A runner of fifty lines does it, since gungraun keeps its baselines in the build folder, where no review sees them, and
//! needs a program of exactly its own version installed beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::{Bytes, BytesMut};
use margay::types::{Ipv4Unicast, NlriList};
use margay::wire::{Message, frame, pack};
use proto_tests::scale::{Scale, Size};
use proto_tests::shard::{Announced, Bench, context};

/// More than this share more is a regression.
const TOLERANCE: f64 = 0.03;
/// Prefixes of the tables.
const PREFIXES: usize = 20_000;

/// The cases: what is prepared, and what is counted.
const CASES: [(&str, fn()); 9] = [
    ("decode", decode),
    ("pack", pack_all),
    ("learn", learn),
    ("renew", renew),
    ("decide", decide),
    ("withdraw", withdraw),
    ("come_back", come_back),
    ("ask_again", ask_again),
    ("compile", compile),
];

/// All that is counted happens in here: callgrind is told its name.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

/// UPDATEs, eight prefixes each, to attributes and prefixes.
fn decode() {
    let stream = Announced::new(1, PREFIXES).messages().concat();
    let context = context();
    let mut messages = Vec::new();
    measured(&mut || {
        let mut buffer = BytesMut::from(&stream[..]);
        while let Some(frame) = frame::next(&mut buffer, &context).expect("a frame") {
            messages.push(Message::decode(frame.kind, &frame.body, &context).expect("a message"));
        }
    });
    assert!(messages.len() > PREFIXES / 16);
}

/// The way back.
fn pack_all() {
    let table = Announced::new(1, PREFIXES);
    let context = context();
    let mut frames: Vec<Bytes> = Vec::new();
    measured(&mut || {
        for (set, list) in &table.sets {
            if let NlriList::Ipv4(items) = list {
                pack::announce::<Ipv4Unicast>(set, items, &context, &mut frames);
            }
        }
    });
    assert!(frames.len() >= table.sets.len());
}

/// A shard learns a table and tells it: attributes interned, prefixes entered and decided, exported and encoded for one group.
fn learn() {
    let table = Announced::new(1, PREFIXES);
    let mut bench = Bench::new(1, 1);
    measured(&mut || bench.announce(1, &table));
    assert!(bench.octets > 0 && bench.stats().ipv4 == PREFIXES);
}

/// It hears the same again, which changes nothing: attributes and prefixes are found.
fn renew() {
    let table = Announced::new(1, PREFIXES);
    let mut bench = Bench::new(1, 1);
    bench.announce(1, &table);
    let octets = bench.octets;
    measured(&mut || bench.announce(1, &table));
    assert_eq!(bench.octets, octets);
}

/// Six peers tell other paths of the same prefixes: each prefix is decided among up to six.
fn decide() {
    let tables: Vec<Announced> = (1..=6).map(|peer| Announced::new(peer, PREFIXES / 4)).collect();
    let mut bench = Bench::new(6, 1);
    measured(&mut || {
        for (peer, table) in (1..).zip(&tables) {
            bench.announce(peer, table);
        }
    });
    assert_eq!(bench.stats().ipv4, PREFIXES / 4);
}

/// It forgets a table and says so.
fn withdraw() {
    let table = Announced::new(1, PREFIXES);
    let mut bench = Bench::new(1, 1);
    bench.announce(1, &table);
    measured(&mut || bench.withdraw(1, &table));
    assert_eq!(bench.stats().ipv4, 0);
}

/// All but a few of a table's routes are back after they have gone: as cheap as the first time, the few share their next hop.
fn come_back() {
    let table = Announced::new(1, PREFIXES);
    let mut most = table.clone();
    most.sets.pop();
    let mut bench = Bench::new(1, 1);
    bench.announce(1, &table);
    bench.withdraw(1, &most);
    assert!(bench.stats().ipv4 > 0);
    measured(&mut || bench.announce(1, &most));
    assert_eq!(bench.stats().ipv4, PREFIXES);
}

/// A hundred peers ask for everything again in one instant: what the shard does before it serves the next one of the others.
fn ask_again() {
    let mut bench = Bench::new(1, 100);
    bench.announce(1, &Announced::new(1, PREFIXES));
    let octets = bench.octets;
    measured(&mut || (1001..=1100).for_each(|peer| bench.refresh(peer)));
    bench.rest(Duration::ZERO);
    assert!(bench.octets > octets * 3 / 2, "they were told again: {} octets after {octets}", bench.octets);
}

/// A cluster of a hundred nodes to the configuration of one.
fn compile() {
    let mut scale = Scale::told(Size::of(100));
    measured(&mut || {
        scale.compile();
    });
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = &arguments[..]
        && flag == "--case"
    {
        let case = CASES.iter().find(|(known, _)| known == name);
        case.expect("a case of that name").1();
        return ExitCode::SUCCESS;
    }
    match compare(arguments.iter().any(|argument| argument == "--accept")) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn compare(accept: bool) -> Result<ExitCode> {
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success()) {
        let reason = "valgrind not found: apt-get install --no-install-recommends valgrind";
        if std::env::var_os("CI").is_some() {
            bail!("{reason}");
        }
        println!("SKIPPED: {reason}; {} cases not counted", CASES.len());
        return Ok(ExitCode::SUCCESS);
    }
    let compiler = compiler()?;
    let counts: Vec<(&str, u64)> = CASES.iter().map(|(name, _)| Ok((*name, count(name)?))).collect::<Result<_>>()?;
    if accept {
        let lines: String = counts.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
        std::fs::write(baseline_path(), format!("# {compiler}\n{lines}"))?;
        println!("written: {}", baseline_path().display());
        return Ok(ExitCode::SUCCESS);
    }
    let (of, baseline) = baseline()?;
    if of != compiler {
        for (name, count) in &counts {
            println!("{name:10} {count:12}");
        }
        println!("SKIPPED: {} counts are of {of}, and this is {compiler}: run it there, or accept these", counts.len());
        return Ok(ExitCode::SUCCESS);
    }
    let mut worse = Vec::new();
    for (name, count) in counts {
        let before = baseline.get(name).copied().with_context(|| format!("{name} has no count yet: run with `-- --accept`"))?;
        let change = count as f64 / before as f64 - 1.0;
        println!("{name:10} {count:12} instructions, {:+.2} % against {before}", change * 100.0);
        if change > TOLERANCE {
            worse.push(name);
        }
    }
    if worse.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "over {:.0} % more instructions: {}. If that is worth it: cargo bench -p proto-tests --bench instructions -- --accept, and commit proto-tests/benches/instructions.txt with the reason",
        TOLERANCE * 100.0,
        worse.join(", ")
    );
    Ok(ExitCode::FAILURE)
}

/// The compiler and what it compiles for: counts of others are not comparable.
fn compiler() -> Result<String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().context("rustc")?;
    Ok(format!("{} {}", String::from_utf8_lossy(&output.stdout).trim(), std::env::consts::ARCH))
}

fn count(case: &str) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*instructions*measured*"]);
    let output = command.arg(std::env::current_exe()?).args(["--case", case]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    match collected.filter(|count| *count > 0 && output.status.success()) {
        Some(count) => Ok(count),
        None => bail!("case {case}: callgrind says nothing of it: {said}"),
    }
}

fn baseline_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

/// The compiler of the counts, and the counts.
fn baseline() -> Result<(String, BTreeMap<String, u64>)> {
    let text = std::fs::read_to_string(baseline_path()).context("benches/instructions.txt")?;
    let compiler = text.lines().find_map(|line| line.strip_prefix("# ")).context("no compiler in benches/instructions.txt")?;
    let counts = text.lines().filter(|line| !line.starts_with('#'));
    let counts = counts.filter_map(|line| line.split_once(' ')).filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
    Ok((compiler.to_owned(), counts.collect()))
}
