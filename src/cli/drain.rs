//! `margay drain` and `margay undrain`: traffic is moved away before the node goes, and comes back (RFC 8326).

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde_json::Value;

use crate::cli::client::{Reply, Target, escape};
use crate::cli::show::pretty;
use crate::cli::terminal::print;
use crate::cli::{Ended, Failure, time};

/// Tell all routes with GRACEFUL_SHUTDOWN, and to the own AS with LOCAL_PREF 0, so that peers prefer other paths.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay drain                                               traffic moves away, sessions stay
  margay drain --shutdown-after 60s --reason 'new kernel'    and a minute later the sessions are shut down")]
pub struct Drain {
    #[command(flatten)]
    target: Target,
    /// Then wait this long (such as `60s` or `2m`) and shut all sessions down with 6/2, until `margay undrain`.
    #[arg(long, value_name = "TIME", value_parser = time::seconds)]
    shutdown_after: Option<Duration>,
    /// Tell peers why, in the NOTIFICATION that shuts the sessions down (RFC 9003).
    #[arg(long, value_name = "TEXT", requires = "shutdown_after", default_value = "")]
    reason: String,
}

/// Back in service: routes as before, and sessions that a drain shut down start again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay undrain           routes are told as before
  margay undrain --json    and what the daemon says of it, for a program")]
pub struct Undrain {
    #[command(flatten)]
    target: Target,
}

impl Drain {
    /// Tells the daemon.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let state = order(&self.target, "/v1/drain")?;
        let Some(after) = self.shutdown_after else {
            let words = "The node is drained: peers are told every route with GRACEFUL_SHUTDOWN (65535:0) and prefer other paths.\n\
                         `margay undrain` ends it; so does a restart of the daemon.\n";
            return say(&self.target, &state, words);
        };
        if !self.target.json {
            print(&format!("The node is drained; sessions are shut down in {} s.\n", after.as_secs()))?;
        }
        std::thread::sleep(after);
        let state = order(&self.target, &format!("/v1/drain?shutdown={}", escape(&self.reason)))?;
        say(&self.target, &state, "All sessions are shut down. `margay undrain` starts them again; so does a restart of the daemon.\n")
    }
}

impl Undrain {
    /// Tells the daemon.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let state = order(&self.target, "/v1/undrain")?;
        say(&self.target, &state, "The node is in service.\n")
    }
}

fn order(target: &Target, path: &str) -> Result<Value, Failure> {
    match target.post::<Value>(path)? {
        Reply::Found(state) => Ok(state),
        Reply::Missing(why) => Err(Failure::Other(anyhow!("the daemon knows no drain ({}): is it of this version?", why.trim()))),
    }
}

fn say(target: &Target, state: &Value, words: &str) -> Result<Ended, Failure> {
    print(&if target.json { pretty(state) } else { words.to_owned() })?;
    Ok(Ended::Done)
}
