//! IPPool: what may be exported, and who programs its routes.

use ipnet::IpNet;

use super::Fields;
use crate::calico::{Document, Report};
use crate::types::canonical;

/// `ipipMode` and `vxlanMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encapsulation {
    /// None.
    #[default]
    Never,
    /// Always.
    Always,
    /// Only to nodes outside the own subnet.
    CrossSubnet,
}

/// A v3 IPPool. Every pool counts, whatever its `disabled`, `allowedUses` and selectors say: those are IPAM's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPool {
    /// `spec.cidr`, canonical.
    pub cidr: IpNet,
    /// `spec.ipipMode`.
    pub ipip: Encapsulation,
    /// `spec.vxlanMode`.
    pub vxlan: Encapsulation,
    /// `spec.disableBGPExport`.
    pub disable_bgp_export: bool,
}

/// Fields for IPAM and Felix.
const OTHERS: [&str; 8] =
    ["natOutgoing", "disabled", "blockSize", "nodeSelector", "namespaceSelector", "assignmentMode", "allowedUses", "serviceSelector"];

impl IpPool {
    /// Reads the document; none without a usable cidr.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Option<Self> {
        let mut spec = Fields::of(document, "spec");
        let text = spec.text(report, "cidr").unwrap_or_default();
        let ipip = mode(&mut spec, report, "ipipMode");
        let vxlan = mode(&mut spec, report, "vxlanMode");
        let disable_bgp_export = spec.flag(report, "disableBGPExport");
        spec.finish(report, &OTHERS);
        let Ok(cidr) = text.parse::<IpNet>() else {
            report.error("spec.cidr", format!("`{text}` is no CIDR"), "the pool is left out");
            return None;
        };
        if cidr != canonical(cidr) {
            report.info("spec.cidr", format!("`{text}` has host bits set"), format!("read as {}", canonical(cidr)));
        }
        Some(Self { cidr: canonical(cidr), ipip, vxlan, disable_bgp_export })
    }
}

/// Unknown words mean Never, as they do to Calico.
fn mode(spec: &mut Fields<'_>, report: &mut Report<'_>, field: &str) -> Encapsulation {
    match spec.text(report, field).as_deref() {
        None | Some("Never") => Encapsulation::Never,
        Some("Always") => Encapsulation::Always,
        Some("CrossSubnet") => Encapsulation::CrossSubnet,
        Some(other) => {
            report.warning(&spec.path(field), format!("`{other}` is none of Always, CrossSubnet, Never"), "read as Never");
            Encapsulation::Never
        }
    }
}
