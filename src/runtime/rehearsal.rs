//! A look ahead: would there be a configuration to run with? Asked before a daemon that runs is told to make room.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::{mpsc, watch};

use crate::datastore::{self, Meters};
use crate::runtime::settings::Settings;
use crate::runtime::tasks::{self, Compiled};

/// Opens the datastore, compiles what it tells, and closes it again. The state folder is read and written as at a start.
///
/// # Errors
/// There is no configuration for our node within this time; why, as far as it is known.
pub async fn rehearse(settings: &Settings, within: Duration) -> Result<()> {
    let feed = datastore::start(&settings.datastore, settings.state.clone(), Meters::default())?;
    let (newest, mut compiled) = watch::channel(Compiled::default());
    // Nobody looks at the machine, and which workloads run here makes no difference to whether there is a configuration.
    let ((_, selected), (_, questions)) = (mpsc::channel(1), mpsc::channel(1));
    let machine = super::compiler_of(settings);
    let task = tokio::spawn(tasks::compiler(machine, feed.inputs, selected, questions, newest, None));
    let first = tokio::time::timeout(within, first_config(&mut compiled)).await;
    // With it goes the feed, and with that the datastore's connections.
    task.abort();
    first.unwrap_or_else(|_| Err(anyhow!("the datastore has not told everything within {} s", within.as_secs())))
}

/// Waits until there is a configuration, or the whole of the resources has none for us.
async fn first_config(compiled: &mut watch::Receiver<Compiled>) -> Result<()> {
    loop {
        let Compiled { config, problems, spoken } = compiled.borrow_and_update().clone();
        if config.is_some() {
            return Ok(());
        }
        if spoken {
            let words: Vec<String> = problems.iter().take(3).map(ToString::to_string).collect();
            bail!("the resources have no configuration for this node: {}", words.join("; "));
        }
        compiled.changed().await.context("the compiler has ended")?;
    }
}
