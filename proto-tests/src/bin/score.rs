//! margay and other speakers under malformed messages: `cargo score --help`.
//!
//! What is played, and how, says [`proto_tests::compare::hostile`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use proto_tests::compare;
use proto_tests::compare::hostile::{self, Outcome};
use proto_tests::compare::speaker::Speaker;
use proto_tests::lab::{enclosure, process};
use proto_tests::live::faults::{Fate, Row, external_rows, structure};

/// Plays malformed UPDATEs to margay and whichever of BIRD, FRR, GoBGP and OpenBGPD are installed, and prints what became of each row.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo score")]
struct Options {
    /// Speakers [default: those that are installed].
    #[arg(long, value_delimiter = ',')]
    speakers: Vec<String>,
    /// Another program: `bird3=/opt/bird3/sbin/bird`. The name begins with margay, bird, frr, gobgp, rustybgp or openbgpd.
    #[arg(long, value_name = "NAME=PATH")]
    bin: Vec<String>,
    /// Only rows in whose names this is.
    #[arg(long, default_value = "")]
    only: String,
    /// Writes the table there too.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match score() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("score: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// 0 where margay has done everything right.
fn score() -> Result<ExitCode> {
    let options = Options::parse();
    if let Some(code) = enclosure::enter_with_margay()? {
        return Ok(code);
    }
    compare::furnish()?;
    furnish()?;
    let rows: Vec<Row> = structure().into_iter().chain(external_rows()).filter(|row| row.what.contains(&options.only)).collect();
    ensure!(!rows.is_empty(), "no row has `{}` in its name", options.only);
    let mut columns = Vec::new();
    let (speakers, lacking) = Speaker::chosen(&options.speakers, &options.bin)?;
    lacking.iter().for_each(|line| eprintln!("{line}"));
    for speaker in speakers {
        eprintln!("{}: {} ({})", speaker.name, speaker.program.display(), speaker.version());
        let (outcomes, complaints) = hostile::play(&speaker, &rows)?;
        columns.push(Column { title: speaker.name.clone(), version: speaker.version(), outcomes, complaints });
    }
    let table = table(&rows, &columns);
    print!("{table}");
    if let Some(path) = &options.write {
        std::fs::write(path, &table).with_context(|| path.display().to_string())?;
    }
    let wrong = |column: &Column| column.title == "margay" && rows.iter().zip(&column.outcomes).any(|(row, outcome)| !outcome.is(row.fate));
    Ok(if columns.iter().any(wrong) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The subnet that the rows' next hops lie in.
fn furnish() -> Result<()> {
    let mut command = std::process::Command::new("ip");
    command.args(["-batch", "-"]);
    let link = "link add link0 type veth peer name link1\nlink set link1 up\nlink set link0 up\naddr add 192.0.2.1/24 dev link0\n";
    process::run(command, Some(link)).map(drop)
}

struct Column {
    title: String,
    version: String,
    outcomes: Vec<Outcome>,
    complaints: BTreeMap<String, usize>,
}

fn fate(row: &Row) -> String {
    match row.fate {
        Fate::Announced([]) => "announced".to_owned(),
        Fate::Announced(codes) => format!("without {}", codes.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")),
        Fate::Withdrawn => "withdrawn".to_owned(),
        Fate::Ignored => "kept".to_owned(),
        Fate::Reset(code, subcode) => format!("reset {code}/{subcode}"),
    }
}

const HEAD: &str = "\
What becomes of malformed UPDATEs: `cargo score --write proto-tests/hostile.txt`.

Each row is a good route of a peer, said again with the fault. `.` is what is wanted; words are what happened instead. `~`: the RFCs leave a
choice there, or are younger than the speaker, so the row does not count for others. Sessions are configured alike, with no check that is
off by default. reset: the session ends by that NOTIFICATION; closed: without one; deaf: it stays, and nothing of it is passed on any more;
DIED: the process ended; SPREAD: other sessions or their routes suffered. Of a reset the code counts, not the subcode.

";

type Kind = fn(&Row, &Outcome) -> bool;

fn table(rows: &[Row], columns: &[Column]) -> String {
    let wide = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
    let mut text = HEAD.to_owned();
    for column in columns {
        let _ = writeln!(text, "{}: {}", column.title, column.version);
    }
    let _ = write!(text, "\n{:wide$}  {:12}", "", "wanted");
    columns.iter().for_each(|column| text += &format!("  {:11}", column.title));
    for (number, row) in rows.iter().enumerate() {
        let _ = write!(text, "\n{:wide$}{} {:12}", row.what, if row.choice { "~" } else { " " }, fate(row));
        for column in columns {
            let outcome = &column.outcomes[number];
            let cell = if outcome.is(row.fate) { ".".to_owned() } else { outcome.word() };
            let _ = write!(text, "  {cell:11}");
        }
    }
    text += "\n\n";
    let kinds: [(&str, Kind); 5] = [
        ("as wanted, of those that count", |row, outcome| !row.choice && outcome.is(row.fate)),
        ("a session lost without need", |row, outcome| {
            !row.choice && !matches!(row.fate, Fate::Reset(..)) && matches!(outcome, Outcome::Reset(..) | Outcome::Closed)
        }),
        ("the process died", |_, outcome| *outcome == Outcome::Died),
        ("others suffered", |_, outcome| *outcome == Outcome::Spread),
        ("the older path stays in use", |row, outcome| !row.choice && row.fate == Fate::Withdrawn && *outcome == Outcome::Kept),
    ];
    for (what, is) in kinds {
        let _ = write!(
            text,
            "{what:wide$}  {:12}",
            if what.starts_with("as wanted") { rows.iter().filter(|row| !row.choice).count().to_string() } else { String::new() }
        );
        for column in columns {
            let count = rows.iter().zip(&column.outcomes).filter(|(row, outcome)| is(row, outcome)).count();
            let _ = write!(text, "  {count:<11}");
        }
        text += "\n";
    }
    let _ = write!(text, "{:wide$}  {:12}", "complaints of a strict reader", "");
    columns.iter().for_each(|column| text += &format!("  {:<11}", column.complaints.values().sum::<usize>()));
    text += "\n";
    for column in columns {
        if let Some((complaint, count)) = column.complaints.iter().max_by_key(|(_, count)| **count) {
            let _ = write!(text, "\nmost often of {}: {complaint} ({count})", column.title);
        }
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}
