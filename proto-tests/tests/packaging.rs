//! What margay is installed by: the systemd unit, the container image's recipe, and the kustomizations for Kubernetes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::image::repository;
use proto_tests::package::root;
use serde_json::Value;

const UNIT: &str = "packaging/margay.service";

/// The overall exposure that `systemd-analyze security` computes, 0 (nothing) to 10 (everything); none where it is not installed.
fn exposure() -> Result<Option<f64>> {
    let analysed = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(repository().join(UNIT)).output();
    let output = match analysed {
        Ok(output) => output,
        Err(error) => {
            proto_tests::lab::skip::skipped("q17_the_unit_is_tight", &format!("systemd-analyze (package systemd): {error}"));
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("Overall exposure level")).with_context(|| format!("{output:?}"))?;
    let number = line.split_whitespace().find_map(|word| word.parse().ok()).with_context(|| line.to_owned())?;
    Ok(Some(number))
}

#[test]
fn q17_the_unit_is_tight() -> Result<()> {
    if let Some(exposure) = exposure()? {
        println!("exposure {exposure}");
        ensure!(exposure <= 2.5, "{exposure} of 10 is exposed: systemd-analyze security --offline=true {UNIT} says why");
    }
    Ok(())
}

#[test]
fn t12_q17_the_unit_asks_for_no_more_than_margay_needs() -> Result<()> {
    let unit = std::fs::read_to_string(repository().join(UNIT))?;
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default().to_owned();
    let wanted = "CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_SYS_NICE";
    ensure!(value("CapabilityBoundingSet") == wanted && value("AmbientCapabilities") == wanted, "{unit}");
    ensure!(value("NoNewPrivileges") == "yes" && value("User") == "margay" && unit.contains("SystemCallFilter=@system-service"));
    ensure!(value("Type") == "notify" && value("WatchdogSec").parse::<u64>().is_ok_and(|seconds| seconds >= 20), "{unit}");
    ensure!(value("Restart") == "always" && value("KillSignal") == "SIGTERM", "a restart must be graceful");
    Ok(())
}

/// calico-node as its manifest has it, as far as the patch touches it.
const CALICO: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: calico-node, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: calico-node}}
  template:
    metadata: {labels: {k8s-app: calico-node}}
    spec:
      hostNetwork: true
      serviceAccountName: calico-node
      containers:
        - {name: calico-node, image: calico/node, volumeMounts: [{name: var-run-calico, mountPath: /var/run/calico}]}
      volumes: [{name: var-run-calico, hostPath: {path: /var/run/calico}}, {name: var-lib-calico, hostPath: {path: /var/lib/calico}}]
"#;
const OURS: &str = "resources: [calico.yaml]\ncomponents: [packaging/kustomize/calico-node]\n";

/// What `kubectl kustomize` makes of a folder; none, said aloud, where no kubectl knows components.
fn built(test: &str, folder: &Path) -> Result<Option<Vec<Value>>> {
    let version = Command::new("kubectl").args(["version", "--client"]).output();
    let new = version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("Kustomize Version: v5"));
    if !new {
        proto_tests::lab::skip::skipped(test, "it needs a kubectl with kustomize 5");
        return Ok(None);
    }
    let output = Command::new("kubectl").arg("kustomize").arg(folder).output()?;
    ensure!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let documents = text.split("\n---\n").map(|document| Ok(serde_saphyr::from_str(document)?)).collect::<Result<_>>()?;
    Ok(Some(documents))
}

fn named<'a>(documents: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let found = documents.iter().find(|document| document["kind"] == kind && document["metadata"]["name"] == name);
    found.with_context(|| format!("no {kind} {name}"))
}

/// The container margay of a DaemonSet: its flags are those of this margay, its mounts have volumes, its rights are few.
fn container<'a>(daemon_set: &'a Value, rights: &[&str]) -> Result<&'a Value> {
    let pod = &daemon_set["spec"]["template"]["spec"];
    let containers = pod["containers"].as_array().context("no containers")?;
    let margay = containers.iter().find(|container| container["name"] == "margay").context("no container margay")?;
    let arguments: Vec<&str> = margay["args"].as_array().context("no arguments")?.iter().filter_map(Value::as_str).collect();
    let program = proto_tests::live::daemon::program()?;
    let known = Command::new(program).args(&arguments).arg("--help").output()?;
    ensure!(known.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&known.stderr));
    let volumes: Vec<&Value> = pod["volumes"].as_array().into_iter().flatten().map(|volume| &volume["name"]).collect();
    for mount in containers.iter().flat_map(|container| container["volumeMounts"].as_array().into_iter().flatten()) {
        ensure!(volumes.contains(&&mount["name"]), "{mount} has no volume");
    }
    let context = &margay["securityContext"];
    ensure!(context["capabilities"] == serde_json::json!({"drop": ["ALL"], "add": rights}), "{context}");
    ensure!(context["allowPrivilegeEscalation"] == false && context["readOnlyRootFilesystem"] == true, "{context}");
    ensure!(pod["hostNetwork"] == true && margay["readinessProbe"]["httpGet"]["path"] == "/readyz", "{margay}");
    Ok(margay)
}

#[test]
fn kustomize_puts_margay_in_the_place_of_bird_and_confd() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let copied = Command::new("cp").arg("-r").arg(repository().join("packaging")).arg(folder.path()).status()?;
    ensure!(copied.success());
    std::fs::write(folder.path().join("calico.yaml"), CALICO)?;
    std::fs::write(folder.path().join("kustomization.yaml"), OURS)?;
    let Some(documents) = built("kustomize_puts_margay_in_the_place_of_bird_and_confd", folder.path())? else { return Ok(()) };
    let daemon_set = named(&documents, "DaemonSet", "calico-node")?;
    let margay = container(daemon_set, &["NET_ADMIN", "NET_BIND_SERVICE", "SYS_NICE"])?;
    ensure!(margay["args"].as_array().is_some_and(|words| words.contains(&"/var/run/calico".into())), "{margay}");
    let text = daemon_set.to_string();
    for service in ["bird", "bird6", "confd"] {
        ensure!(text.contains(&format!("/etc/service/available/{service}/run")), "{service} goes on: {text}");
    }
    named(&documents, "ClusterRole", "margay")?;
    ensure!(named(&documents, "ClusterRoleBinding", "margay")?["subjects"][0]["name"] == "calico-node");
    Ok(())
}

#[test]
fn kustomize_puts_margay_beside_another_network() -> Result<()> {
    let folder = repository().join("packaging/kustomize/beside");
    let Some(documents) = built("kustomize_puts_margay_beside_another_network", &folder)? else { return Ok(()) };
    let margay = container(named(&documents, "DaemonSet", "margay")?, &["NET_BIND_SERVICE"])?;
    ensure!(margay["args"].as_array().is_some_and(|words| words.contains(&"--no-fib".into())), "{margay}");
    named(&documents, "ServiceAccount", "margay")?;
    for (kind, name) in [("ClusterRoleBinding", "margay"), ("RoleBinding", "margay-passwords")] {
        ensure!(named(&documents, kind, name)?["subjects"][0]["name"] == "margay", "{kind}");
    }
    Ok(())
}

/// The recipe and `cargo pack root` make the same: the image is what the one script has assembled, and nothing is added or left out.
#[test]
fn the_image_is_what_the_script_assembles() -> Result<()> {
    let recipe = root::instructions(&std::fs::read_to_string(repository().join("packaging/container/Containerfile"))?);
    let image = recipe.iter().rposition(|(word, rest)| word == "FROM" && rest == "scratch").context("it is not from scratch")?;
    let (stages, image) = recipe.split_at(image);
    let copied: Vec<&str> = image.iter().filter(|(word, _)| word == "COPY" || word == "ADD").map(|(_, rest)| rest.as_str()).collect();
    ensure!(copied == ["--from=root /root-of-margay /"], "{copied:?}");
    let last = stages.iter().rfind(|(word, _)| word == "RUN").context("no RUN")?;
    ensure!(last.1 == format!("{} target/release/margay /root-of-margay", root::SCRIPT), "{last:?}");

    let folder = tempfile::tempdir()?;
    let margay = proto_tests::live::daemon::program()?;
    root::assemble(&margay, folder.path())?;
    ensure!(root::assemble(&margay, folder.path()).is_err(), "a folder that is not empty was filled");
    let files = root::files(folder.path())?;
    let entry: Vec<String> = serde_json::from_str(&image.iter().find(|(word, _)| word == "ENTRYPOINT").context("no ENTRYPOINT")?.1)?;
    ensure!(entry == ["/usr/bin/margay"] && files.contains(Path::new(&entry[0])), "{entry:?}");
    let names = |folder: &str| {
        let below = files.iter().filter(|path| path.to_string_lossy().starts_with(folder));
        below.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect::<std::collections::BTreeSet<_>>()
    };
    ensure!(names("/lib") == root::objects(&margay)?, "{files:?}");
    let mut other = names("/etc");
    other.remove("ca-certificates.crt");
    ensure!(other.iter().eq(["group", "nsswitch.conf", "passwd"]), "{files:?}");
    ensure!(files.len() == names("/lib").len() + names("/etc").len() + 1, "{files:?}");
    for place in ["run/margay", "var/lib/margay", "etc/margay/resources"] {
        ensure!(folder.path().join(place).is_dir(), "{place} is no folder: nothing can be mounted there");
    }
    Ok(())
}
