//! What the compiler takes from the process's environment, by Calico's names.

use std::net::IpAddr;

use crate::config::FibConfig;

/// Settings of this node that no resource has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `CALICO_ROUTER_ID`: a dotted quad, or `hash`; none means the node's IPv4 address.
    pub router_id: Option<String>,
    /// `NAMESPACE`: where password Secrets are; `kube-system` unless set.
    pub namespace: String,
    /// `CALICO_ADVERTISE_CLUSTER_IPS`: one CIDR that replaces `serviceClusterIPs`.
    pub cluster_ips: Option<String>,
    /// `CALICO_K8S_NODE_REF`: our Kubernetes node name where it differs from Calico's.
    pub kubernetes_node: Option<String>,
    /// `BGP_LOGSEVERITYSCREEN`: takes the place of `logSeverityScreen`.
    pub log_severity: Option<String>,
    /// `--listen`: addresses to listen on where `bindMode` does not say otherwise; empty means all.
    pub listen: Vec<IpAddr>,
    /// Kernel routing table to write to.
    pub table: u32,
    /// Kernel protocol number of our routes; BIRD's unless set, since Felix knows it.
    pub protocol: u8,
}

impl Default for Environment {
    fn default() -> Self {
        let FibConfig { table, protocol, .. } = FibConfig::default();
        let namespace = "kube-system".to_owned();
        Self {
            router_id: None,
            namespace,
            cluster_ips: None,
            kubernetes_node: None,
            log_severity: None,
            listen: Vec::new(),
            table,
            protocol,
        }
    }
}

impl Environment {
    /// The settings as `lookup` (the process's environment, in production) has them; empty values count as unset.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let defaults = Self::default();
        Self {
            router_id: set("CALICO_ROUTER_ID"),
            namespace: set("NAMESPACE").unwrap_or(defaults.namespace),
            cluster_ips: set("CALICO_ADVERTISE_CLUSTER_IPS"),
            kubernetes_node: set("CALICO_K8S_NODE_REF"),
            log_severity: set("BGP_LOGSEVERITYSCREEN"),
            ..Self::default()
        }
    }
}
