//! The kernel that is never written to.

use super::Kernel;
use crate::fib::KernelOp;

/// Answers success to everything and does nothing. What would be done is the FibSyncer's to tell (`margay show fib`).
#[derive(Clone, Copy, Debug, Default)]
pub struct DryRun;

impl Kernel for DryRun {
    fn apply(&mut self, _ops: &[KernelOp]) -> Vec<(usize, i32)> {
        Vec::new()
    }
}
