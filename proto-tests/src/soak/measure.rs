//! What a margay has in use, calm by calm, and whether it grows.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::live::Daemon;

/// A mebibyte.
const MIB: f64 = 1_048_576.0;
/// What the last third of a run may have more than the first, in memory: a share, and mebibytes that the allocator may have kept.
const GROWTH: (f64, f64) = (0.05, 3.0);
/// Descriptors, threads and tasks that may come and go by themselves, such as a connection to the datastore that is being made.
const LOOSE: usize = 3;
/// Calms that a judgement of memory needs, those of the warm-up not counted.
const ENOUGH: usize = 6;

/// A look at the process in a calm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Since the process began.
    pub at: Duration,
    /// Resident memory in mebibytes.
    pub memory: f64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Tasks of the runtime (`margay_tasks`).
    pub tasks: usize,
}

impl Sample {
    /// Now.
    pub fn of(daemon: &Daemon, at: Duration) -> Result<Self> {
        let metrics = daemon.api_text("/metrics")?;
        let tasks = metrics.lines().find_map(|line| line.strip_prefix("margay_tasks ")).context("no metric margay_tasks")?;
        Ok(Self {
            at,
            memory: daemon.resident()? as f64 / MIB,
            descriptors: daemon.descriptors()?,
            threads: std::fs::read_dir(format!("/proc/{}/task", daemon.id()))?.count(),
            tasks: tasks.trim().parse().with_context(|| format!("margay_tasks {tasks}"))?,
        })
    }
}

/// What the samples of one process come to.
#[derive(Clone, Debug)]
pub struct Trend {
    samples: Vec<Sample>,
}

impl Trend {
    /// Of these samples, the first quarter of which is the warm-up.
    pub fn of(samples: &[Sample]) -> Self {
        Self { samples: samples[samples.len().div_ceil(4)..].to_vec() }
    }

    /// Mebibytes an hour, by least squares; none of fewer than two samples.
    fn slope(&self) -> Option<f64> {
        let points: Vec<(f64, f64)> = self.samples.iter().map(|sample| (sample.at.as_secs_f64() / 3600.0, sample.memory)).collect();
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
        let (x, y) = (mean(&|point| point.0), mean(&|point| point.1));
        let square: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        (points.len() > 1 && square > 0.0).then(|| points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / square)
    }

    /// The first and the last third of what was seen.
    fn thirds(&self) -> (&[Sample], &[Sample]) {
        let third = self.samples.len().div_ceil(3);
        (&self.samples[..third], &self.samples[self.samples.len() - third..])
    }

    /// Nothing grows: memory where there are enough samples, and what is counted in every case.
    ///
    /// # Errors
    /// What has grown.
    pub fn is_flat(&self) -> Result<()> {
        ensure!(!self.samples.is_empty(), "no calm after the warm-up: let it run longer");
        let (first, last) = self.thirds();
        for (what, of) in counted() {
            let most = first.iter().map(of).max().unwrap_or_default();
            let least = last.iter().map(of).min().unwrap_or_default();
            ensure!(least <= most + LOOSE, "{what} leak: {most} in the first third, {least} in the last");
        }
        if self.samples.len() >= ENOUGH {
            let (before, after) = (memory(first), memory(last));
            ensure!(
                after <= before * (1.0 + GROWTH.0) + GROWTH.1,
                "memory grows: {before:.1} MiB in the first third, {after:.1} MiB in the last"
            );
        }
        Ok(())
    }
}

type Count = fn(&Sample) -> usize;

fn counted() -> [(&'static str, Count); 3] {
    [("file descriptors", |sample| sample.descriptors), ("threads", |sample| sample.threads), ("tasks", |sample| sample.tasks)]
}

fn memory(samples: &[Sample]) -> f64 {
    samples.iter().map(|sample| sample.memory).sum::<f64>() / samples.len() as f64
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.thirds();
        write!(f, "memory {:.1} MiB, then {:.1} MiB", memory(first), memory(last))?;
        match self.slope() {
            Some(slope) => write!(f, ", slope {slope:+.2} MiB/h over {} calms", self.samples.len())?,
            None => f.write_str(", too few calms for a slope")?,
        }
        if self.samples.len() < ENOUGH {
            write!(f, " (not judged: fewer than {ENOUGH})")?;
        }
        for (what, of) in counted() {
            write!(
                f,
                "; {what} {}, then {}",
                first.iter().map(of).max().unwrap_or_default(),
                last.iter().map(of).min().unwrap_or_default()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(grow: impl Fn(usize) -> (f64, usize)) -> Vec<Sample> {
        let sample = |n: usize| {
            let (memory, descriptors) = grow(n);
            Sample { at: Duration::from_secs(n as u64 * 36), memory, descriptors, threads: 9, tasks: 100 }
        };
        (0..20).map(sample).collect()
    }

    #[test]
    fn what_grows_is_told_and_what_does_not_is_not() {
        let flat = Trend::of(&samples(|n| (60.0 + f64::from((n % 3) as u8), 70 + n % 3)));
        assert!(flat.is_flat().is_ok(), "{flat}");
        // A tenth of a mebibyte in 36 s is ten in an hour.
        let leak = Trend::of(&samples(|n| (20.0 + 0.1 * n as f64, 70)));
        assert!((leak.slope().unwrap() - 10.0).abs() < 1e-6);
        let leak = Trend::of(&samples(|n| (60.0 + 2.0 * n as f64, 70)));
        assert!(leak.is_flat().unwrap_err().to_string().contains("memory grows"));
        let leak = Trend::of(&samples(|n| (60.0, 70 + n)));
        assert!(leak.is_flat().unwrap_err().to_string().contains("file descriptors leak"));
        // The warm-up does not count.
        assert!(Trend::of(&samples(|n| if n < 5 { (20.0, 10) } else { (60.0, 70) })).is_flat().is_ok());
        assert!(Trend::of(&[]).is_flat().is_err());
    }
}
