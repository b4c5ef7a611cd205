//! Virtual machines behind taps, told by nothing but routes of the kernel.

use anyhow::{Result, ensure};
use proto_tests::lab::Lab;
use proto_tests::lab::process::{Signal, wait_until};

use super::PROMPT;

/// Ports come and go and move as the lease script says; a margay and a DHCP server die, and no packet is lost.
pub fn openstack(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    moves(lab)?;
    let watch = lab.node("fabric")?.watch_routes()?;
    let (across, out) = (lab.node("vm1a")?.pings("10.65.0.20")?, lab.node("vm2a")?.pings("203.0.113.1")?);
    // A DHCP server that starts again knows its leases from nobody, and the kernel's routes are where they were.
    lab.node("compute1")?.exec("sh -c 'kill -9 $(cat /run/dhcp/pid)'")?;
    lab.kill("compute1", Signal::KILL)?;
    across.wait_for_replies(50)?;
    lab.restart("compute1")?;
    lab.expect()?;
    across.finish_without_loss()?;
    out.finish_without_loss()?;
    ensure!(watch.removed()?.is_empty(), "the fabric lost routes: {:?}", watch.removed()?);
    let (fabric, compute1) = (lab.node("fabric")?, lab.node("compute1")?);
    // The machine is deleted: its route goes with the lease.
    compute1.exec("lease del fa:16:3e:00:01:0b 10.65.0.255")?;
    wait_until(PROMPT, "the fabric forgets it", || fabric.has_route("10.65.0.255/32", "absent"))?;
    compute1.exec("lease old fa:16:3e:00:01:0b 10.65.0.255")?;
    lab.expect()
}

/// A machine moves: the new host has the route before the old one's is gone. As with Calico's BIRD a route of the kernel (preference
/// 10) does not win against what BGP tells (100), so the old host has it until it takes it back.
fn moves(lab: &Lab) -> Result<()> {
    const MACHINE: &str = "10.65.0.255/32";
    let (fabric, compute1, compute2) = (lab.node("fabric")?, lab.node("compute1")?, lab.node("compute2")?);
    compute2.exec(&format!("ip route replace {MACHINE} dev tap91e2d6f8-05 scope link"))?;
    wait_until(PROMPT, "the new host says why it is not announced yet", || {
        let why = compute2.exec(&format!("margay explain {MACHINE}"))?;
        ensure!(why.contains("kernel: preference 10, against 100"), "{why}");
        Ok(())
    })?;
    compute1.exec("lease del fa:16:3e:00:01:0b 10.65.0.255")?;
    wait_until(PROMPT, "the fabric sends to the new host", || fabric.has_route(MACHINE, "via 172.20.2.1"))?;
    wait_until(PROMPT, "and so does the old one", || compute1.has_route(MACHINE, "via 172.20.1.254"))?;
    // And home again.
    compute1.exec("lease old fa:16:3e:00:01:0b 10.65.0.255")?;
    compute2.exec(&format!("ip route del {MACHINE} dev tap91e2d6f8-05"))?;
    wait_until(PROMPT, "it is back", || fabric.has_route(MACHINE, "via 172.20.1.1"))
}
