//! Selectors: any text is one or is refused; one that is understood obeys the laws of logic, on labels that it names.

use std::collections::BTreeMap;

use margay::calico::selector::Selector;

/// See the module.
pub fn body(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(selector) = Selector::parse(text) else { return };
    let negated = Selector::parse(&format!("!({text})"));
    let doubled = Selector::parse(&format!("({text}) && ({text})"));
    for labels in labels(text) {
        let is = selector.matches(&labels);
        // An empty text selects everything, but stands for nothing inside another; nesting has a bound.
        if let Ok(negated) = &negated {
            assert_eq!(negated.matches(&labels), !is, "!({text}) on {labels:?}");
        }
        if let Ok(doubled) = &doubled {
            assert_eq!(doubled.matches(&labels), is, "({text}) twice on {labels:?}");
        }
    }
}

/// No labels, and the words of the text as labels with each other as values.
fn labels(text: &str) -> Vec<BTreeMap<String, String>> {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_./".contains(c)).filter(|word| !word.is_empty()).collect();
    let pairs = words.iter().zip(words.iter().skip(1));
    let named = pairs.map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
    vec![BTreeMap::new(), named]
}

/// Each operator of Calico's selectors.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "",
        "all()",
        "has(rack) && !has(drained)",
        "rack == 'a' || rack != \"b\"",
        "role in {'rr', 'tor'} && rack not in { 'c' }",
        "name contains 'x' && name starts with 'y' && name ends with 'z'",
        "!(has(a) || (b == 'c' && !(d in {'e'})))",
        "projectcalico.org/name == 'node-1'",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}
