//! Reads a workload's state back from the kernel and carries out what is planned.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipnet::IpNet;
use serde::Serialize;

use crate::agent::plan::{Actual, MAC, Step, inside_sysctls, is_loopback, plan, sysctls};
use crate::agent::resources::{Workload, link_of};
use crate::agent::{GROUP, felix};
use crate::fib::{KernelOp, KernelRoute};
use crate::kernel::plumbing::{Interface, Plumbing, Veth, hint, inside};

/// What `ifalias` begins with, and then the workload's name: given by a command, or declared in files.
const GIVEN: &str = "margay workload ";
const DECLARED: &str = "margay declared ";
/// A pair is made, the rest is done, and nothing is left; or what was there goes first.
const ROUNDS: usize = 5;
/// `RTPROT_KERNEL`.
const KERNELS_OWN: u8 = 2;
const TABLE_MAIN: u32 = 254;

/// Who answers for a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Whoever gave the command.
    Command,
    /// A file.
    File,
}

impl By {
    fn alias(self, name: &str) -> String {
        let begin = if self == Self::File { DECLARED } else { GIVEN };
        format!("{begin}{name}")
    }
}

/// A workload that is plumbed.
#[derive(Clone, Debug, Serialize)]
pub struct Plumbed {
    /// Its name; none where the work was broken off: it is mended or removed with the next `apply`.
    pub name: Option<String>,
    /// Who answers for it.
    pub by: Option<By>,
    /// Its interface here.
    pub interface: String,
    /// Administratively up.
    pub up: bool,
    /// What is routed to it.
    pub addresses: Vec<IpNet>,
    #[serde(skip)]
    index: u32,
}

/// This host.
pub struct Host {
    here: Plumbing,
}

impl Host {
    /// Opens the way to the kernel, unless workloads here are Felix's.
    ///
    /// # Errors
    /// They are, or the system's.
    pub fn open() -> Result<Self> {
        let mut here = Plumbing::here().context("cannot open a netlink socket")?;
        if let Some(sign) = felix::sign(&here.interfaces()?) {
            bail!("Felix or Calico's CNI plugin is at work on this host ({sign}): workloads are theirs, and nothing was changed");
        }
        Ok(Self { here })
    }

    /// Only to look.
    ///
    /// # Errors
    /// The system's.
    pub fn look() -> Result<Self> {
        Ok(Self { here: Plumbing::here().context("cannot open a netlink socket")? })
    }

    /// The workloads that there are, by interface.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&mut self) -> Result<Vec<Plumbed>> {
        let routes = self.here.routes()?;
        let ours = self.here.interfaces()?.into_iter().filter(|interface| interface.group == GROUP);
        let mut all: Vec<Plumbed> = ours
            .map(|interface| {
                let (by, name) = match (interface.alias.strip_prefix(DECLARED), interface.alias.strip_prefix(GIVEN)) {
                    (Some(name), _) => (Some(By::File), Some(name.to_owned())),
                    (_, Some(name)) => (Some(By::Command), Some(name.to_owned())),
                    _ => (None, None),
                };
                let addresses = by_interface(&routes, interface.index).map(|route| route.key.prefix).collect();
                Plumbed { name, by, interface: interface.name, up: interface.up, addresses, index: interface.index }
            })
            .collect();
        all.sort_by(|a, b| a.interface.cmp(&b.interface));
        Ok(all)
    }

    /// Makes a workload what it should be; how many writes that took.
    ///
    /// # Errors
    /// What is in the way; what was written until then stays, and the next try goes on from there.
    pub fn ensure(&mut self, workload: &Workload, by: By) -> Result<usize> {
        let path = &workload.namespace;
        let namespace = File::open(path).with_context(|| format!("no network namespace {}: make it first", path.display()))?;
        let mut there = Plumbing::of(&namespace).map_err(|error| anyhow!("cannot enter {}: {error}{}", path.display(), hint(&error)))?;
        let alias = by.alias(&workload.name);
        let mut writes = 0;
        for _ in 0..ROUNDS {
            let actual = self.actual(workload, &namespace, &mut there)?;
            if let Some(host) = &actual.host {
                ensure!(host.group == GROUP, "interface {} is there already and is not ours", host.name);
            }
            let steps = plan(workload, &alias, &actual).map_err(|what| anyhow!(what))?;
            if steps.is_empty() {
                return Ok(writes);
            }
            for step in steps {
                self.carry_out(workload, &namespace, &mut there, &step)
                    .map_err(|error| anyhow!("{}: {error}{}", words(&step, workload), hint(&error)))?;
                writes += 1;
            }
        }
        bail!("the kernel does not keep what is written: somebody else changes {} too", workload.link())
    }

    /// Removes a workload by name; whether there was one.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&mut self, name: &str) -> Result<bool> {
        let link = link_of(name);
        let found = self.here.interfaces()?.into_iter().find(|interface| interface.name == link && interface.group == GROUP);
        let Some(interface) = found else { return Ok(false) };
        self.delete(interface.index, &link)?;
        Ok(true)
    }

    /// Removes what no file declares any more: what files had declared, and what was broken off before it had a name. How many.
    ///
    /// # Errors
    /// The system's.
    pub fn remove_others(&mut self, declared: &BTreeMap<String, Workload>) -> Result<usize> {
        let links: Vec<String> = declared.values().map(Workload::link).collect();
        let others = self.list()?.into_iter().filter(|plumbed| plumbed.by != Some(By::Command) && !links.contains(&plumbed.interface));
        let mut removed = 0;
        for plumbed in others {
            self.delete(plumbed.index, &plumbed.interface)?;
            removed += 1;
        }
        Ok(removed)
    }

    fn delete(&mut self, index: u32, name: &str) -> Result<()> {
        match self.here.delete(index) {
            // Its namespace has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            done => done.map_err(|error| anyhow!("cannot remove {name}: {error}{}", hint(&error))),
        }
    }

    fn actual(&mut self, workload: &Workload, namespace: &File, there: &mut Plumbing) -> Result<Actual> {
        let link = workload.link();
        let host = self.here.interfaces()?.into_iter().find(|interface| interface.name == link);
        let interfaces = there.interfaces()?;
        let find = |wanted: &dyn Fn(&Interface) -> bool| interfaces.iter().find(|interface| wanted(interface)).cloned();
        let found = find(&|interface| interface.name == workload.interface);
        let (addresses, routes) = (there.addresses()?, there.routes()?);
        let index = found.as_ref().map_or(0, |interface| interface.index);
        let global = |net: &IpNet| !matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
        Ok(Actual {
            host_routes: match &host {
                Some(host) => by_interface(&self.here.routes()?, host.index).cloned().collect(),
                None => Vec::new(),
            },
            host,
            loopback: find(&is_loopback),
            inside: found,
            inside_addresses: addresses.into_iter().filter(|(of, net)| *of == index && global(net)).map(|(_, net)| net).collect(),
            inside_routes: by_interface(&routes, index).cloned().collect(),
            inside_neighbours: there.neighbours()?,
            sysctls: read_all(&sysctls(workload)),
            inside_sysctls: inside(namespace, || Ok(read_all(&inside_sysctls(workload))))?,
        })
    }

    fn carry_out(&mut self, workload: &Workload, namespace: &File, there: &mut Plumbing, step: &Step) -> io::Result<()> {
        let here = &mut self.here;
        match step {
            Step::Create => here.create(&Veth {
                name: &workload.link(),
                mac: MAC,
                group: GROUP,
                mtu: workload.mtu,
                peer: &workload.interface,
                namespace,
            }),
            Step::Delete(index) => here.delete(*index),
            Step::Alias(index, alias) => here.set_alias(*index, alias),
            Step::Sysctl(path, value) => write_sysctl(path, value),
            Step::InsideSysctl(path, value) => inside(namespace, || write_sysctl(path, value)),
            Step::Up(index) => here.set_up(*index),
            Step::InsideUp(index) => there.set_up(*index),
            Step::DropRoute(route) => here.write(&KernelOp::Delete(route.clone())),
            Step::AddRoute(route) => here.write(&KernelOp::Create(route.clone())),
            Step::DropAddress(index, net) => there.address(*index, *net, false),
            Step::AddAddress(index, net) => there.address(*index, *net, true),
            Step::Neighbour(neighbour) => there.add_neighbour(neighbour),
            Step::DropInside(route) => there.write(&KernelOp::Delete(route.clone())),
            Step::AddInside(route) => there.write(&KernelOp::Create(route.clone())),
        }
    }
}

/// Routes of table main that leave by an interface, but the kernel's own.
fn by_interface(routes: &[KernelRoute], index: u32) -> impl Iterator<Item = &KernelRoute> {
    let leaves = move |route: &&KernelRoute| route.hops.iter().any(|hop| hop.interface == index);
    routes.iter().filter(|route| route.key.table == TABLE_MAIN && route.protocol != KERNELS_OWN).filter(leaves)
}

fn read_all(wanted: &[(String, &'static str)]) -> BTreeMap<String, String> {
    let read = |path: &String| Some((path.clone(), fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().to_owned()));
    wanted.iter().filter_map(|(path, _)| read(path)).collect()
}

fn write_sysctl(path: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(path), value)
}

/// What was tried, for an error.
fn words(step: &Step, workload: &Workload) -> String {
    let (link, interface) = (workload.link(), &workload.interface);
    match step {
        Step::Create => format!("cannot make the pair {link} and {interface}"),
        Step::Delete(_) => format!("cannot remove {link}"),
        Step::Alias(..) => format!("cannot set the alias of {link}"),
        Step::Sysctl(path, value) => format!("cannot set /proc/sys/{path} to {value}"),
        Step::InsideSysctl(path, value) => format!("cannot set /proc/sys/{path} to {value} in its namespace"),
        Step::Up(_) => format!("cannot set {link} up"),
        Step::InsideUp(_) => format!("cannot set {interface} and lo up in its namespace"),
        Step::DropRoute(route) => format!("cannot remove the route to {}", route.key.prefix),
        Step::AddRoute(route) => format!("cannot add the route to {}", route.key.prefix),
        Step::DropAddress(_, net) => format!("cannot remove {net} from {interface}"),
        Step::AddAddress(_, net) => format!("cannot add {net} to {interface}"),
        Step::Neighbour(..) => "cannot tell its namespace where the router is".to_owned(),
        Step::DropInside(route) => format!("cannot remove the route to {} in its namespace", route.key.prefix),
        Step::AddInside(route) => format!("cannot add the route to {} in its namespace", route.key.prefix),
    }
}
