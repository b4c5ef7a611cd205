//! `margay`: subcommands to the command line or to the daemon.

fn main() {}
