//! What the actions of a term do to a route.

use std::borrow::Cow;

use super::{Action, METRIC_BASE, Subject};
use crate::types::Attributes;

impl Action {
    /// Changes the subject; attributes are copied only if they become different.
    pub(super) fn perform(&self, subject: &mut Subject<'_>) {
        match self {
            Self::AddCommunity(community) => {
                if !subject.attributes.has_community(*community) {
                    subject.attributes.to_mut().add_community(*community);
                }
            }
            Self::AddLargeCommunity(community) => {
                if !subject.attributes.rare.large_communities.contains(community) {
                    subject.attributes.to_mut().add_large_community(*community);
                }
            }
            Self::PrependAsPath(asns) => {
                if !asns.is_empty() {
                    let attributes = subject.attributes.to_mut();
                    attributes.as_path = attributes.as_path.prepend(asns);
                }
            }
            Self::SetLocalPref(value) => set_local_pref(&mut subject.attributes, *value),
            Self::CalicoPriority { normal } => calico_priority(subject, *normal),
            Self::SetPreference(value) => subject.preference = *value,
        }
    }
}

/// A kernel metric of 0 says nothing about the priority that Felix wanted, so it counts as the normal one;
/// taken literally it would make the route look elevated to every receiver.
fn calico_priority(subject: &mut Subject<'_>, normal: u32) {
    if subject.source.is_bgp() {
        subject.metric = Some(METRIC_BASE.saturating_sub(subject.local_pref()));
        return;
    }
    let metric = subject.metric.filter(|metric| *metric != 0).unwrap_or(normal);
    subject.metric = Some(metric);
    set_local_pref(&mut subject.attributes, METRIC_BASE.saturating_sub(metric));
}

fn set_local_pref(attributes: &mut Cow<'_, Attributes>, value: u32) {
    if attributes.local_pref != Some(value) {
        attributes.to_mut().local_pref = Some(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RouteSource;
    use crate::types::{AsPath, Asn, Community, LargeCommunity, RareAttributes};

    fn subject(attributes: &Attributes) -> Subject<'_> {
        Subject {
            prefix: "10.1.0.0/16".parse().unwrap(),
            source: RouteSource::Kernel,
            interface: None,
            session_is_ebgp: false,
            metric: None,
            preference: 10,
            attributes: Cow::Borrowed(attributes),
        }
    }

    #[test]
    fn priority_and_local_pref() {
        use RouteSource::{Block, Ebgp, Ibgp, Kernel};
        for (source, metric, local_pref, metric_after, local_pref_after) in [
            (Kernel, Some(1024), None, 1024, 2_147_482_623),
            (Kernel, Some(512), None, 512, 2_147_483_135),
            (Kernel, Some(0), None, 1024, 2_147_482_623),
            (Kernel, None, None, 1024, 2_147_482_623),
            (Kernel, Some(u32::MAX), None, u32::MAX, 0),
            (Block, None, None, 1024, 2_147_482_623),
            (Ibgp, None, Some(2_147_483_135), 512, 2_147_483_135),
            (Ebgp, None, Some(100), 2_147_483_547, 100),
            (Ibgp, None, Some(u32::MAX), 0, u32::MAX),
        ] {
            let attributes = Attributes { local_pref, ..Attributes::default() };
            let mut route = Subject { source, metric, ..subject(&attributes) };
            Action::CalicoPriority { normal: 1024 }.perform(&mut route);
            assert_eq!((route.metric, route.local_pref()), (Some(metric_after), local_pref_after), "{source:?} {metric:?} {local_pref:?}");
        }
    }

    #[test]
    fn attributes_are_copied_only_when_they_change() {
        let attributes = Attributes {
            local_pref: Some(100),
            communities: [Community(1)].into(),
            rare: RareAttributes { large_communities: [LargeCommunity(1, 2, 3)].into(), ..RareAttributes::default() }.into(),
            ..Attributes::default()
        };
        let mut route = subject(&attributes);
        for action in [
            Action::AddCommunity(Community(1)),
            Action::AddLargeCommunity(LargeCommunity(1, 2, 3)),
            Action::PrependAsPath(Vec::new()),
            Action::SetLocalPref(100),
            Action::SetPreference(200),
        ] {
            action.perform(&mut route);
            assert!(matches!(route.attributes, Cow::Borrowed(_)), "{action:?}");
        }
        assert_eq!(route.preference, 200);
    }

    #[test]
    fn the_path_starts_with_the_list_as_written() {
        let attributes = Attributes { as_path: AsPath::sequence([Asn(64512)]), ..Attributes::default() };
        let mut route = subject(&attributes);
        Action::PrependAsPath(vec![Asn(1), Asn(2)]).perform(&mut route);
        assert_eq!(route.attributes.as_path.to_string(), "1 2 64512");
    }
}
