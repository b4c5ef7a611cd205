//! Calico's key layout: which prefixes BGP needs, and what a key and its value are as a resource.
//!
//! | key | resource |
//! |---|---|
//! | `/calico/resources/v3/projectcalico.org/<plural>/<name>` | its value, for the plurals of [`PLURALS`] |
//! | `/calico/ipam/v2/host/<our node>/ipv4\|ipv6/block/<address>-<length>` | a BlockAffinity of our node |

use serde_json::{Value, json};

use crate::calico::{Document, ResourceKey};

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";

/// What is read of the v3 resources; nothing else of the datastore is watched, least of all workload endpoints.
const PLURALS: [(&str, &str); 6] = [
    ("bgpconfigurations", "BGPConfiguration"),
    ("bgpfilters", "BGPFilter"),
    ("bgppeers", "BGPPeer"),
    ("caliconodestatuses", "CalicoNodeStatus"),
    ("ippools", "IPPool"),
    ("nodes", "Node"),
];

/// Every prefix that is listed and watched for a node.
pub fn prefixes(node: &str) -> Vec<String> {
    let resources = PLURALS.iter().map(|(plural, _)| format!("{RESOURCES}{plural}/"));
    resources.chain(["ipv4", "ipv6"].map(|family| format!("/calico/ipam/v2/host/{node}/{family}/block/"))).collect()
}

/// The first key after all that begin with `prefix`.
pub fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // Prefixes end with a slash, so that the last byte has a successor.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// The key of a cluster-wide v3 resource; none for kinds that are not read here.
pub fn of_resource(kind: &str, name: &str) -> Option<String> {
    let (plural, _) = PLURALS.iter().find(|(_, known)| *known == kind)?;
    Some(format!("{RESOURCES}{plural}/{name}"))
}

/// What a key names; none for keys that are no resource of ours.
pub fn resource(key: &str) -> Option<ResourceKey> {
    let named = |kind: &str, name: String| Some(ResourceKey { kind: kind.to_owned(), namespace: String::new(), name });
    if let Some(rest) = key.strip_prefix(RESOURCES) {
        let (plural, name) = rest.split_once('/')?;
        let (_, kind) = PLURALS.iter().find(|(known, _)| *known == plural)?;
        return if name.is_empty() || name.contains('/') { None } else { named(kind, name.to_owned()) };
    }
    let Affinity { node, cidr } = affinity(key)?;
    named("BlockAffinity", format!("{node}-{}", cidr.replace(['.', ':', '/'], "-")))
}

struct Affinity<'a> {
    node: &'a str,
    cidr: String,
}

fn affinity(key: &str) -> Option<Affinity<'_>> {
    let mut parts = key.strip_prefix("/calico/ipam/v2/host/")?.split('/');
    let (node, family, block, cidr) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && ["ipv4", "ipv6"].contains(&family) && block == "block";
    let (address, length) = cidr.rsplit_once('-')?;
    whole.then(|| Affinity { node, cidr: format!("{address}/{length}") })
}

/// A value as a document. One that is no JSON object becomes a text that says why, which the Compiler reports with the
/// key, keeping the last good form.
pub fn document(key: &str, value: &[u8]) -> Document {
    let empty = value.iter().all(u8::is_ascii_whitespace);
    let object = match affinity(key) {
        // Old versions of Calico wrote nothing into an affinity.
        Some(affinity) if empty => as_block_affinity(&affinity, &json!({})),
        Some(affinity) => decoded(value, |value| as_block_affinity(&affinity, &value)),
        None => decoded(value, without_status),
    };
    Document::new(object, key)
}

fn decoded(value: &[u8], finish: impl FnOnce(Value) -> Value) -> Value {
    match serde_json::from_slice::<Value>(value) {
        Ok(value) if value.is_object() => finish(value),
        Ok(_) => Value::String("it is JSON, but no object".to_owned()),
        Err(error) => Value::String(error.to_string()),
    }
}

/// What we write ourselves must not come back as news.
fn without_status(mut value: Value) -> Value {
    if value.get("kind").and_then(Value::as_str) == Some("CalicoNodeStatus")
        && let Some(object) = value.as_object_mut()
    {
        object.remove("status");
    }
    value
}

/// The v3 form of IPAM's own record.
fn as_block_affinity(Affinity { node, cidr }: &Affinity<'_>, record: &Value) -> Value {
    let field = |name: &str| record.get(name).cloned().unwrap_or_default();
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "BlockAffinity",
        "metadata": { "name": format!("{node}-{}", cidr.replace(['.', ':', '/'], "-")) },
        "spec": { "node": node, "cidr": cidr, "state": field("state"), "deleted": field("deleted") },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_resources() {
        let plain = "/calico/resources/v3/projectcalico.org";
        for (key, expected) in [
            (format!("{plain}/bgppeers/tor-a"), Some("BGPPeer tor-a")),
            (format!("{plain}/bgpconfigurations/node.host-a"), Some("BGPConfiguration node.host-a")),
            (format!("{plain}/nodes/host-a"), Some("Node host-a")),
            (format!("{plain}/workloadendpoints/default/x"), None),
            (format!("{plain}/bgppeers/"), None),
            (format!("{plain}/bgppeers/a/b"), None),
            (format!("{plain}/bgppeers"), None),
            ("/calico/ipam/v2/host/a/ipv4/block/10.65.54.0-26".into(), Some("BlockAffinity a-10-65-54-0-26")),
            ("/calico/ipam/v2/host/a/ipv6/block/fd00:65::-122".into(), Some("BlockAffinity a-fd00-65---122")),
            ("/calico/ipam/v2/host/a/ipv4/block/10.65.54.0".into(), None),
            ("/calico/ipam/v2/host/a".into(), None),
            ("/calico/ipam/v2/virtual/a/ipv4/block/10.65.54.0-26".into(), None),
            ("/calico/v1/Ready".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(resource(&key).map(|key| key.to_string()).as_deref(), expected, "{key}");
        }
        assert_eq!(of_resource("BGPPeer", "x").unwrap(), format!("{plain}/bgppeers/x"));
        assert!(of_resource("Secret", "x").is_none());
    }

    #[test]
    fn an_affinity_becomes_a_resource_and_an_empty_one_is_confirmed() {
        let key = "/calico/ipam/v2/host/a/ipv6/block/fd00:65::-122";
        let spec = |value: &str| document(key, value.as_bytes()).object["spec"].clone();
        let expected = json!({ "node": "a", "cidr": "fd00:65::/122", "state": "pending", "deleted": false });
        assert_eq!(spec("{\"state\":\"pending\",\"deleted\":false}"), expected);
        for legacy in ["", "{}", " \n"] {
            assert_eq!(spec(legacy), json!({ "node": "a", "cidr": "fd00:65::/122", "state": null, "deleted": null }), "`{legacy}`");
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_says_why() {
        let read = |value: &[u8]| document("/calico/resources/v3/projectcalico.org/bgppeers/p", value);
        assert!(read(b"{\"kind\": ").object.as_str().unwrap().contains("EOF"));
        assert!(read(b"").object.as_str().unwrap().contains("EOF"));
        assert!(read(b"[1]").object.as_str().unwrap().contains("no object"));
        assert!(read(b"\xff\xfe").object.is_string());
        assert_eq!(read(b"[").location.file, "/calico/resources/v3/projectcalico.org/bgppeers/p");
    }

    #[test]
    fn a_status_is_no_news() {
        let key = "/calico/resources/v3/projectcalico.org/caliconodestatuses/s";
        let read = |text: &str| document(key, text.as_bytes());
        assert_eq!(read(r#"{"kind":"CalicoNodeStatus","status":{"x":1}}"#), read(r#"{"kind":"CalicoNodeStatus","status":{"x":2}}"#));
    }

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(range_end("/a/"), b"/a0");
        assert_eq!(prefixes("n").len(), 8);
    }
}
