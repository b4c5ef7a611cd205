//! `margay dump mrt FILE`: what peers have told, for the tools that read MRT.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::cli::client::{Reply, Target};
use crate::cli::terminal::print;
use crate::cli::{Ended, Failure, whole_file};

/// What to dump.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay dump mrt table.mrt    what all peers have told, for bgpdump")]
pub struct Dump {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All peers' Adj-RIB-In, before policy, as an MRT table dump (RFC 6396, RFC 8050).
    ///
    /// `bgpdump -m FILE`, mrtparse or bgpkit read it.
    #[command(after_help = "Examples:
  margay dump mrt table.mrt    what all peers have told, into a file
  margay dump mrt -            or to standard output, for a reader behind a pipe")]
    Mrt {
        /// Where to; `-` is standard output. A file appears when it is whole, and replaces an older one.
        file: PathBuf,
    },
}

impl Dump {
    /// Asks the daemon and writes.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let What::Mrt { file } = self.what;
        if file.as_os_str() == "-" {
            return copy(&self.target, &mut std::io::stdout().lock()).map(|(_, ended)| ended);
        }
        let octets = into_file(&self.target, &file)?;
        let Some(octets) = octets else { return Ok(Ended::No) };
        let text = match self.target.json {
            true => format!("{}\n", serde_json::json!({ "file": file, "octets": octets })),
            false => format!("{}: {octets} octets\n", file.display()),
        };
        print(&text)?;
        Ok(Ended::Done)
    }
}

fn into_file(target: &Target, file: &Path) -> Result<Option<u64>, Failure> {
    whole_file::write(file, 0o666, |out| {
        let mut out = BufWriter::new(out);
        let (octets, ended) = copy(target, &mut out)?;
        out.flush().with_context(|| format!("cannot write {}", file.display()))?;
        Ok(matches!(ended, Ended::Done).then_some(octets))
    })
}

/// Copies the dump; how many octets it has.
fn copy(target: &Target, out: &mut impl Write) -> Result<(u64, Ended), Failure> {
    let mut octets = 0;
    let reply = target.octets("/v1/mrt", |chunk| {
        octets += chunk.len() as u64;
        out.write_all(chunk).context("cannot write the dump")
    })?;
    Ok(match reply {
        Reply::Found(()) => (octets, Ended::Done),
        Reply::Missing(why) => {
            eprintln!("margay: {}", why.trim());
            (octets, Ended::No)
        }
    })
}
