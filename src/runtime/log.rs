//! The log, and its level, which a running daemon changes when the configuration does.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::config::LogLevel;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The running log.
#[derive(Clone)]
pub struct Log {
    change: Arc<dyn Fn(EnvFilter) -> Result<()> + Send + Sync>,
    /// `--log-level` was given: it wins over the configuration.
    fixed: bool,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("fixed", &self.fixed).finish_non_exhaustive()
    }
}

impl Log {
    /// Starts to log to standard error at `level`; without one at info, until the configuration says otherwise.
    pub fn start(level: Option<&str>, format: Format) -> Result<Self> {
        let filter = level.unwrap_or("info");
        let directives = LogLevel::parse(filter).map_or_else(|| filter.to_owned(), directives);
        let filter = EnvFilter::try_new(directives).with_context(|| format!("--log-level {filter}"))?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
        let change: Arc<dyn Fn(EnvFilter) -> Result<()> + Send + Sync> = match format {
            Format::Text => {
                let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
                let handle = builder.reload_handle();
                builder.init();
                Arc::new(move |filter| Ok(handle.reload(filter)?))
            }
            Format::Json => {
                let builder = builder.json().with_filter_reloading();
                let handle = builder.reload_handle();
                builder.init();
                Arc::new(move |filter| Ok(handle.reload(filter)?))
            }
        };
        Ok(Self { change, fixed: level.is_some() })
    }

    /// The configuration wants this level.
    pub fn apply(&self, level: LogLevel) {
        if self.fixed {
            return;
        }
        if let Err(error) = (self.change)(EnvFilter::new(directives(level))) {
            tracing::warn!(error = format!("{error:#}"), %level, "the log keeps its level");
        }
    }
}

/// A level is margay's own; libraries say at most what is worth knowing. (At trace the file watcher would tell of every line that is
/// written to a log in a watched folder, and that would be another line.)
fn directives(level: LogLevel) -> String {
    format!("{},margay={level}", level.min(LogLevel::Info))
}
