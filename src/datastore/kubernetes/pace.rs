//! `K8S_CLIENT_QPS` and `K8S_CLIENT_BURST`: how many requests a second the API server gets from this node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use crate::datastore::Variables;

/// Requests that may be sent at once where a rate is set and nothing else is said.
const BURST: u32 = 100;

/// A token bucket without a lock: the time at which the bucket would be full again, in microseconds since the start.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    full: AtomicU64,
    /// Microseconds a request; 0: no limit.
    cost: u64,
    burst: u64,
}

impl Pace {
    /// The pace that the environment asks for; none unless it does, since a watch is one request for many minutes.
    ///
    /// # Errors
    /// A value that is no number above 0.
    pub fn new(variables: &Variables) -> anyhow::Result<Self> {
        let number = |name: &str| match variables.get(name).map(|text| (text, text.parse::<f64>())) {
            None => Ok(None),
            Some((_, Ok(number))) if number > 0.0 && number.is_finite() => Ok(Some(number)),
            Some((text, _)) => bail!("{name} is `{text}`, which is no number above 0"),
        };
        let burst = number("K8S_CLIENT_BURST")?.unwrap_or(f64::from(BURST)).max(1.0) as u64;
        let cost = number("K8S_CLIENT_QPS")?.map_or(0, |rate| (1e6 / rate) as u64);
        Ok(Self { start: Instant::now(), full: AtomicU64::new(0), cost, burst })
    }

    /// Returns when the next request may be sent.
    pub async fn wait(&self) {
        sleep(self.take(self.start.elapsed())).await;
    }

    /// Takes a request's place; says how long to wait for it.
    fn take(&self, now: Duration) -> Duration {
        let now = now.as_micros() as u64;
        let add = |full: u64| Some(full.max(now) + self.cost);
        let full = self.full.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).unwrap_or(0).max(now);
        let room = self.cost.saturating_mul(self.burst - 1);
        Duration::from_micros(full.saturating_sub(now).saturating_sub(room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(variables: &[(&str, &str)]) -> anyhow::Result<Pace> {
        Pace::new(&variables.iter().copied().collect())
    }

    #[tokio::test]
    async fn a_burst_then_the_rate() {
        let pace = pace(&[("K8S_CLIENT_QPS", "10"), ("K8S_CLIENT_BURST", "3")]).unwrap();
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(pace.take(Duration::from_secs(1)).as_millis());
        }
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        assert_eq!(pace.take(Duration::from_secs(60)), Duration::ZERO, "the bucket fills again");
    }

    #[tokio::test]
    async fn no_limit_unless_one_is_set() {
        let free = pace(&[("K8S_CLIENT_BURST", "1")]).unwrap();
        assert!((0..1000).all(|_| free.take(Duration::ZERO).is_zero()));
        for bad in ["0", "-1", "many", "inf"] {
            assert!(pace(&[("K8S_CLIENT_QPS", bad)]).is_err(), "{bad}");
        }
    }
}
