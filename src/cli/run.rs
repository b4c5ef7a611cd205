//! `margay run`: flags, environment and logging of the daemon.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::cli::{Ended, Failure};
use crate::runtime::{self, settings::Settings};

/// Flags of the daemon.
#[derive(Debug, Args)]
pub struct Run {
    /// Which Node resource is ours [default: $HOSTNAME, else the host's name].
    #[arg(long, env = "NODENAME", value_name = "NAME")]
    node: Option<String>,
    /// File or folder of Calico v3 resources (YAML or JSON), watched; may be given several times.
    #[arg(long, env = "MARGAY_RESOURCES", value_name = "PATH", value_delimiter = ':', default_value = "/etc/margay/resources")]
    resources: Vec<PathBuf>,
    /// Address to listen on for BGP; may be given several times [default: 0.0.0.0 and ::, or what bindMode says].
    #[arg(long, env = "MARGAY_LISTEN", value_name = "ADDR", value_delimiter = ',')]
    listen: Vec<IpAddr>,
    /// Control socket.
    #[arg(long, env = "MARGAY_SOCKET", value_name = "PATH", default_value = "/run/margay/margay.sock")]
    socket: PathBuf,
    /// Folder for the last known configuration (nothing is kept there yet).
    #[arg(long, env = "MARGAY_STATE", value_name = "DIR", default_value = "/var/lib/margay")]
    state: PathBuf,
    /// Speak BGP, but write nothing to the kernel.
    #[arg(long)]
    dry_run: bool,
    /// error, warn, info, debug or trace; or directives such as `info,margay::session=debug`.
    #[arg(long, env = "MARGAY_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// How log lines look.
    #[arg(long, env = "MARGAY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Run {
    /// Runs the daemon until a signal ends it.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        start_log(&self.log_level, self.log_format)?;
        let settings = self.settings()?;
        let workers = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().context("cannot start the runtime")?;
        runtime.block_on(runtime::run(settings))?;
        Ok(Ended::Done)
    }

    fn settings(self) -> anyhow::Result<Settings> {
        let node = match self.node.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => host_name()?,
        };
        Ok(Settings { node, resources: self.resources, listen: self.listen, socket: self.socket, state: self.state, dry_run: self.dry_run })
    }
}

fn host_name() -> anyhow::Result<String> {
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned()));
    name.map(|name| name.to_lowercase()).ok_or_else(|| anyhow!("cannot tell the node's name: give --node NAME"))
}

fn start_log(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level).map_err(|e| anyhow!("--log-level {level}: {e}"))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}
