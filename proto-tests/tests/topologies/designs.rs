//! Networks as architects draw them: what each design is for, beside what its `expect.yaml` says.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::{Signal, run, wait_until};
use proto_tests::lab::{Lab, Node, image, vm};

use super::PROMPT;

/// One AS a rack: the own number comes back and is let in, or is overridden; a spine dies under traffic.
pub fn leaf_spine(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let path = |node: &str, prefix: &str, wanted: &[u32]| {
        let paths = lab.node(node)?.learned()?.remove(prefix).unwrap_or_default();
        ensure!(
            paths.len() == 1 && paths.iter().all(|path| path.as_path == wanted),
            "{node}: {prefix}: wanted {wanted:?}, found {paths:?}"
        );
        Ok(())
    };
    path("node1", "10.244.2.0/26", &[65001, 64601]).context("the rack's own number, let in")?;
    path("node3", "10.244.4.0/26", &[65002, 65002]).context("the rack's own number, overridden")?;
    path("node1", "10.244.3.0/26", &[65001, 65100, 65002, 64602])?;
    path("node4", "10.244.1.0/26", &[65002, 65100, 65001, 64601])?;

    // Its kernel forwards what is still on the way, and the leaves hear of its end at once.
    let (there, back) = (lab.node("wl1a")?.pings("10.244.3.0")?, lab.node("wl4a")?.pings("10.244.2.63")?);
    lab.kill("spine1", Signal::KILL)?;
    wait_until(Duration::from_secs(15), "the leaves use the other spine alone", || {
        lab.node("leaf1")?.has_route("10.244.3.0/26", "via 192.0.2.20")?;
        lab.node("leaf2")?.has_route("10.244.1.0/26", "via 192.0.2.22")
    })?;
    there.wait_for_replies(50)?;
    there.finish_without_loss()?;
    back.finish_without_loss()?;
    lab.restart("spine1")?;
    lab.expect()
}

/// Two clusters on the way, and each pair loses one reflector at the same time.
pub fn reflector_pairs(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    // The client that runs BIRD tells of the clusters on the way.
    let bird = lab.node("node4")?;
    for (prefix, clusters, originator) in [
        ("10.244.1.0/26", "244.0.0.2 244.0.0.1", "172.20.0.1"),
        ("10.244.3.0/26", "244.0.0.2", "172.20.0.3"),
        ("fd00:10:244:2::/122", "244.0.0.2 244.0.0.1", "172.20.0.2"),
    ] {
        let said = bird.exec(&format!("birdc show route {prefix} all"))?;
        for line in [format!("BGP.cluster_list: {clusters}\n"), format!("BGP.originator_id: {originator}\n")] {
            ensure!(said.contains(&line), "no `{line}` in\n{said}");
        }
    }

    let mut watches = Vec::new();
    for node in ["node1", "node2", "node3", "node4"] {
        watches.push(lab.node(node)?.watch_routes()?);
    }
    let mut pings = Vec::new();
    for (from, to) in [("wl1a", "10.244.3.0"), ("wl2a", "fd00:10:244:4::a"), ("wl4a", "10.244.1.0"), ("wl1a", "10.244.2.63")] {
        pings.push(lab.node(from)?.pings(to)?);
    }
    lab.kill("rra1", Signal::TERM)?;
    lab.kill("rrb2", Signal::KILL)?;
    pings[0].wait_for_replies(200)?;
    pings.into_iter().try_for_each(|stream| stream.finish_without_loss())?;
    for watch in &watches {
        ensure!(watch.removed()?.is_empty(), "routes were removed: {:?}", watch.removed()?);
    }
    lab.restart("rra1")?;
    lab.restart("rrb2")?;
    lab.expect()
}

/// No IPv4 anywhere, and identifiers all the same.
pub fn ipv6_only(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let mut identifiers = std::collections::BTreeSet::new();
    for name in ["node1", "node2", "node3"] {
        let node = lab.node(name)?;
        let routes = node.kernel_routes()?;
        ensure!(routes.iter().all(|route| route.prefix.contains(':')), "{name} has routes of IPv4: {routes:?}");
        let said = lab.node("tor")?.exec(&format!("birdc show protocols all {name}"))?;
        let id = said.lines().find_map(|line| line.trim().strip_prefix("Neighbor ID:")).context("no identifier")?;
        identifiers.insert(id.trim().to_owned());
    }
    ensure!(identifiers.len() == 3 && !identifiers.contains("0.0.0.0"), "{identifiers:?}");
    Ok(())
}

/// The default route alone comes down, the public pool alone goes up, and margay says why for the rest.
pub fn default_only(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let (node1, client, tor) = (lab.node("node1")?, lab.node("client")?, lab.node("tor")?);
    ensure!(client.ping("10.245.1.0").is_err(), "the private pool is reached from outside");
    let refused = node1.exec("margay explain 203.0.113.0/24")?;
    ensure!(refused.contains("BGPFilter upstream importV4[1]"), "who refused it is not said:\n{refused}");
    let kept = node1.exec("margay explain 10.245.1.0/26")?;
    ensure!(
        kept.contains("BGPFilter upstream exportV4[2]") && kept.contains("yes Mesh_172_20_0_2"),
        "why it stays inside is not said:\n{kept}"
    );

    // The ToR takes its default route back: there is no way out, and the way to the other node is as it was.
    tor.exec("vtysh -c 'configure terminal' -c 'router bgp 65000' -c 'address-family ipv4 unicast' -c 'no neighbor 172.20.0.1 default-originate'")?;
    wait_until(Duration::from_secs(10), "the default route is gone from node1", || node1.has_route("0.0.0.0/0", "absent"))?;
    node1.has_route("10.244.2.0/26", "via 172.20.0.2")?;
    tor.exec(
        "vtysh -c 'configure terminal' -c 'router bgp 65000' -c 'address-family ipv4 unicast' -c 'neighbor 172.20.0.1 default-originate'",
    )?;
    lab.expect()
}

/// Endpoints come and go; the router follows, and who asks does not notice.
pub fn anycast(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let (client, tor) = (lab.node("client")?, lab.node("tor")?);
    let endpoints = |nodes: &[&str]| -> Result<()> {
        let list: String =
            nodes.iter().map(|node| format!("  - {{addresses: [10.244.9.5], nodeName: {node}, conditions: {{ready: true}}}}\n")).collect();
        let text = format!(
            "kind: EndpointSlice\nmetadata: {{name: web-1, namespace: default, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nendpoints:\n{list}"
        );
        for node in ["node1", "node2", "node3"] {
            let write = "cat > /run/new && mv /run/new /run/resources/endpoints.yaml";
            run(lab.node(node)?.command(&["sh", "-c", write])?, Some(&text))?;
        }
        Ok(())
    };
    let service = "198.51.100.10/32";
    let (local, range) = (client.pings("198.51.100.10")?, client.pings("198.51.100.20")?);
    endpoints(&["node2", "node3"])?;
    wait_until(PROMPT, "an endpoint moves from node1 to node3", || tor.has_route(service, "via 172.20.0.2 172.20.0.3"))?;
    endpoints(&["node1", "node2", "node3"])?;
    wait_until(PROMPT, "there are three", || tor.has_route(service, "via 172.20.0.1 172.20.0.2 172.20.0.3"))?;
    endpoints(&["node3"])?;
    wait_until(PROMPT, "one is left", || tor.has_route(service, "via 172.20.0.3"))?;
    local.wait_for_replies(20)?;
    // The last one goes: the range still leads to some node, the address of its own is nobody's.
    endpoints(&[])?;
    wait_until(PROMPT, "nobody announces it", || tor.has_route(service, "absent"))?;
    endpoints(&["node1", "node2"])?;
    lab.expect()?;
    local.finish_without_loss()?;
    range.finish_without_loss()
}

/// IPIP as packets, on this kernel or on one that has it: what `expect.yaml` says is carried, is carried.
pub fn ipip(_: &mut Lab) -> Result<()> {
    let files = ["topologies/ipip-cross-subnet.clab.yml", "topologies/ipip-always.clab.yml"];
    if vm::host_has_ipip() {
        return files.iter().try_for_each(|file| Lab::up(file)?.expect());
    }
    let paths = files.map(|file| image::repository().join(file).display().to_string());
    let said = vm::run(&[env!("CARGO_BIN_EXE_lab"), "test", &paths[0], &paths[1]])?;
    for path in &paths {
        ensure!(said.contains(&format!("{path}: ok (")), "in user-mode Linux {path} was not tried:\n{said}");
    }
    println!("    in user-mode Linux, since this kernel has no ipip");
    Ok(())
}

/// Everybody with everybody, counted.
pub fn mesh50(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let counted = |node: Node<'_>| -> Result<(usize, usize)> {
        let up = node.sessions()?.values().filter(|state| *state == "Established").count();
        let routes = node.kernel_routes()?;
        Ok((up, routes.iter().filter(|route| route.protocol == "bird" && route.gateways.len() == 1).count()))
    };
    for number in 1..=50 {
        let name = format!("node{number}");
        wait_until(Duration::from_secs(60), "a node has its sessions and routes", || {
            let found = counted(lab.node(&name)?)?;
            ensure!(found == (49, 49), "{name}: {} sessions, {} routes", found.0, found.1);
            Ok(())
        })?;
    }
    Ok(())
}
