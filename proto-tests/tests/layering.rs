//! The wall and the layers: which room may name which, read from the paths in the source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rooms from the bottom up; a room may use itself and rooms of its own and lower layers.
const LAYERS: [&[&str]; 7] = [
    &["types"],
    &["wire"],
    &["policy", "config"],
    &["session", "rib", "fib", "origin", "calico", "bfd", "telemetry"],
    &["node"],
    &["runtime", "kernel", "datastore", "control", "agent"],
    &["cli", "main"],
];

/// Rooms below the wall.
const PURE: [&str; 12] = ["types", "wire", "policy", "config", "session", "rib", "fib", "origin", "calico", "bfd", "telemetry", "node"];

/// What nothing below the wall may name.
const OUTSIDE: [&str; 8] =
    ["tokio::", "socket2::", "libc::", "std::net::TcpStream", "std::fs::", "std::thread::", "Instant::now", "SystemTime"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src")
}

/// Names of the modules that a folder's `mod.rs` declares for tests only.
fn test_modules(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("mod.rs")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let declared = lines
        .windows(2)
        .filter(|pair| pair[0] == "#[cfg(test)]")
        .filter_map(|pair| pair[1].trim_start_matches("pub(crate) ").strip_prefix("mod "));
    declared.filter_map(|name| name.strip_suffix(';')).map(str::to_owned).collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let tests = test_modules(folder);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|stem| tests.iter().any(|test| *test == *stem.to_string_lossy())) {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn room_of(path: &Path) -> String {
    let relative = path.strip_prefix(source()).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Code lines up to the file's tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]")).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn every_line(mut check: impl FnMut(&str, &str, &str)) {
    let mut found = Vec::new();
    files(&source(), &mut found);
    assert!(found.len() > 50, "the source was not found");
    for path in found {
        let text = std::fs::read_to_string(&path).unwrap();
        let room = room_of(&path);
        for (number, line) in code(&text) {
            check(&room, line, &format!("{}:{number}: {}", path.display(), line.trim()));
        }
    }
}

fn layers() -> BTreeMap<&'static str, usize> {
    LAYERS.iter().enumerate().flat_map(|(layer, rooms)| rooms.iter().map(move |room| (*room, layer))).collect()
}

#[test]
fn imports_go_down_only() {
    let layers = layers();
    let mut wrong = Vec::new();
    every_line(|room, line, place| {
        let Some(layer) = layers.get(room) else { return };
        for (used, its_layer) in &layers {
            if line.contains(&format!("crate::{used}::")) && its_layer > layer {
                wrong.push(format!("{place}  ({room} may not use {used})"));
            }
        }
    });
    assert!(wrong.is_empty(), "imports that go up:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_has_a_layer() {
    let layers = layers();
    every_line(|room, _, place| assert!(room == "lib" || layers.contains_key(room), "{place}: room `{room}` is in no layer"));
}

#[test]
fn nothing_below_the_wall_names_the_outside() {
    let mut wrong = Vec::new();
    every_line(|room, line, place| {
        if PURE.contains(&room) && OUTSIDE.iter().any(|outside| line.contains(outside)) {
            wrong.push(place.to_owned());
        }
    });
    assert!(wrong.is_empty(), "the outside is named below the wall:\n{}", wrong.join("\n"));
}

#[test]
fn every_pure_room_denies_the_outside() {
    for room in PURE {
        let path = source().join(room).join("mod.rs");
        if !path.exists() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("#![deny(clippy::disallowed_types, clippy::disallowed_methods)]"),
            "{}: the clippy wall is missing",
            path.display()
        );
    }
}

/// Q12: a wall clock that jumps changes nothing, since nothing below the wall has one, and what asks for one above it writes it for
/// people and collectors, or into a file: each place is named here with what it is for.
#[test]
fn q12_the_wall_clock_is_only_written_down() {
    let known = [
        ("datastore/feed.rs", "the end of a trial, for people and across a restart"),
        ("datastore/keeper.rs", "the time in the files of the state folder"),
        ("datastore/meters.rs", "a metric"),
        ("runtime/speaker.rs", "when the configuration was taken"),
        ("runtime/bmp/", "since when a collector is connected; BMP's timestamps"),
        ("runtime/mod.rs", "when the daemon started"),
        ("runtime/metrics.rs", "a metric"),
        ("control/", "answers to people, MRT and the status in the datastore"),
        ("cli/", "what is printed"),
    ];
    let mut wrong = Vec::new();
    every_line(|room, line, place| {
        let asked = ["SystemTime::now", "Timestamp::now", "Zoned::now"].iter().any(|clock| line.contains(clock));
        if asked && (PURE.contains(&room) || !known.iter().any(|(file, _)| place.contains(&format!("src/{file}")))) {
            wrong.push(place.to_owned());
        }
    });
    assert!(wrong.is_empty(), "the wall clock is asked:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_in_two_files_only() {
    let mut wrong = Vec::new();
    every_line(|_, line, place| {
        let allowed = place.contains("runtime/socket/option.rs") || place.contains("kernel/netlink.rs");
        if line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") && !allowed {
            wrong.push(place.to_owned());
        }
    });
    assert!(wrong.is_empty(), "unsafe outside the socket-option and netlink files:\n{}", wrong.join("\n"));
}

#[test]
fn no_locks_and_no_unbounded_channels() {
    let mut wrong = Vec::new();
    every_line(|_, line, place| {
        if ["Mutex<", "RwLock<", "unbounded_channel", "mpsc::unbounded"].iter().any(|banned| line.contains(banned)) {
            wrong.push(place.to_owned());
        }
    });
    assert!(wrong.is_empty(), "locks or unbounded channels:\n{}", wrong.join("\n"));
}
