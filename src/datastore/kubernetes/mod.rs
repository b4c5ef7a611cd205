//! Resources in the Kubernetes API: Calico's own kinds, and core Nodes, Services, EndpointSlices and Secrets.
//!
//! ```text
//!                    ┌ Watcher (one a source) ─────────────────────────────┐
//! API server ─lines─▶│ object: only what is read  ─▶ reflector: list,      │─reports─▶ ledger: one table, ─Word─▶ listener
//!            ◀─asks──│ convert, node: as Calico's documents   watch, resume │           differences only
//!                    └──────────────────────────────────────────────────────┘           └▶ starts and stops sources
//! ```
//!
//! # What is read
//!
//! | source | where | what |
//! |---|---|---|
//! | BGPConfigurations, BGPPeers, BGPFilters, IPPools | `crd.projectcalico.org/v1` or `projectcalico.org/v3` | all |
//! | BlockAffinities | same | by label: those with our host's hash, and those without the label, of which ours are kept. With `USE_POD_CIDR` none: our Node's podCIDRs are the blocks |
//! | CalicoNodeStatuses | Calico's group | all, of which ours are kept; [`status`] fills them |
//! | Nodes | core | all, or with `K8S_DISABLE_NODE_POLL` our own; metadata only. See [`node`] for the annotations |
//! | Services, EndpointSlices | core, `discovery.k8s.io/v1` | only while BGPConfiguration `default` has a service list, or `CALICO_ADVERTISE_CLUSTER_IPS` is set; headless slices are left out |
//! | Secrets | namespace `NAMESPACE` (`kube-system`) | one by one, by name, and only those that a BGPPeer or BGPConfiguration names |
//!
//! The API group is `CALICO_API_GROUP`; without it `projectcalico.org` where that is served and `crd.projectcalico.org` is
//! not, else the latter. Where neither is served, nothing is told (a cluster without Calico's resources is not a cluster
//! with an empty configuration); it is looked for again, as it is while a kind of the group is missing.
//!
//! # What it costs
//!
//! A Node is told and forgotten: its name, labels and BGP fields go on, its status is never sent (the API is asked for
//! metadata), and what stays here is a key and eight bytes of fingerprint a resource, by which a Node whose status alone
//! changed is known to be the same. Each source is one long request; a relist is told as its differences.
//! A cluster of thousands of nodes is that many clients of the API server, seven to eleven watches each. A
//! CalicoNodeStatus is sent to every node when it is filled, by Calico's reporter as by ours, since the API can select
//! none by what is in it: ask thousands of nodes for theirs seldom.
//!
//! # Facts about API servers, found by trying
//!
//! - With `sendInitialEvents` on an etcd older than 3.4.31 or 3.5.13 the watch begins with HTTP 200 and ends at once with an
//!   ERROR event of code 500, "RequestWatchProgress is disabled". Servers before 1.27 refuse the parameter with 422.
//! - A watch from a version that is forgotten is HTTP 200 with an ERROR event of code 410 in it, not HTTP 410.
//! - Bookmarks carry an object of the kind with every required field null (`"endpoints":null`).
//! - For some seconds after a CustomResourceDefinition is made, its kind is refused with 429, "storage is (re)initializing".
//! - Initial events come in the order of names, not of versions: none but the bookmark's version may be resumed from.
//!
//! What is wrong is a problem: see [`ledger`]. A kind that is forbidden (403) names the RBAC rule and does not hold up the
//! others; what it had told before stays. `packaging/kubernetes/rbac.yaml` has exactly the rules that are needed.

mod access;
mod convert;
mod ledger;
mod node;
mod object;
mod pace;
mod reflector;
mod roll;
mod source;
mod status;
mod watch;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kube::{Client, Config};
use tokio::sync::{mpsc, watch as latest};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{interval, sleep};

use super::{Datastore, Link, Settings, Variables, Word};
use crate::calico::{Input, Problem, Severity};
use ledger::{Ledger, Output, Report};
use pace::Pace;
use source::{ApiGroup, Plan, Source};
pub use status::StatusWriter;
use watch::{Watcher, get, words};

/// Reports under way.
const INBOX: usize = 256;
/// The first and the longest pause before the API is looked for again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How often the groups are looked at again while a kind of Calico's is missing.
const REDISCOVER: Duration = Duration::from_secs(120);

/// The Kubernetes API as a datastore.
pub struct KubernetesDatastore {
    config: Config,
    plan: Plan,
    pace: Arc<Pace>,
    /// `CALICO_API_GROUP`.
    group: Option<ApiGroup>,
}

impl std::fmt::Debug for KubernetesDatastore {
    /// Without credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesDatastore").field("url", &self.config.cluster_url).field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl KubernetesDatastore {
    /// The datastore of these settings; nothing is connected to yet.
    ///
    /// # Errors
    /// A variable that makes no sense, a file that is not there, or no way to any API server.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let variables = &settings.variables;
        let kubernetes_node = variables.exactly("CALICO_K8S_NODE_REF").unwrap_or(&settings.node).to_owned();
        let group = match variables.exactly("CALICO_API_GROUP") {
            None => None,
            Some("crd.projectcalico.org/v1") => Some(ApiGroup::Crd),
            Some("projectcalico.org/v3") => Some(ApiGroup::V3),
            Some(other) => bail!("CALICO_API_GROUP is `{other}`: it can be crd.projectcalico.org/v1 or projectcalico.org/v3"),
        };
        let plan = Plan {
            node: settings.node.clone(),
            kubernetes_node,
            namespace: variables.exactly("NAMESPACE").unwrap_or("kube-system").to_owned(),
            use_pod_cidr: is_true(variables, "USE_POD_CIDR"),
            own_node_only: is_true(variables, "K8S_DISABLE_NODE_POLL"),
            services: variables.exactly("CALICO_ADVERTISE_CLUSTER_IPS").is_some(),
            group: group.unwrap_or_default(),
        };
        Ok(Self { config: access::config(variables)?, plan, pace: Arc::new(Pace::new(variables)?), group })
    }

    async fn watch(self, mut link: Link) -> anyhow::Result<()> {
        let Some((client, mut group)) = self.connect(&link).await else { return Ok(()) };
        while let Some(moved) = self.session(&mut link, &client, group).await? {
            tracing::info!(group = moved.name(), "Calico's resources have moved to another API group");
            // What the old group's listings lacked holds nothing back any more.
            if !link.say(Word::HoldsBack(false)).await {
                return Ok(());
            }
            group = moved;
        }
        Ok(())
    }

    /// Reads from one API group, until nobody listens (none), or Calico's resources are in another group.
    async fn session(&self, link: &mut Link, client: &Client, group: ApiGroup) -> anyhow::Result<Option<ApiGroup>> {
        let plan = Plan { group, ..self.plan.clone() };
        let mut ledger = Ledger::new(plan.clone());
        let (reports, mut inbox) = mpsc::channel(INBOX);
        let mut tasks = Tasks::new(client.clone(), plan, Arc::clone(&self.pace), reports);
        let mut batch = Vec::with_capacity(INBOX);
        let mut rediscover = interval(REDISCOVER);
        loop {
            for output in ledger.take() {
                match output {
                    Output::Start(source) => tasks.start(source),
                    Output::Stop(source) => tasks.stop(&source),
                    Output::Say(word) => {
                        if !link.say(word).await {
                            return Ok(None);
                        }
                    }
                }
            }
            tokio::select! {
                () = link.out.closed() => return Ok(None),
                Some(()) = link.again.recv() => {
                    ledger.tell_again();
                    tasks.again.send_modify(|times| *times += 1);
                }
                count = inbox.recv_many(&mut batch, INBOX) => {
                    ensure!(count > 0, "the watches have ended");
                    for (source, report) in batch.drain(..) {
                        if matches!(report, Report::End) {
                            link.listings.inc();
                        }
                        ledger.handle(&source, report);
                    }
                }
                source = tasks.lost() => {
                    tracing::error!(%source, "a watch of the Kubernetes API panicked; it starts anew");
                    tasks.start(source);
                }
                _ = rediscover.tick() => {
                    if self.group.is_none() && ledger.misses_calico()
                        && let Ok(Some(found)) = discover(client).await
                        && found != group
                    {
                        return Ok(Some(found));
                    }
                }
            }
        }
    }

    /// The client and the API group, as soon as there are both; none when nobody listens any more.
    async fn connect(&self, link: &Link) -> Option<(Client, ApiGroup)> {
        let mut pause = PAUSES.0;
        loop {
            let why = match Client::try_from(self.config.clone()) {
                Err(error) => format!("the Kubernetes API: {}", words(&error)),
                Ok(client) => match self.group {
                    Some(group) => return Some((client, group)),
                    None => match discover(&client).await {
                        Ok(Some(group)) => return Some((client, group)),
                        Ok(None) => {
                            "the API server has neither crd.projectcalico.org nor projectcalico.org: Calico's resources are not installed"
                                .to_owned()
                        }
                        Err(why) => format!("the Kubernetes API at {}: {why}", self.config.cluster_url),
                    },
                },
            };
            let problem = Problem::general(Severity::Error, why.clone(), "it is tried again without end");
            if !link.say(Word::Away(why)).await || !link.say(Word::Input(Input::SourceProblems(vec![problem]))).await {
                return None;
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                () = link.out.closed() => return None,
            }
        }
    }
}

impl Datastore for KubernetesDatastore {
    fn run(self: Box<Self>, link: Link) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> {
        Box::pin(async { self.watch(link).await.context("the Kubernetes datastore") })
    }
}

/// Which of Calico's API groups is served.
async fn discover(client: &Client) -> Result<Option<ApiGroup>, String> {
    let body = get(client, "/apis").await?;
    let list: serde_json::Value = serde_json::from_slice(&body).map_err(|error| format!("/apis makes no sense: {error}"))?;
    let has = |group: ApiGroup| list["groups"].as_array().is_some_and(|groups| groups.iter().any(|found| found["name"] == group.name()));
    Ok([ApiGroup::Crd, ApiGroup::V3].into_iter().find(|group| has(*group)))
}

fn is_true(variables: &Variables, name: &str) -> bool {
    variables.get(name).is_some_and(|value| ["1", "t", "true"].contains(&value.to_lowercase().as_str()))
}

/// The running watches.
struct Tasks {
    client: Client,
    plan: Arc<Plan>,
    pace: Arc<Pace>,
    reports: mpsc::Sender<(Source, Report)>,
    again: latest::Sender<u64>,
    running: JoinSet<()>,
    handles: BTreeMap<Source, AbortHandle>,
}

impl Tasks {
    fn new(client: Client, plan: Plan, pace: Arc<Pace>, reports: mpsc::Sender<(Source, Report)>) -> Self {
        let (again, _) = latest::channel(0);
        Self { client, plan: Arc::new(plan), pace, reports, again, running: JoinSet::new(), handles: BTreeMap::new() }
    }

    fn start(&mut self, source: Source) {
        let watcher = Watcher {
            client: self.client.clone(),
            source: source.clone(),
            plan: Arc::clone(&self.plan),
            pace: Arc::clone(&self.pace),
            reports: self.reports.clone(),
            again: self.again.subscribe(),
        };
        self.handles.insert(source, self.running.spawn(watcher.run()));
    }

    fn stop(&mut self, source: &Source) {
        if let Some(handle) = self.handles.remove(source) {
            handle.abort();
        }
    }

    /// Returns when a watch that should run has ended; all end with this struct.
    async fn lost(&mut self) -> Source {
        loop {
            let Some(ended) = self.running.join_next_with_id().await else { return std::future::pending().await };
            let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
            if let Some(source) = self.handles.iter().find(|(_, handle)| handle.id() == id).map(|(source, _)| source.clone()) {
                self.handles.remove(&source);
                return source;
            }
        }
    }
}
