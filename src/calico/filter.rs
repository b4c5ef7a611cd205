//! BGPFilter rules as policy terms.
//!
//! A rule that cannot be read concerns itself only, and fails safe: an `Accept` rule is left out, a `Reject`
//! rule (or one whose action is unknown) rejects whatever its readable criteria match. Each time a problem
//! says which. Two things that BIRD gets wrong have their evident meaning here: `Equal` and `NotEqual` with a
//! `prefixLength`, and a cidr with host bits set.

use std::sync::Arc;

use ipnet::IpNet;

use super::resource::{BgpFilterRule, BgpFilterSpec, FilterRule, Operation};
use super::{Location, Problem, ResourceKey, Severity};
use crate::policy::{Action, METRIC_BASE, Match, Term, Verdict};
use crate::types::{Asn, Community, Family, LargeCommunity, PerFamily, canonical, family_of};

/// A BGPFilter as terms, to be put in front of Calico's own policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompiledFilter {
    /// `importV4` and `importV6`.
    pub import: PerFamily<Vec<Term>>,
    /// `exportV4` and `exportV6`.
    pub export: PerFamily<Vec<Term>>,
}

/// Compiles a BGPFilter. The problems name the resource and the field; their location is for the caller to fill in.
pub fn compile_filter(name: &str, spec: &BgpFilterSpec, problems: &mut Vec<Problem>) -> CompiledFilter {
    let mut list = |list: &str, rules: &[FilterRule], family| {
        let terms = rules.iter().enumerate().filter_map(|(index, rule)| {
            Reader { filter: name, rule: format!("{list}[{index}]"), family, problems: &mut *problems }.term(rule)
        });
        terms.collect::<Vec<_>>()
    };
    CompiledFilter {
        import: PerFamily {
            ipv4: list("importV4", &spec.import_v4, Family::IPV4_UNICAST),
            ipv6: list("importV6", &spec.import_v6, Family::IPV6_UNICAST),
        },
        export: PerFamily {
            ipv4: list("exportV4", &spec.export_v4, Family::IPV4_UNICAST),
            ipv6: list("exportV6", &spec.export_v6, Family::IPV6_UNICAST),
        },
    }
}

/// A community as Calico writes it, `aa:nn` or `aa:nn:mm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommunityValue {
    /// `aa:nn`, 16 bits each.
    Standard(Community),
    /// `aa:nn:mm`, 32 bits each.
    Large(LargeCommunity),
}

impl CommunityValue {
    /// Reads either form.
    pub fn parse(text: &str) -> Option<Self> {
        let standard = text.parse().map(Self::Standard).ok();
        standard.or_else(|| text.parse().map(Self::Large).ok())
    }

    /// The condition that a route carries it.
    pub fn matched(self) -> Match {
        match self {
            Self::Standard(community) => Match::Community(community),
            Self::Large(community) => Match::LargeCommunity(community),
        }
    }

    /// The action that adds it.
    pub fn added(self) -> Action {
        match self {
            Self::Standard(community) => Action::AddCommunity(community),
            Self::Large(community) => Action::AddLargeCommunity(community),
        }
    }
}

/// A part of a rule that cannot be read.
struct Fault {
    field: &'static str,
    what: String,
    /// What a Reject rule puts in its place: never narrower than what could have been meant.
    wider: Option<Match>,
}

fn fault<T>(field: &'static str, what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { field, what: what.into(), wider: None })
}

/// A criterion: none where the rule does not have it.
type Criterion = Result<Option<Match>, Fault>;

struct Reader<'a> {
    filter: &'a str,
    /// `exportV4[0]`.
    rule: String,
    family: Family,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn term(&mut self, rule: &FilterRule) -> Option<Term> {
        match rule {
            FilterRule::Readable(rule) => self.readable(rule),
            FilterRule::Unreadable { action, what } => {
                let what = format!("the rule cannot be read: {what}");
                if action.as_deref() == Some("Accept") {
                    self.problem(Severity::Warning, "", what, LEFT_OUT);
                    return None;
                }
                self.problem(Severity::Warning, "", what, "the rule rejects every route");
                Some(self.finished(Vec::new(), Vec::new(), Verdict::Reject))
            }
        }
    }

    fn readable(&mut self, rule: &BgpFilterRule) -> Option<Term> {
        if rule.action == "Accept" { self.accept(rule) } else { Some(self.reject(rule)) }
    }

    fn accept(&mut self, rule: &BgpFilterRule) -> Option<Term> {
        let mut matches = Vec::new();
        let mut actions = Vec::new();
        let mut faults = Vec::new();
        for criterion in self.criteria(rule) {
            criterion.map_or_else(|fault| faults.push(fault), |found| matches.extend(found));
        }
        for operation in &rule.operations {
            self::operation(operation).map_or_else(|fault| faults.push(fault), |action| actions.push(action));
        }
        for Fault { field, what, .. } in &faults {
            self.problem(Severity::Warning, field, what.clone(), LEFT_OUT);
        }
        faults.is_empty().then(|| self.finished(matches, actions, Verdict::Accept))
    }

    fn reject(&mut self, rule: &BgpFilterRule) -> Term {
        if rule.action != "Reject" {
            let what = format!("`{}` is no action (Accept or Reject)", rule.action);
            self.problem(Severity::Warning, "action", what, "taken as Reject");
        }
        if !rule.operations.is_empty() {
            self.problem(Severity::Info, "operations", "a rejected route cannot be changed".into(), "the operations are left out");
        }
        let mut matches = Vec::new();
        for criterion in self.criteria(rule) {
            matches.extend(criterion.unwrap_or_else(|Fault { field, what, wider }| {
                let instead = if wider.is_some() { WIDER_RANGE } else { WITHOUT_CRITERION };
                self.problem(Severity::Warning, field, what, instead);
                wider
            }));
        }
        self.finished(matches, Vec::new(), Verdict::Reject)
    }

    fn criteria(&mut self, rule: &BgpFilterRule) -> [Criterion; 7] {
        [peer_type(rule), self.prefix(rule), source(rule), interface(rule), community(rule), as_path(rule), priority(rule)]
    }

    /// `cidr`, `matchOperator` and `prefixLength` are one criterion.
    fn prefix(&mut self, rule: &BgpFilterRule) -> Criterion {
        if rule.cidr.is_empty() {
            return match (rule.match_operator.is_empty(), rule.prefix_length) {
                (true, None) => Ok(None),
                (false, _) => fault("matchOperator", "there is no cidr to compare with"),
                (true, Some(_)) => fault("prefixLength", "there is no cidr that it belongs to"),
            };
        }
        let Ok(written) = rule.cidr.parse::<IpNet>() else {
            return fault("cidr", format!("`{}` is no prefix", rule.cidr));
        };
        if family_of(&written) != self.family {
            return fault("cidr", format!("{written} is not of the family of this list"));
        }
        let cidr = canonical(written);
        if cidr != written {
            self.problem(Severity::Info, "cidr", format!("{written} has host bits set"), &format!("taken as {cidr}"));
        }
        let (exact, negate) = match rule.match_operator.as_str() {
            "Equal" => (true, false),
            "NotEqual" => (true, true),
            "In" => (false, false),
            "NotIn" => (false, true),
            "" => return fault("matchOperator", "it is missing (Equal, NotEqual, In or NotIn)"),
            other => return fault("matchOperator", format!("`{other}` is no operator (Equal, NotEqual, In or NotIn)")),
        };
        let (length, longest) = (cidr.prefix_len(), cidr.max_prefix_len());
        let range = rule.prefix_length.unwrap_or_default();
        let least = range.min.map_or(length, |min| clamp(min, longest).max(length));
        let greatest = range.max.map_or(longest, |max| clamp(max, longest).min(longest));
        let matched = |min, max| Match::Prefix { cidr, min, max, negate };
        if range.min.zip(range.max).is_some_and(|(min, max)| min > max) || (!exact && least > greatest) {
            // Rejecting the whole cidr is as wide as an In can mean; a NotIn may mean any route.
            let wider = (!negate).then(|| matched(length, if exact { length } else { longest }));
            return Err(Fault { field: "prefixLength", what: format!("no prefix inside {cidr} has such a length"), wider });
        }
        if !exact {
            return Ok(Some(matched(least, greatest)));
        }
        // With Equal the range can only say yes or no to the one length; no leaves an empty range (min above max).
        if !(least..=greatest).contains(&length) {
            let always = if negate { "always" } else { "never" };
            let what = format!("the length of {cidr} is not within prefixLength");
            self.problem(Severity::Info, "prefixLength", what, &format!("this criterion {always} holds"));
        }
        Ok(Some(matched(least, greatest.min(length))))
    }

    fn finished(&self, matches: Vec<Match>, actions: Vec<Action>, verdict: Verdict) -> Term {
        let name: Arc<str> = format!("BGPFilter {} {}", self.filter, self.rule).into();
        Term { name, matches, actions, verdict: Some(verdict) }
    }

    fn problem(&mut self, severity: Severity, field: &str, what: String, instead: &str) {
        let dot = if field.is_empty() { "" } else { "." };
        self.problems.push(Problem {
            severity,
            resource: Some(ResourceKey { kind: "BGPFilter".into(), namespace: String::new(), name: self.filter.to_owned() }),
            location: Location::default(),
            field: format!("spec.{}{dot}{field}", self.rule),
            what,
            instead: instead.to_owned(),
        });
    }
}

const LEFT_OUT: &str = "this Accept rule is left out";
const WITHOUT_CRITERION: &str = "the rule rejects whatever its other criteria match";
const WIDER_RANGE: &str = "the rule rejects as if prefixLength were not given";

fn clamp(length: i64, longest: u8) -> u8 {
    u8::try_from(length.clamp(0, i64::from(longest) + 1)).unwrap_or(longest)
}

fn peer_type(rule: &BgpFilterRule) -> Criterion {
    match rule.peer_type.as_str() {
        "" => Ok(None),
        "eBGP" => Ok(Some(Match::SessionIsEbgp(true))),
        "iBGP" => Ok(Some(Match::SessionIsEbgp(false))),
        other => fault("peerType", format!("`{other}` is no peer type (eBGP or iBGP)")),
    }
}

fn source(rule: &BgpFilterRule) -> Criterion {
    match rule.source.as_str() {
        "" => Ok(None),
        "RemotePeers" => Ok(Some(Match::RemotePeers)),
        other => fault("source", format!("`{other}` is no source (RemotePeers)")),
    }
}

fn interface(rule: &BgpFilterRule) -> Criterion {
    Ok((!rule.interface.is_empty()).then(|| Match::Interface(rule.interface.as_str().into())))
}

fn community(rule: &BgpFilterRule) -> Criterion {
    let Some(communities) = &rule.communities else { return Ok(None) };
    let [text] = communities.values.as_slice() else {
        return fault("communities", format!("exactly one value is needed, there are {}", communities.values.len()));
    };
    parse_community("communities", text).map(|community| Some(community.matched()))
}

fn as_path(rule: &BgpFilterRule) -> Criterion {
    Ok((!rule.as_path_prefix.is_empty()).then(|| Match::AsPathPrefix(rule.as_path_prefix.clone())))
}

fn priority(rule: &BgpFilterRule) -> Criterion {
    let Some(value) = rule.priority.filter(|value| *value != 0) else { return Ok(None) };
    local_pref("priority", value).map(|local_pref| Some(Match::LocalPref(local_pref)))
}

fn operation(operation: &Operation) -> Result<Action, Fault> {
    match (&operation.add_community, &operation.prepend_as_path, &operation.set_priority) {
        (Some(add), None, None) => parse_community("operations", &add.value).map(CommunityValue::added),
        (None, Some(prepend), None) if prepend.prefix.is_empty() || prepend.prefix.contains(&Asn(0)) => {
            fault("operations", "prependASPath needs a list of ASes other than 0")
        }
        (None, Some(prepend), None) => Ok(Action::PrependAsPath(prepend.prefix.clone())),
        (None, None, Some(set)) => local_pref("operations", set.value.unwrap_or_default()).map(Action::SetLocalPref),
        _ => fault("operations", "an operation has exactly one of addCommunity, prependASPath and setPriority"),
    }
}

fn parse_community(field: &'static str, text: &str) -> Result<CommunityValue, Fault> {
    CommunityValue::parse(text).map_or_else(|| fault(field, format!("`{text}` is no community (`aa:nn` or `aa:nn:mm`)")), Ok)
}

/// LOCAL_PREF = 2147483647 − priority.
fn local_pref(field: &'static str, priority: i64) -> Result<u32, Fault> {
    match u32::try_from(priority) {
        Ok(value @ 1..METRIC_BASE) => Ok(METRIC_BASE - value),
        _ => fault(field, format!("the priority {priority} is not within 1 to 2147483646")),
    }
}

#[cfg(test)]
mod tests;
