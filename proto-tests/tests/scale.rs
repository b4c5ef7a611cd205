//! Small networks of the scale world: what a size costs is counted, and the counts are what the protocol says. `cargo scale` runs large ones.

use proto_tests::sim::scale::plan::{Plan, Role, Shape};
use proto_tests::sim::scale::report::{Phase, Report, sum};
use proto_tests::sim::scale::story::{Story, run};
use proto_tests::sim::scale::world::{Options, World};

fn live(plan: Plan, options: Options, short: bool) -> (Report, World) {
    run(plan, options, Story { short, live: None }, |phase| println!("{phase}")).unwrap_or_else(|error| panic!("{error:#}"))
}

fn mesh(nodes: usize, seed: u64, short: bool) -> Report {
    let plan = Plan::new(Shape::Mesh, nodes, 25, 1, false).unwrap();
    live(plan, Options { seed, whole: 1 }, short).0
}

fn phase<'a>(report: &'a Report, name: &str) -> &'a Phase {
    report.phase(name).unwrap_or_else(|| panic!("there is no phase {name}"))
}

#[test]
fn a_mesh_costs_each_node_as_much_as_it_has_peers() {
    for nodes in [20, 40] {
        let report = mesh(nodes, 1, true);
        let n = nodes as u64;
        let cold = phase(&report, "cold start");
        // To each peer: an OPEN, a KEEPALIVE that confirms it, the block, End-of-RIB. The other end of a mesh session is passive: no collision.
        let [share] = cold.shares.as_slice() else { panic!("{cold:?}") };
        let counts = share.messages;
        assert_eq!((counts.open, counts.keepalive, counts.update), (n * (n - 1), n * (n - 1), 2 * n * (n - 1)), "{nodes} nodes");
        assert_eq!((share.most.0, counts.notification, counts.route_refresh), (4 * (n - 1), 0, 0));
        // Every node knows every block, and writes each once.
        assert_eq!((cold.had.len(), share.writes), (nodes, n * n));
        let idle = phase(&report, "idle for 80 s");
        assert!((n * (n - 1)..=2 * n * (n - 1)).contains(&idle.messages()), "a keepalive a session end, or two: {idle}");
        assert_eq!(idle.updates(), 0);
        for name in ["a block comes", "a block goes"] {
            let change = phase(&report, name);
            assert_eq!((change.messages(), change.had.len()), (n - 1, nodes), "{change}");
        }
    }
}

#[test]
fn a_whole_node_among_light_ones_sees_the_mesh_that_it_would_see_among_whole_ones() {
    let plan = Plan::new(Shape::Mesh, 40, 25, 1, false).unwrap();
    let (some, world) = live(plan, Options { seed: 1, whole: 8 }, true);
    let all = mesh(40, 1, true);
    assert_eq!((world.nodes[16].sessions(), world.nodes[17].sessions()), ((39, 39), (5, 5)));
    for name in ["cold start", "a block comes", "a block goes"] {
        let [some, all] = [&some, &all].map(|report| phase(report, name).whole().unwrap());
        assert_eq!((some.nodes, all.nodes, some.most.0), (5, 40, all.most.0), "{name}");
        assert_eq!(some.writes * 8, all.writes, "{name}");
    }
}

#[test]
fn a_node_of_a_mesh_dies_and_starts_and_dies_for_good() {
    let report = mesh(30, 2, false);
    let back = phase(&report, "a node's process dies and starts");
    // The node and each peer: an OPEN, a KEEPALIVE, their block, End-of-RIB; nobody else hears of it.
    assert_eq!(back.messages(), 8 * 29, "{back}");
    let gone = phase(&report, "a node dies for good");
    assert_eq!((gone.updates(), gone.had.len()), (0, 29), "each has found out by itself: {gone}");
    assert!(gone.percentile(100).as_secs() >= 120, "graceful restart keeps its block: {gone}");
}

#[test]
fn reflectors_tell_each_change_to_each_client_once_for_each_way_it_comes() {
    let plan = Plan::new(Shape::Reflectors, 300, 100, 1, false).unwrap();
    let (report, world) = live(plan, Options { seed: 3, whole: 20 }, false);
    let cold = phase(&report, "cold start");
    assert_eq!(cold.had.len(), 308);
    let [whole, light, reflector, top] = cold.shares.as_slice() else { panic!("{cold}") };
    assert_eq!([whole.role, light.role, reflector.role, top.role], [Role::Node, Role::Node, Role::Reflector, Role::Top]);
    assert_eq!([whole.nodes, light.nodes, reflector.nodes, top.nodes], [15, 285, 6, 2]);
    // A node tells its block and End-of-RIB to its two reflectors, however many nodes there are and whether it keeps what it hears.
    assert_eq!([whole.messages.update, light.messages.update], [15 * 2 * 2, 285 * 2 * 2]);
    // One block comes: the node to two reflectors, each to 99 clients and two tops, each top to four reflectors, and each of these to 100 clients.
    let change = phase(&report, "a block comes");
    assert_eq!(change.shares[0].messages.update, 2);
    assert!(change.shares[2].messages.update >= 2 * 99 + 2 * 2 + 4 * 100, "{change}");
    // A reflector of another zone hears of it from two tops, and may tell the one that came first and then the better one.
    assert!(change.messages() < 2 * 2 * 308, "{change}");
    assert_eq!(phase(&report, "a block goes").had.len(), 308);
    for name in ["a node's process dies and starts", "a reflector's process dies and starts"] {
        assert_eq!(phase(&report, name).had.len(), 308, "{name}");
    }
    let gone = phase(&report, "a node dies for good");
    assert_eq!((gone.had.len(), world.nodes[140].runs()), (307, false), "{gone}");
    // One in twenty keeps what it hears, and knows as much as the others.
    assert_eq!((world.nodes[20].rib_stats().ipv4 > 299, world.nodes[21].rib_stats().ipv4 < 10), (true, true));
    assert!(sum(top.messages) > 0);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let [a, b, c] = [7, 7, 8].map(|seed| mesh(20, seed, true).digest);
    assert_eq!(a, b);
    assert_ne!(a, c);
}
