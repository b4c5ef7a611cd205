//! The same node as BIRD and as margay: sessions, announcements and kernel routes are the same. See `proto_tests::parity`.

use std::process::ExitCode;

fn main() -> ExitCode {
    proto_tests::parity::suite::main()
}
