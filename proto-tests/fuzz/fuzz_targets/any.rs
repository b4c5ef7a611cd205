//! Any of the targets: the one that `MARGAY_FUZZ` names.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use proto_tests::fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("MARGAY_FUZZ").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| panic!("MARGAY_FUZZ is `{name}`, which is no target"))
});

fuzz_target!(|data: &[u8]| (TARGET.body)(data));
