//! Which datastore: `--datastore`, else `DATASTORE_TYPE`, else what the other variables suggest.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use super::{Datastore, FileDatastore, Variables};

/// Where resources are looked for when nothing else is said.
const RESOURCES: &str = "/etc/margay/resources";

/// Where resources come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Files and folders.
    #[default]
    File,
    /// etcd, as Calico's etcdv3 datastore has it.
    Etcd,
    /// The Kubernetes API.
    Kubernetes,
}

impl Kind {
    /// Its name in words for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "files",
            Self::Etcd => "etcd",
            Self::Kubernetes => "Kubernetes",
        }
    }

    /// What `--datastore` and the environment say. Where both are silent: etcd if endpoints of it are named, as with
    /// Calico; else files (Calico, which has none, would take Kubernetes).
    ///
    /// # Errors
    /// `DATASTORE_TYPE` has a value that is none.
    pub fn choose(flag: Option<Self>, resources_are_named: bool, variables: &Variables) -> anyhow::Result<Self> {
        if let Some(kind) = flag {
            return Ok(kind);
        }
        let etcd_is_named = || variables.get("ETCD_ENDPOINTS").or_else(|| variables.get("ETCD_DISCOVERY_SRV")).is_some();
        match variables.get("DATASTORE_TYPE") {
            Some("file") => Ok(Self::File),
            Some("etcdv3") => Ok(Self::Etcd),
            Some("kubernetes") => Ok(Self::Kubernetes),
            Some(other) => bail!("DATASTORE_TYPE is `{other}`: it can be file, etcdv3 or kubernetes (or use --datastore)"),
            None if !resources_are_named && etcd_is_named() => Ok(Self::Etcd),
            None => Ok(Self::File),
        }
    }
}

/// What a datastore needs to know.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Which one.
    pub kind: Kind,
    /// Files and folders: the datastore itself, or what is added to another one.
    pub resources: Vec<PathBuf>,
    /// Name of our Node.
    pub node: String,
    /// The environment, with Calico's variables.
    pub variables: Variables,
    /// A change of the files is undone unless it is confirmed within this time.
    pub confirm: Option<Duration>,
}

impl Settings {
    /// `resources` as given, which may be none.
    pub fn new(kind: Kind, mut resources: Vec<PathBuf>, node: String, variables: Variables) -> Self {
        if kind == Kind::File && resources.is_empty() {
            resources.push(PathBuf::from(RESOURCES));
        }
        Self { kind, resources, node, variables, confirm: None }
    }

    /// The same, with every change on trial for `confirm`, where that is asked for.
    ///
    /// # Errors
    /// Resources do not come from files.
    pub fn on_trial(self, confirm: Option<Duration>) -> anyhow::Result<Self> {
        if confirm.is_some() && self.kind != Kind::File {
            bail!("--confirm is for resources in files: what {} holds is put right there, by whoever has written it", self.kind.name());
        }
        Ok(Self { confirm, ..self })
    }
}

/// The datastore of these settings. Nothing is connected to yet.
///
/// # Errors
/// A setting that can never work (a variable that makes no sense, a file that is not there), or a datastore that this
/// margay was built without.
pub fn open(settings: &Settings) -> anyhow::Result<Box<dyn Datastore>> {
    match settings.kind {
        Kind::File => Ok(Box::new(FileDatastore::new(settings.resources.clone()))),
        Kind::Etcd => open_etcd(settings),
        Kind::Kubernetes => open_kubernetes(settings),
    }
}

#[cfg(feature = "etcd")]
fn open_etcd(settings: &Settings) -> anyhow::Result<Box<dyn Datastore>> {
    let etcd = super::etcd::EtcdSettings::from_variables(&settings.variables)?;
    Ok(Box::new(super::etcd::EtcdDatastore::new(etcd, &settings.node)))
}

#[cfg(not(feature = "etcd"))]
fn open_etcd(_settings: &Settings) -> anyhow::Result<Box<dyn Datastore>> {
    bail!("this margay was built without etcd: build it with the feature `etcd`")
}

#[cfg(feature = "kubernetes")]
fn open_kubernetes(settings: &Settings) -> anyhow::Result<Box<dyn Datastore>> {
    Ok(Box::new(super::KubernetesDatastore::new(settings)?))
}

#[cfg(not(feature = "kubernetes"))]
fn open_kubernetes(_settings: &Settings) -> anyhow::Result<Box<dyn Datastore>> {
    bail!("this margay was built without the feature `kubernetes`; use another datastore, or build with it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(flag: Option<Kind>, resources: bool, variables: &[(&str, &str)]) -> Result<Kind, String> {
        Kind::choose(flag, resources, &variables.iter().copied().collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_flag_then_the_variable_then_what_is_named() {
        let etcd = ("ETCD_ENDPOINTS", "http://192.0.2.1:2379");
        for (flag, resources, variables, expected) in [
            (None, false, &[] as &[_], Kind::File),
            (None, false, &[etcd], Kind::Etcd),
            (None, false, &[("CALICO_ETCD_ENDPOINTS", "x")], Kind::Etcd),
            (None, false, &[("ETCD_DISCOVERY_SRV", "example.org")], Kind::Etcd),
            (None, true, &[etcd], Kind::File),
            (None, false, &[("DATASTORE_TYPE", "kubernetes"), etcd], Kind::Kubernetes),
            (None, false, &[("CALICO_DATASTORE_TYPE", "etcdv3")], Kind::Etcd),
            (None, true, &[("DATASTORE_TYPE", "etcdv3")], Kind::Etcd),
            (Some(Kind::File), false, &[("DATASTORE_TYPE", "kubernetes")], Kind::File),
            (Some(Kind::Etcd), true, &[("DATASTORE_TYPE", "nonsense")], Kind::Etcd),
        ] {
            assert_eq!(chosen(flag, resources, variables), Ok(expected), "{flag:?} {resources} {variables:?}");
        }
        let error = chosen(None, false, &[("DATASTORE_TYPE", "etcd3")]).unwrap_err();
        assert!(error.contains("`etcd3`") && error.contains("etcdv3"), "{error}");
    }
}
