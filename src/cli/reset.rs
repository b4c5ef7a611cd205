//! `margay reset PEER`: a new session, or with `--soft` the routes again.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::client::{Reply, Target, escape};
use crate::cli::{Ended, Failure, complete};

/// Which session, and how.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay reset Mesh_10_0_0_2                        a new session; the routes stay meanwhile (graceful restart)
  margay reset 10.0.0.2 --soft in                   the session stays, the peer tells its routes again
  margay reset Mesh_10_0_0_2 --hard --reason rekey  nobody keeps routes, and the peer is told why")]
pub struct Reset {
    #[command(flatten)]
    target: Target,
    /// Session name or address.
    #[arg(add = complete::peers())]
    peer: String,
    /// Keep the session: ask for the peer's routes again (in), or send ours again (out).
    #[arg(long, value_enum)]
    soft: Option<Direction>,
    /// A hard reset (RFC 8538): the peer does not keep our routes meanwhile, nor we its.
    #[arg(long, conflicts_with = "soft")]
    hard: bool,
    /// Tell the peer why (RFC 9003).
    #[arg(long, value_name = "TEXT", conflicts_with = "soft", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Direction {
    In,
    Out,
}

impl Reset {
    /// Tells the daemon.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let query = match self.soft {
            None => format!("?hard={}&reason={}", self.hard, escape(&self.reason)),
            Some(Direction::In) => "?soft=in".to_owned(),
            Some(Direction::Out) => "?soft=out".to_owned(),
        };
        match self.target.post::<Value>(&format!("/v1/peers/{}/reset{query}", escape(&self.peer)))? {
            Reply::Found(_) => Ok(Ended::Done),
            Reply::Missing(why) => {
                eprintln!("margay: {}", why.trim());
                Ok(Ended::No)
            }
        }
    }
}
