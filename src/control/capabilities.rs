//! The capabilities of both sides of a session, in sentences: which are in use, and which one side alone has offered.

use crate::session::{AddPathStatus, Capabilities, CapabilitySet, GracefulRestartStatus};

/// A capability by name, and what a side says with it.
type Offer = (String, Option<String>);

/// What is offered by both, by us alone, by the peer alone; a sentence for each that there is.
pub fn sentences(capabilities: &Capabilities) -> Vec<String> {
    let (ours, theirs) = (offers(&capabilities.local), offers(&capabilities.remote));
    let is_in = |name: &str, offers: &[Offer]| offers.iter().any(|(other, _)| other == name);
    let both = ours.iter().filter(|(name, _)| is_in(name, &theirs)).map(|(name, here)| {
        let there = theirs.iter().find(|(other, _)| other == name).and_then(|(_, said)| said.as_ref());
        match (here, there) {
            (None, None) => name.clone(),
            (here, there) => format!("{name} (we: {}; the peer: {})", said(here.as_ref()), said(there)),
        }
    });
    let alone = |of: &[Offer], others: &[Offer]| -> Vec<String> {
        let alone = of.iter().filter(|(name, _)| !is_in(name, others));
        alone.map(|(name, what)| what.as_ref().map_or_else(|| name.clone(), |what| format!("{name} ({what})"))).collect()
    };
    let sentence = |words: &str, list: Vec<String>| (!list.is_empty()).then(|| format!("{words}: {}.", list.join(", ")));
    let sentences = [
        sentence("Both sides have offered", both.collect()),
        sentence("We alone have offered", alone(&ours, &theirs)),
        sentence("The peer alone has offered", alone(&theirs, &ours)),
    ];
    sentences.into_iter().flatten().collect()
}

fn said(what: Option<&String>) -> &str {
    what.map_or("nothing", String::as_str)
}

fn offers(set: &CapabilitySet) -> Vec<Offer> {
    let plain = [
        (set.route_refresh, "route refresh"),
        (set.enhanced_route_refresh, "enhanced route refresh"),
        (set.four_octet_as.is_some(), "four-octet AS numbers"),
        (set.extended_message, "extended messages"),
        (set.extended_next_hop, "IPv4 with IPv6 next hops"),
    ];
    let mut offers: Vec<Offer> = set.multiprotocol.iter().map(|family| (family.clone(), None)).collect();
    offers.extend(plain.into_iter().filter(|(there, _)| *there).map(|(_, name)| (name.to_owned(), None)));
    offers.extend(set.add_path.iter().map(|AddPathStatus { family, mode }| (format!("ADD-PATH for {family}"), Some((*mode).to_owned()))));
    offers.extend(set.graceful_restart.as_ref().map(|restart| ("graceful restart".to_owned(), Some(restart_words(restart)))));
    offers.extend(set.long_lived_graceful_restart.as_ref().map(|_| ("long-lived graceful restart".to_owned(), None)));
    offers.extend(set.role.map(|role| ("role".to_owned(), Some(role_name(role)))));
    offers.extend(set.unknown.iter().map(|code| (format!("code {code}, which margay does not know"), None)));
    offers
}

fn restart_words(restart: &GracefulRestartStatus) -> String {
    let kept = if restart.families.is_empty() { "no family".to_owned() } else { restart.families.join(" and ") };
    format!("{} s for {kept}", restart.restart_time)
}

/// RFC 9234 section 4.1.
fn role_name(role: u8) -> String {
    let names = ["provider", "rs", "rs-client", "customer", "peer"];
    names.get(usize::from(role)).map_or_else(|| role.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_alone_has_offered_is_named_as_that() {
        let restart = |seconds| {
            let families = vec!["ipv4-unicast".to_owned()];
            Some(GracefulRestartStatus {
                restarting: false,
                notification: true,
                restart_time: seconds,
                forwarding: families.clone(),
                families,
            })
        };
        let local = CapabilitySet {
            multiprotocol: vec!["ipv4-unicast".to_owned(), "ipv6-unicast".to_owned()],
            route_refresh: true,
            graceful_restart: restart(120),
            ..CapabilitySet::default()
        };
        let remote = CapabilitySet {
            multiprotocol: vec!["ipv4-unicast".to_owned()],
            route_refresh: true,
            graceful_restart: restart(90),
            role: Some(3),
            unknown: vec![200],
            ..CapabilitySet::default()
        };
        assert_eq!(
            sentences(&Capabilities { local: local.clone(), remote }),
            [
                "Both sides have offered: ipv4-unicast, route refresh, graceful restart (we: 120 s for ipv4-unicast; the peer: 90 s for ipv4-unicast).",
                "We alone have offered: ipv6-unicast.",
                "The peer alone has offered: role (customer), code 200, which margay does not know."
            ]
        );
        let same = Capabilities { local: local.clone(), remote: local };
        assert_eq!(sentences(&same).len(), 1);
    }
}
