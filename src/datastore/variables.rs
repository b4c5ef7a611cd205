//! The process's environment, by Calico's names.

use std::collections::BTreeMap;

/// Environment variables. Every variable of the datastore client is accepted with the prefix `CALICO_` too, as
/// Calico's own components accept it; the prefixed one wins, and an empty value counts as unset.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl std::fmt::Debug for Variables {
    /// Values may be passwords: names only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Variables {
    /// Those of this process that are UTF-8 text.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
    }

    /// A variable of the datastore client: `CALICO_NAME`, else `NAME`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.exactly(&format!("CALICO_{name}")).or_else(|| self.exactly(name))
    }

    /// A variable that has one name only.
    pub fn exactly(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefixed_name_wins_and_empty_is_unset() {
        let variables: Variables = [
            ("ETCD_ENDPOINTS", "a"),
            ("CALICO_ETCD_ENDPOINTS", "b"),
            ("CALICO_ETCD_USERNAME", ""),
            ("ETCD_USERNAME", "u"),
            ("NODENAME", ""),
        ]
        .into_iter()
        .collect();
        assert_eq!(variables.get("ETCD_ENDPOINTS"), Some("b"));
        assert_eq!(variables.get("ETCD_USERNAME"), Some("u"));
        assert_eq!(variables.exactly("NODENAME"), None);
        assert!(!format!("{variables:?}").contains("\"b\""), "values are not shown");
    }
}
