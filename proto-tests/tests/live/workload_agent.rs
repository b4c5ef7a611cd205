//! The embedded agent (`margay workload …`) with traffic: plumbed workloads, NAT, exposed ports, and an agent that is killed at random.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::{run, wait_until};
use proto_tests::live::daemon::{program, replace};
use proto_tests::live::{Observer, Plan, enclosed};

use super::session::WAIT;

/// A network namespace, held by a process that does nothing; ended when dropped.
struct Namespace(Child);

impl Namespace {
    fn new() -> Result<Self> {
        let child = Command::new("setpriv").args(["--pdeathsig", "KILL", "--", "unshare", "--net", "sleep", "infinity"]).spawn()?;
        let namespace = Self(child);
        let own = fs::read_link("/proc/self/ns/net")?;
        wait_until(WAIT, "the namespace is another", || {
            ensure!(fs::read_link(namespace.path())? != own, "not yet");
            Ok(())
        })?;
        Ok(namespace)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// The standard output of a program there.
    fn run(&self, words: &str) -> Result<String> {
        let mut words = words.split(' ');
        let mut command = self.command(words.next().unwrap_or_default());
        command.args(words);
        run(command, None)
    }

    fn ping(&self, address: &str) -> Result<()> {
        let said = self.run(&format!("ping -c 1 -W 5 {address}"))?;
        ensure!(said.contains("1 received"), "{said}");
        Ok(())
    }

    /// Answers each connection to `address` with who has made it.
    fn serve(&self, address: &str, port: u16) -> Result<Server> {
        let script = format!(
            "import socket\ns = socket.create_server(('{address}', {port}), family=socket.AF_INET6 if ':' in '{address}' else socket.AF_INET)\n\
             print('ready', flush=True)\nwhile True:\n c, a = s.accept()\n c.sendall(a[0].encode())\n c.close()\n"
        );
        let mut child = self.command("python3").args(["-c", &script]).stdout(Stdio::piped()).spawn()?;
        let mut ready = [0; 6];
        std::io::Read::read_exact(&mut child.stdout.take().context("its output")?, &mut ready)?;
        Ok(Server(child))
    }

    /// Who we are to a server at this address.
    fn asks(&self, address: &str, port: u16) -> Result<String> {
        let script = format!("import socket\nprint(socket.create_connection(('{address}', {port}), 10).recv(99).decode())");
        let mut command = self.command("python3");
        command.args(["-c", &script]);
        Ok(run(command, None)?.trim().to_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn host(words: &str) -> Result<String> {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    run(command, None)
}

/// A neighbour of this host beyond link0, with addresses of link0's networks.
fn outside() -> Result<Namespace> {
    let outside = Namespace::new()?;
    host(&format!("ip link set link1 netns {}", outside.0.id()))?;
    for words in
        ["ip link set lo up", "ip link set link1 up", "ip addr add 192.0.2.9/24 dev link1", "ip addr add 2001:db8:2::9/64 dev link1 nodad"]
    {
        outside.run(words)?;
    }
    Ok(outside)
}

const POOLS: &str = "kind: IPPool\nmetadata: {name: four}\nspec: {cidr: 10.244.0.0/16, natOutgoing: true}\n---\n\
                     kind: IPPool\nmetadata: {name: six}\nspec: {cidr: \"fd00:10::/64\", natOutgoing: true}\n---\n\
                     kind: IPPool\nmetadata: {name: routed}\nspec: {cidr: 10.245.0.0/16}\n";

fn workload(name: &str, namespace: &Namespace, addresses: &str) -> String {
    let path = namespace.path();
    format!("kind: Workload\nmetadata: {{name: {name}}}\nspec: {{netns: {path}, addresses: [{addresses}]}}\n")
}

fn exposure(name: &str, port: u16, address: &str) -> String {
    format!(
        "kind: PortExposure\nmetadata: {{name: {name}}}\nspec: {{protocol: TCP, port: {port}, address: \"{address}\", targetPort: 80}}\n"
    )
}

/// Runs the agent once; what it said.
fn apply(folder: &Path) -> Result<String> {
    let mut command = Command::new(program()?);
    command.args(["workload", "apply"]).arg(folder);
    run(command, None)
}

#[test]
fn declared_workloads_reach_each_other_and_the_world_and_are_announced() {
    enclosed(|| {
        let (web, db, outside) = (Namespace::new()?, Namespace::new()?, outside()?);
        let folder = tempfile::tempdir()?;
        let text = [
            workload("web", &web, "10.244.1.0, \"fd00:10::5\""),
            workload("db", &db, "10.244.1.255, \"fd00:10::6\", 10.245.1.1"),
            exposure("http", 8080, "10.244.1.0"),
            exposure("http6", 8080, "fd00:10::5"),
            POOLS.to_owned(),
        ];
        fs::write(folder.path().join("all.yaml"), text.join("---\n"))?;
        host("nft add table ip strangers")?;
        host("nft add chain ip strangers theirs")?;
        let said = apply(folder.path())?;
        ensure!(said.contains("2 workloads, 2 ports: 0 removed,") && said.contains("the nftables table anew"), "{said}");
        ensure!(apply(folder.path())? == "2 workloads, 2 ports: 0 removed, 0 writes\n", "nothing is left to do");
        for address in ["10.244.1.255", "fd00:10::6", "192.0.2.9", "2001:db8:2::9"] {
            web.ping(address).with_context(|| format!("to {address}"))?;
        }
        let (_four, _six) = (web.serve("10.244.1.0", 80)?, web.serve("fd00:10::5", 80)?);
        ensure!(outside.asks("192.0.2.1", 8080)? == "192.0.2.9", "an exposed port, and the source is kept");
        ensure!(outside.asks("2001:db8:2::1", 8080)? == "2001:db8:2::9", "and in IPv6");
        ensure!(db.asks("192.0.2.1", 8080)? == "10.244.1.255", "from another workload");
        // The kernel chooses an address of this host for a workload that reaches itself.
        ensure!(web.asks("192.0.2.1", 8080)? != "10.244.1.0", "a workload reaches itself by the exposed port");
        ensure!(db.asks("10.244.1.0", 80)? == "10.244.1.255", "inside of the pools nothing is translated");
        let (_seen, _seen6) = (outside.serve("192.0.2.9", 81)?, outside.serve("2001:db8:2::9", 81)?);
        ensure!(web.asks("192.0.2.9", 81)? == "192.0.2.1", "natOutgoing: {}", web.asks("192.0.2.9", 81)?);
        ensure!(web.asks("2001:db8:2::9", 81)? == "2001:db8:2::1", "natOutgoing in IPv6");
        ensure!(host("nft list table ip strangers")?.contains("chain theirs"), "other tables are left alone");
        let daemon = Plan { kernel: true, ..Plan::default().external(1) }.start()?;
        let mut router = Observer::establish(&daemon, &daemon.peers[0])?;
        for prefix in ["10.244.1.0/32", "10.244.1.255/32", "10.245.1.1/32"] {
            router.route(prefix)?;
        }
        replace(&folder.path().join("all.yaml"), &workload("db", &db, "10.244.1.255"))?;
        ensure!(apply(folder.path())?.contains("1 workloads, 0 ports: 1 removed,"), "the other is gone");
        router.no_route("10.244.1.0/32")?;
        router.no_route("10.245.1.1/32")?;
        ensure!(router.knows("10.244.1.255/32") && !host("nft list tables")?.contains("margay"), "and so is our table");
        Ok(())
    });
}

/// Everything that the agent is responsible for, as the kernel tells it.
fn state(namespaces: &[&Namespace]) -> Result<String> {
    let mut list = Command::new(program()?);
    list.args(["workload", "list", "--json"]);
    let mut text = run(list, None)?;
    for words in ["ip route show", "ip -6 route show", "nft list table inet margay"] {
        text += &host(words)?;
    }
    for namespace in namespaces {
        for words in ["ip -o -4 addr show dev eth0", "ip route show", "ip -6 route show default", "ip neigh show nud permanent"] {
            text += &namespace.run(words)?;
        }
        for line in namespace.run("ip -o -6 addr show dev eth0 scope global")?.lines() {
            text.push_str(line.split("valid_lft").next().unwrap_or_default());
        }
    }
    // The number of an interface is what differs from life to life.
    Ok(text.split_whitespace().filter(|word| !word.ends_with(':')).collect::<Vec<_>>().join(" "))
}

#[test]
fn an_agent_killed_at_random_converges_to_the_same_state_and_then_writes_nothing() {
    enclosed(|| {
        let (web, db) = (Namespace::new()?, Namespace::new()?);
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("all.yaml");
        let first = [
            workload("web", &web, "10.244.1.0, \"fd00:10::5\""),
            workload("db", &db, "10.244.1.255"),
            exposure("http", 8080, "10.244.1.0"),
            POOLS.to_owned(),
        ]
        .join("---\n");
        let second = [workload("web", &web, "10.244.1.255"), workload("db", &db, "10.244.1.0, \"fd00:10::6\"")].join("---\n");
        fs::write(&path, &first)?;
        apply(folder.path())?;
        let whole = state(&[&web, &db])?;
        ensure!(whole.contains("10.244.1.0/32") && whole.contains("dnat"), "{whole}");
        let mut killed = 0;
        for round in 0..24u32 {
            replace(&path, if round % 2 == 0 { &second } else { &first })?;
            let mut command = Command::new("timeout");
            // A little later each time: it is killed at each of its stages.
            command
                .arg("--signal=KILL")
                .arg(format!("0.{:03}", 1 + round * 2))
                .arg(program()?)
                .args(["workload", "apply"])
                .arg(folder.path());
            killed += u32::from(!command.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success());
        }
        ensure!(killed > 2, "{killed} of 24 were killed");
        replace(&path, &first)?;
        apply(folder.path())?;
        ensure!(state(&[&web, &db])? == whole, "{}\nis not\n{whole}", state(&[&web, &db])?);
        ensure!(apply(folder.path())? == "2 workloads, 1 ports: 0 removed, 0 writes\n", "nothing is left to do");
        drop(db);
        wait_until(WAIT, "the kernel has removed what belonged to the namespace", || {
            ensure!(!host("ip route show")?.contains("10.244.1.255"), "not yet");
            Ok(())
        })
    });
}

/// The agent, as long as it is held.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_watching_agent_follows_its_files_and_mends_what_others_break() {
    enclosed(|| {
        let web = Namespace::new()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("all.yaml");
        fs::write(&path, workload("web", &web, "10.244.1.0"))?;
        let mut command = Command::new(program()?);
        command.args(["workload", "apply", "--watch"]).arg(folder.path()).stdout(Stdio::null());
        let mut agent = Watching(command.spawn()?);
        let routed = |address: &str, wanted: bool| {
            wait_until(WAIT, "the kernel routes what is declared", || {
                let routes = host("ip route show")?;
                ensure!(routes.contains(&format!("{address} dev cali")) == wanted, "{address}: {routes}");
                Ok(())
            })
        };
        routed("10.244.1.0", true)?;
        replace(&path, &workload("web", &web, "10.244.1.255"))?;
        routed("10.244.1.255", true)?;
        routed("10.244.1.0", false)?;
        host("ip route del 10.244.1.255")?;
        routed("10.244.1.255", true)?;
        // A file that cannot be read takes nothing away, and is not the end.
        replace(&path, "kind: Workload\nmetadata: {name: web}\nspec: {netns: /nowhere, adresses: []}\n")?;
        host("ip route add 10.99.0.0/24 via 192.0.2.9")?;
        replace(&path, &workload("web", &web, "10.244.1.255, 10.244.1.0"))?;
        routed("10.244.1.0", true)?;
        routed("10.244.1.255", true)?;
        ensure!(agent.0.try_wait()?.is_none(), "it ended");
        ensure!(host("ip route show")?.contains("10.99.0.0/24"), "a stranger's route is gone");
        Ok(())
    });
}

#[test]
fn it_does_nothing_where_felix_is_at_work() {
    enclosed(|| {
        let web = Namespace::new()?;
        let attempt = || -> Result<String> {
            let output =
                Command::new(program()?).args(["workload", "add", "web", "--netns", &web.path(), "--address", "10.244.1.5"]).output()?;
            ensure!(!output.status.success(), "it did something");
            Ok(String::from_utf8(output.stderr)?)
        };
        host("ip link add cali123 type veth peer name other")?;
        ensure!(attempt()?.contains("interface cali123 is a workload's, and not of ours"), "{}", attempt()?);
        host("ip link del cali123")?;
        host("nft add table ip filter")?;
        host("nft add chain ip filter cali-FORWARD")?;
        ensure!(attempt()?.contains("nftables has `cali-FORWARD`"), "{}", attempt()?);
        host("nft delete table ip filter")?;
        ensure!(!host("ip link")?.contains("cali"), "nothing was made");
        Ok(())
    });
}
