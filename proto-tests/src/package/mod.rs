//! What margay is shipped as, built and tried: the Debian package, and the root filesystem of the container image.
//!
//! ```text
//! margay ── man, completion ─deb→ margay_VERSION_amd64.deb        `cargo pack deb`   (what is in it: Cargo.toml, packaging/debian)
//!        ── packaging/container/assemble → a root filesystem      `cargo pack root`  (the Containerfile's stages do the same)
//! margay.service ─unit→ the command line by which a test starts what systemd would start
//! ```

pub mod deb;
pub mod root;
pub mod unit;
