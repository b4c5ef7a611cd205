//! `margay workload …`: the embedded agent, for hosts without Felix.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::agent::host::{By, Host};
use crate::agent::nat;
use crate::agent::resources::{Declared, Workload, read};
use crate::cli::show::{cell, pretty};
use crate::cli::table::{Cell, Table, column};
use crate::cli::terminal::{Look, Screen, print};
use crate::cli::{Ended, Failure};

/// How often `--watch` looks at files and kernel.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What to do with workloads.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay workload add web --netns web --address 10.244.1.5     plumbs a workload
  margay workload apply /etc/margay/resources --watch          keeps this host as the files declare it
  margay workload list                                         what is plumbed

It does nothing where Felix or Calico's CNI plugin is at work.")]
pub struct WorkloadVerb {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a workload's interface, addresses and routes, or mend them. margay learns the routes from the kernel and announces them.
    #[command(after_help = "Examples:
  margay workload add web --netns web --address 10.244.1.5                          ip netns add web
  margay workload add db --netns 4711 --address 10.244.1.6 --address fd00:10::6     the namespace of a process
  margay workload add vpn --netns /run/netns/vpn --interface net1 --address 10.244.1.255")]
    Add {
        /// Name of the workload.
        name: String,
        /// Its network namespace: a name in /run/netns, a path, or the number of a process.
        #[arg(long, value_name = "NETNS")]
        netns: String,
        /// An address; may be given several times.
        #[arg(long = "address", value_name = "ADDRESS", required = true, value_delimiter = ',')]
        addresses: Vec<IpAddr>,
        /// Name of its interface in the namespace [default: eth0].
        #[arg(long, value_name = "NAME")]
        interface: Option<String>,
        /// MTU of both ends [default: the kernel's].
        #[arg(long, value_name = "OCTETS")]
        mtu: Option<u32>,
    },
    /// Remove a workload's interface, and with it addresses and routes. Exit 1 if there is none.
    #[command(after_help = "Examples:
  margay workload delete web     the namespace stays")]
    Delete {
        /// Name of the workload.
        name: String,
    },
    /// What is plumbed, as the kernel has it.
    #[command(after_help = "Examples:
  margay workload list           name, interface, addresses
  margay workload list --json    the same for programs")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        look: Look,
    },
    /// Make this host what files declare: Workloads, PortExposures (DNAT), and natOutgoing of IPPools. Only differences are written.
    #[command(after_help = "Examples:
  margay workload apply /etc/margay/resources             once; exit 1 if something could not be done
  margay workload apply /etc/margay/resources --watch     and again when files or the kernel change")]
    Apply {
        /// Files or folders of resources (YAML or JSON).
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Go on: look at files and kernel every two seconds.
        #[arg(long)]
        watch: bool,
    },
}

impl WorkloadVerb {
    /// Does it.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        match self.what {
            What::Add { name, netns, addresses, interface, mtu } => {
                let workload = Workload::new(&name, &netns, addresses, interface, mtu).map_err(|what| anyhow!(what))?;
                let writes = Host::open()?.ensure(&workload, By::Command)?;
                print(&format!("{name}: {}, {writes} writes\n", workload.link()))?;
                Ok(Ended::Done)
            }
            What::Delete { name } => {
                if Host::open()?.remove(&name)? {
                    return Ok(Ended::Done);
                }
                eprintln!("margay: no workload `{name}`: `margay workload list` names them");
                Ok(Ended::No)
            }
            What::List { json, look } => {
                let all = json!(Host::look()?.list()?);
                print(&if json { pretty(&all) } else { list(&all, &Screen::of_stdout(look)) })?;
                Ok(Ended::Done)
            }
            What::Apply { paths, watch } => apply(&paths, watch),
        }
    }
}

fn list(all: &Value, screen: &Screen) -> String {
    let mut table =
        Table::new(&[column("NAME").text(16), column("BY"), column("INTERFACE"), column("STATE"), column("ADDRESSES").text(16)]);
    for workload in all.as_array().into_iter().flatten() {
        let addresses: Vec<String> = workload["addresses"].as_array().into_iter().flatten().map(cell).collect();
        table.row([
            Cell::from(cell(&workload["name"])),
            Cell::from(cell(&workload["by"])),
            Cell::from(cell(&workload["interface"])),
            Cell::from(if workload["up"].as_bool().unwrap_or(false) { "up" } else { "down" }.to_owned()),
            Cell::from(addresses.join(" ")),
        ]);
    }
    if table.is_empty() { "no workloads of ours\n".into() } else { table.render(screen) }
}

/// What one run has come to, in words; the same again is not said twice.
fn apply(paths: &[PathBuf], watch: bool) -> Result<Ended, Failure> {
    let mut said = String::new();
    loop {
        let (text, whole) = once(paths)?;
        if text != said {
            print(&text)?;
        }
        if !watch {
            return Ok(if whole { Ended::Done } else { Ended::No });
        }
        said = text;
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn once(paths: &[PathBuf]) -> anyhow::Result<(String, bool)> {
    let (declared, problems) = read(&crate::datastore::load(paths));
    let mut host = Host::open()?;
    let mut text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    // What a document with a fault had declared is not taken to be gone.
    let removed = if problems.is_empty() { host.remove_others(&declared.workloads)? } else { 0 };
    let (writes, mut faults) = plumb(&mut host, &declared);
    let plumbed = declared.workloads.len() - faults.len();
    let translated = if problems.is_empty() { nat::ensure(&declared) } else { Ok(false) };
    if let Err(error) = &translated {
        faults.push(format!("{error:#}"));
    }
    faults.iter().for_each(|fault| text.push_str(&format!("{fault}\n")));
    let table = if translated.unwrap_or(false) { ", the nftables table anew" } else { "" };
    text.push_str(&format!("{plumbed} workloads, {} ports: {removed} removed, {writes} writes{table}\n", declared.exposures.len()));
    Ok((text, problems.is_empty() && faults.is_empty()))
}

/// All workloads; those that others were in the way of once more. Writes, and what could not be done.
fn plumb(host: &mut Host, declared: &Declared) -> (usize, Vec<String>) {
    let mut writes = 0;
    let mut left: Vec<&Workload> = declared.workloads.values().collect();
    let mut faults = Vec::new();
    for _ in 0..2 {
        faults.clear();
        left.retain(|workload| match host.ensure(workload, By::File) {
            Ok(count) => {
                writes += count;
                false
            }
            Err(error) => {
                faults.push(format!("workload {}: {error:#}", workload.name));
                true
            }
        });
    }
    (writes, faults)
}
