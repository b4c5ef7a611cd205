//! Writes the status of a CalicoNodeStatus: one PATCH, which needs no right but that.
//!
//! The patch goes to the subresource `status`. Calico's CRD in `crd.projectcalico.org/v1` has no such subresource: the
//! server answers 404 in the same words as for a missing object, whichever it is, and then the object itself is patched,
//! and nothing of it but its status.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::{Request, header};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::object::Refusal;
use super::source::ApiGroup;
use super::watch::{whole, words};
use super::{KubernetesDatastore, discover};
use crate::datastore::status_writer::without_time;
use crate::datastore::{Settings, Updated};

/// An answer must have come by then.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a status can have: a patch takes the others away.
const PARTS: [&str; 4] = ["lastUpdated", "agent", "bgp", "routes"];

/// See the module.
pub struct StatusWriter {
    datastore: KubernetesDatastore,
    /// A client and the group; none before the first write, and after one that failed.
    connected: Option<(Client, ApiGroup)>,
    /// What was written last, by name, but for the time. Who else writes the object is not looked at.
    last: std::collections::BTreeMap<String, Value>,
}

impl std::fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusWriter").field("datastore", &self.datastore).finish_non_exhaustive()
    }
}

impl StatusWriter {
    /// Nothing is connected to yet.
    ///
    /// # Errors
    /// Those of the datastore.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self { datastore: KubernetesDatastore::new(settings)?, connected: None, last: std::collections::BTreeMap::new() })
    }

    /// See [`crate::datastore::StatusWriter::write`].
    pub async fn write(&mut self, name: &str, status: &Value) -> anyhow::Result<Updated> {
        let content = without_time(status);
        if self.last.get(name) == Some(&content) {
            return Ok(Updated::Unchanged);
        }
        // Before the answer, which may be lost.
        self.last.remove(name);
        let written = match timeout(PATIENCE, self.patch(name, status)).await {
            Ok(written) => written,
            Err(_) => Err(anyhow!("no answer within {} s", PATIENCE.as_secs())),
        };
        match &written {
            Ok(Updated::Written) => drop(self.last.insert(name.to_owned(), content)),
            Ok(_) => {}
            Err(_) => self.connected = None,
        }
        written
    }

    async fn patch(&mut self, name: &str, status: &Value) -> anyhow::Result<Updated> {
        let (client, group) = self.connect().await?;
        let mut whole: Value = PARTS.iter().map(|part| ((*part).to_owned(), Value::Null)).collect::<serde_json::Map<_, _>>().into();
        json_patch(&mut whole, status);
        let body = serde_json::to_vec(&json!({ "status": whole }))?;
        let object = format!("/apis/{}/{}/caliconodestatuses/{name}", group.name(), group.version());
        match send(&client, &format!("{object}/status"), body.clone()).await? {
            Some(Refusal { code: 404, .. }) if group == ApiGroup::Crd => {
                answered(group, "caliconodestatuses", send(&client, &object, body).await?)
            }
            answer => answered(group, "caliconodestatuses/status", answer),
        }
    }

    async fn connect(&mut self) -> anyhow::Result<(Client, ApiGroup)> {
        if let Some(connected) = &self.connected {
            return Ok(connected.clone());
        }
        let client = Client::try_from(self.datastore.config.clone()).map_err(|error| anyhow!(words(&error)))?;
        let group = match self.datastore.group {
            Some(group) => group,
            None => discover(&client).await.map_err(|why| anyhow!(why))?.context("Calico's resources are not installed")?,
        };
        Ok(self.connected.insert((client, group)).clone())
    }
}

/// `status` over `whole`, part by part.
fn json_patch(whole: &mut Value, status: &Value) {
    for (part, value) in status.as_object().into_iter().flatten() {
        whole[part] = value.clone();
    }
}

/// Sends the patch; why not, if the server says no.
async fn send(client: &Client, path: &str, body: Vec<u8>) -> anyhow::Result<Option<Refusal>> {
    let request = Request::patch(path)
        .header(header::CONTENT_TYPE, "application/merge-patch+json")
        .header(header::ACCEPT, "application/json")
        .body(Body::from(body))?;
    let response = client.send(request).await.map_err(|error| anyhow!(words(&error)))?;
    let code = response.status().as_u16();
    if response.status().is_success() {
        return Ok(None);
    }
    let body = whole(response.into_body()).await.map_err(|why| anyhow!(why))?;
    Ok(Some(Refusal::read(code, None, &body)))
}

fn answered(group: ApiGroup, resource: &str, refusal: Option<Refusal>) -> anyhow::Result<Updated> {
    match refusal {
        None => Ok(Updated::Written),
        Some(Refusal { code: 404, .. }) => Ok(Updated::Missing),
        Some(Refusal { code: 409, .. }) => Ok(Updated::Conflict),
        Some(Refusal { code: 403, message, .. }) => bail!(
            "{message}: grant verb patch on resource `{resource}` of API group `{}` in a ClusterRole to this node's service account \
             (see packaging/kubernetes/rbac.yaml)",
            group.name()
        ),
        Some(Refusal { code, message, .. }) => bail!("it answers {code}: {message}"),
    }
}
