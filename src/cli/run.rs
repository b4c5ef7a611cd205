//! `margay run`: flags, environment and logging of the daemon.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};

use crate::cli::{Ended, Failure, replace, time};
use crate::datastore::{self, Variables};
use crate::runtime::log::{Format, Log};
use crate::runtime::memory_guard::MemoryLimit;
use crate::runtime::{self, alarm, bmp, settings::Settings};
use crate::telemetry::bmp::View;

/// Flags of the daemon.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay run --node node1 --resources /etc/margay/resources              from files, watched for changes
  margay run --datastore kubernetes --bird-sockets /var/run/calico       in calico-node's place of BIRD and confd
  margay run --page 127.0.0.1:9181                                       with a page for eyes on this host
  margay run --bmp 192.0.2.10:1790 --bmp-views pre,post,out,loc          tells a BMP collector everything
  margay run --node node1 --replace                                      a new binary takes the place of the one that runs
  margay run --dry-run --socket /tmp/margay.sock --state /tmp/margay     a look at it: BGP, but nothing written to the kernel")]
pub struct Run {
    /// Which Node resource is ours [default: what $CALICO_NODENAME_FILE (/var/lib/calico/nodename) says, else $HOSTNAME,
    /// else the host's name].
    #[arg(long, env = "NODENAME", value_name = "NAME")]
    node: Option<String>,
    /// Where resources come from [default: $DATASTORE_TYPE (file, etcdv3 or kubernetes), else etcd where $ETCD_ENDPOINTS is
    /// set and no --resources, else file].
    #[arg(long, value_enum, value_name = "KIND")]
    datastore: Option<datastore::Kind>,
    /// File or folder of Calico v3 resources (YAML or JSON), watched; may be given several times
    /// [default: /etc/margay/resources].
    #[arg(long, env = "MARGAY_RESOURCES", value_name = "PATH", value_delimiter = ':')]
    resources: Vec<PathBuf>,
    /// Address to listen on for BGP; may be given several times [default: 0.0.0.0 and ::, or what bindMode says].
    #[arg(long, env = "MARGAY_LISTEN", value_name = "ADDR", value_delimiter = ',')]
    listen: Vec<IpAddr>,
    /// Control socket.
    #[arg(long, env = "MARGAY_SOCKET", value_name = "PATH", default_value = "/run/margay/margay.sock")]
    socket: PathBuf,
    /// Folder to serve `bird.ctl` and `bird6.ctl` in, read-only, for the tools that ask BIRD (`/var/run/calico` in its place).
    #[arg(long, env = "MARGAY_BIRD_SOCKETS", value_name = "DIR")]
    bird_sockets: Option<PathBuf>,
    /// Serve /metrics (Prometheus), /livez and /readyz over TCP, for instance on 127.0.0.1:9180 [default: only on the control socket].
    #[arg(long, env = "MARGAY_METRICS", value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Serve a page over TCP that shows peers, topology, routes and events, read-only, for instance on 127.0.0.1:9181; and /birdwatcher there,
    /// for the looking glass alice-lg [default: none].
    #[arg(long, env = "MARGAY_PAGE", value_name = "ADDR:PORT")]
    page: Option<SocketAddr>,
    /// With --page: the address may be another than a loopback one, and whoever reaches it may look.
    #[arg(long, env = "MARGAY_PAGE_BEYOND_LOOPBACK", requires = "page")]
    page_beyond_loopback: bool,
    /// Tell a BMP collector (RFC 7854) at this address what peers say and what becomes of it; may be given several times, eight at most. We
    /// connect; one that is away is tried again after 1 s, then twice as long each time, up to 30 s.
    #[arg(long, env = "MARGAY_BMP", value_name = "ADDR:PORT", value_delimiter = ',')]
    bmp: Vec<SocketAddr>,
    /// With --bmp: what is told. `pre` and `post`: Adj-RIB-In before and after import policy; `out`: Adj-RIB-Out after export policy (RFC 8671);
    /// `loc`: Loc-RIB (RFC 9069).
    #[arg(long, env = "MARGAY_BMP_VIEWS", value_name = "VIEWS", value_delimiter = ',', value_enum, default_value = "pre,post,loc")]
    bmp_views: Vec<BmpView>,
    /// With --bmp: seconds between two Statistics Reports.
    #[arg(long, env = "MARGAY_BMP_STATISTICS", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=3600))]
    bmp_statistics: u16,
    /// How long the routes of a local agent (POST /v1/agents/NAME on the control socket) stay when its connection is gone; in seconds, or such
    /// as `5m`. 0: they go at once.
    #[arg(long, env = "MARGAY_AGENT_HOLD", value_name = "TIME", default_value = "5m", value_parser = time::seconds)]
    agent_hold: Duration,
    /// Folder for the last known configuration, kept there as `last-known.json`; with --confirm, for `confirmed.json`; for what local agents
    /// have told, `agents.json`.
    #[arg(long, env = "MARGAY_STATE", value_name = "DIR", default_value = "/var/lib/margay")]
    state: PathBuf,
    /// Resources in files: a change of them is undone unless `margay confirm` comes within this time; in minutes, or such as `90s`
    /// [default: a change counts for good].
    #[arg(long, env = "MARGAY_CONFIRM", value_name = "MINUTES", value_parser = time::minutes)]
    confirm: Option<Duration>,
    /// How much memory margay may use, such as 512M or 2G; or `none`. At 90 % of it the peer with the most paths is no longer read; at it, that
    /// peer's session is ended for ten minutes (Cease 6/8), before the kernel ends margay [default: 75 % of the control group's limit, or of the
    /// machine's memory].
    #[arg(long, env = "MARGAY_MEMORY_LIMIT", value_name = "SIZE")]
    memory_limit: Option<MemoryLimit>,
    /// Write what every machine hears and says into this folder, a file a machine, no keys; a file begins anew at 64 MiB, and the one before it is
    /// kept. Those of sessions can be run again as a test; they all belong to a bug report [default: nothing is recorded].
    #[arg(long, env = "MARGAY_RECORD", value_name = "DIR")]
    record: Option<PathBuf>,
    /// Speak BGP, but write nothing to the kernel.
    #[arg(long)]
    dry_run: bool,
    /// This node forwards nothing, as a reflector that no packet passes: nothing is written to the kernel, and nothing is kept for it, so
    /// `margay show kernel` has nothing to tell.
    #[arg(long, env = "MARGAY_NO_FIB")]
    no_fib: bool,
    /// Routes that leave the same way go by one next-hop object of the kernel (`ip nexthop`; Linux 5.3 and later), so that a next hop that
    /// dies moves all its routes in one message; IPv6 routes are also written sooner and take less of the kernel's memory. Such routes go
    /// with their interface's carrier, where IPv4 routes otherwise wait for it to come back.
    #[arg(long, env = "MARGAY_NEXT_HOP_OBJECTS")]
    next_hop_objects: bool,
    /// Threads that the table is divided among by prefix. With cores to spare, more than one withdraw a large table, and choose among many
    /// paths, sooner, at the price of memory and of messages: prefixes with the same attributes that belong to different threads are told in
    /// different messages.
    #[arg(long, env = "MARGAY_SHARDS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    shards: u16,
    /// An upgrade in place: the daemon that answers on the control socket ends as for a restart, once this one has a configuration to run with;
    /// kernel routes stay, and peers keep theirs. Without such a daemon this one just starts. Where a service manager has started it, that
    /// restarts it (`systemctl restart margay`).
    #[arg(long)]
    replace: bool,
    /// error, warn, info, debug or trace, of margay itself; or directives such as `info,margay::session=debug` [default: what
    /// BGPConfiguration's logSeverityScreen says, live].
    #[arg(long, env = "MARGAY_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines look.
    #[arg(long, env = "MARGAY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// What a BMP collector is told.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum BmpView {
    Pre,
    Post,
    Out,
    Loc,
}

impl From<BmpView> for View {
    fn from(view: BmpView) -> Self {
        match view {
            BmpView::Pre => Self::PrePolicy,
            BmpView::Post => Self::PostPolicy,
            BmpView::Out => Self::AdjRibOut,
            BmpView::Loc => Self::LocRib,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Turns of tasks between two looks at sockets and timers. A turn of a peer that tells a table takes a millisecond: with tokio's 61 of
/// them, keepalives of others would wait.
const TURNS: u32 = 8;

impl Run {
    /// Runs the daemon until a signal ends it.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let format = match self.log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        let log = Log::start(self.log_level.as_deref(), format)?;
        let replace = self.replace;
        let settings = self.settings(log)?;
        let workers = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        alarm::align();
        // Where there is one worker this thread is it: a scheduler that shares nothing costs a tenth less of each wake.
        let mut builder = match workers {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(workers).event_interval(TURNS).enable_all().build().context("cannot start the runtime")?;
        if replace {
            replace::make_room(&settings, &runtime)?;
        }
        runtime.block_on(runtime::run(settings))?;
        Ok(Ended::Done)
    }

    fn settings(self, log: Log) -> anyhow::Result<Settings> {
        let variables = Variables::of_process();
        let node = match self.node.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => node_name(&variables)?,
        };
        let kind = datastore::Kind::choose(self.datastore, !self.resources.is_empty(), &variables)?;
        let datastore = datastore::Settings::new(kind, self.resources, node, variables).on_trial(self.confirm)?;
        Ok(Settings {
            datastore,
            listen: self.listen,
            socket: self.socket,
            bird_sockets: self.bird_sockets,
            metrics: self.metrics,
            page: self.page,
            page_beyond_loopback: self.page_beyond_loopback,
            bmp: bmp(self.bmp, self.bmp_views, self.bmp_statistics)?,
            state: self.state,
            agent_hold: self.agent_hold,
            record: self.record,
            dry_run: self.dry_run || self.no_fib,
            no_fib: self.no_fib,
            next_hop_objects: self.next_hop_objects,
            shards: self.shards,
            memory_limit: self.memory_limit.unwrap_or_default(),
            log,
        })
    }
}

fn bmp(collectors: Vec<SocketAddr>, views: Vec<BmpView>, seconds: u16) -> anyhow::Result<bmp::Settings> {
    if collectors.len() > bmp::COLLECTORS {
        bail!("--bmp: {} collectors, but no more than {} can be told: leave some out", collectors.len(), bmp::COLLECTORS);
    }
    let views = views.into_iter().map(View::from).collect();
    Ok(bmp::Settings { collectors, views, statistics: Duration::from_secs(seconds.into()) })
}

/// The node's name as calico-node finds it where `NODENAME` is not set: from the file that its start has written, else
/// the host name in lower case.
fn node_name(variables: &Variables) -> anyhow::Result<String> {
    let line = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|name| !name.is_empty());
    if let Some(name) = line(variables.exactly("CALICO_NODENAME_FILE").unwrap_or("/var/lib/calico/nodename")) {
        return Ok(name);
    }
    let host = variables.exactly("HOSTNAME").map(|name| name.trim().to_owned()).or_else(|| line("/proc/sys/kernel/hostname"));
    host.map(|name| name.to_lowercase()).ok_or_else(|| anyhow!("cannot tell the node's name: give --node NAME"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_name_comes_from_calicos_file_then_from_the_host() {
        let folder = std::env::temp_dir().join(format!("margay-nodename-{}", std::process::id()));
        std::fs::write(&folder, "Worker-1\n").unwrap();
        let path = folder.to_str().unwrap();
        let name = |variables: &[(&str, &str)]| node_name(&variables.iter().copied().collect()).unwrap();
        assert_eq!(name(&[("CALICO_NODENAME_FILE", path), ("HOSTNAME", "other")]), "Worker-1");
        std::fs::write(&folder, "\n").unwrap();
        assert_eq!(name(&[("CALICO_NODENAME_FILE", path), ("HOSTNAME", "Other")]), "other");
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(name(&[("CALICO_NODENAME_FILE", path), ("HOSTNAME", " Other")]), "other");
        assert!(!name(&[("CALICO_NODENAME_FILE", path)]).is_empty());
    }
}
