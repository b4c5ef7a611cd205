//! Services as they come and go while sessions are up; and what else the configuration changes in a running daemon.

use std::fs;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{Daemon, replace};
use proto_tests::live::{Observer, Plan, enclosed};

use super::session::WAIT;

fn slice(node: &str, ready: bool) -> String {
    format!(
        "kind: EndpointSlice\nmetadata: {{name: web-1, namespace: ns, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\n\
         endpoints: [{{addresses: [10.244.0.1], nodeName: {node}, conditions: {{ready: {ready}}}}}]\n"
    )
}

/// Changes BGPConfiguration default.
fn configure(daemon: &Daemon, more: &str) -> Result<()> {
    let path = daemon.resources().join("base.yaml");
    let text = fs::read_to_string(&path)?;
    replace(&path, &text.replace("nodeToNodeMeshEnabled: false", &format!("nodeToNodeMeshEnabled: false, {more}")))
}

#[test]
fn wish_19_a_service_is_announced_while_an_endpoint_here_is_ready() {
    enclosed(|| {
        let daemon = Plan::default().external(1).start()?;
        let mut router = Observer::establish(&daemon, &daemon.peers[0])?;
        configure(&daemon, "serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}]")?;
        router.route("198.51.100.0/24")?;
        let (service, endpoints) = (daemon.resources().join("service.yaml"), daemon.resources().join("slice.yaml"));
        fs::write(
            service,
            "kind: Service\nmetadata: {name: web, namespace: ns}\nspec: {type: LoadBalancer, externalTrafficPolicy: Local, clusterIP: 10.96.0.1}\n\
             status: {loadBalancer: {ingress: [{ip: 198.51.100.7}]}}\n",
        )?;
        let address = "198.51.100.7/32";
        for round in 0..3 {
            replace(&endpoints, &slice("bench", true))?;
            router.route(address).with_context(|| format!("round {round}: an endpoint is ready"))?;
            replace(&endpoints, &slice("bench", false))?;
            router.no_route(address).with_context(|| format!("round {round}: it is not ready any more"))?;
        }
        replace(&endpoints, &slice("bench", true))?;
        router.route(address)?;
        replace(&endpoints, &slice("elsewhere", true))?;
        router.no_route(address).context("the endpoint moved to another node")?;
        let said = String::from_utf8(daemon.margay(&["explain", "198.51.100.7"])?.stdout)?;
        let why = "no  198.51.100.7, load balancer IP of ns/web: no endpoint on this node is ready, and its externalTrafficPolicy is Local";
        ensure!(
            said.contains("has no route of its own; the longest that holds it is\n198.51.100.0/24")
                && said.contains("services, announced by this node")
                && said.contains(why),
            "{said}"
        );
        replace(&endpoints, &slice("bench", true))?;
        router.route(address)?;
        fs::remove_file(&endpoints)?;
        router.no_route(address).context("the slice is deleted")?;
        ensure!(router.knows("198.51.100.0/24"), "the range stays");
        Ok(())
    });
}

#[test]
fn the_log_level_of_the_configuration_is_live_unless_the_command_line_has_one() {
    enclosed(|| {
        const DEBUG: &str = "the resources are compiled";
        let daemon = Plan::default().external(1).start()?;
        ensure!(!daemon.log().contains(DEBUG), "info unless something else is said");
        configure(&daemon, "logSeverityScreen: Trace")?;
        let changed = |daemon: &Daemon| -> Result<()> {
            let path = daemon.resources().join("some.yaml");
            let before = fs::read_to_string(&path).unwrap_or_default();
            replace(&path, &format!("{before}---\nkind: IPPool\nmetadata: {{name: p{}}}\nspec: {{cidr: 10.1.0.0/16}}\n", before.len()))
        };
        wait_until(WAIT, "debug lines", || {
            changed(&daemon)?;
            ensure!(daemon.log().contains(DEBUG), "none yet");
            Ok(())
        })?;
        drop(daemon);
        let fixed = Plan { arguments: vec!["--log-level".to_owned(), "info".to_owned()], ..Plan::default().external(1) }.start()?;
        configure(&fixed, "logSeverityScreen: Debug, serviceClusterIPs: [{cidr: 10.96.0.0/12}]")?;
        let mut router = Observer::establish(&fixed, &fixed.peers[0])?;
        router.route("10.96.0.0/12").context("the change is in force")?;
        ensure!(!fixed.log().contains(DEBUG), "--log-level wins");
        Ok(())
    });
}
