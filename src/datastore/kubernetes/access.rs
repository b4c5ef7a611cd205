//! How the API server is reached: in the cluster, or by Calico's variables.

use std::path::Path;

use anyhow::{Context, bail};
use kube::Config;
use kube::config::Kubeconfig;

use crate::datastore::Variables;

/// Where the server is and who we are.
///
/// `KUBECONFIG` names the file (several with `:` between them are merged), `K8S_CURRENT_CONTEXT` its context. Single
/// settings stand above it, and do without it: `K8S_API_ENDPOINT`, `K8S_API_TOKEN`, `K8S_CERT_FILE`, `K8S_KEY_FILE`,
/// `K8S_CA_FILE`, `K8S_INSECURE_SKIP_TLS_VERIFY`. Where neither a file nor an endpoint is named, the service account
/// of the pod is used; its token and CA are read again as they are renewed.
///
/// # Errors
/// A file that cannot be read or makes no sense, or none of all this in the environment.
pub(super) fn config(variables: &Variables) -> anyhow::Result<Config> {
    let mut config = match (variables.get("KUBECONFIG"), variables.get("K8S_API_ENDPOINT")) {
        (Some(paths), _) => from_files(paths, variables.get("K8S_CURRENT_CONTEXT"))?,
        (None, Some(endpoint)) => Config::new(endpoint.parse().with_context(|| format!("K8S_API_ENDPOINT is `{endpoint}`, which is no URL"))?),
        (None, None) => Config::incluster().context(
            "there is no way to the Kubernetes API: this is no pod with a service account; set KUBECONFIG, or K8S_API_ENDPOINT and what goes with it",
        )?,
    };
    // Pauses between tries are the reflector's business.
    config.default_retry = false;
    config.connect_timeout = Some(std::time::Duration::from_secs(10));
    override_parts(&mut config, variables)?;
    Ok(config)
}

fn from_files(paths: &str, context: Option<&str>) -> anyhow::Result<Config> {
    let mut merged: Option<Kubeconfig> = None;
    for path in paths.split(':').filter(|path| !path.is_empty()) {
        let next = Kubeconfig::read_from(path).with_context(|| format!("KUBECONFIG: {path}"))?;
        merged = Some(match merged {
            None => next,
            Some(before) => before.merge(next).with_context(|| format!("KUBECONFIG: {path}"))?,
        });
    }
    let Some(mut file) = merged else { bail!("KUBECONFIG names no file") };
    if let Some(context) = context {
        file.current_context = Some(context.to_owned());
    }
    Config::try_from(file).with_context(|| format!("KUBECONFIG: {paths}"))
}

fn override_parts(config: &mut Config, variables: &Variables) -> anyhow::Result<()> {
    if let Some(endpoint) = variables.get("K8S_API_ENDPOINT") {
        config.cluster_url = endpoint.parse().with_context(|| format!("K8S_API_ENDPOINT is `{endpoint}`, which is no URL"))?;
    }
    if let Some(token) = variables.get("K8S_API_TOKEN") {
        config.auth_info.token = Some(token.to_owned().into());
    }
    for (name, place) in [("K8S_CERT_FILE", &mut config.auth_info.client_certificate), ("K8S_KEY_FILE", &mut config.auth_info.client_key)] {
        if let Some(path) = variables.get(name) {
            *place = Some(existing(name, path)?);
        }
    }
    if let Some(path) = variables.get("K8S_CA_FILE") {
        config.root_cert_file = Some(existing("K8S_CA_FILE", path)?.into());
    }
    match variables.get("K8S_INSECURE_SKIP_TLS_VERIFY") {
        None => {}
        Some("true" | "1" | "True" | "TRUE" | "t" | "T") => config.accept_invalid_certs = true,
        Some("false" | "0" | "False" | "FALSE" | "f" | "F") => config.accept_invalid_certs = false,
        Some(other) => bail!("K8S_INSECURE_SKIP_TLS_VERIFY is `{other}`: it can be true or false"),
    }
    Ok(())
}

fn existing(name: &str, path: &str) -> anyhow::Result<String> {
    if !Path::new(path).is_file() {
        bail!("{name} is `{path}`, where there is no file");
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        config(&variables.iter().copied().collect())
    }

    #[test]
    fn an_endpoint_and_its_parts() {
        let config = configured(&[
            ("K8S_API_ENDPOINT", "https://192.0.2.1:6443"),
            ("CALICO_K8S_INSECURE_SKIP_TLS_VERIFY", "true"),
            ("K8S_API_TOKEN", "secret"),
        ])
        .unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://192.0.2.1:6443/");
        assert!(config.accept_invalid_certs && config.auth_info.token.is_some() && !config.default_retry);
    }

    #[test]
    fn a_file_with_contexts_under_the_single_settings() {
        let path = std::env::temp_dir().join(format!("margay-kubeconfig-{}", std::process::id()));
        std::fs::write(
            &path,
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             contexts:\n- {name: a, context: {cluster: a, user: u}}\n- {name: b, context: {cluster: b, user: u}}\n\
             clusters:\n- {name: a, cluster: {server: \"http://a.example\"}}\n- {name: b, cluster: {server: \"http://b.example\"}}\n\
             users:\n- {name: u, user: {token: t}}\n",
        )
        .unwrap();
        let file = ("KUBECONFIG", path.to_str().unwrap());
        let url = |variables: &[(&str, &str)]| configured(variables).map(|config| config.cluster_url.to_string());
        assert_eq!(url(&[file]).unwrap(), "http://a.example/");
        assert_eq!(url(&[file, ("K8S_CURRENT_CONTEXT", "b")]).unwrap(), "http://b.example/");
        assert_eq!(url(&[file, ("K8S_API_ENDPOINT", "http://c.example")]).unwrap(), "http://c.example/");
        assert!(url(&[file, ("K8S_CURRENT_CONTEXT", "c")]).is_err());
        std::fs::remove_file(&path).unwrap();
        let error = format!("{:#}", url(&[file]).unwrap_err());
        assert!(error.contains("margay-kubeconfig"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (variables, named) in [
            (&[("K8S_API_ENDPOINT", "a b")] as &[_], "K8S_API_ENDPOINT"),
            (&[("K8S_API_ENDPOINT", "http://a"), ("K8S_CA_FILE", "/nonexistent/ca")], "K8S_CA_FILE"),
            (&[("K8S_API_ENDPOINT", "http://a"), ("K8S_INSECURE_SKIP_TLS_VERIFY", "perhaps")], "K8S_INSECURE_SKIP_TLS_VERIFY"),
        ] {
            let error = format!("{:#}", configured(variables).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
