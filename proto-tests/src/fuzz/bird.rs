//! Lines for `bird.ctl`: each is a command or is refused with a code of BIRD's.

use margay::control::bird;

/// See the module.
pub fn body(data: &[u8]) {
    let line = String::from_utf8_lossy(data);
    if let Err((code, words)) = bird::understand(&line) {
        assert!((8000..10_000).contains(&code) && !words.is_empty(), "{line:?}: {code} {words}");
        assert!(!words.contains('\n'), "one line: {words:?}");
    }
}

/// What tools say.
pub fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        "show status",
        "show protocols",
        "show protocols all Mesh_10_0_0_1",
        "show protocols all \"Mesh_*\"",
        "show route",
        "show route all for 10.0.0.1",
        "show route 10.0.0.0/8 table master protocol \"Mesh_10_0_0_1\" primary",
        "show route export Mesh_10_0_0_1 count",
        "show route where net ~ [ 10.0.0.0/8+ ]",
        "show symbols",
        "restrict",
        "configure check",
        "echo all",
    ];
    lines.map(|line| line.as_bytes().to_vec()).into()
}
