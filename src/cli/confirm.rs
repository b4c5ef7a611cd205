//! `margay confirm`: a change of the files that is on trial counts for good, or is undone.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cli::client::{Reply, Target};
use crate::cli::show::{cell, pretty};
use crate::cli::terminal::print;
use crate::cli::{Ended, Failure, time};

/// Say that a change of the files is right: without that, it is undone when its time is up (`margay run --confirm`).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay confirm              the change was right, and stays
  margay confirm --undo       it was not: go back at once
  margay confirm --next 10    before a change: undo the next one unless it is confirmed within ten minutes")]
pub struct Confirm {
    #[command(flatten)]
    target: Target,
    /// Go back to what was confirmed last, now. The files stay as they are and count again once they change.
    #[arg(long)]
    undo: bool,
    /// The next change of the files is on trial for this long, also without `margay run --confirm`; in minutes, or such as `90s`.
    #[arg(long, value_name = "MINUTES", value_parser = time::minutes, conflicts_with = "undo")]
    next: Option<Duration>,
}

impl Confirm {
    /// Tells the daemon.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let path = match (self.undo, self.next) {
            (true, _) => "/v1/confirm?undo=true".to_owned(),
            (false, Some(time)) => format!("/v1/confirm?next={}", time.as_secs()),
            (false, None) => "/v1/confirm".to_owned(),
        };
        match self.target.post::<Value>(&path)? {
            Reply::Found(standing) if self.target.json => print(&pretty(&standing))?,
            Reply::Found(standing) => print(&words(&standing))?,
            Reply::Missing(why) => {
                eprintln!("margay: {}", why.trim());
                return Ok(Ended::No);
            }
        }
        Ok(Ended::Done)
    }
}

fn words(standing: &Value) -> String {
    match standing["trial"].as_str() {
        Some("armed") => format!(
            "The next change of the files is undone unless it is confirmed within {} s.\n\
             Change them now, look (`margay show health`), then `margay confirm`.\n",
            cell(&standing["seconds"])
        ),
        Some("undone") => "Undone: what was confirmed before counts again. The files are as they were changed; mend them,\n\
                           or `margay confirm` says that they are right after all.\n"
            .to_owned(),
        _ => "Confirmed: what the files say counts for good.\n".to_owned(),
    }
}
