//! Whether a condition holds for a route.

use ipnet::IpNet;

use super::{Match, Subject};
use crate::types::{AsPath, Asn};

impl Match {
    /// Whether it holds.
    pub(super) fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Prefix { cidr, min, max, negate } => in_range(cidr, *min, *max, &subject.prefix) != *negate,
            Self::InsideAny(set) => set.covering(&subject.prefix).is_some(),
            Self::OutsideAll(set) => set.covering(&subject.prefix).is_none(),
            Self::EqualToAny(set) => set.contains(&subject.prefix),
            Self::Source(source) => subject.source == *source,
            Self::RemotePeers => subject.source.is_bgp(),
            Self::Interface(pattern) => glob(pattern.as_bytes(), subject.interface.unwrap_or_default().as_bytes()),
            Self::SessionIsEbgp(ebgp) => subject.session_is_ebgp == *ebgp,
            Self::Community(community) => subject.attributes.has_community(*community),
            Self::LargeCommunity(community) => subject.attributes.rare.large_communities.contains(community),
            Self::AsPathPrefix(asns) => begins_with(&subject.attributes.as_path, asns),
            Self::LocalPref(value) => subject.local_pref() == *value,
            Self::LocalPrefAbove(value) => subject.local_pref() > *value,
            Self::MetricBelow(value) => subject.metric.is_some_and(|metric| metric < *value),
        }
    }
}

fn in_range(cidr: &IpNet, min: u8, max: u8, prefix: &IpNet) -> bool {
    (min..=max).contains(&prefix.prefix_len()) && cidr.contains(prefix)
}

fn begins_with(path: &AsPath, asns: &[Asn]) -> bool {
    let mut rest = path.asns();
    asns.iter().all(|asn| rest.next() == Some(*asn))
}

/// Shell-like pattern over the whole text: `*` stands for any run, `?` for one character. Linear but for
/// one step back to the last `*`.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star_at, matched)) = star else { return false };
                star = Some((star_at, matched + 1));
                p = star_at + 1;
                t = matched + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::policy::RouteSource;
    use crate::types::{Attributes, Community, LargeCommunity, SegmentKind};

    fn subject(prefix: &str) -> Subject<'static> {
        Subject {
            prefix: prefix.parse().unwrap(),
            source: RouteSource::Kernel,
            interface: None,
            session_is_ebgp: false,
            metric: None,
            preference: 10,
            attributes: Cow::Owned(Attributes::default()),
        }
    }

    #[test]
    fn globs_as_a_shell_does() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("**", "", true),
            ("", "", true),
            ("?", "", false),
            ("", "eth0", false),
            ("*", "eth0", true),
            ("eth?", "eth0", true),
            ("eth?", "eth10", false),
            ("cali*", "cali12ab", true),
            ("cali*", "xcali", false),
            ("*.cali", "wireguard.cali", true),
            ("*.cali", "wireguard.calico", false),
            ("*.cali", ".cali.cali", true),
            ("bpf*.cali", "bpfin.cali", true),
            ("bpf*.cali", "bpfin.calx", false),
            ("a*b*c", "axxbyybzzc", true),
            ("a*b*c", "axxbyybzz", false),
            ("tunl0", "tunl0", true),
            ("tunl0", "tunl01", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} ~ {text}");
        }
    }

    #[test]
    fn ranges_of_a_prefix() {
        for (prefix, min, max, inside) in [
            ("10.1.0.0/16", 16, 32, true),
            ("10.1.0.0/16", 17, 32, false),
            ("10.1.2.0/24", 16, 24, true),
            ("10.1.2.0/25", 16, 24, false),
            ("10.2.0.0/16", 16, 32, false),
            ("10.0.0.0/8", 0, 32, false),
            ("10.1.2.0/24", 25, 24, false),
            ("a01::/24", 16, 32, false),
        ] {
            for negate in [false, true] {
                let condition = Match::Prefix { cidr: "10.1.0.0/16".parse().unwrap(), min, max, negate };
                assert_eq!(condition.holds(&subject(prefix)), inside != negate, "{prefix} {min}..={max} {negate}");
            }
        }
    }

    #[test]
    fn an_as_path_prefix_reads_across_segments() {
        let path = AsPath::of([&[1, 2][..], &[3]].map(|asns| (SegmentKind::Sequence, asns.iter().copied().map(Asn))));
        for (asns, expected) in [(&[][..], true), (&[1], true), (&[1, 2, 3], true), (&[2], false), (&[1, 2, 3, 4], false)] {
            assert_eq!(begins_with(&path, &asns.iter().copied().map(Asn).collect::<Vec<_>>()), expected, "{asns:?}");
        }
    }

    #[test]
    fn every_other_condition() {
        let mut route = subject("10.1.0.0/16");
        let attributes = route.attributes.to_mut();
        attributes.communities = [Community(1)].into();
        attributes.rare.large_communities = [LargeCommunity(1, 2, 3)].into();
        let cases = [
            (Match::Community(Community(1)), true),
            (Match::Community(Community(2)), false),
            (Match::LargeCommunity(LargeCommunity(1, 2, 3)), true),
            (Match::LargeCommunity(LargeCommunity(1, 2, 4)), false),
            (Match::RemotePeers, false),
            (Match::Interface("*".into()), true),
            (Match::Interface("eth*".into()), false),
            (Match::SessionIsEbgp(false), true),
            (Match::SessionIsEbgp(true), false),
            (Match::LocalPref(100), true),
            (Match::LocalPrefAbove(99), true),
            (Match::LocalPrefAbove(100), false),
            (Match::MetricBelow(u32::MAX), false),
        ];
        for (condition, expected) in cases {
            assert_eq!(condition.holds(&route), expected, "{condition:?}");
        }
        route.source = RouteSource::Ibgp;
        route.metric = Some(512);
        assert!(Match::RemotePeers.holds(&route) && Match::MetricBelow(513).holds(&route) && !Match::MetricBelow(512).holds(&route));
    }
}
