//! BGPFilter rules: what each criterion and operator matches, and what becomes of what cannot be read.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::*;
use crate::policy::{Policy, RouteSource, Subject};
use crate::types::{AsPath, Attributes, RareAttributes};

fn compiled(spec: Value) -> (CompiledFilter, Vec<Problem>) {
    let mut problems = Vec::new();
    let filter = compile_filter("f", &serde_json::from_value(spec).unwrap(), &mut problems);
    (filter, problems)
}

/// The only term of a filter with this one rule in `exportV4`.
fn term(rule: Value) -> (Option<Term>, Vec<Problem>) {
    let (mut filter, problems) = compiled(json!({"exportV4": [rule]}));
    (filter.export.ipv4.pop(), problems)
}

fn subject(prefix: &str) -> Subject<'static> {
    Subject {
        prefix: prefix.parse().unwrap(),
        source: RouteSource::Ebgp,
        interface: Some("eth0"),
        session_is_ebgp: true,
        metric: None,
        preference: 100,
        attributes: Cow::Owned(Attributes {
            as_path: AsPath::sequence([Asn(64512), Asn(65010)]),
            communities: [Community(64512 << 16 | 100)].into(),
            rare: RareAttributes { large_communities: [LargeCommunity(1, 2, 3)].into(), ..RareAttributes::default() }.into(),
            local_pref: Some(METRIC_BASE - 512),
            ..Attributes::default()
        }),
    }
}

fn hits(term: Term, subject: &mut Subject<'_>) -> bool {
    Policy { terms: vec![term], default: Verdict::Reject }.apply(subject).term.is_some()
}

#[test]
fn every_operator_with_every_prefix_length() {
    const ROUTES: [&str; 6] = ["10.1.0.0/16", "10.1.0.0/20", "10.1.2.0/24", "10.1.2.0/25", "10.2.0.0/24", "10.0.0.0/8"];
    let cases = [
        (json!(null), &ROUTES[..1], &ROUTES[..4]),
        (json!({}), &ROUTES[..1], &ROUTES[..4]),
        (json!({"min": 24}), &[], &ROUTES[2..4]),
        (json!({"max": 24}), &ROUTES[..1], &ROUTES[..3]),
        (json!({"min": 20, "max": 24}), &[], &ROUTES[1..3]),
        (json!({"min": 16, "max": 16}), &ROUTES[..1], &ROUTES[..1]),
        (json!({"min": 8}), &ROUTES[..1], &ROUTES[..4]),
        (json!({"min": 0, "max": 32}), &ROUTES[..1], &ROUTES[..4]),
        (json!({"min": -1, "max": 40}), &ROUTES[..1], &ROUTES[..4]),
    ];
    for (range, equal, inside) in cases {
        for (operator, expected, negate) in
            [("Equal", equal, false), ("NotEqual", equal, true), ("In", inside, false), ("NotIn", inside, true)]
        {
            let rule = json!({"cidr": "10.1.0.0/16", "matchOperator": operator, "prefixLength": range, "action": "Accept"});
            let term = term(rule).0.unwrap();
            for route in ROUTES {
                assert_eq!(hits(term.clone(), &mut subject(route)), expected.contains(&route) != negate, "{route} {operator} {range}");
            }
        }
    }
}

#[test]
fn ipv6_lists_are_the_same() {
    let rule = json!({"cidr": "fd00:10::/32", "matchOperator": "In", "prefixLength": {"max": 64}, "action": "Reject"});
    let (filter, problems) = compiled(json!({"importV6": [rule]}));
    assert_eq!(problems, []);
    let term = &filter.import.ipv6[0];
    assert_eq!(&*term.name, "BGPFilter f importV6[0]");
    for (route, expected) in [("fd00:10::/32", true), ("fd00:10:1::/64", true), ("fd00:10:1::/65", false), ("fd00:11::/64", false)] {
        assert_eq!(hits(term.clone(), &mut subject(route)), expected, "{route}");
    }
}

#[test]
fn each_criterion_alone() {
    for (rule, expected) in [
        (json!({}), true),
        (json!({"source": "RemotePeers"}), true),
        (json!({"interface": "eth*"}), true),
        (json!({"interface": "*"}), true),
        (json!({"interface": "cali*"}), false),
        (json!({"peerType": "eBGP"}), true),
        (json!({"peerType": "iBGP"}), false),
        (json!({"communities": {"values": ["64512:100"]}}), true),
        (json!({"communities": {"values": ["64512:101"]}}), false),
        (json!({"communities": {"values": ["1:2:3"]}}), true),
        (json!({"communities": {"values": ["1:2:4"]}}), false),
        (json!({"asPathPrefix": [64512]}), true),
        (json!({"asPathPrefix": [64512, 65010]}), true),
        (json!({"asPathPrefix": [65010]}), false),
        (json!({"asPathPrefix": [64512, 65010, 1]}), false),
        (json!({"asPathPrefix": []}), true),
        (json!({"priority": 512}), true),
        (json!({"priority": 513}), false),
        (json!({"priority": 0}), true),
        (json!({"priority": 512, "peerType": "iBGP"}), false),
        (json!({"cidr": "", "matchOperator": "", "source": "", "interface": "", "peerType": "", "communities": null}), true),
    ] {
        let mut whole = rule.clone();
        whole["action"] = json!("Accept");
        let (term, problems) = term(whole);
        assert_eq!(problems, [], "{rule}");
        assert_eq!(hits(term.unwrap(), &mut subject("10.1.0.0/16")), expected, "{rule}");
    }
    let (local, _) = term(json!({"source": "RemotePeers", "action": "Accept"}));
    assert!(!hits(local.unwrap(), &mut Subject { source: RouteSource::Kernel, ..subject("10.1.0.0/16") }));
    for (pattern, expected) in [("*", true), ("eth*", false)] {
        let (blackhole, _) = term(json!({"interface": pattern, "action": "Accept"}));
        assert_eq!(hits(blackhole.unwrap(), &mut Subject { interface: None, ..subject("10.1.0.0/16") }), expected, "{pattern}");
    }
}

#[test]
fn operations_run_in_order() {
    let operations = json!([
        {"prependASPath": {"prefix": [1, 2]}}, {"addCommunity": {"value": "9:9"}}, {"addCommunity": {"value": "9:9:9"}},
        {"setPriority": {"value": 100}}, {"setPriority": {"value": 200}}, {"prependASPath": {"prefix": ["1.0"]}},
    ]);
    let (term, problems) = term(json!({"action": "Accept", "operations": operations}));
    assert_eq!(problems, []);
    let mut route = subject("10.1.0.0/16");
    assert!(hits(term.unwrap(), &mut route));
    assert_eq!(route.attributes.as_path.to_string(), "65536 1 2 64512 65010");
    assert_eq!(route.local_pref(), METRIC_BASE - 200);
    assert!(route.attributes.has_community(Community(9 << 16 | 9)));
    assert!(route.attributes.rare.large_communities.contains(&LargeCommunity(9, 9, 9)));
}

#[test]
fn a_cidr_with_host_bits_is_made_canonical() {
    for action in ["Accept", "Reject"] {
        let (term, problems) = term(json!({"cidr": "10.1.2.3/16", "matchOperator": "Equal", "action": action}));
        assert!(hits(term.unwrap(), &mut subject("10.1.0.0/16")));
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!((problem.severity, problem.field.as_str()), (Severity::Info, "spec.exportV4[0].cidr"));
        assert_eq!(problem.instead, "taken as 10.1.0.0/16");
        assert_eq!(problem.resource.as_ref().map(|key| (key.kind.as_str(), key.name.as_str())), Some(("BGPFilter", "f")));
    }
}

#[test]
fn a_rule_that_cannot_be_read_fails_safe() {
    let inside = || Match::Prefix { cidr: "10.0.0.0/8".parse().unwrap(), min: 8, max: 32, negate: false };
    let cases = [
        ("cidr", json!({"cidr": "10.0.0.0/33", "matchOperator": "In"}), vec![]),
        ("cidr", json!({"cidr": "fd00::/8", "matchOperator": "In"}), vec![]),
        ("matchOperator", json!({"cidr": "10.0.0.0/8"}), vec![]),
        ("matchOperator", json!({"cidr": "10.0.0.0/8", "matchOperator": "Within"}), vec![]),
        ("matchOperator", json!({"matchOperator": "In"}), vec![]),
        ("prefixLength", json!({"prefixLength": {"min": 8}}), vec![]),
        ("prefixLength", json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"max": 7}}), vec![inside()]),
        ("prefixLength", json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 24, "max": 20}}), vec![inside()]),
        ("prefixLength", json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 40}}), vec![inside()]),
        ("prefixLength", json!({"cidr": "10.0.0.0/8", "matchOperator": "NotIn", "prefixLength": {"max": 7}}), vec![]),
        ("source", json!({"source": "Everywhere"}), vec![]),
        ("peerType", json!({"peerType": "ebgp", "source": "RemotePeers"}), vec![Match::RemotePeers]),
        ("communities", json!({"communities": {"values": []}}), vec![]),
        ("communities", json!({"communities": {"values": ["1:1", "2:2"]}}), vec![]),
        ("communities", json!({"communities": {"values": ["1:65536"]}}), vec![]),
        ("priority", json!({"priority": -1}), vec![]),
        ("priority", json!({"priority": 2_147_483_647_u32}), vec![]),
    ];
    for (field, rule, still_matches) in cases {
        for action in ["Accept", "Reject"] {
            let mut whole = rule.clone();
            whole["action"] = json!(action);
            let (term, problems) = term(whole);
            let [problem] = problems.as_slice() else { panic!("{rule} {problems:?}") };
            assert_eq!(
                (problem.severity, problem.field.as_str()),
                (Severity::Warning, format!("spec.exportV4[0].{field}").as_str()),
                "{rule}"
            );
            match action {
                "Accept" => assert_eq!(term, None, "{rule}"),
                _ => assert_eq!(term.map(|t| (t.matches, t.verdict)), Some((still_matches.clone(), Some(Verdict::Reject))), "{rule}"),
            }
        }
    }
}

#[test]
fn unknown_actions_reject_and_bad_operations_leave_an_accept_out() {
    for action in [json!("Allow"), json!(""), json!(null)] {
        let (term, problems) = term(json!({"source": "RemotePeers", "action": action}));
        assert_eq!(term.map(|t| (t.matches, t.verdict)), Some((vec![Match::RemotePeers], Some(Verdict::Reject))));
        assert_eq!(problems[0].field, "spec.exportV4[0].action");
    }
    for operation in [
        json!({}),
        json!({"addCommunity": {"value": "1:1"}, "setPriority": {"value": 1}}),
        json!({"addCommunity": {"value": "x"}}),
        json!({"prependASPath": {"prefix": []}}),
        json!({"prependASPath": {"prefix": [0]}}),
        json!({"setPriority": {}}),
        json!({"setPriority": {"value": 0}}),
    ] {
        let (term, problems) = term(json!({"action": "Accept", "operations": [operation]}));
        assert_eq!((term, problems[0].field.as_str()), (None, "spec.exportV4[0].operations"), "{operation}");
    }
    let (rejecting, problems) = term(json!({"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}));
    assert_eq!((rejecting.unwrap().actions, problems[0].severity), (vec![], Severity::Info));
}

#[test]
fn a_rule_of_the_wrong_shape_concerns_itself_only() {
    let (filter, problems) =
        compiled(json!({"importV4": [{"cidr": 7, "action": "Accept"}, {"cidr": 7, "action": "Reject"}, {"action": "Accept"}]}));
    let names: Vec<&str> = filter.import.ipv4.iter().map(|term| &*term.name).collect();
    assert_eq!(names, ["BGPFilter f importV4[1]", "BGPFilter f importV4[2]"]);
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["spec.importV4[0]", "spec.importV4[1]"]);
}

#[test]
fn an_equal_whose_length_is_out_of_range_is_pointed_out() {
    let rule = json!({"cidr": "10.0.0.0/8", "matchOperator": "Equal", "prefixLength": {"min": 9}, "action": "Accept"});
    let (term, problems) = term(rule);
    assert!(!hits(term.unwrap(), &mut subject("10.0.0.0/8")));
    assert_eq!((problems[0].severity, problems[0].instead.as_str()), (Severity::Info, "this criterion never holds"));
}
