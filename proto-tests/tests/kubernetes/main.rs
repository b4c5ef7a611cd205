//! The Kubernetes datastore: against an API server of the tests, recordings of a real one, and a real one where it is found.

mod daemon;
mod heard;
mod node_status;
mod rbac;
mod real;
mod recordings;
mod stories;
mod trouble;
