//! The kernel that is never written to: it says what would be done.

use std::collections::BTreeMap;

use tracing::info;

use super::Kernel;
use crate::fib::{KernelOp, KernelRoute, RouteKey};

/// Answers success to everything and logs each write once.
#[derive(Debug, Default)]
pub struct DryRun {
    /// What was said last of each key; none for a deletion.
    said: BTreeMap<RouteKey, Option<KernelRoute>>,
}

impl Kernel for DryRun {
    fn apply(&mut self, ops: &[KernelOp]) -> Vec<(usize, i32)> {
        for op in ops {
            let (verb, key, route) = match op {
                KernelOp::Create(route) => ("add", route.key, Some(route)),
                KernelOp::Replace(route) => ("replace", route.key, Some(route)),
                KernelOp::Delete(route) => ("delete", route.key, None),
            };
            // A resync shows that nothing was written, and all is asked for again.
            if self.said.get(&key).map(Option::as_ref) == Some(route) {
                continue;
            }
            self.said.insert(key, route.cloned());
            let hops = route.map(|route| format!("{:?} {:?}", route.kind, route.hops)).unwrap_or_default();
            info!(prefix = %key.prefix, metric = key.metric, table = key.table, %hops, "would {verb}");
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::fib::RouteType;

    #[test]
    fn says_each_thing_once() {
        let key = RouteKey { table: 254, prefix: "10.0.0.0/8".parse().unwrap(), metric: 1, tos: 0 };
        let route = KernelRoute { key, protocol: 12, kind: RouteType::Blackhole, scope: 0, hops: smallvec![], preferred_source: None };
        let mut kernel = DryRun::default();
        assert_eq!(kernel.apply(&[KernelOp::Create(route.clone()), KernelOp::Create(route.clone())]), []);
        assert_eq!(kernel.said.get(&key), Some(&Some(route.clone())));
        assert_eq!(kernel.apply(&[KernelOp::Delete(route)]), []);
        assert_eq!(kernel.said.get(&key), Some(&None));
    }
}
