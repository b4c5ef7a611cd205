//! The list of what margay must do on the wire, `bar.txt`, against the tests that there are: each statement is named by one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proto_tests::live::faults::{external_rows, structure};

/// One line of the list.
#[derive(Debug)]
struct Statement {
    number: String,
    priority: String,
    /// Why no test has to name it.
    exempt: bool,
}

fn list() -> Vec<Statement> {
    let lines = include_str!("../bar.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let statement = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().unwrap_or_else(|| panic!("number, priority, sense: {line}")).to_owned();
        let (number, priority, sense) = (next(), next(), next());
        let reason = ["differs: ", "later: "].iter().find_map(|word| sense.split_once(word));
        assert!(reason.is_none_or(|(_, why)| why.len() > 20), "a reason, please: {line}");
        Statement { number, priority, exempt: reason.is_some() }
    };
    lines.map(statement).collect()
}

/// `U13a` and the like: a letter, digits, perhaps a letter.
fn is_number(word: &str) -> bool {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_uppercase()).trim_end_matches('a');
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.len() <= 4
        && !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The numbers that a text begins with, in words with these ends.
fn leading(text: &str, ends: &[char]) -> Vec<String> {
    text.split(ends).filter(|word| !word.is_empty()).take_while(|word| is_number(word)).map(str::to_owned).collect()
}

/// `fn f6_f7_ladder` behind `#[test]`: F6, F7.
fn functions(text: &str, named: &mut BTreeSet<String>) {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = line.trim_start_matches("async ").strip_prefix("fn ") else { continue };
        if lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).any(|line| ["#[test]", "#[tokio::test]"].contains(line)) {
            let upper = |word: &str| word[..1].to_uppercase() + &word[1..];
            let name: Vec<String> = name.split(['_', '(']).filter(|word| !word.is_empty()).map(upper).collect();
            named.extend(leading(&name.join("_"), &['_']));
        }
    }
}

/// `"U11, V21 VPN NLRI"` in a table of a test: U11, V21.
fn rows(text: &str, named: &mut BTreeSet<String>) {
    for literal in text.split('"').skip(1).step_by(2).filter(|literal| literal.contains([' ', ':'])) {
        named.extend(leading(literal, &[' ', ',', ':']));
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn named() -> BTreeSet<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut named) = (Vec::new(), BTreeSet::new());
    for folder in [here.join("tests"), here.join("src"), here.join("../src")] {
        sources(&folder, &mut found);
    }
    for path in found {
        let text = fs::read_to_string(&path).expect("a source");
        functions(&text, &mut named);
        // Tables stand in the tests' own files, but for one that others read too.
        if path.starts_with(here.join("tests")) || path.ends_with("src/live/faults.rs") {
            rows(&text, &mut named);
        }
    }
    named
}

#[test]
fn every_statement_is_named_by_a_test() {
    let (list, named) = (list(), named());
    assert!(list.len() > 180, "{} statements", list.len());
    let missing: Vec<&Statement> = list.iter().filter(|statement| !statement.exempt && !named.contains(&statement.number)).collect();
    assert!(missing.is_empty(), "no test begins with the number of: {missing:#?}\n(see bar.txt)");
}

#[test]
fn the_list_is_in_order() {
    let list = list();
    let numbers: BTreeSet<&str> = list.iter().map(|statement| statement.number.as_str()).collect();
    assert_eq!(numbers.len(), list.len(), "a number stands twice");
    for statement in &list {
        assert!(is_number(&statement.number) && ["P0", "P1", "P2"].contains(&statement.priority.as_str()), "{statement:?}");
    }
}

/// `hostile.txt` is of the rows that are played now, and margay does all of them right.
#[test]
fn the_table_of_malformed_messages_has_every_row() {
    let table = include_str!("../hostile.txt");
    let begin = table.lines().position(|line| line.trim_start().starts_with("wanted")).expect("a heading");
    let lines: Vec<&str> = table.lines().skip(begin + 1).take_while(|line| !line.is_empty()).collect();
    let rows: Vec<_> = structure().into_iter().chain(external_rows()).collect();
    assert_eq!(lines.len(), rows.len(), "`cargo score --write proto-tests/hostile.txt` makes it anew");
    let margay = table.lines().nth(begin).and_then(|heading| heading.find("margay")).expect("margay's column");
    for (line, row) in lines.iter().zip(&rows) {
        assert!(line.starts_with(&row.what) && line[margay..].starts_with(". "), "{row:?}: {line}");
        assert_eq!(line[row.what.len()..].contains("~ "), row.choice, "{row:?}: {line}");
    }
}

#[test]
fn numbers_are_read_where_they_stand_in_front() {
    let mut named = BTreeSet::new();
    functions("#[test]\nfn u13a_v4_of_fields_and_x9() {\n#[test]\n#[ignore]\nfn q10_it() {\nfn h1_no_test() {\n", &mut named);
    rows("(\"U11, V21 VPN NLRI\", \"D4: once\", \"T1\", \"AS 5\", \"AS4_PATH \")", &mut named);
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["D4", "Q10", "U11", "U13a", "V21", "V4"]);
}
