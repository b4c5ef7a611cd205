//! BFD (RFC 5880 to 5883) between margays, BIRD and FRR, on a real kernel: who falls silent is gone from the kernels of the others, over one hop and
//! two; and nobody is taken for dead in a storm of routes.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::{Signal, run, wait_until};
use proto_tests::lab::suite::{self, Story};
use proto_tests::lab::{Lab, Node};

fn main() -> ExitCode {
    suite::main(&[
        Story { name: "silence", file: "topologies/bfd.clab.yml", run: silence },
        Story { name: "multihop", file: "topologies/bfd-multihop.clab.yml", run: multihop },
        Story { name: "storm", file: "topologies/bfd.clab.yml", run: storm },
    ])
}

/// Routers fall silent, one after the other, their TCP connections untouched: long before a hold time their routes are gone from
/// the kernels of the others, and back when they speak again. B2 to B4 with BIRD, FRR and margay at the other end.
fn silence(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let (node1, node2, switch) = (lab.node("node1")?, lab.node("node2")?, lab.node("switch")?);
    let up = |wanted: &[&str]| {
        let peers = node1.json("margay show peers --json")?;
        for peer in peers.as_array().into_iter().flatten() {
            let bfd = &peer["bfd"];
            let expected = wanted.iter().any(|address| peer["address"] == *address);
            ensure!((bfd["state"] == "Up") == expected, "{}: {bfd}", peer["address"]);
            ensure!(!expected || (bfd["detection_ms"] == 150 && bfd["multihop"] == false), "{}: {bfd}", peer["address"]);
        }
        Ok(())
    };
    let all = ["172.20.0.2", "fd00:172:20::2", "172.20.0.3", "172.20.0.4"];
    wait_until(Duration::from_secs(30), "BFD is up with everybody, at 50 ms × 3", || up(&all))?;
    ensure!(node1.exec("margay explain peer 172.20.0.3")?.contains("detects a failure in 150 ms"), "explain says nothing of BFD");
    for (port, prefix, via, silent) in [
        ("port3", "203.0.113.0/24", "via 172.20.0.3", &all[2..3]),
        ("port4", "198.51.100.0/24", "via 172.20.0.4", &all[3..4]),
        ("port2", "10.244.2.0/26", "via 172.20.0.2", &all[..2]),
    ] {
        // The switch drops what the router sends; nobody loses carrier on the way to node1.
        let watch = node1.watch_routes()?;
        let script = format!("sh -c 'date +%H:%M:%S.%6N; ip link set {port} down; date +%H:%M:%S.%6N'");
        let times = switch.exec(&script)?;
        wait_until(Duration::from_secs(15), "the silent router's route leaves node1's kernel", || node1.has_route(prefix, "absent"))?;
        let gone = watch.removed()?.into_iter().find(|line| line.contains(prefix)).context("the watch has not seen it go")?;
        let since =
            |line: &str| milliseconds(&gone).zip(milliseconds(line)).map(|(after, before)| (after - before).rem_euclid(24.0 * 3_600_000.0));
        let spans: Vec<String> = times.lines().rev().filter_map(since).map(|span| format!("{span:.0}")).collect();
        ensure!(spans.len() == 2, "no times in {times} and {gone}");
        println!("    {port}: {prefix} was gone from node1's kernel {} ms after the router had fallen silent", spans.join(" to "));
        ensure!(watch.removed()?.iter().all(|route| !route.contains("via 172.20.0") || route.contains(via)), "{:?}", watch.removed()?);
        let rest: Vec<&str> = all.into_iter().filter(|address| !silent.contains(address)).collect();
        up(&rest)?;
        let error = node1.json(&format!("margay show peer {} --json", silent[0]))?["last_error"].clone();
        ensure!(error["text"].as_str().is_some_and(|text| text.contains("BFD is down")), "{error}");
        if port != "port2" {
            wait_until(Duration::from_secs(15), "and node2's", || node2.has_route(prefix, "absent"))?;
        }
        switch.exec(&format!("ip link set {port} up"))?;
        wait_until(Duration::from_secs(60), "it speaks again, and its route is back", || node1.has_route(prefix, via))?;
        wait_until(Duration::from_secs(30), "BFD is up again", || up(&all))?;
    }
    // A process that dies and a BFD session that an operator takes away are no failures of the path: nothing goes.
    let watch = node2.watch_routes()?;
    lab.kill("node1", Signal::KILL)?;
    lab.restart("node1")?;
    lab.expect()?;
    ensure!(watch.removed()?.iter().all(|route| !route.contains("10.244.1.0")), "kill -9 cost routes: {:?}", watch.removed()?);
    Ok(())
}

/// B4: 3 × 50 ms hold while one of the routers tells a hundred thousand routes and takes them back, twice: no BFD session between margays is
/// lost. Those with BIRD and FRR are printed: FRR's bfdd has no precedence over others, and falls silent on a busy machine.
fn storm(lab: &mut Lab) -> Result<()> {
    const ROUTES: usize = 100_000;
    lab.expect()?;
    let (bird, nodes) = (lab.node("bird")?, [lab.node("node1")?, lab.node("node2")?]);
    let told = |node: Node<'_>| -> Result<usize> {
        let peer = node.json("margay show peer 172.20.0.3 --json")?;
        peer["families"]["ipv4-unicast"]["received"].as_u64().and_then(|count| count.try_into().ok()).with_context(|| peer.to_string())
    };
    let whole = || {
        nodes.iter().try_for_each(|node| {
            let peers = node.json("margay show peers --json")?;
            for peer in peers.as_array().into_iter().flatten() {
                let (bfd, name) = (&peer["bfd"], peer["name"].as_str().unwrap_or_default());
                let held = bfd["state"] == "Up" && bfd["flaps"] == 0 && peer["flaps"] == 0;
                ensure!(held || !name.starts_with("Mesh_"), "{} lost {name}: {bfd}", node.name());
            }
            Ok(())
        })
    };
    wait_until(Duration::from_secs(30), "BFD is up between the margays", whole)?;
    let table: String = (0..ROUTES).map(|n| format!("  route 20.{}.{}.{}/32 blackhole;\n", n / 65536, n / 256 % 256, n % 256)).collect();
    let table = format!("protocol static storm {{\n  ipv4;\n{table}}}\n");
    let own = told(nodes[0])?;
    for wanted in [own + ROUTES, own, own + ROUTES, own] {
        let script =
            if wanted > own { "cat > /run/bird/table.conf && birdc configure" } else { "rm /run/bird/table.conf && birdc configure" };
        run(bird.command(&["sh", "-c", script])?, Some(&table))?;
        wait_until(Duration::from_secs(120), "the storm has come through to both kernels", || {
            nodes.iter().try_for_each(|node| {
                ensure!(told(*node)? == wanted, "{}: {} of {wanted}", node.name(), told(*node)?);
                let installed = node.exec("sh -c 'ip route show proto 12 | grep -c ^20[.]'").unwrap_or_else(|_| "0".to_owned());
                ensure!(installed.trim().parse::<usize>()? == wanted - own, "{}: {installed} installed", node.name());
                Ok(())
            })
        })?;
    }
    for node in nodes {
        let peers = node.json("margay show peers --json")?;
        let lost = peers.as_array().into_iter().flatten().map(|peer| format!("{} {}", peer["address"], peer["bfd"]["flaps"]));
        println!("    {}: BFD sessions lost: {}", node.name(), lost.collect::<Vec<_>>().join(", "));
    }
    whole().context("a BFD session or a BGP session was lost in the storm")
}

/// BFD over two hops (RFC 5883), and nothing but BFD fails: the peers hear Cease 6/10 (RFC 9384) over TCP, which still works, and the
/// session that is strict does not come back before BFD does.
fn multihop(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let (node1, router, bird, frr) = (lab.node("node1")?, lab.node("router")?, lab.node("bird")?, lab.node("frr")?);
    let up = |peer: &str| {
        let bfd = node1.json(&format!("margay show peer {peer} --json"))?["bfd"].clone();
        ensure!(bfd["state"] == "Up" && bfd["multihop"] == true && bfd["detection_ms"] == 150, "{peer}: {bfd}");
        Ok(())
    };
    let all_up = || {
        ["172.21.0.3", "172.22.0.4"].into_iter().try_for_each(up)?;
        let (birds, frrs) = (bird.exec("birdc show bfd sessions")?, frr.json("vtysh -c 'show bfd peers json'")?[0].clone());
        ensure!(birds.lines().any(|line| line.starts_with("172.20.0.1") && line.contains(" Up ")), "{birds}");
        ensure!(frrs["multihop"] == true && frrs["status"] == "up" && frrs["minimum-ttl"] == 253, "{frrs}");
        Ok(())
    };
    wait_until(Duration::from_secs(30), "BFD is up over two hops, at 50 ms × 3, and the peers say the same", all_up)?;
    router.exec("ip rule add ipproto udp dport 4784 blackhole")?;
    wait_until(Duration::from_secs(15), "both peers hear that BFD is down", || {
        // BIRD 2.0.12 has no words for it.
        let said = bird.exec("birdc show protocols all node1")?;
        ensure!(said.contains("Received: Unknown error 6.10"), "{said}");
        let neighbour = frr.json("vtysh -c 'show bgp neighbors 172.20.0.1 json'")?["172.20.0.1"].clone();
        ensure!(neighbour["lastNotificationReason"].as_str().is_some_and(|reason| reason.ends_with("BFD Down")), "{neighbour}");
        Ok(())
    })?;
    wait_until(Duration::from_secs(5), "the route over it is gone", || node1.has_route("203.0.113.0/24", "absent"))?;
    // TCP works all the while, for longer than the peer's and our attempts are apart.
    node1.exec("ping -q -n -c 100 -i 0.1 172.21.0.3")?;
    let state = node1.sessions()?.remove("172.21.0.3");
    ensure!(state.as_deref().is_some_and(|state| state != "Established"), "the strict session did not wait for BFD: {state:?}");
    let why = node1.exec("margay explain peer 172.21.0.3")?;
    ensure!(why.contains("BFD"), "{why}");
    router.exec("ip rule del ipproto udp dport 4784 blackhole")?;
    wait_until(Duration::from_secs(60), "BFD comes back", all_up)?;
    lab.expect()
}

/// The time of day in a line, `…T14:52:50.123456]…` or `14:52:50.123456`, in milliseconds.
fn milliseconds(line: &str) -> Option<f64> {
    let time = line.split_once('T').map_or(line, |(_, rest)| rest).split(']').next()?;
    let parts: Vec<f64> = time.trim().split(':').filter_map(|part| part.parse().ok()).collect();
    if let [hours, minutes, seconds] = parts[..] { Some(((hours * 60.0 + minutes) * 60.0 + seconds) * 1000.0) } else { None }
}
