//! etcd dies, forgets, or is another: nothing is lost, nothing is told twice.

use proto_tests::lab::etcd::Etcd;
use tempfile::TempDir;

use crate::world::{World, node, on_a_runtime, possible, settings, with_etcd};

#[test]
fn kill_9_while_a_thousand_nodes_change() {
    with_etcd("kill_9_while_a_thousand_nodes_change", async |etcd| {
        const NODES: usize = 1000;
        let all = |version| (0..NODES).map(|number| node(number, version)).collect::<Vec<_>>();
        etcd.put(&all(1)).unwrap();
        let mut world = World::of(etcd).await;
        assert_eq!(world.table.len(), NODES);
        for round in 2..5 {
            // etcd dies in the middle of the changes; the writer goes on where it was refused.
            let entries = all(round);
            let (before, after) = entries.split_at(NODES / 2);
            etcd.put(before).unwrap();
            world.until("the first changes are coming", |world| world.version(0) == Some(round as u64)).await;
            etcd.kill().unwrap();
            etcd.restart().unwrap();
            etcd.put(after).unwrap();
            world.until("every change", |world| (0..NODES).all(|number| world.version(number) == Some(round as u64))).await;
        }
        assert_eq!(world.changes, 3 * NODES, "each change once");
        assert_eq!((world.repeated, world.listings, world.table.len()), (0, 1, NODES));
    });
}

#[test]
fn compaction_during_a_disconnect_means_a_fresh_listing() {
    with_etcd("compaction_during_a_disconnect_means_a_fresh_listing", async |etcd| {
        etcd.put(&[node(1, 1), node(2, 1)]).unwrap();
        let mut gate = Gate::open(etcd);
        let mut world = World::new(settings(&[("ETCD_ENDPOINTS", &gate.url())]), "host-a");
        world.until("the listing", |world| world.listings == 1).await;
        gate.shut().await;
        world.until("it is away", |world| world.away.is_some()).await;
        etcd.put(&[node(1, 2), node(3, 1)]).unwrap();
        etcd.ctl(&["del", &node(2, 1).0]).unwrap();
        etcd.ctl(&["compact", &etcd.revision().unwrap().to_string()]).unwrap();
        gate.reopen().await;
        world.until("the listing after compaction", |world| world.listings == 2).await;
        assert_eq!((world.version(1), world.version(2), world.version(3)), (Some(2), None, Some(1)));
        assert!(world.away.is_none());
        etcd.put(&[node(4, 1)]).unwrap();
        world.until("changes after it", |world| world.version(4).is_some()).await;
        assert_eq!((world.changes, world.repeated), (1, 0));
    });
}

#[test]
fn a_disconnect_without_compaction_goes_on_where_it_was() {
    with_etcd("a_disconnect_without_compaction_goes_on_where_it_was", async |etcd| {
        etcd.put(&[node(1, 1)]).unwrap();
        let mut gate = Gate::open(etcd);
        let mut world = World::new(settings(&[("ETCD_ENDPOINTS", &gate.url())]), "host-a");
        world.until("the listing", |world| world.listings == 1).await;
        for version in 2..5 {
            gate.shut().await;
            world.until("it is away", |world| world.away.is_some()).await;
            etcd.put(&[node(1, version)]).unwrap();
            gate.reopen().await;
            world.until("what changed meanwhile", |world| world.version(1) == Some(version as u64)).await;
            // It is back when all prefixes are watched; what changed under the first of them may come before that.
            world.until("it is back", |world| world.away.is_none()).await;
        }
        assert_eq!((world.listings, world.changes, world.repeated), (1, 3, 0));
    });
}

#[test]
fn another_store_under_the_same_address_is_listed() {
    with_etcd("another_store_under_the_same_address_is_listed", async |etcd| {
        etcd.put(&(0..20).map(|number| node(number, 1)).collect::<Vec<_>>()).unwrap();
        let mut world = World::of(etcd).await;
        etcd.kill().unwrap();
        etcd.forget().unwrap();
        etcd.restart().unwrap();
        world.until("the listing of nothing", |world| world.listings == 2).await;
        assert_eq!((world.table.len(), world.changes), (0, 0));
        etcd.put(&[node(1, 7)]).unwrap();
        world.until("its changes", |world| world.version(1) == Some(7)).await;
    });
}

#[test]
fn the_next_endpoint_is_taken_when_one_dies() {
    if !possible("the_next_endpoint_is_taken_when_one_dies") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let etcd = Etcd::start(&folder.path().join("etcd")).unwrap();
    on_a_runtime(async {
        etcd.put(&[node(1, 1)]).unwrap();
        // Two ways to the same store, and one to nowhere.
        let (mut first, mut second) = (Gate::open(&etcd), Gate::open(&etcd));
        let endpoints = format!("{},http://127.0.0.1:1,{}", first.url(), second.url());
        let mut world = World::new(settings(&[("ETCD_ENDPOINTS", &endpoints)]), "host-a");
        world.until("the listing", |world| world.listings == 1).await;
        for version in 2..8 {
            let (dying, other) = if version % 2 == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
            other.reopen().await;
            dying.shut().await;
            etcd.put(&[node(1, version)]).unwrap();
            world.until("the change by the other way", |world| world.version(1) == Some(version as u64)).await;
        }
        assert_eq!((world.listings, world.changes, world.repeated), (1, 6, 0));
        // With all of them gone each is named.
        first.shut().await;
        second.shut().await;
        world
            .until("it is away", |world| world.away.as_ref().is_some_and(|why| why.contains("127.0.0.1:1:") && why.contains(&second.url())))
            .await;
    });
}

/// A way to etcd that can be shut: what goes through it is cut off, and nobody is let in.
struct Gate {
    port: u16,
    target: String,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Gate {
    fn open(etcd: &Etcd) -> Self {
        let target = etcd.url().trim_start_matches("http://").to_owned();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut gate = Self { port, target, task: None };
        gate.serve(tokio::net::TcpListener::from_std(listener).unwrap());
        gate
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn serve(&mut self, listener: tokio::net::TcpListener) {
        let target = self.target.clone();
        self.task = Some(tokio::spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    if let Ok(mut far) = tokio::net::TcpStream::connect(&target).await {
                        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                    }
                });
            }
        }));
    }

    async fn shut(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            drop(task.await);
        }
    }

    async fn reopen(&mut self) {
        if self.task.is_none() {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
            self.serve(listener);
        }
    }
}
