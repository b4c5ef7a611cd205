//! Our OPEN, and what two OPENs settle (statements O2…O10).
//! Long because each statement about an OPEN has its test below.

use std::time::Duration;

use bytes::Bytes;

use crate::config::{PeerConfig, Role};
use crate::types::{Afi, Asn, Family, PerFamily, RouterId, Safi};
use crate::wire::{Capability, Context, EXTENDED_LIMIT, GracefulRestart, Notification, Open, STANDARD_LIMIT, capability_octets, code};

use super::refusal::{Refusal, open as subcode};

/// Greatest restart time that the capability's twelve bits hold.
const RESTART_TIME_MAX: u16 = 4095;
/// Greatest length of a host name in the capability.
const HOST_NAME_MAX: usize = 64;

/// What our OPEN says besides the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Advert {
    /// R: this process has restarted and has not recovered yet.
    pub restarting: bool,
    /// F by family.
    pub forwarding: PerFamily<bool>,
    /// What the peer has refused.
    pub omitted: Omitted,
}

/// Capabilities that the peer has refused and that are left out therefore (O10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Omitted {
    codes: u128,
    refusals: u8,
}

impl Omitted {
    /// Learns from a 2/4 or 2/7 in answer to `ours`; says whether the next OPEN will be another one.
    ///
    /// The capabilities named in the data are left out; where none of ours is named, and after a second refusal, all
    /// optional ones. A third refusal cannot come from what was left out: all are offered again.
    pub(super) fn refused(&mut self, ours: &Open, notification: &Notification) -> bool {
        let before = self.clone();
        let offered = ours.capabilities.iter().fold(0, |codes, capability| codes | bit(capability.code()));
        let named = if notification.subcode == subcode::UNSUPPORTED_CAPABILITY { named(&notification.data) & offered } else { 0 };
        match self.refusals {
            0 if named != 0 => self.codes |= named,
            0 | 1 => self.codes = u128::MAX,
            _ => *self = Self::default(),
        }
        self.refusals = if self.codes == 0 { 0 } else { self.refusals + 1 };
        *self != before
    }

    fn has(&self, code: u8) -> bool {
        self.codes & bit(code) != 0
    }
}

fn bit(code: u8) -> u128 {
    1u128.checked_shl(code.into()).unwrap_or(0)
}

/// Codes of the capabilities in the data of a 2/7; what cannot be read is left.
fn named(mut data: &[u8]) -> u128 {
    let mut codes = 0;
    while let [code, length, rest @ ..] = data {
        codes |= bit(*code);
        data = rest.get(usize::from(*length)..).unwrap_or_default();
    }
    codes
}

/// The OPEN that we send.
pub(super) fn our_open(config: &PeerConfig, advert: &Advert) -> Open {
    let mut capabilities = all_capabilities(config, advert);
    capabilities.retain(|capability| !advert.omitted.has(capability.code()) || is_needed(config, capability));
    Open { my_as: config.local_asn.two_octets(), hold_time: config.hold_time, identifier: config.router_id, capabilities }
}

fn all_capabilities(config: &PeerConfig, advert: &Advert) -> Vec<Capability> {
    let families: Vec<Family> = config.offered().collect();
    let mut list: Vec<Capability> = families.iter().map(|family| Capability::Multiprotocol(*family)).collect();
    list.push(Capability::RouteRefresh);
    if offers_extended_next_hop(config) {
        list.push(Capability::ExtendedNextHop(vec![(Afi::IPV4, u16::from(Safi::UNICAST.0), Afi::IPV6)]));
    }
    if config.extended_messages {
        list.push(Capability::ExtendedMessage);
    }
    list.push(Capability::GracefulRestart(GracefulRestart {
        restarting: advert.restarting,
        notification: true,
        restart_time: config.restart_time.min(RESTART_TIME_MAX),
        families: families.iter().map(|family| (*family, advert.forwarding.has(*family))).collect(),
    }));
    list.push(Capability::FourOctetAs(config.local_asn));
    if let Some(mode) = config.add_path.mode() {
        list.push(Capability::AddPath(families.iter().map(|family| (*family, mode)).collect()));
    }
    list.push(Capability::EnhancedRouteRefresh);
    if let Some(role) = config.role.filter(|_| !config.is_ibgp()) {
        list.push(Capability::Role(role.role as u8));
    }
    if let Some(name) = &config.host_name {
        let host = name.as_bytes().get(..name.floor_char_boundary(HOST_NAME_MAX)).unwrap_or_default();
        list.push(Capability::Fqdn { host: Bytes::copy_from_slice(host), domain: Bytes::new() });
    }
    // Without a family: we understand LLGR_STALE, but ask nobody to keep our paths for long (as Calico's BIRD does).
    let long_lived = config.long_lived.map(|time| families.iter().map(|family| (*family, advert.forwarding.has(*family), time)).collect());
    list.push(Capability::LongLivedGracefulRestart(long_lived.unwrap_or_default()));
    list
}

/// IPv4 with IPv6 next hops is offered where it is asked for, and on sessions over link-local addresses.
fn offers_extended_next_hop(config: &PeerConfig) -> bool {
    let link_local = matches!(config.address, std::net::IpAddr::V6(address) if address.is_unicast_link_local());
    config.families.ipv4 && (config.extended_next_hop || link_local)
}

/// What cannot be left out: without it the session would carry nothing, or a wrong AS.
fn is_needed(config: &PeerConfig, capability: &Capability) -> bool {
    match capability {
        Capability::Multiprotocol(_) => config.families.ipv6,
        Capability::FourOctetAs(asn) => asn.0 > u32::from(u16::MAX),
        _ => false,
    }
}

/// What an OPEN exchange settled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Negotiated {
    /// What encoding and decoding depend on.
    pub context: Context,
    /// Seconds, the lesser of both; 0 means no Hold and no KEEPALIVEs.
    pub hold_time: u16,
    /// Pause between KEEPALIVEs, before jitter.
    pub keepalive: Option<Duration>,
    /// Our OPEN.
    pub ours: Open,
    /// The peer's OPEN.
    pub theirs: Open,
    /// The peer's graceful restart capability.
    pub graceful_restart: Option<GracefulRestart>,
    /// NOTIFICATIONs are covered by graceful restart: N on both sides (RFC 8538).
    pub notification_restart: bool,
    /// The peer understands long-lived graceful restart.
    pub long_lived: bool,
    /// The peer has route refresh.
    pub refresh: bool,
    /// Both sides have enhanced route refresh.
    pub enhanced_refresh: bool,
}

impl Negotiated {
    /// The peer's identifier.
    pub(super) fn identifier(&self) -> RouterId {
        self.theirs.identifier
    }

    /// The Hold time, if there is one.
    pub(super) fn hold(&self) -> Option<Duration> {
        (self.hold_time > 0).then(|| Duration::from_secs(self.hold_time.into()))
    }

    /// For how many seconds the peer's paths may stay after its restart time, by family; 0 where they may not (RFC 9494 section 4.2:
    /// capability 71 counts together with 64 only, and our own `limit` holds too).
    pub(super) fn long_lived_times(&self, limit: Option<u32>) -> PerFamily<u32> {
        let limit = limit.filter(|_| self.graceful_restart.is_some()).unwrap_or(0);
        let told = |family| self.long_lived_tuples().find(|(f, ..)| *f == family).map_or(0, |(_, _, time)| *time);
        self.context.families.map(|family, used| if used { told(family).min(limit) } else { 0 })
    }

    /// Whether the peer says in its capability 64 that it has kept forwarding for the family.
    pub(super) fn has_kept(&self, family: Family) -> bool {
        let kept = |gr: &GracefulRestart| gr.families.iter().any(|(f, kept)| *f == family && *kept);
        self.context.families.has(family) && self.graceful_restart.as_ref().is_some_and(kept)
    }

    /// Whether the peer says in its capability 71 that it has kept forwarding for the family.
    pub(super) fn has_kept_for_long(&self, family: Family) -> bool {
        self.context.families.has(family) && self.long_lived_tuples().any(|(f, kept, _)| *f == family && *kept)
    }

    fn long_lived_tuples(&self) -> impl Iterator<Item = &(Family, bool, u32)> {
        let tuples = self.theirs.capabilities.iter().rev().find_map(|capability| match capability {
            Capability::LongLivedGracefulRestart(tuples) => Some(tuples.as_slice()),
            _ => None,
        });
        tuples.unwrap_or_default().iter()
    }

    /// Families that the peer keeps forwarding for, so that its paths may stay when the session is lost.
    pub(super) fn restartable(&self) -> PerFamily<bool> {
        let covered =
            |family| self.graceful_restart.as_ref().is_some_and(|gr| gr.restart_time > 0 && gr.families.iter().any(|(f, _)| *f == family));
        self.context.families.map(|family, used| used && covered(family))
    }
}

/// Checks the peer's OPEN and settles the session, or says what to answer.
pub(super) fn negotiate(config: &PeerConfig, ours: &Open, theirs: &Open) -> Result<Negotiated, Refusal> {
    let four_octet = check_asn(config, theirs)?;
    check_hold_time(theirs)?;
    check_identifier(config, theirs)?;
    let families = families_of(ours).map(|family, on| on && families_of(theirs).has(family));
    if families.is_empty() {
        return Err(no_common_family(ours, theirs));
    }
    check_role(config, theirs)?;
    let hold_time = ours.hold_time.min(theirs.hold_time);
    let (add_path_ours, add_path_theirs) = (add_path_modes(ours), add_path_modes(theirs));
    let ebgp = !config.is_ibgp();
    let enhanced_refresh = has(ours, &Capability::EnhancedRouteRefresh) && has(theirs, &Capability::EnhancedRouteRefresh);
    let context = Context {
        four_octet_as: four_octet && four_octet_as(ours).is_some(),
        families,
        add_path_receive: families.map(|family, on| on && mode(&add_path_ours, family) & 1 != 0 && mode(&add_path_theirs, family) & 2 != 0),
        add_path_send: families.map(|family, on| on && mode(&add_path_ours, family) & 2 != 0 && mode(&add_path_theirs, family) & 1 != 0),
        extended_next_hop: families.ipv4 && has_extended_next_hop(ours) && has_extended_next_hop(theirs),
        enhanced_refresh,
        send_limit: limit(theirs),
        receive_limit: limit(ours),
        ebgp,
        peer_asn: config.remote_asn,
        // A route server does not put its own AS in front (RFC 7947 section 2.2.2.1).
        check_first_as: ebgp && config.role.is_none_or(|ours| ours.role != Role::RouteServerClient),
        allow_as_set: config.as_path.allow_sets,
        discard: config.discard_attributes,
    };
    let graceful_restart = last(theirs, |capability| match capability {
        Capability::GracefulRestart(gr) => Some(gr.clone()),
        _ => None,
    });
    let we_cover = ours.capabilities.iter().any(|capability| matches!(capability, Capability::GracefulRestart(gr) if gr.notification));
    Ok(Negotiated {
        context,
        hold_time,
        keepalive: keepalive_interval(config, hold_time),
        notification_restart: we_cover && graceful_restart.as_ref().is_some_and(|gr| gr.notification),
        graceful_restart,
        long_lived: theirs.capabilities.iter().any(|capability| matches!(capability, Capability::LongLivedGracefulRestart(_))),
        refresh: has(theirs, &Capability::RouteRefresh),
        enhanced_refresh,
        ours: ours.clone(),
        theirs: theirs.clone(),
    })
}

/// O3: capability 65 decides alone. Whether the peer sent it.
fn check_asn(config: &PeerConfig, theirs: &Open) -> Result<bool, Refusal> {
    if theirs.capabilities.iter().any(|capability| matches!(capability, Capability::Unknown { code: 65, .. })) {
        return Err(Refusal::open(subcode::UNSPECIFIC, "its capability for four-octet AS numbers is malformed"));
    }
    let long = four_octet_as(theirs);
    let asn = long.unwrap_or(Asn(theirs.my_as.into()));
    if asn != config.remote_asn || asn.0 == 0 || (long.is_none() && asn == Asn::TRANS) {
        let text = format!("it says that its AS is {asn}, but {} is configured", config.remote_asn);
        return Err(Refusal::open(subcode::BAD_PEER_AS, text));
    }
    Ok(long.is_some())
}

/// L1: only fitting pairs; a peer that names two roles has none that could fit. Without a role of ours its is not looked at.
fn check_role(config: &PeerConfig, theirs: &Open) -> Result<(), Refusal> {
    let Some(ours) = config.role.filter(|_| !config.is_ibgp()) else { return Ok(()) };
    let mut named: Vec<u8> = theirs
        .capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::Role(role) => Some(*role),
            _ => None,
        })
        .collect();
    named.dedup();
    let wanted = ours.role.counterpart();
    let text = match named[..] {
        [] if !ours.strict => return Ok(()),
        [role] if role == wanted as u8 => return Ok(()),
        [] => format!("it names no role, and we as {:?} require {wanted:?}", ours.role),
        [role] => format!("its role is {}, and we are {:?}", role_name(role), ours.role),
        _ => "it names several roles".to_owned(),
    };
    Err(Refusal::open(subcode::ROLE_MISMATCH, text))
}

fn role_name(role: u8) -> String {
    match role {
        0 => "provider".to_owned(),
        1 => "route server".to_owned(),
        2 => "route server client".to_owned(),
        3 => "customer".to_owned(),
        4 => "peer".to_owned(),
        number => format!("the unknown {number}"),
    }
}

fn check_hold_time(theirs: &Open) -> Result<(), Refusal> {
    match theirs.hold_time {
        1 | 2 => Err(Refusal::open(subcode::HOLD_TIME, format!("its hold time of {} s is neither 0 nor at least 3", theirs.hold_time))),
        _ => Ok(()),
    }
}

fn check_identifier(config: &PeerConfig, theirs: &Open) -> Result<(), Refusal> {
    let identifier = theirs.identifier;
    if identifier.0.is_unspecified() {
        return Err(Refusal::open(subcode::BAD_IDENTIFIER, "its BGP identifier is 0.0.0.0"));
    }
    if config.is_ibgp() && identifier == config.router_id {
        return Err(Refusal::open(subcode::BAD_IDENTIFIER, format!("its BGP identifier {identifier} is ours too")));
    }
    Ok(())
}

fn no_common_family(ours: &Open, theirs: &Open) -> Refusal {
    let list = |open| families_of(open).iter().filter(|(_, on)| **on).map(|(family, _)| family.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!("no address family in common: ours {}, its {}", list(ours), list(theirs));
    let needed: Vec<Capability> =
        families_of(ours).iter().filter(|(_, on)| **on).map(|(family, _)| Capability::Multiprotocol(family)).collect();
    let notification = Notification { data: capability_octets(&needed), ..Notification::new(code::OPEN, subcode::UNSUPPORTED_CAPABILITY) };
    Refusal { notification, text }
}

/// O9: no capability 1 at all means IPv4 unicast.
fn families_of(open: &Open) -> PerFamily<bool> {
    let named: Vec<Family> = open
        .capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::Multiprotocol(family) => Some(*family),
            _ => None,
        })
        .collect();
    if named.is_empty() {
        return PerFamily { ipv4: true, ipv6: false };
    }
    PerFamily::default().map(|family, _: bool| named.contains(&family))
}

/// The last capability of a kind counts (O6).
fn last<T>(open: &Open, pick: impl Fn(&Capability) -> Option<T>) -> Option<T> {
    open.capabilities.iter().rev().find_map(pick)
}

fn has(open: &Open, capability: &Capability) -> bool {
    open.capabilities.contains(capability)
}

fn four_octet_as(open: &Open) -> Option<Asn> {
    last(open, |capability| match capability {
        Capability::FourOctetAs(asn) => Some(*asn),
        _ => None,
    })
}

fn add_path_modes(open: &Open) -> Vec<(Family, u8)> {
    last(open, |capability| match capability {
        Capability::AddPath(modes) => Some(modes.clone()),
        _ => None,
    })
    .unwrap_or_default()
}

/// O7: a mode outside 1…3 is no mode.
fn mode(modes: &[(Family, u8)], family: Family) -> u8 {
    modes.iter().rev().find(|(f, mode)| *f == family && (1..=3).contains(mode)).map_or(0, |(_, mode)| *mode)
}

fn has_extended_next_hop(open: &Open) -> bool {
    let tuples = last(open, |capability| match capability {
        Capability::ExtendedNextHop(tuples) => Some(tuples.clone()),
        _ => None,
    });
    tuples.is_some_and(|tuples| tuples.contains(&(Afi::IPV4, u16::from(Safi::UNICAST.0), Afi::IPV6)))
}

fn limit(open: &Open) -> usize {
    if has(open, &Capability::ExtendedMessage) { EXTENDED_LIMIT } else { STANDARD_LIMIT }
}

/// Calico's `keepaliveTime` as it stands, else a third of the hold time; never faster than one a second.
fn keepalive_interval(config: &PeerConfig, hold_time: u16) -> Option<Duration> {
    let hold = (hold_time > 0).then(|| Duration::from_secs(hold_time.into()))?;
    Some(config.keepalive.unwrap_or(hold / 3).max(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::config::{AddPath, RoleConfig};

    fn theirs() -> Open {
        our_open(&sample::pair().1, &Advert::default())
    }

    fn settle(change: impl FnOnce(&mut PeerConfig, &mut Open)) -> Result<Negotiated, (u8, u8)> {
        let (mut config, _) = sample::pair();
        let mut open = theirs();
        change(&mut config, &mut open);
        let ours = our_open(&config, &Advert::default());
        negotiate(&config, &ours, &open).map_err(|refusal| (refusal.notification.code, refusal.notification.subcode))
    }

    #[test]
    fn o2_refusals_in_order() {
        let without = |open: &mut Open, code: u8| open.capabilities.retain(|capability| capability.code() != code);
        type Change<'a> = Box<dyn FnOnce(&mut PeerConfig, &mut Open) + 'a>;
        let rows: Vec<(&str, Change, (u8, u8))> = vec![
            ("another AS", Box::new(|config, _| config.remote_asn = Asn(65001)), (2, 2)),
            ("AS 0 in capability 65", Box::new(|_, open| open.capabilities.push(Capability::FourOctetAs(Asn(0)))), (2, 2)),
            (
                "o3: AS_TRANS alone",
                Box::new(|_, open| {
                    without(open, 65);
                    open.my_as = 23456;
                }),
                (2, 2),
            ),
            (
                "o5: capability 65 malformed",
                Box::new(|_, open| open.capabilities.push(Capability::Unknown { code: 65, value: Bytes::from_static(&[1]) })),
                (2, 0),
            ),
            ("hold 1", Box::new(|_, open| open.hold_time = 1), (2, 6)),
            ("hold 2", Box::new(|_, open| open.hold_time = 2), (2, 6)),
            ("no identifier", Box::new(|_, open| open.identifier = RouterId([0, 0, 0, 0].into())), (2, 3)),
            ("our identifier on iBGP", Box::new(|config, open| open.identifier = config.router_id), (2, 3)),
            ("no common family", Box::new(|config, _| config.families = PerFamily { ipv4: false, ipv6: true }), (2, 7)),
            (
                "the AS comes before the hold time",
                Box::new(|config, open| {
                    config.remote_asn = Asn(65001);
                    open.hold_time = 1;
                }),
                (2, 2),
            ),
        ];
        for (name, change, expected) in rows {
            assert_eq!(settle(change).map(|_| ()), Err(expected), "{name}");
        }
    }

    #[test]
    fn l1_roles_fit_or_the_session_does_not_come_up() {
        use crate::config::{Role, RoleConfig};
        let outcome = |role: Option<(Role, bool)>, theirs: &[u8], ibgp: bool| {
            settle(|config, open| {
                if !ibgp {
                    config.remote_asn = Asn(65001);
                    open.my_as = 65001;
                    open.capabilities.push(Capability::FourOctetAs(Asn(65001)));
                }
                config.role = role.map(|(role, strict)| RoleConfig { role, strict });
                open.capabilities.extend(theirs.iter().map(|role| Capability::Role(*role)));
            })
            .map(|_| ())
        };
        for (ours, fits) in
            [(Role::Provider, 3), (Role::RouteServer, 2), (Role::RouteServerClient, 1), (Role::Customer, 0), (Role::Peer, 4)]
        {
            for theirs in 0..=5 {
                let expected = if theirs == fits { Ok(()) } else { Err((2, 11)) };
                assert_eq!(outcome(Some((ours, false)), &[theirs], false), expected, "{ours:?} {theirs}");
                assert_eq!(outcome(Some((ours, false)), &[theirs], true), Ok(()), "not read on iBGP");
                assert_eq!(outcome(None, &[theirs], false), Ok(()), "no role of ours");
            }
            assert_eq!(outcome(Some((ours, false)), &[], false), Ok(()));
            assert_eq!(outcome(Some((ours, true)), &[], false), Err((2, 11)), "strict");
            assert_eq!(outcome(Some((ours, true)), &[fits, fits], false), Ok(()), "twice the same is one");
            assert_eq!(outcome(Some((ours, false)), &[fits, (fits + 1) % 5], false), Err((2, 11)), "two different ones");
        }
    }

    #[test]
    fn l1_and_73_what_our_open_says() {
        use crate::config::{Role, RoleConfig};
        let (mut config, _) = sample::pair();
        config.role = Some(RoleConfig { role: Role::Customer, strict: false });
        config.host_name = Some("ä".repeat(40).into());
        assert!(!has(&our_open(&config, &Advert::default()), &Capability::Role(3)), "not on iBGP");
        config.remote_asn = Asn(65001);
        let open = our_open(&config, &Advert::default());
        assert!(has(&open, &Capability::Role(3)));
        assert!(has(&open, &Capability::Fqdn { host: Bytes::from("ä".repeat(32)), domain: Bytes::new() }), "cut between characters");
    }

    #[test]
    fn o4_any_identifier_and_ours_on_ebgp() {
        assert!(settle(|_, open| open.identifier = RouterId([240, 0, 0, 1].into())).is_ok());
        let same = settle(|config, open| {
            config.remote_asn = Asn(65001);
            open.my_as = 65001;
            open.capabilities.push(Capability::FourOctetAs(Asn(65001)));
            open.identifier = config.router_id;
        });
        assert!(same.is_ok_and(|settled| settled.context.ebgp && settled.context.check_first_as));
    }

    #[test]
    fn hold_time_is_the_lesser_and_keepalive_a_third_of_it() {
        let cases = [(240, 90, 90, Some(30)), (9, 240, 9, Some(3)), (0, 90, 0, None), (90, 0, 0, None), (3, 3, 3, Some(1))];
        for (ours, theirs, hold, keepalive) in cases {
            let settled = settle(|config, open| {
                config.hold_time = ours;
                open.hold_time = theirs;
            })
            .unwrap();
            assert_eq!((settled.hold_time, settled.keepalive.map(|k| k.as_secs())), (hold, keepalive));
        }
        let explicit = settle(|config, _| config.keepalive = Some(Duration::from_secs(20))).unwrap();
        assert_eq!(explicit.keepalive, Some(Duration::from_secs(20)));
    }

    #[test]
    fn o9_families_are_the_common_ones() {
        let both = PerFamily { ipv4: true, ipv6: true };
        type Row = (PerFamily<bool>, &'static [Family], Option<PerFamily<bool>>);
        let cases: [Row; 4] = [
            (both, &[Family::IPV4_UNICAST, Family::IPV6_UNICAST], Some(both)),
            (both, &[Family::IPV6_UNICAST], Some(PerFamily { ipv4: false, ipv6: true })),
            (both, &[], Some(PerFamily { ipv4: true, ipv6: false })),
            (PerFamily { ipv4: false, ipv6: true }, &[], None),
        ];
        for (offered, theirs, used) in cases {
            let settled = settle(|config, open| {
                config.families = offered;
                open.capabilities.retain(|capability| capability.code() != 1);
                open.capabilities.extend(theirs.iter().map(|family| Capability::Multiprotocol(*family)));
            });
            assert_eq!(settled.ok().map(|settled| settled.context.families), used, "{offered:?} {theirs:?}");
        }
    }

    #[test]
    fn x1_add_path_needs_both_sides_and_o7_a_sane_mode() {
        for (mode, receive, send) in [(0, false, false), (1, false, true), (2, true, false), (3, true, true), (4, false, false)] {
            let settled = settle(|config, open| {
                config.add_path = AddPath::Both;
                open.capabilities.push(Capability::AddPath(vec![(Family::IPV4_UNICAST, mode)]));
            })
            .unwrap();
            assert_eq!((settled.context.add_path_receive.ipv4, settled.context.add_path_send.ipv4), (receive, send), "mode {mode}");
        }
        assert!(
            !settle(|_, open| open.capabilities.push(Capability::AddPath(vec![(Family::IPV4_UNICAST, 3)])))
                .unwrap()
                .context
                .add_path_send
                .ipv4
        );
    }

    #[test]
    fn x1_add_path_in_the_directions_that_are_configured() {
        let rows =
            [(AddPath::Off, false, false), (AddPath::Receive, true, false), (AddPath::Send, false, true), (AddPath::Both, true, true)];
        for (ours, receive, send) in rows {
            let settled = settle(|config, open| {
                config.add_path = ours;
                open.capabilities.push(Capability::AddPath(vec![(Family::IPV4_UNICAST, 3)]));
            })
            .unwrap();
            assert_eq!((settled.context.add_path_receive.ipv4, settled.context.add_path_send.ipv4), (receive, send), "{ours:?}");
        }
    }

    #[test]
    fn x5_message_limits_by_direction() {
        let settled = settle(|config, open| {
            config.extended_messages = true;
            open.capabilities.retain(|capability| *capability != Capability::ExtendedMessage);
        })
        .unwrap();
        assert_eq!((settled.context.send_limit, settled.context.receive_limit), (4096, 65535));
    }

    #[test]
    fn our_open_says_what_is_configured() {
        let (mut config, _) = sample::pair();
        config.local_asn = Asn(4_200_000_000);
        config.restart_time = 5000;
        config.families.ipv6 = true;
        let advert = Advert { restarting: true, forwarding: PerFamily { ipv4: true, ipv6: false }, omitted: Omitted::default() };
        let open = our_open(&config, &advert);
        assert_eq!(open.my_as, 23456);
        let gr = GracefulRestart {
            restarting: true,
            notification: true,
            restart_time: 4095,
            families: vec![(Family::IPV4_UNICAST, true), (Family::IPV6_UNICAST, false)],
        };
        assert!(has(&open, &Capability::GracefulRestart(gr)));
        assert!(!has_extended_next_hop(&open));
        config.address = "fe80::1".parse().unwrap();
        assert!(has_extended_next_hop(&our_open(&config, &advert)));
    }

    #[test]
    fn o10_what_the_peer_refuses_is_left_out() {
        let (config, _) = sample::pair();
        let mut advert = Advert::default();
        let full = our_open(&config, &advert);
        let refusal = |data: &'static [u8]| Notification { code: 2, subcode: 7, data: Bytes::from_static(data) };
        assert!(advert.omitted.refused(&full, &refusal(&[70, 0])));
        let second = our_open(&config, &advert);
        assert_eq!(second.capabilities.len() + 1, full.capabilities.len());
        assert!(!has(&second, &Capability::EnhancedRouteRefresh));
        assert!(advert.omitted.refused(&second, &refusal(&[])));
        assert_eq!(our_open(&config, &advert).capabilities, []);
        assert!(advert.omitted.refused(&second, &refusal(&[])));
        assert_eq!(our_open(&config, &advert), full);
    }

    /// What routers in racks send: Cisco's old refresh, a restart time without a family, and capabilities that nobody else has.
    #[test]
    fn w6_a_top_of_rack_router_is_as_it_is() {
        let settled = settle(|_, open| {
            open.capabilities.retain(|capability| !matches!(capability, Capability::GracefulRestart(_)));
            let helper = GracefulRestart { restart_time: 300, ..GracefulRestart::default() };
            open.capabilities.push(Capability::GracefulRestart(helper));
            for code in [128, 131, 67, 74] {
                open.capabilities.push(Capability::Unknown { code, value: Bytes::from_static(&[0; 4]) });
            }
            open.hold_time = 180;
        })
        .expect("a session");
        assert_eq!((settled.hold_time, settled.restartable()), (90, PerFamily::default()));
        assert!(settled.refresh && settled.context.check_first_as == settled.context.ebgp);
    }

    /// A route server does not stand in its clients' paths: whoever is one's client cannot insist on the first AS.
    #[test]
    fn the_first_as_is_not_asked_of_a_route_server() {
        for (role, checked) in [(None, true), (Some(Role::Customer), true), (Some(Role::RouteServerClient), false)] {
            let settled = settle(|config, open| {
                (config.remote_asn, config.role) = (Asn(65001), role.map(|role| RoleConfig { role, strict: false }));
                open.capabilities.retain(|capability| capability.code() != 65);
                open.capabilities.push(Capability::FourOctetAs(Asn(65001)));
            });
            assert_eq!(settled.expect("a session").context.check_first_as, checked, "{role:?}");
        }
    }

    #[test]
    fn o10_what_the_session_needs_stays() {
        let (mut config, _) = sample::pair();
        config.families.ipv6 = true;
        config.local_asn = Asn(4_200_000_000);
        let mut advert = Advert::default();
        let full = our_open(&config, &advert);
        assert!(advert.omitted.refused(&full, &Notification { code: 2, subcode: 4, data: Bytes::new() }));
        let codes: Vec<u8> = our_open(&config, &advert).capabilities.iter().map(Capability::code).collect();
        assert_eq!(codes, [1, 1, 65]);
    }
}
