//! Tells the linker where functions stand in the program: those that a node runs side by side, the rest behind them.
//!
//! Most of the program is never run on a given node: the clients of datastores that it does not use, answers to questions nobody asks, what a
//! library brings for others. In the linker's own order what runs is scattered among that, a few functions in each 64 KB, and Linux maps
//! 64 KB around each page that is touched: of 24 MB that margay with 200 sessions took, 12 were text, half of it for nothing. Side by side
//! it is 6 (`cargo bench --workspace --bench compare -- --scenarios S4`).
//!
//! `hot.ld` is that order. Behind the first of them stand the functions that were run in scenarios of the bench, the instances of a generic
//! one together, those of which most was run first. The first are those that each single change runs, by their whole names and without other
//! instances: a process that has rested for some milliseconds finds every page cold, and so they are on 96 pages, not on 236, which is more
//! than a tenth of the time from one neighbour to the next (`cargo bench --workspace --bench compare -- --scenarios S7`). A whole name ends in
//! a hash that another compiler makes otherwise, and for some a small change of source: such a function stands among the rest.
//!
//! The order alone made 156 pages of them. The others went because what is rare on that way is not inlined into it (`#[inline(never)]` in
//! `rib`, `session` and `runtime`: sessions that come and go, walkers, questions, faults): of the functions that a change runs a third was
//! run. Each of them also had a frame as large as its rarest branch wanted: of 12 pages of stack 5 are left. Pages were counted in a trace of
//! one change, `valgrind --tool=lackey --trace-mem=yes margay run …`.
//!
//! `cargo layout` records the order anew. It can only age, not break anything: a function that it does not know stands where it would
//! without it. The test `layout` says when too many are unknown.
//!
//! It is for Linux and glibc on x86-64, whose linker understands it, unless another linker is configured.

use std::env;
use std::path::Path;

fn main() {
    let order = Path::new("packaging/layout/hot.ld");
    println!("cargo::rerun-if-changed={}", order.display());
    println!("cargo::rerun-if-changed=packaging/layout/build.rs");
    if is_usual_linker()
        && let Ok(root) = env::var("CARGO_MANIFEST_DIR")
    {
        println!("cargo::rustc-link-arg-bin=margay=-T{}", Path::new(&root).join(order).display());
    }
}

fn is_usual_linker() -> bool {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let target = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_ARCH", "x86_64");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    target && env::var_os("RUSTC_LINKER").is_none() && !flags.contains("fuse-ld") && !flags.contains("linker")
}
