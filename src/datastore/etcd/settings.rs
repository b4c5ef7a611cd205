//! Where etcd is and how to get in, from Calico's variables (each also with the prefix `CALICO_`):
//! `ETCD_ENDPOINTS`, `ETCD_USERNAME`, `ETCD_PASSWORD`, `ETCD_CA_CERT_FILE`, `ETCD_CERT_FILE`, `ETCD_KEY_FILE`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::datastore::Variables;

/// How long a connection may take to come up, as with Calico.
const DIAL: Duration = Duration::from_secs(10);
/// A connection is asked for a sign of life this often, …
const KEEPALIVE: Duration = Duration::from_secs(30);
/// … and given up without one.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// User and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `ETCD_USERNAME`.
    pub user: String,
    /// `ETCD_PASSWORD`.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct EtcdSettings {
    /// URLs in the order given.
    pub endpoints: Vec<String>,
    /// User and password, if there is a user.
    pub credentials: Option<Credentials>,
    ca: Option<String>,
    certificate: Option<(String, String)>,
}

impl EtcdSettings {
    /// What the variables say.
    ///
    /// # Errors
    /// They cannot be meant so; the message names the variable.
    pub fn from_variables(variables: &Variables) -> anyhow::Result<Self> {
        if variables.get("ETCD_DISCOVERY_SRV").is_some() {
            bail!("ETCD_DISCOVERY_SRV is not supported: give the members' URLs in ETCD_ENDPOINTS and unset it");
        }
        let endpoints =
            variables.get("ETCD_ENDPOINTS").context("--datastore etcd needs ETCD_ENDPOINTS, for instance http://192.0.2.1:2379")?;
        let endpoints: Vec<String> = endpoints.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect();
        ensure!(!endpoints.is_empty(), "ETCD_ENDPOINTS names no URL");
        let file = |name: &str| variables.get(name).map(str::to_owned);
        let certificate = match (file("ETCD_CERT_FILE"), file("ETCD_KEY_FILE")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => bail!("ETCD_CERT_FILE and ETCD_KEY_FILE belong together: set both or none"),
        };
        let credentials = variables
            .get("ETCD_USERNAME")
            .map(|user| Credentials { user: user.to_owned(), password: variables.get("ETCD_PASSWORD").unwrap_or_default().to_owned() });
        let settings = Self { endpoints, credentials, ca: file("ETCD_CA_CERT_FILE"), certificate };
        for url in &settings.endpoints {
            settings.endpoint(url)?;
        }
        Ok(settings)
    }

    /// An endpoint to connect to. Certificates are read anew, so that renewed ones are taken at the next connection.
    ///
    /// # Errors
    /// The URL is none, or a certificate cannot be read.
    pub fn endpoint(&self, url: &str) -> anyhow::Result<Endpoint> {
        let secure = url.starts_with("https://");
        ensure!(secure || url.starts_with("http://"), "ETCD_ENDPOINTS: `{url}` does not begin with http:// or https://");
        let endpoint = Endpoint::from_shared(url.to_owned())
            .with_context(|| format!("ETCD_ENDPOINTS: `{url}`"))?
            .connect_timeout(DIAL)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        if !secure {
            return Ok(endpoint);
        }
        endpoint.tls_config(self.tls()?).with_context(|| format!("{url}: the certificates cannot be used (are they PEM?)"))
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |variable: &str, path: &str| fs::read(path).with_context(|| format!("{variable} {path} cannot be read"));
        let mut tls = match &self.ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ETCD_CA_CERT_FILE", path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.certificate {
            tls = tls.identity(Identity::from_pem(read("ETCD_CERT_FILE", certificate)?, read("ETCD_KEY_FILE", key)?));
        }
        Ok(tls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<EtcdSettings, String> {
        EtcdSettings::from_variables(&variables.iter().copied().collect()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn variables_that_make_no_sense_are_named() {
        for (variables, words) in [
            (&[] as &[_], "ETCD_ENDPOINTS"),
            (&[("ETCD_ENDPOINTS", " , ")], "names no URL"),
            (&[("ETCD_ENDPOINTS", "192.0.2.1:2379")], "`192.0.2.1:2379` does not begin with"),
            (&[("ETCD_ENDPOINTS", "http://a b")], "http://a b"),
            (&[("ETCD_DISCOVERY_SRV", "example.org")], "ETCD_DISCOVERY_SRV is not supported"),
            (&[("ETCD_ENDPOINTS", "https://a:1"), ("ETCD_CERT_FILE", "/x")], "belong together"),
            (&[("ETCD_ENDPOINTS", "https://a:1"), ("ETCD_CA_CERT_FILE", "/nonexistent/ca")], "ETCD_CA_CERT_FILE /nonexistent/ca"),
        ] {
            let error = settings(variables).unwrap_err();
            assert!(error.contains(words), "{variables:?}: {error}");
        }
    }

    #[test]
    fn calicos_variables_are_taken_with_and_without_the_prefix() {
        let taken = settings(&[
            ("CALICO_ETCD_ENDPOINTS", "http://a:2379, http://b:2379"),
            ("ETCD_USERNAME", "root"),
            ("CALICO_ETCD_PASSWORD", "secret"),
        ])
        .unwrap();
        assert_eq!(taken.endpoints, ["http://a:2379", "http://b:2379"]);
        assert_eq!(taken.credentials, Some(Credentials { user: "root".into(), password: "secret".into() }));
        assert!(!format!("{taken:?}").contains("secret"));
    }
}
