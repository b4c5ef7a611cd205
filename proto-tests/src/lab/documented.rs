//! The keys that containerlab documents and the namespace runner does not know: whoever brings a file of others is told that, and not that
//! the key is a mistake.

/// Of the file, of nodes, of links and of `mgmt`, as containerlab 0.79 documents them.
const KEYS: &str = "\
    aliases auto-remove bridge cap-add certificate components config cpu cpu-set credentials debug devices dns driver-opts \
    enforce-startup-config env-files external-access extras host-interface ipv4 ipv4-gw ipv4-range ipv6 ipv6-gw ipv6-range \
    license memory mgmt-ipv4 mgmt-ipv6 mode pid ports position publish restart-policy runtime sandbox settings shm-size \
    startup-config startup-delay suppress-startup-config type ulimits user vars vni";

/// What to say beside serde's words, if they are about such a key.
pub(super) fn explain(error: &str) -> Option<String> {
    let key = error.split("unknown field `").nth(1)?.split('`').next()?;
    KEYS.split_whitespace().any(|known| known == key).then(|| {
        format!("containerlab knows `{key}`, but the namespace runner has nothing that it would mean: leave it out, or use containerlab")
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_documented_key_is_told_from_a_mistake() {
        assert!(
            super::explain("line 5: unknown field `ports`, expected one of …")
                .is_some_and(|words| words.contains("containerlab knows `ports`"))
        );
        assert_eq!(super::explain("line 5: unknown field `imgae`, expected one of …"), None);
        assert_eq!(super::explain("line 5: invalid type"), None);
    }
}
