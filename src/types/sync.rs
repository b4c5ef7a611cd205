//! How every source of facts speaks: begin, upsert, remove, end.

/// One word of a source (a peer, the kernel, a datastore, the agent) about its table.
///
/// `Begin` marks all that the source has said, `Upsert` adds or replaces and unmarks, `Remove`
/// deletes, `End` deletes what is still marked. A relist, a netlink overrun, a route refresh and a
/// reconnect are thus the same conversation. Words outside a `Begin`…`End` pair are live changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sync<K, V> {
    /// The source starts to tell its whole table anew.
    Begin,
    /// This is so now.
    Upsert(K, V),
    /// This is no more.
    Remove(K),
    /// The whole table has been told.
    End,
}
