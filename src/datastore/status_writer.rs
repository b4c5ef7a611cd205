//! Where the status of a CalicoNodeStatus is written: the one thing that margay writes into a datastore.

use serde_json::Value;

use super::{Kind, Settings};

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// It is written.
    Written,
    /// There was nothing to change.
    Unchanged,
    /// There is no such resource.
    Missing,
    /// Somebody else wrote meanwhile: look and try again.
    Conflict,
}

/// A way to write statuses.
#[derive(Debug)]
pub enum StatusWriter {
    /// Into etcd.
    #[cfg(feature = "etcd")]
    Etcd(Box<super::etcd::EtcdSettings>),
    /// Into the Kubernetes API.
    #[cfg(feature = "kubernetes")]
    Kubernetes(Box<super::kubernetes::StatusWriter>),
}

impl StatusWriter {
    /// The way into this datastore; none into files, which belong to whoever wrote them. Nothing is connected to yet.
    ///
    /// # Errors
    /// Those of [`super::open`].
    pub fn new(settings: &Settings) -> anyhow::Result<Option<Self>> {
        match settings.kind {
            Kind::File => Ok(None),
            #[cfg(feature = "etcd")]
            Kind::Etcd => Ok(Some(Self::Etcd(Box::new(super::etcd::EtcdSettings::from_variables(&settings.variables)?)))),
            #[cfg(feature = "kubernetes")]
            Kind::Kubernetes => Ok(Some(Self::Kubernetes(Box::new(super::kubernetes::StatusWriter::new(settings)?)))),
            #[cfg(not(all(feature = "etcd", feature = "kubernetes")))]
            _ => Ok(None),
        }
    }

    /// Makes `status` the status of the CalicoNodeStatus `name`, unless it is that already but for `lastUpdated`.
    ///
    /// # Errors
    /// The datastore cannot be reached, or does not let us; in words, with what is to be done.
    pub async fn write(&mut self, name: &str, status: &Value) -> anyhow::Result<Updated> {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(settings) => {
                super::etcd::update(settings, "CalicoNodeStatus", name, |object| {
                    if without_time(&object["status"]) != without_time(status) {
                        object["status"] = status.clone();
                    }
                })
                .await
            }
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(writer) => writer.write(name, status).await,
            #[cfg(not(any(feature = "etcd", feature = "kubernetes")))]
            _ => anyhow::bail!("{name}: this margay was built without any datastore that a status ({status}) could be written to"),
        }
    }
}

/// A status but for the time at which it was written.
#[cfg(any(feature = "etcd", feature = "kubernetes"))]
pub(super) fn without_time(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(fields) = status.as_object_mut() {
        fields.remove("lastUpdated");
    }
    status
}
