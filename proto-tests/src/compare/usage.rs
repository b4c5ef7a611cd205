//! What processes have used, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// CPU and memory of a process and all that it has started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system seconds so far, in steps of 10 ms.
    pub cpu: f64,
    /// Resident octets now.
    pub resident: u64,
    /// The sum of the most that each process has held.
    pub peak: u64,
}

/// Of a process and its descendants.
///
/// # Errors
/// The process has ended.
pub fn of(pid: u32) -> Result<Usage> {
    let mut sum = Usage::default();
    for pid in tree(pid) {
        let one = alone(pid).with_context(|| format!("process {pid} has ended"))?;
        sum = Usage { cpu: sum.cpu + one.cpu, resident: sum.resident + one.resident, peak: sum.peak + one.peak };
    }
    Ok(sum)
}

/// Forgets the peaks, so that the next ones count from now on. Where the kernel does not allow it they go on from the start.
pub fn forget_peaks(pid: u32) {
    for pid in tree(pid) {
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// A process and its descendants.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        let tasks = fs::read_dir(format!("/proc/{}/task", all[at])).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    all
}

fn alone(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let octets = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
    };
    Ok(Usage { cpu: (ticks(11) + ticks(12)) as f64 / 100.0, resident: octets("VmRSS:"), peak: octets("VmHWM:") })
}

/// CPU seconds of this process, the generator.
pub fn own_cpu() -> f64 {
    alone(std::process::id()).map_or(0.0, |usage| usage.cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_its_children_count() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let own = of(std::process::id()).unwrap();
        assert!(own.resident > 0 && own.peak > 0 && tree(std::process::id()).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(of(child.id()).is_err());
    }
}
