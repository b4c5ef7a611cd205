//! Calico's label selectors: grammar (nom) and evaluation.
//!
//! ```text
//! or  := and ("||" and)*          and := op ("&&" op)*
//! op  := "!"* ( "(" or ")" | all() | global() | has(label) | label == 'x' | label != 'x' | label in {'x', 'y'}
//!             | label not in {…} | label contains 'x' | label starts with 'x' | label ends with 'x' )
//! ```
//! Words of an operator may be written together (`notin`). The empty text selects everything.

use std::collections::{BTreeMap, BTreeSet};

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while_m_n};
use nom::character::complete::char;
use nom::combinator::{cut, map, value};
use nom::multi::{many0_count, separated_list0, separated_list1};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

/// Parentheses inside parentheses at most; deeper text is refused, so that parsing cannot exhaust the stack.
pub const MAX_DEPTH: usize = 64;

/// Characters of a label at most.
const MAX_LABEL: usize = 512;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    root: Term,
}

/// The text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no selector: it goes wrong at `{rest}`")]
pub struct SelectorError {
    /// The whole text.
    pub text: String,
    /// What could not be read any more.
    pub rest: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    All,
    Has(String),
    Equal(String, String),
    NotEqual(String, String),
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Contains(String, String),
    StartsWith(String, String),
    EndsWith(String, String),
    Not(Box<Term>),
    And(Vec<Term>),
    Or(Vec<Term>),
}

impl Selector {
    /// Reads a selector. Total: any text gives a selector or an error.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if blanks(text).map(|(rest, _)| rest.is_empty()).unwrap_or(false) {
            return Ok(Self { root: Term::All });
        }
        let error = |rest: &str| SelectorError { text: text.to_owned(), rest: rest.chars().take(40).collect() };
        match or(text, 0) {
            Ok(("", root)) => Ok(Self { root }),
            Ok((rest, _)) => Err(error(rest)),
            Err(nom::Err::Error(e) | nom::Err::Failure(e)) => Err(error(e.input)),
            Err(nom::Err::Incomplete(_)) => Err(error("")),
        }
    }

    /// Whether these labels are selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.root.matches(labels)
    }
}

impl Term {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let is = |label: &str, test: &dyn Fn(&str) -> bool| labels.get(label).is_some_and(|value| test(value));
        match self {
            Self::All => true,
            Self::Has(label) => labels.contains_key(label),
            Self::Equal(label, text) => is(label, &|value| value == text),
            Self::NotEqual(label, text) => !is(label, &|value| value == text),
            Self::In(label, set) => is(label, &|value| set.contains(value)),
            Self::NotIn(label, set) => !is(label, &|value| set.contains(value)),
            Self::Contains(label, text) => is(label, &|value| value.contains(text.as_str())),
            Self::StartsWith(label, text) => is(label, &|value| value.starts_with(text.as_str())),
            Self::EndsWith(label, text) => is(label, &|value| value.ends_with(text.as_str())),
            Self::Not(term) => !term.matches(labels),
            Self::And(terms) => terms.iter().all(|term| term.matches(labels)),
            Self::Or(terms) => terms.iter().any(|term| term.matches(labels)),
        }
    }
}

fn or(input: &str, depth: usize) -> IResult<&str, Term> {
    map(separated_list1(token("||"), |i| and(i, depth)), |terms| single(terms, Term::Or)).parse(input)
}

fn and(input: &str, depth: usize) -> IResult<&str, Term> {
    map(separated_list1(token("&&"), |i| operation(i, depth)), |terms| single(terms, Term::And)).parse(input)
}

fn single(mut terms: Vec<Term>, many: impl Fn(Vec<Term>) -> Term) -> Term {
    match terms.pop() {
        Some(only) if terms.is_empty() => only,
        Some(last) => {
            terms.push(last);
            many(terms)
        }
        None => Term::All,
    }
}

fn operation(input: &str, depth: usize) -> IResult<&str, Term> {
    let (input, negations) = many0_count(token("!")).parse(input)?;
    let (input, term) = alt((|i| group(i, depth), function, comparison)).parse(input)?;
    Ok((input, if negations % 2 == 1 { Term::Not(Box::new(term)) } else { term }))
}

fn group(input: &str, depth: usize) -> IResult<&str, Term> {
    let (rest, _) = token("(").parse(input)?;
    if depth >= MAX_DEPTH {
        return Err(nom::Err::Failure(nom::error::Error::new(input, nom::error::ErrorKind::TooLarge)));
    }
    let (rest, term) = cut(|i| or(i, depth + 1)).parse(rest)?;
    let (rest, _) = cut(token(")")).parse(rest)?;
    Ok((rest, term))
}

fn function(input: &str) -> IResult<&str, Term> {
    let everything = value(Term::All, (token("all("), token(")")));
    let global = value(Term::All, (token("global("), token(")")));
    let has = map(delimited(token("has("), label, token(")")), Term::Has);
    alt((everything, global, has)).parse(input)
}

fn comparison(input: &str) -> IResult<&str, Term> {
    let (input, label) = label(input)?;
    let with = |operator: fn(String, String) -> Term, text: String| operator(label.clone(), text);
    alt((
        map(preceded(token("=="), cut(string)), |text| with(Term::Equal, text)),
        map(preceded(token("!="), cut(string)), |text| with(Term::NotEqual, text)),
        map(preceded(words("not", "in"), cut(set)), |set| Term::NotIn(label.clone(), set)),
        map(preceded(token("in"), cut(set)), |set| Term::In(label.clone(), set)),
        map(preceded(token("contains"), cut(string)), |text| with(Term::Contains, text)),
        map(preceded(words("starts", "with"), cut(string)), |text| with(Term::StartsWith, text)),
        map(preceded(words("ends", "with"), cut(string)), |text| with(Term::EndsWith, text)),
    ))
    .parse(input)
}

fn set(input: &str) -> IResult<&str, BTreeSet<String>> {
    map(delimited(token("{"), separated_list0(token(","), string), token("}")), |items| items.into_iter().collect()).parse(input)
}

fn string(input: &str) -> IResult<&str, String> {
    let (input, _) = blanks(input)?;
    let quoted = |quote: char| delimited(char(quote), take_while(move |c| c != quote), char(quote));
    let (input, text) = alt((quoted('\''), quoted('"'))).parse(input)?;
    let (input, _) = blanks(input)?;
    Ok((input, text.to_owned()))
}

fn label(input: &str) -> IResult<&str, String> {
    let (input, _) = blanks(input)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    let (input, name) = take_while_m_n(1, MAX_LABEL, legal).parse(input)?;
    let (input, _) = blanks(input)?;
    Ok((input, name.to_owned()))
}

fn words<'a>(first: &'static str, second: &'static str) -> impl Parser<&'a str, Output = (), Error = nom::error::Error<&'a str>> {
    value((), (token(first), token(second)))
}

fn token<'a>(text: &'static str) -> impl Parser<&'a str, Output = (), Error = nom::error::Error<&'a str>> {
    value((), delimited(blanks, tag(text), blanks))
}

fn blanks(input: &str) -> IResult<&str, &str> {
    take_while(|c| c == ' ' || c == '\t').parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn selects() {
        let labels = labels("rack=a zone=eu-west-1 node.kubernetes.io/role=worker empty=");
        for (selector, expected) in [
            ("", true),
            ("  \t", true),
            ("all()", true),
            ("all( )", true),
            ("global()", true),
            ("has(rack)", true),
            ("has( rack )", true),
            ("has(nothing)", false),
            ("!has(nothing)", true),
            ("!!has(rack)", true),
            ("! has(rack)", false),
            ("rack == 'a'", true),
            ("rack==\"a\"", true),
            ("rack == 'b'", false),
            ("rack != 'b'", true),
            ("nothing == 'a'", false),
            ("nothing != 'a'", true),
            ("empty == ''", true),
            ("rack in {'a', 'b'}", true),
            ("rack in{'b'}", false),
            ("rack in {}", false),
            ("rack not in {'b'}", true),
            ("rack notin {'a'}", false),
            ("nothing not in {'a'}", true),
            ("nothing in {'a'}", false),
            ("zone contains 'west'", true),
            ("zone starts with 'eu'", true),
            ("zone startswith 'us'", false),
            ("zone ends with '-1'", true),
            ("zone endswith '-2'", false),
            ("nothing contains ''", false),
            ("rack == 'a' && zone == 'x'", false),
            ("rack == 'b' || zone starts with 'eu'", true),
            ("rack == 'a' || rack == 'a' && rack == 'b'", true),
            ("(rack == 'a' || rack == 'a') && rack == 'b'", false),
            ("!(rack == 'b')", true),
            ("node.kubernetes.io/role == 'worker'", true),
            ("has(node.kubernetes.io/role)&&!has(route-reflector)", true),
        ] {
            assert_eq!(Selector::parse(selector).map(|s| s.matches(&labels)), Ok(expected), "{selector}");
        }
    }

    #[test]
    fn refuses_what_is_no_selector() {
        for bad in [
            "rack",
            "rack == a",
            "rack == 'a",
            "== 'a'",
            "has()",
            "has(a b)",
            "(rack == 'a'",
            "rack == 'a')",
            "a && ",
            "||",
            "rack = 'a'",
            "é == 'a'",
        ] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Selector::parse("rack == a").map_err(|e| e.rest), Err("a".to_owned()));
    }

    #[test]
    fn a_label_has_at_most_512_characters() {
        assert!(Selector::parse(&format!("has({})", "a".repeat(512))).is_ok());
        assert!(Selector::parse(&format!("has({})", "a".repeat(513))).is_err());
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let nested = |depth: usize| format!("{}all(){}", "(".repeat(depth), ")".repeat(depth));
        assert!(Selector::parse(&nested(MAX_DEPTH)).is_ok());
        assert!(Selector::parse(&nested(MAX_DEPTH + 1)).is_err());
        assert!(Selector::parse(&nested(100_000)).is_err());
        assert!(Selector::parse(&"(".repeat(1_000_000)).is_err());
        assert!(Selector::parse(&format!("{}all()", "!".repeat(1_000_000))).is_ok());
    }
}
