//! What metrics say of the datastore. Every number is kept up to date where it changes.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{State, Status, Updated};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    datastore: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// The numbers; cheap to clone, all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    state: Family<OfState, Gauge>,
    last_word: Gauge,
    last_known: Gauge,
    /// Whole listings that the source has made.
    pub listings: Counter,
    status_writes: Family<Outcome, Counter>,
}

impl Meters {
    /// Puts the numbers under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("datastore_state", "1 for the state that the datastore is in", self.state.clone());
        registry.register("datastore_last_word_timestamp_seconds", "When the datastore said something last", self.last_word.clone());
        registry.register(
            "datastore_last_known_in_force",
            "1 while the resources of an earlier run are in force, for the datastore has not answered yet",
            self.last_known.clone(),
        );
        registry.register(
            "datastore_listings",
            "Whole listings of the datastore, or of one kind where kinds are listed",
            self.listings.clone(),
        );
        registry.register("node_status_writes", "CalicoNodeStatus objects filled, or not", self.status_writes.clone());
    }

    /// The datastore has said something.
    pub(super) fn word(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_word.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    /// It is like this now.
    pub(super) fn status(&self, status: &Status) {
        let now = match status.state {
            State::Starting => "starting",
            State::InSync => "in-sync",
            State::Away { .. } => "away",
            State::HeldBack { .. } => "held-back",
        };
        for state in ["starting", "in-sync", "away", "held-back"] {
            self.state.get_or_create(&OfState { datastore: status.kind.name(), state }).set(i64::from(state == now));
        }
        self.last_known.set(i64::from(status.last_known.is_some()));
    }

    /// A CalicoNodeStatus was to be written.
    pub fn status_write(&self, written: Option<Updated>) {
        let result = match written {
            Some(Updated::Written) => "written",
            Some(Updated::Unchanged) => "unchanged",
            Some(Updated::Missing) => "missing",
            Some(Updated::Conflict) => "conflict",
            None => "failed",
        };
        self.status_writes.get_or_create(&Outcome { result }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::Kind;

    #[test]
    fn one_state_at_a_time() {
        let meters = Meters::default();
        let mut registry = Registry::with_prefix("margay");
        meters.register(&mut registry);
        let away = State::Away { since: "now".to_owned(), why: "down".to_owned() };
        meters.status(&Status { kind: Kind::Etcd, state: State::InSync, last_known: None, trial: None });
        meters.status(&Status { kind: Kind::Etcd, state: away, last_known: Some("then".to_owned()), trial: None });
        meters.status_write(None);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "margay_datastore_state{datastore=\"etcd\",state=\"away\"} 1",
            "margay_datastore_state{datastore=\"etcd\",state=\"in-sync\"} 0",
            "margay_datastore_last_known_in_force 1",
            "margay_node_status_writes_total{result=\"failed\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
