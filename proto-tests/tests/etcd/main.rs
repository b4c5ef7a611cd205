//! margay and a real etcd: what Calico writes there is understood, nothing is lost or told twice whatever happens to
//! etcd, and no session notices.

mod daemon;
mod failures;
mod source;
mod world;
