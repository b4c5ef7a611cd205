//! What a compile costs, as numbers of things looked at; how long it takes is the bench's to say (`cargo bench --bench compile`).

use proto_tests::scale::{Scale, Size, node, slice};

#[test]
fn twice_the_nodes_is_twice_the_work() {
    let work = |nodes| {
        let mut scale = Scale::told(Size::of(nodes));
        let config = scale.compile().unwrap();
        assert!(config.peers.len() >= nodes - 1, "the mesh, and the reflectors");
        scale.work()
    };
    let (small, large) = (work(300), work(600));
    assert_eq!((small.nodes, large.nodes), (300, 600), "each address once");
    assert!(large.sessions <= 2 * small.sessions + 2, "{small:?} {large:?}");
    assert!(large.selectors <= 2 * small.selectors, "{small:?} {large:?}");
    assert!(large.selectors <= 600 * 8 + 2 * 200, "only the BGPPeers that concern our node are held against each Node: {large:?}");
    assert_eq!(large.policies, small.policies, "policies are made once for each list of filters");
}

/// From a thousand nodes to ten thousand every number grows with the nodes and no faster, and a changed Node costs the same.
#[test]
fn work_grows_with_the_cluster_and_no_faster() {
    // Blocks and Services are looked up, not looked at: fewer of them make the test shorter and the numbers no other.
    let size = |nodes| Size { blocks: nodes, services: nodes / 100, ..Size::of(nodes) };
    let at = |nodes: usize| {
        let mut scale = Scale::told(size(nodes));
        scale.compile().unwrap();
        let whole = scale.work();
        scale.change(node(nodes / 2, 1)).unwrap();
        (whole, scale.work())
    };
    let (base, one) = at(1000);
    for nodes in [2000, 5000, 10_000] {
        let times = nodes / 1000;
        let (whole, changed) = at(nodes);
        assert_eq!((whole.nodes, whole.policies), (nodes, base.policies), "{nodes}: {whole:?}");
        assert!(whole.sessions <= times * base.sessions + times, "{nodes}: {whole:?}, a thousand: {base:?}");
        assert!(whole.selectors <= times * base.selectors, "{nodes}: {whole:?}, a thousand: {base:?}");
        assert!(changed.selectors <= one.selectors && changed.sessions == 1, "{nodes}: {changed:?}, a thousand: {one:?}");
    }
}

#[test]
fn a_changed_node_costs_itself() {
    let mut scale = Scale::told(Size::of(300));
    let before = scale.compile().unwrap();
    let after = scale.change(node(150, 1)).unwrap();
    let work = scale.work();
    assert_eq!((work.nodes, work.sessions, work.policies, work.services), (1, 1, 0, 0), "{work:?}");
    assert!(
        work.selectors <= 2 * 200 + 8,
        "our own node against every BGPPeer, and the changed one against those that concern us: {work:?}"
    );
    assert!(std::sync::Arc::ptr_eq(&before, &after), "a label that no selector asks for changes nothing");
}

#[test]
fn a_changed_slice_costs_its_service() {
    let mut scale = Scale::told(Size::of(300));
    let before = scale.compile().unwrap();
    let after = scale.change(slice(3, 0)).unwrap();
    let work = scale.work();
    assert_eq!((work.nodes, work.sessions, work.policies, work.services), (0, 0, 0, 1), "{work:?}");
    assert_eq!(before.origin.services.len() + 1, after.origin.services.len());
    assert_eq!(before.peers, after.peers, "no session hears of it, but by the route");
}
