//! The labs of `topologies/`: each is brought up on the real kernel, and what its comment and its `expect.yaml` promise must come true.
//! Beside that, each story does the one thing that its topology is for.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::Lab;
use proto_tests::lab::image::{Speaker, repository};
use proto_tests::lab::process::{Signal, alive, run, wait_until};
use proto_tests::lab::suite::{self, Story};

mod designs;
mod openstack;
mod tool;

fn main() -> ExitCode {
    suite::main(&[
        Story { name: "runner", file: "proto-tests/tests/lab/features.clab.yml", run: runner },
        Story { name: "tool", file: "proto-tests/tests/lab/features.clab.yml", run: tool::tool },
        Story { name: "faults", file: "topologies/tor-bird.clab.yml", run: tool::faults },
        Story { name: "slow_cable", file: "proto-tests/tests/lab/cable.clab.yml", run: tool::slow_cable },
        Story { name: "quickstart", file: "topologies/quickstart.clab.yml", run: quickstart },
        Story { name: "mesh8", file: "topologies/mesh8.clab.yml", run: |lab| lab.expect() },
        Story { name: "tor_bird", file: "topologies/tor-bird.clab.yml", run: top_of_rack },
        Story { name: "kill_and_restart", file: "topologies/tor-bird.clab.yml", run: kill_and_restart },
        Story { name: "live_resources", file: "topologies/tor-bird.clab.yml", run: live_resources },
        Story { name: "password", file: "topologies/tor-bird.clab.yml", run: password },
        Story { name: "tor_frr", file: "topologies/tor-frr.clab.yml", run: top_of_rack },
        Story { name: "tor_gobgp", file: "topologies/tor-gobgp.clab.yml", run: top_of_rack },
        Story { name: "tor_openbgpd", file: "topologies/tor-openbgpd.clab.yml", run: top_of_rack },
        Story { name: "route_reflector", file: "topologies/route-reflector.clab.yml", run: route_reflector },
        Story { name: "mesh_to_reflectors", file: "topologies/mesh-to-reflectors.clab.yml", run: mesh_to_reflectors },
        Story { name: "dual_tor_ecmp", file: "topologies/dual-tor-ecmp.clab.yml", run: dual_tor_ecmp },
        Story { name: "link_local", file: "topologies/link-local.clab.yml", run: link_local },
        Story { name: "encapsulation", file: "proto-tests/tests/lab/ipip.clab.yml", run: encapsulation },
        Story { name: "ipip", file: "proto-tests/tests/lab/features.clab.yml", run: designs::ipip },
        Story { name: "leaf_spine", file: "topologies/leaf-spine.clab.yml", run: designs::leaf_spine },
        Story { name: "reflector_pairs", file: "topologies/reflector-pairs.clab.yml", run: designs::reflector_pairs },
        Story { name: "ipv6_only", file: "topologies/ipv6-only.clab.yml", run: designs::ipv6_only },
        Story { name: "default_only", file: "topologies/default-only.clab.yml", run: designs::default_only },
        Story { name: "anycast", file: "topologies/anycast.clab.yml", run: designs::anycast },
        Story { name: "mesh50", file: "topologies/mesh50.clab.yml", run: designs::mesh50 },
        Story { name: "openstack", file: "topologies/openstack.clab.yml", run: openstack::openstack },
        Story { name: "bird_mesh_migration", file: "topologies/bird-mesh-migration.clab.yml", run: bird_mesh_migration },
    ])
}

/// How fast a workload's route must be at the other side, and gone from there.
const PROMPT: Duration = Duration::from_secs(2);

/// A workload with an address borrowed from a block of nobody here: its /32 is announced, and is gone as soon as the workload is.
fn borrowed_address_comes_and_goes(lab: &Lab, at: &str) -> Result<()> {
    let (node1, node2, other) = (lab.node("node1")?, lab.node("node2")?, lab.node(at)?);
    for (add, prefix, via) in [
        ("ip route add 10.244.200.255/32 dev cali1a scope link metric 1024", "10.244.200.255/32", "via 172.20.0.1"),
        ("ip -6 route add fd00:10:244:200::a/128 dev cali1a metric 1024", "fd00:10:244:200::a/128", "via fd00:172:20::1"),
    ] {
        node1.exec(add)?;
        wait_until(PROMPT, "node2 routes a borrowed address to node1", || node2.has_route(prefix, via))?;
        wait_until(PROMPT, "the ToR knows a borrowed address", || {
            other.learned()?.get(prefix).map(|_| ()).with_context(|| format!("{at} has no path to {prefix}"))
        })?;
        node1.exec(&add.replace(" add ", " del "))?;
        wait_until(PROMPT, "node2 forgets the address", || node2.has_route(prefix, "absent"))?;
        wait_until(PROMPT, "the ToR forgets the address", || {
            ensure!(!other.learned()?.contains_key(prefix), "{at} still has a path to {prefix}");
            Ok(())
        })?;
    }
    Ok(())
}

/// What the runner itself promises, beside a second lab from the same file.
fn runner(lab: &mut Lab) -> Result<()> {
    let (early, side, late) = (lab.node("early")?, lab.node("side")?, lab.node("late")?);
    early.exec("ip addr add 192.0.2.1/30 dev eth0")?;
    late.ping("192.0.2.1")?;
    late.exec("ping -n -c 1 -W 1 -M do -s 1372 192.0.2.1").context("the MTU is 1400")?;
    ensure!(late.exec("ping -n -c 1 -W 1 -M do -s 1373 192.0.2.1").is_err(), "the MTU is more than 1400");
    ensure!(side.exec("ip -br addr show dev eth0")?.contains("192.0.2.1/30"), "side does not share the network");
    ensure!(side.exec("test -e /run/ready").is_err(), "side shares /run");
    ensure!(early.exec("cat /run/word")? == "a word from the host\n" && early.exec("sh -c 'echo x > /etc/lab/word'").is_err(), "binds");
    ensure!(early.exec("hostname")? == "early\n" && early.exec("sysctl -n net.ipv4.ip_forward")? == "1\n", "name and sysctls");
    ensure!(lab.tail().contains("this is default"), "the log, or the environment: {}", lab.tail());
    ensure!(!std::path::Path::new("/etc/private").exists() && !std::path::Path::new("/run/private").exists(), "a node wrote to the host");
    let error = early.exec("sh -c 'echo because >&2; exit 3'").unwrap_err();
    ensure!(format!("{error:#}").contains("because") && format!("{error:#}").contains("on early"), "{error:#}");

    // The instruments of the other stories see what they should.
    let (pings, watch) = (late.pings("192.0.2.1")?, early.watch_routes()?);
    early.exec("ip addr del 192.0.2.1/30 dev eth0")?;
    ensure!(late.exec("ping -n -c 20 -i 0.01 -W 1 192.0.2.1").is_err(), "an address that is gone answers");
    early.exec("ip addr add 192.0.2.1/30 dev eth0")?;
    early.exec("ip route add 198.51.100.0/24 via 192.0.2.2 proto bird")?;
    early.exec("ip route del 198.51.100.0/24 proto bird")?;
    pings.wait_for_replies(5)?;
    let report = pings.finish()?;
    ensure!(report.received >= 5 && report.lost.len() >= 5, "{report:?}");
    wait_until(PROMPT, "the watch sees a removed route", || {
        ensure!(watch.removed()?.len() == 1, "{:?}", watch.removed()?);
        Ok(())
    })?;

    let other = Lab::up("proto-tests/tests/lab/features.clab.yml")?;
    let everybody: Vec<u32> = other.nodes().map(|node| node.processes()).collect::<Result<Vec<_>>>()?.concat();
    ensure!(everybody.len() >= 5, "three holders, a program and a daemon at least: {everybody:?}");
    drop(other);
    wait_until(PROMPT, "every process of a dropped lab is gone", || {
        let left: Vec<_> = everybody.iter().filter(|pid| alive(**pid)).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    late.ping("192.0.2.1").context("the first lab does not mind")?;
    lab.kill("early", Signal::TERM)?;
    ensure!(lab.kill("early", Signal::TERM).is_err() && lab.node("nobody").is_err(), "what is not there");
    lab.restart("early")
}

fn quickstart(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    // Calico's priority: LOCAL_PREF 2147483647 - 1024 from a node comes back as metric 1024; BIRD's protocol number.
    for route in lab.node("node1")?.kernel_routes_to("10.244.2.0/26")? {
        ensure!(route.metric == 1024 && route.protocol == "bird", "{route}");
    }
    borrowed_address_comes_and_goes(lab, "tor")
}

fn top_of_rack(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    for (prefix, paths) in lab.node("tor")?.learned()? {
        ensure!(paths.iter().all(|path| path.as_path == [64512]), "{prefix}: {paths:?}");
    }
    borrowed_address_comes_and_goes(lab, "tor")
}

/// A margay is killed under traffic and comes back: no kernel route goes anywhere, and nobody hears a withdrawal (RFC 4724).
fn kill_and_restart(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let mut watches = Vec::new();
    for node in ["node1", "node2", "tor"] {
        watches.push(lab.node(node)?.watch_routes()?);
    }
    let mut pings = Vec::new();
    for (from, to) in [("wl1a", "10.244.2.0"), ("wl2b", "10.244.1.255"), ("client", "10.244.1.0"), ("client", "fd00:10:244:1::b")] {
        pings.push(lab.node(from)?.pings(to)?);
    }
    lab.kill("node1", Signal::KILL)?;
    pings[0].wait_for_replies(50)?;
    lab.restart("node1")?;
    wait_until(Duration::from_secs(30), "the ToR has its sessions to node1 back", || {
        let said = lab.node("tor")?.exec("birdc show protocols all node1")?;
        ensure!(said.contains("Established") && said.contains("AF preserved: ipv4"), "{said}");
        Ok(())
    })?;
    lab.expect()?;
    // Long enough for End-of-RIB, for the sweep of the past life's routes, and for what should not happen.
    pings[0].wait_for_replies(500)?;
    pings.into_iter().try_for_each(|stream| stream.finish_without_loss())?;
    for watch in &watches {
        ensure!(watch.removed()?.is_empty(), "routes were removed: {:?}", watch.removed()?);
    }
    for session in ["node1", "node1_6"] {
        let said = lab.node("tor")?.exec(&format!("birdc show protocols all {session}"))?;
        let withdraws = said.lines().find(|line| line.contains("Import withdraws:")).unwrap_or_default();
        ensure!(withdraws.split_whitespace().nth(2) == Some("0"), "the ToR heard withdrawals:\n{said}");
    }
    Ok(())
}

/// Resources change while margay runs: what need not reset does not, what is wrong is named, and the last good form stays.
fn live_resources(lab: &mut Lab) -> Result<()> {
    lab.node("node1")?.exec("cp -r /etc/margay/resources /run/resources")?;
    lab.kill("node1", Signal::KILL)?;
    lab.run("node1", Speaker::Margay, "margay run --node node1 --resources /run/resources")?;
    lab.expect()?;
    let (node1, tor) = (lab.node("node1")?, lab.node("tor")?);
    let write = |name: &str, text: &str| {
        // As an editor does it: a new file takes the place of the old one.
        let line = format!("cat > /run/{name}.new && mv /run/{name}.new /run/resources/{name}");
        run(node1.command(&["sh", "-c", &line])?, Some(text)).map(|_| ())
    };
    let since = || -> Result<BTreeMap<String, String>> {
        let peers = node1.json("margay show peers --json")?;
        let pairs = peers.as_array().into_iter().flatten().map(|peer| (peer["name"].to_string(), peer["since"].to_string()));
        Ok(pairs.filter(|(name, _)| !name.contains("172_20_0_254")).collect())
    };
    let via_node1 = |wanted: bool| {
        let paths = tor.learned()?.remove("10.244.1.0/26").unwrap_or_default();
        let found = paths.iter().any(|path| path.next_hop.to_string() == "172.20.0.1");
        ensure!(found == wanted, "the ToR's path to node1's block through node1: {found}");
        Ok(())
    };
    let (whole, others) = (std::fs::read_to_string(repository().join("topologies/rack/cluster/bgp.yaml"))?, since()?);

    let without: Vec<&str> = whole.split("---\n").filter(|document| !document.contains("tor-v4")).collect();
    write("bgp.yaml", &without.join("---\n"))?;
    wait_until(Duration::from_secs(5), "a deleted BGPPeer ends its session", || {
        ensure!(!node1.sessions()?.contains_key("172.20.0.254"), "it is still there");
        node1.has_route("203.0.113.0/24", "absent")?;
        via_node1(false)
    })?;

    let filter = |rule: &str| format!("---\nkind: BGPFilter\nmetadata: {{name: f}}\nspec: {{exportV4: [{rule}]}}\n");
    let filtered = whole.replace("172.20.0.254, asNumber: 65000", "172.20.0.254, asNumber: 65000, filters: [f]");
    write("bgp.yaml", &(filtered.clone() + &filter("{action: Reject}")))?;
    wait_until(Duration::from_secs(15), "it is back, and the filter holds back every route", || {
        ensure!(node1.sessions()?.get("172.20.0.254").is_some_and(|state| state == "Established"), "no session");
        node1.has_route("203.0.113.0/24", "via 172.20.0.254")?;
        via_node1(false)
    })?;
    let tor_since = tor.exec("birdc show protocols node1")?;
    write("bgp.yaml", &(filtered + &filter("{action: Reject, matchOperator: In, cidr: 10.99.0.0/16}")))?;
    wait_until(Duration::from_secs(5), "a changed filter lets the routes go", || via_node1(true))?;
    ensure!(tor.exec("birdc show protocols node1")? == tor_since, "a changed filter reset the session");

    write("broken.yaml", "kind: BGPPeer\nmetadata: {name: x}\nspec: {peerIP: nowhere\n")?;
    wait_until(Duration::from_secs(5), "the broken file is a problem", || {
        let problems = node1.exec("margay show problems --json")?;
        ensure!(problems.contains("broken.yaml"), "{problems}");
        Ok(())
    })?;
    ensure!(since()? == others, "sessions that had nothing to do with it were reset: {others:?} {:?}", since()?);
    lab.expect()
}

/// TCP-MD5 (RFC 2385) with BIRD: the key comes from a Secret, and without the right one there is no session.
fn password(lab: &mut Lab) -> Result<()> {
    lab.node("node1")?.exec("cp -r /etc/margay/resources /run/resources")?;
    lab.kill("node1", Signal::KILL)?;
    lab.run("node1", Speaker::Margay, "margay run --node node1 --resources /run/resources")?;
    let (node1, tor) = (lab.node("node1")?, lab.node("tor")?);
    let state = |wanted: bool| {
        let up = tor.sessions()?.get("172.20.0.1").is_some_and(|state| state == "Established");
        ensure!(
            up == wanted && node1.sessions()?.get("172.20.0.254").is_some_and(|state| (state == "Established") == wanted),
            "Established: {up}"
        );
        Ok(())
    };
    let key = |value: &str| {
        let text = format!("kind: Secret\nmetadata: {{name: bgp, namespace: kube-system}}\nstringData: {{tor: {value}}}\n");
        run(node1.command(&["sh", "-c", "cat > /run/new && mv /run/new /run/resources/secret.yaml"])?, Some(&text))
    };
    wait_until(Duration::from_secs(30), "the session is up without a key", || state(true))?;
    key("s3cret")?;
    node1.exec("sed -i 's/172.20.0.254, asNumber: 65000/&, password: {secretKeyRef: {name: bgp, key: tor}}/' /run/resources/bgp.yaml")?;
    // Down for a moment proves nothing: it must still be down after several attempts.
    let stays_down = |what: &str| {
        wait_until(Duration::from_secs(20), what, || state(false))?;
        node1.exec("ping -q -n -c 50 -i 0.1 172.20.0.254")?;
        state(false).with_context(|| what.to_owned())
    };
    stays_down("BIRD has no key: the session goes")?;
    tor.exec("sh -c 'sed \"s/172.20.0.1 as 64512;/& password \\\"s3cret\\\";/\" /etc/lab/bird.conf > /run/bird.conf'")?;
    tor.exec("birdc configure '\"/run/bird.conf\"'")?;
    wait_until(Duration::from_secs(40), "both have the key", || state(true))?;
    key("another")?;
    tor.exec("birdc restart node1")?;
    stays_down("the keys differ")
}

fn route_reflector(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    // RFC 4456: the client that runs BIRD sees who originated the route and through which cluster it came.
    let said = lab.node("node3")?.exec("birdc show route 10.244.1.0/26 all")?;
    for attribute in
        ["BGP.originator_id: 172.20.0.1", "BGP.cluster_list: 244.0.0.1", "BGP.next_hop: 172.20.0.1", "BGP.local_pref: 2147482623"]
    {
        ensure!(said.contains(attribute), "node3 lacks `{attribute}`:\n{said}");
    }
    // One reflector dies without a word; the routes are the other one's as well.
    let (there, back) = (lab.node("wl1a")?.pings("10.244.3.0")?, lab.node("wl3a")?.pings("10.244.2.63")?);
    lab.kill("rr1", Signal::KILL)?;
    there.wait_for_replies(100)?;
    there.finish_without_loss()?;
    back.finish_without_loss()
}

/// A mesh becomes two reflectors and a mesh again, one node hearing of it after the other: no packet is lost, no kernel route goes,
/// and the sessions with the reflectors stay.
fn mesh_to_reflectors(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let nodes = ["node1", "rr1", "node2", "rr2", "node3"];
    let mut watches = Vec::new();
    for node in nodes {
        watches.push(lab.node(node)?.watch_routes()?);
    }
    for (stage, order, sessions) in [("reflectors", nodes, 4), ("cluster", ["rr2", "node3", "node1", "node2", "rr1"], 8)] {
        let mut pings = Vec::new();
        for (from, to) in [
            ("wl1a", "10.244.2.63"),
            ("wl2a", "10.244.3.0"),
            ("wl3a", "10.244.1.0"),
            ("wl1a", "fd00:10:244:3::a"),
            ("wl2a", "fd00:10:244:1::a"),
        ] {
            pings.push(lab.node(from)?.pings(to)?);
        }
        for node in order {
            let line = format!("mkdir -p /run/new && cp /etc/lab/stages/{stage}/* /run/new && mv /run/new/*.yaml /run/resources");
            run(lab.node(node)?.command(&["sh", "-c", &line])?, None)?;
            pings[0].wait_for_replies(40)?;
        }
        for node in ["node1", "node2", "node3"] {
            wait_until(Duration::from_secs(60), "the old sessions go, once the new ones have taken their place", || {
                let peers = lab.node(node)?.json("margay show peers --json")?;
                let states: Vec<String> = peers
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|peer| format!("{} {} {} leaving {}", peer["name"], peer["state"], peer["flaps"], peer["leaving"]))
                    .collect();
                let settled = states.iter().all(|state| state.contains("Established") && state.ends_with("leaving false"));
                ensure!(settled && states.len() == sessions, "{node} ({stage}): {states:#?}");
                Ok(())
            })?;
        }
        pings[0].wait_for_replies(200)?;
        pings.into_iter().try_for_each(|stream| stream.finish_without_loss()).with_context(|| format!("on the way to {stage}"))?;
    }
    for watch in &watches {
        ensure!(watch.removed()?.is_empty(), "routes were removed: {:?}", watch.removed()?);
    }
    for node in ["node1", "node2", "node3"] {
        let peers = lab.node(node)?.json("margay show peers --json")?;
        let flapped =
            peers.as_array().into_iter().flatten().find(|peer| {
                peer["name"].as_str().is_some_and(|name| name.contains("_1") && name.ends_with(['1', '2'])) && peer["flaps"] != 0
            });
        ensure!(flapped.is_none(), "{node}: {flapped:?}");
    }
    lab.expect()
}

/// A ToR that goes, and one that falls silent: BFD finds that out where neither link nor TCP would for a hold time.
fn dual_tor_ecmp(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let client = "203.0.113.10/32";
    lab.kill("tor1", Signal::TERM)?;
    wait_until(Duration::from_secs(10), "node1 uses tor2 alone", || lab.node("node1")?.has_route(client, "via 172.20.2.254"))?;
    lab.restart("tor1")?;
    lab.expect()?;
    for (silent, left) in [("tor1", "via 172.20.2.254"), ("tor2", "via 172.20.1.254")] {
        wait_until(Duration::from_secs(30), "BFD is up with both", || {
            let peers = lab.node("node1")?.json("margay show peers --json")?;
            let down: Vec<_> = peers.as_array().into_iter().flatten().filter(|peer| peer["bfd"]["state"] != "Up").collect();
            ensure!(down.is_empty(), "{down:?}");
            Ok(())
        })?;
        lab.freeze(silent)?;
        wait_until(Duration::from_secs(10), "a frozen ToR is not used", || lab.node("node1")?.has_route(client, left))?;
        let said = lab.node("node1")?.exec("margay show events")?;
        ensure!(said.contains("BFD is down"), "who found it out?\n{said}");
        lab.node("wl1a")?.ping("10.244.2.255")?;
        lab.thaw(silent)?;
        lab.expect()?;
    }
    frozen_node_comes_back(lab)
}

/// tor1's BFD finds node1 dead. BIRD refuses a neighbour for its `error wait time` then, and is told to make that short.
fn frozen_node_comes_back(lab: &Lab) -> Result<()> {
    let established =
        || -> Result<bool> { Ok(lab.node("tor1")?.sessions()?.get("172.20.1.1").is_some_and(|state| state == "Established")) };
    lab.freeze("node1")?;
    wait_until(Duration::from_secs(10), "tor1 gives a frozen node up", || {
        ensure!(!established()?, "{:?}", lab.node("tor1")?.sessions()?);
        Ok(())
    })?;
    lab.thaw("node1")?;
    wait_until(Duration::from_secs(30), "tor1 takes node1 back", || {
        ensure!(established()?, "{:?}", lab.node("tor1")?.sessions()?);
        Ok(())
    })?;
    lab.expect()
}

/// Sessions on the link itself: link-local with both families, GTSM and extended messages; one hop with both IPv6 next hops.
fn link_local(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let (node1, tor1, tor2) = (lab.node("node1")?, lab.node("tor1")?, lab.node("tor2")?);
    let said = tor1.exec("birdc show protocols all node1")?;
    ensure!(said.matches("Extended message").count() == 2, "both sides offer extended messages:\n{said}");
    // n4: FRR has heard the link-local address beside the global one.
    let path = tor2.json("vtysh -c 'show bgp ipv6 unicast fd00:10:244:1::/122 json'")?;
    let hops: Vec<&str> = path["paths"][0]["nexthops"].as_array().into_iter().flatten().filter_map(|hop| hop["ip"].as_str()).collect();
    ensure!(hops.contains(&"fd00:172:20:2::1") && hops.contains(&"fe80::1"), "{path}");

    // Two thousand routes with one set of attributes each way, 5 octets each.
    let many = |device: &str, net: u8| -> String {
        let route = |n: u32| format!("route add 198.{net}.{}.{}/32 dev {device}\n", n / 250, n % 250);
        (0..2000).map(route).collect()
    };
    run(tor1.command(&["ip", "-batch", "-"])?, Some(&many("uplink", 18)))?;
    wait_until(Duration::from_secs(20), "node1 learns two thousand routes from tor1", || {
        let count = node1.learned()?.keys().filter(|prefix| prefix.starts_with("198.18.")).count();
        ensure!(count == 2000, "{count}");
        Ok(())
    })?;

    // f16: the link to tor2 goes, and the sessions over it at once.
    tor2.exec("ip link set port1 down")?;
    wait_until(PROMPT, "the sessions go with their link", || {
        let sessions = node1.sessions()?;
        let up = |peer: &str| sessions.get(peer).is_some_and(|state| state == "Established");
        ensure!(!up("172.20.2.254") && !up("fd00:172:20:2::fe") && up("fe80::fe"), "{sessions:?}");
        node1.has_route("203.0.113.10/32", "via fe80::fe")
    })?;
    ensure!(node1.exec("margay explain peer 172.20.2.254")?.contains("interface eth1 went down"), "{}", node1.exec("margay show peers")?);
    tor2.exec("ip link set port1 up")?;
    lab.expect()
}

/// BIRD dies as its pod does, without a NOTIFICATION; margay starts in its place. Nobody may notice.
fn bird_mesh_migration(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    for node in ["node1", "node2", "node3"] {
        let mut pings = Vec::new();
        for (from, to) in [("wl1a", "10.244.2.255"), ("wl2a", "10.244.3.0"), ("wl3a", "10.244.1.0"), ("wl1a", "fd00:10:244:3::a")] {
            pings.push(lab.node(from)?.pings(to)?);
        }
        lab.kill(node, Signal::KILL)?;
        pings[0].wait_for_replies(50)?;
        lab.run(node, Speaker::Margay, &format!("margay run --node {node}"))?;
        lab.expect().with_context(|| format!("after margay took over on {node}"))?;
        // The sweep of the past life's routes must not hit what is still wanted.
        pings[0].wait_for_replies(300)?;
        pings.into_iter().try_for_each(|stream| stream.finish_without_loss()).with_context(|| format!("while {node} changed over"))?;
    }
    lab.expect()
}

/// Calico's kernel programming rules on a real kernel: which routes go through `tunl0`, and what happens when it comes and goes.
fn encapsulation(lab: &mut Lab) -> Result<()> {
    let node1 = lab.node("node1")?;
    for name in ["node2", "node4"] {
        lab.node(name)?.exec("ip link add cali0 type veth peer name pod0")?;
        lab.node(name)?.exec("ip link set pod0 up")?;
        lab.node(name)?.exec("ip link set cali0 up")?;
        lab.node(name)?.exec("ip route append 10.244.99.9/32 dev cali0 scope link metric 1024")?;
    }
    let route = |prefix: &str| -> Result<String> { Ok(node1.exec(&format!("ip route show {prefix} proto 12"))?.replace("linkdown", "")) };
    let has = |prefix: &str, wanted: &[&str]| {
        let found = route(prefix)?;
        let words = found.split_whitespace().collect::<Vec<_>>().join(" ");
        let right = if wanted.is_empty() { words.is_empty() } else { wanted.iter().all(|wanted| words.contains(wanted)) };
        ensure!(right, "{prefix}: wanted {wanted:?}, found `{words}`");
        Ok(())
    };
    let (both, deadline) = (["via 172.20.0.2 dev tunl0", "via 172.20.0.4 dev tunl0"], Duration::from_secs(30));
    let plainly = || {
        has("10.244.2.0/26", &["via 172.20.0.2 dev eth0"])?;
        has("10.244.3.0/26", &["via 172.20.0.254 dev eth0"])?;
        has("10.244.132.0/26", &["via 172.20.0.2 dev eth0"])?;
        has("10.244.133.0/26", &["via 172.20.0.254 dev eth0"])?;
        has("10.244.99.9/32", &["via 172.20.0.2 dev eth0", "via 172.20.0.4 dev eth0"])
    };
    let tunnelled = || {
        has("10.244.2.0/26", &["via 172.20.0.2 dev tunl0", "onlink"])?;
        has("10.244.3.0/26", &["via 172.20.1.3 dev tunl0", "onlink"])?;
        has("10.244.132.0/26", &["via 172.20.0.2 dev eth0"]).context("CrossSubnet, in my subnet")?;
        has("10.244.133.0/26", &["via 172.20.1.3 dev tunl0", "onlink"]).context("CrossSubnet, in another subnet")?;
        has("10.244.99.9/32", &both).context("each hop of a multipath route")?;
        has("10.244.1.0/26", &["blackhole"]).context("our own block")
    };
    let others = || {
        has("10.245.2.0/26", &["via 172.20.0.2 dev eth0"])?;
        has("10.245.3.0/26", &["via 172.20.0.254 dev eth0"])?;
        has("10.246.2.0/26", &[]).context("VXLAN is Felix's")
    };
    wait_until(deadline, "without tunl0 every route is plain", || plainly().and_then(|()| others()))?;
    let appear = || -> Result<()> {
        node1.exec("ip tuntap add tunl0 mode tun")?;
        node1.exec("ip link set tunl0 up").map(drop)
    };
    appear()?;
    wait_until(PROMPT, "tunl0 appears: routes go through it", || tunnelled().and_then(|()| others()))?;
    node1.exec("ip link del tunl0")?;
    wait_until(PROMPT, "tunl0 vanishes: routes are plain again", || plainly().and_then(|()| others()))?;
    appear()?;
    wait_until(PROMPT, "tunl0 is back", tunnelled)?;
    let owner = |word: &str| {
        let text = format!("kind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{programClusterRoutes: {word}}}\n");
        run(node1.command(&["sh", "-c", "cat > /run/x && mv /run/x /run/resources/bgp.yaml"])?, Some(&text)).map(drop)
    };
    let absent = |prefixes: &[&str]| prefixes.iter().try_for_each(|prefix| has(prefix, &[]));
    let ipip = ["10.244.1.0/26", "10.244.2.0/26", "10.244.3.0/26", "10.244.132.0/26", "10.244.133.0/26", "10.244.99.9/32"];
    owner("EnabledNoEncapOnly")?;
    wait_until(PROMPT, "IPIP pools are Felix's", || absent(&ipip).and_then(|()| others()))?;
    owner("EnabledIPIPOnly")?;
    wait_until(PROMPT, "pools without encapsulation are Felix's", || {
        tunnelled().and_then(|()| absent(&["10.245.2.0/26", "10.245.3.0/26"]))
    })?;
    owner("Disabled")?;
    wait_until(PROMPT, "every pool is Felix's", || absent(&ipip).and_then(|()| absent(&["10.245.2.0/26", "10.246.2.0/26"])))
}
