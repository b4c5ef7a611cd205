//! EndpointSlice, of discovery.k8s.io: on which nodes a Service has endpoints that are ready.

use std::collections::BTreeSet;

use super::{Fields, ServiceName};
use crate::calico::{Document, Report};

/// The label that names a slice's Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A discovery.k8s.io/v1 EndpointSlice, as far as it concerns routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The label `kubernetes.io/service-name`; a slice without it belongs to nobody.
    pub service: Option<String>,
    /// `addressType`: IPv4 is true, IPv6 false; none for FQDN.
    pub family: Option<bool>,
    /// Some endpoint is ready, on whatever node.
    pub ready: bool,
    /// `nodeName` of the endpoints that are ready.
    pub ready_nodes: BTreeSet<String>,
}

impl EndpointSlice {
    /// The Service of a slice in that namespace.
    pub fn service_in(&self, namespace: &str) -> Option<ServiceName> {
        self.service.as_deref().map(|name| ServiceName::new(namespace, name))
    }

    /// Reads the document. An endpoint whose readiness is not said (or null) is ready, as Kubernetes has it.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Self {
        let mut metadata = Fields::of(document, "metadata");
        let service = metadata.object(report, "labels").and_then(|mut labels| labels.text(report, SERVICE_LABEL));
        let mut root = Fields::new(String::new(), Some(&document.object));
        let family = match root.text(report, "addressType").as_deref() {
            Some("IPv4") => Some(true),
            Some("IPv6") => Some(false),
            Some("FQDN") => None,
            other => {
                let what = format!("`{}` is none of IPv4, IPv6, FQDN", other.unwrap_or_default());
                report.warning("addressType", what, "its endpoints count for no Service");
                None
            }
        };
        let mut slice = Self { service, family, ..Self::default() };
        for (path, item) in root.items(report, "endpoints") {
            let mut endpoint = Fields::new(path, Some(item));
            let node = endpoint.text(report, "nodeName");
            let ready = endpoint.object(report, "conditions").and_then(|mut conditions| conditions.switch(report, "ready"));
            if ready.unwrap_or(true) {
                slice.ready = true;
                slice.ready_nodes.extend(node);
            }
        }
        slice
    }
}
