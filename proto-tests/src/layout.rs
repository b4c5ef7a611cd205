//! Where functions stand in the program: what `cargo layout` makes of traces, and how much of the program such an order knows.
//!
//! ```text
//!                                ┌▶ what runs at each wake of a margay that waits ─┐
//! compare, margay under callgrind ┴▶ names of functions that ran ───────────────────┤
//! nm -S margay ───────────────────▶ names and sizes of all ────────────────────────┴▶ packaging/layout/hot.ld ─▶ linker (packaging/layout/build.rs)
//! ```
//!
//! First stand the functions that a single change runs, one for each of its instances, so that it touches as few pages as can be: after ten
//! milliseconds of rest each page and each line is far away from the processor.
//!
//! Behind them a function is known by its *stem*, its mangled name without the hash at the end, which is another one with each compiler, and of
//! a generic function with many a change of source. The instances of a generic function mostly share a stem and are kept together; those stems
//! come first of which most was run.

use std::collections::{BTreeMap, BTreeSet};

/// How a mangled name goes on where its hash begins (the hash is 16 digits, and counted).
const HASH: &str = "17h";
/// What begins the number of LLVM's module.
const MODULE: &str = ".llvm.";
/// What margay calls when it has nothing to do.
const WAIT: &str = "epoll_wait";
/// A function belongs to a single change if it is called at least once in so many wakes.
const OFTEN: u64 = 3;

/// A mangled name without its hash. What is mangled otherwise, or not at all, stays as it is, but for the number of its module.
pub fn stem(name: &str) -> &str {
    match name.rfind(HASH) {
        Some(hash) if name.starts_with("_ZN") => &name[..hash + HASH.len()],
        _ => without_module(name),
    }
}

/// A name without what LLVM puts behind it where another of its modules wants the function: a number that any change of the module makes
/// otherwise.
fn without_module(name: &str) -> &str {
    name.split_once(MODULE).map_or(name, |(name, _)| name)
}

/// The functions that `nm -S` lists, with their sizes in octets; of those at the same address the first.
pub fn symbols(listing: &str) -> BTreeMap<&str, u64> {
    let mut seen = BTreeSet::new();
    let line = |line: &'_ str| -> Option<(u64, u64, bool)> {
        let mut words = line.split_whitespace();
        let number = |word: Option<&str>| u64::from_str_radix(word?, 16).ok();
        Some((number(words.next())?, number(words.next())?, matches!(words.next()?, "t" | "T" | "w" | "W")))
    };
    let all = listing.lines().filter_map(|text| Some((line(text)?, text.split_whitespace().nth(3)?)));
    all.filter(|((address, _, is_code), _)| *is_code && seen.insert(*address)).map(|((_, size, _), name)| (name, size)).collect()
}

/// The functions that ran, as a file of callgrind names them (`--demangle=no`), those of libraries included.
pub fn ran(trace: &str) -> impl Iterator<Item = &str> {
    let named = trace.lines().filter_map(|line| line.strip_prefix('c').unwrap_or(line).strip_prefix("fn=("));
    // A name is given once and then by its number.
    named.filter_map(|line| line.split_once(") ")).map(|(_, name)| without_depth(name))
}

/// A quote begins the depth of a recursion.
fn without_depth(name: &str) -> &str {
    name.split_once('\'').map_or(name, |(name, _)| name)
}

/// The functions that a trace says were called nearly each time that margay had waited for news, the most called first; and how often it had.
pub fn at_each_wake(trace: &str) -> (u64, Vec<String>) {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    let mut called = "";
    for line in trace.lines() {
        if let Some(reference) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (number, name) = reference.split_once(' ').unwrap_or((reference, ""));
            if !name.is_empty() {
                names.insert(number, without_depth(name));
            }
            called = names.get(number).copied().unwrap_or_default();
        } else if let Some(count) = line.strip_prefix("calls=").and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok()) {
            *calls.entry(called).or_default() += count;
        }
    }
    let wakes = calls.get(WAIT).copied().unwrap_or_default();
    let often = |count: u64| wakes > 0 && count * OFTEN >= wakes;
    let is_rust = |name: &str| name.starts_with("_ZN") || name.starts_with("_R");
    let mut all: Vec<_> = calls.into_iter().filter(|(name, count)| is_rust(name) && often(*count)).collect();
    all.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    (wakes, all.into_iter().map(|(name, _)| name.to_owned()).collect())
}

/// The stems of what ran, those of which most was run first; at the end those that ran in `earlier` recordings, on other machines, if the
/// program still has them. The functions that stand before all are among them: where a hash has changed they stand there, not far away.
pub fn order<'a>(symbols: &BTreeMap<&'a str, u64>, ran: &BTreeSet<String>, earlier: &BTreeSet<&str>) -> Vec<&'a str> {
    let mut stems: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (name, size) in symbols {
        let (of_all, of_ran) = stems.entry(stem(name)).or_default();
        *of_all += size;
        *of_ran += if ran.contains(*name) { *size } else { 0 };
    }
    let tenths = |(of_all, of_ran): (u64, u64)| 10 * of_ran / of_all.max(1);
    let wanted = |stem: &str, of_ran: u64| stem.starts_with('_') && (of_ran > 0 || earlier.contains(stem));
    let mut order: Vec<_> = stems.into_iter().filter(|(stem, (_, of_ran))| wanted(stem, *of_ran)).collect();
    order.sort_by_key(|(stem, sizes)| (std::cmp::Reverse(tenths(*sizes)), *stem));
    order.into_iter().map(|(stem, _)| stem).collect()
}

/// The linker's script: functions by their whole names, then an order of stems. What LLVM takes for unlikely has sections of another name,
/// and runs all the same.
pub fn script(first: &[String], order: &[&str]) -> String {
    let mut script = "/* Made by `cargo layout`; what it is for stands in build.rs. */\nSECTIONS\n{\n  .text.hot :\n  {\n".to_owned();
    for name in first {
        script += &whole(without_module(name));
    }
    for stem in order {
        script += &if stem.ends_with(HASH) { format!("    *(.text.{stem}* .text.unlikely.{stem}*)\n") } else { whole(stem) };
    }
    script + "  }\n}\nINSERT BEFORE .text;\n"
}

/// The line of one function, whatever the number of its module.
fn whole(name: &str) -> String {
    format!("    *(.text.{name} .text.{name}{MODULE}* .text.unlikely.{name} .text.unlikely.{name}{MODULE}*)\n")
}

/// The stems of a script.
pub fn stems(script: &str) -> BTreeSet<&str> {
    let first = script.lines().filter_map(|line| line.trim().strip_prefix("*(.text.")?.split_whitespace().next());
    first.map(|pattern| stem(pattern.trim_end_matches('*'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
0000000000001000 0000000000000064 t _ZN3one4some17h0123456789abcdefE
0000000000002000 0000000000000064 t _ZN3one4some17hfedcba9876543210E
0000000000003000 0000000000000010 T _ZN3two3all17h0123456789abcdefE
0000000000003000 0000000000000010 T _ZN3two5alias17h0123456789abcdefE
0000000000004000 0000000000000010 t _RNvNtCs1_3std5never
0000000000005000 0000000000000010 t _RNvNtCs1_3std6always
0000000000006000 0000000000000010 D DATA
0000000000007000 T no_size
";

    #[test]
    fn what_ran_comes_first_by_how_much_of_it_ran_and_by_names_that_last() {
        let trace = "fn=(1) _ZN3one4some17h0123456789abcdefE\ncfn=(2) _ZN3two3all17h0123456789abcdefE'2\n\
                     calls=1 0\nfn=(1)\ncfn=(3) malloc\nfn=(4) _RNvNtCs1_3std6always\n";
        let ran: BTreeSet<String> = ran(trace).map(str::to_owned).collect();
        let symbols = symbols(LISTING);
        assert_eq!(symbols.len(), 5, "{symbols:?}");
        let earlier = BTreeSet::from(["_RNvNtCs1_3std5never", "_ZN4gone17h"]);
        let order = order(&symbols, &ran, &earlier);
        assert_eq!(order, ["_RNvNtCs1_3std6always", "_ZN3two3all17h", "_ZN3one4some17h", "_RNvNtCs1_3std5never"]);
        let script = script(&["_ZN3one4some17hfedcba9876543210E.llvm.42".to_owned()], &order);
        let first = script.lines().find(|line| line.contains("*(")).unwrap();
        let one = "    *(.text._ZN3one4some17hfedcba9876543210E .text._ZN3one4some17hfedcba9876543210E.llvm.* \
                   .text.unlikely._ZN3one4some17hfedcba9876543210E .text.unlikely._ZN3one4some17hfedcba9876543210E.llvm.*)";
        assert_eq!(first, one);
        assert!(script.contains("\n    *(.text._ZN3one4some17h* .text.unlikely._ZN3one4some17h*)\n"), "{script}");
        let always = ".text._RNvNtCs1_3std6always .text._RNvNtCs1_3std6always.llvm.*";
        assert!(script.contains(&format!("\n    *({always} {})\n", always.replace(".text", ".text.unlikely"))), "{script}");
        assert_eq!(stems(&script), order.into_iter().collect());
    }

    #[test]
    fn what_nearly_each_wake_calls_belongs_to_a_single_change() {
        let trace = "fn=(1) _ZN4loop17h0E\ncfn=(2) epoll_wait\ncalls=9 0\n5 1\ncfn=(3) _ZN4each17h0E'2\ncalls=4 0\n5 1\n\
                     fn=(3)\ncfn=(4) _ZN4rare17h0E\ncalls=2 0\n5 1\ncfn=(3)\ncalls=1 0\n5 1\ncfn=(5) _ZN5often17h0E\ncalls=30 +3\n5 1\n";
        assert_eq!(at_each_wake(trace), (9, vec!["_ZN5often17h0E".to_owned(), "_ZN4each17h0E".to_owned()]));
        assert_eq!(at_each_wake("fn=(1) a\n"), (0, vec![]));
    }
}
