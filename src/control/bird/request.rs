//! One line of a client: a command, or why it is none.

use std::net::IpAddr;

use ipnet::IpNet;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `show status`.
    Status,
    /// `show protocols [all] [NAME]`.
    Protocols {
        /// With details.
        all: bool,
        /// Which of them.
        which: Which,
    },
    /// `show route …`.
    Routes(RouteFilter),
    /// `show memory`.
    Memory,
    /// `show symbols`.
    Symbols,
    /// `restrict`.
    Restrict,
    /// `echo …`: nothing is echoed, which is what it asks for most.
    Echo,
    /// `help`, `?`.
    Help,
    /// An empty line.
    Nothing,
}

/// Which protocols are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    #[default]
    All,
    /// That of this name.
    Named(String),
    /// Those whose names match: `*` stands for anything, `?` for one character.
    Matching(String),
}

/// Which routes are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// This prefix, or with `covering` the longest one around it.
    pub prefix: Option<IpNet>,
    /// `for`.
    pub covering: bool,
    /// With attributes.
    pub all: bool,
    /// The best of each prefix only.
    pub primary: bool,
    /// Only the number of routes.
    pub count: bool,
    /// Of this protocol.
    pub protocol: Option<String>,
    /// As told to this peer.
    pub export: Option<String>,
}

/// A refusal: BIRD's code and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub u16, pub String);

/// A word of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Plain(String),
    Quoted(String),
}

/// Verbs that change something: BIRD refuses them where access is restricted.
const FORBIDDEN: [&str; 11] =
    ["configure", "enable", "disable", "restart", "reload", "down", "debug", "dump", "mrtdump", "graceful", "timeformat"];

/// Reads one line.
///
/// # Errors
/// It is no command, or one that is refused.
pub fn parse(line: &str) -> Result<Command, Refusal> {
    let words = split(line)?;
    let Some(first) = words.first() else { return Ok(Command::Nothing) };
    let Word::Plain(verb) = first else { return Err(syntax("unexpected text")) };
    let rest = &words[1..];
    match (verb.as_str(), rest) {
        ("show", [Word::Plain(what), rest @ ..]) => show(what, rest),
        ("restrict", []) => Ok(Command::Restrict),
        ("echo", _) => Ok(Command::Echo),
        ("help" | "?", _) => Ok(Command::Help),
        (verb, _) if FORBIDDEN.contains(&verb) => Err(Refusal(8007, "Access denied".to_owned())),
        (verb, _) => Err(syntax(&format!("unexpected `{verb}`"))),
    }
}

fn show(what: &str, words: &[Word]) -> Result<Command, Refusal> {
    match (what, words) {
        ("status", []) => Ok(Command::Status),
        ("memory", []) => Ok(Command::Memory),
        ("symbols", _) => Ok(Command::Symbols),
        ("protocols", [Word::Plain(all), rest @ ..]) if all == "all" => Ok(Command::Protocols { all: true, which: which(rest)? }),
        ("protocols", rest) => Ok(Command::Protocols { all: false, which: which(rest)? }),
        ("route", rest) => routes(rest).map(Command::Routes),
        (what, _) => Err(syntax(&format!("unexpected `show {what}`"))),
    }
}

fn which(words: &[Word]) -> Result<Which, Refusal> {
    match words {
        [] => Ok(Which::All),
        [Word::Plain(name)] => Ok(Which::Named(name.clone())),
        [Word::Quoted(pattern)] => Ok(Which::Matching(pattern.clone())),
        _ => Err(syntax("one protocol, or one pattern in quotes, is expected")),
    }
}

fn routes(mut words: &[Word]) -> Result<RouteFilter, Refusal> {
    let mut filter = RouteFilter::default();
    while let [word, rest @ ..] = words {
        let (Word::Plain(word) | Word::Quoted(word)) = word;
        let argument = || match rest {
            [Word::Plain(argument) | Word::Quoted(argument), ..] => Ok(argument.clone()),
            [] => Err(syntax(&format!("`{word}` of what?"))),
        };
        let taken = match word.as_str() {
            "all" => flag(&mut filter.all),
            "primary" => flag(&mut filter.primary),
            "count" => flag(&mut filter.count),
            "protocol" => set(&mut filter.protocol, argument()?),
            "export" => set(&mut filter.export, argument()?),
            "table" if matches!(argument()?.as_str(), "master" | "master4" | "master6") => 2,
            "table" => return Err(Refusal(9002, format!("{} is not a table", argument()?))),
            "for" => {
                filter.covering = true;
                filter.prefix = Some(prefix(&argument()?)?);
                2
            }
            text => {
                filter.prefix = Some(prefix(text)?);
                1
            }
        };
        words = &words[taken..];
    }
    Ok(filter)
}

fn flag(flag: &mut bool) -> usize {
    *flag = true;
    1
}

fn set(place: &mut Option<String>, argument: String) -> usize {
    *place = Some(argument);
    2
}

fn prefix(text: &str) -> Result<IpNet, Refusal> {
    let whole = text.parse().ok().map(crate::types::canonical);
    whole.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).ok_or_else(|| syntax(&format!("unexpected `{text}`")))
}

/// Words by blanks; a text in double quotes is one.
fn split(line: &str) -> Result<Vec<Word>, Refusal> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (text, after) = quoted.split_once('"').ok_or_else(|| syntax("the quote is not closed"))?;
                (Word::Quoted(text.to_owned()), after)
            }
            None => {
                let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
                (Word::Plain(rest[..end].to_owned()), &rest[end..])
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// BIRD's answer to what it cannot parse, with what it was.
fn syntax(what: &str) -> Refusal {
    let what: String = what.chars().take(80).collect();
    Refusal(9001, format!("syntax error, {what}"))
}

/// Whether a name matches a pattern of `*` and `?`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut star, mut resume) = (0, None, 0);
    let mut index = 0;
    while index < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some(at);
                resume = index;
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[index] => {
                at += 1;
                index += 1;
            }
            _ => {
                let Some(star) = star else { return false };
                resume += 1;
                (at, index) = (star + 1, resume);
            }
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> u16 {
        parse(line).unwrap_err().0
    }

    #[test]
    fn commands() {
        assert_eq!(parse("show status"), Ok(Command::Status));
        assert_eq!(parse("  show   status \r"), Ok(Command::Status));
        assert_eq!(parse("show protocols"), Ok(Command::Protocols { all: false, which: Which::All }));
        assert_eq!(parse("show protocols all"), Ok(Command::Protocols { all: true, which: Which::All }));
        let mesh = Which::Named("Mesh_10_0_0_2".to_owned());
        assert_eq!(parse("show protocols all Mesh_10_0_0_2"), Ok(Command::Protocols { all: true, which: mesh }));
        let pattern = Which::Matching("Mesh*".to_owned());
        assert_eq!(parse("show protocols \"Mesh*\""), Ok(Command::Protocols { all: false, which: pattern }));
        assert_eq!((parse("restrict"), parse("echo all 200"), parse("")), (Ok(Command::Restrict), Ok(Command::Echo), Ok(Command::Nothing)));
    }

    #[test]
    fn routes_by_prefix_address_and_protocol() {
        let filter = |line: &str| match parse(line) {
            Ok(Command::Routes(filter)) => filter,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(filter("show route"), RouteFilter::default());
        assert_eq!(filter("show route 10.1.2.3/8").prefix, Some("10.0.0.0/8".parse().unwrap()));
        let one = filter("show route for 10.1.2.3 all");
        assert_eq!((one.prefix, one.covering, one.all), (Some("10.1.2.3/32".parse().unwrap()), true, true));
        let told = filter("show route table master export Mesh_10_0_0_2 count");
        assert_eq!((told.export.as_deref(), told.count), (Some("Mesh_10_0_0_2"), true));
        let own = filter("show route protocol static1 primary");
        assert_eq!((own.protocol.as_deref(), own.primary), (Some("static1"), true));
    }

    #[test]
    fn what_is_refused_and_how() {
        for line in [
            "nonsense",
            "show",
            "show ospf",
            "show route for",
            "show route nowhere",
            "show protocols a b",
            "\"x\"",
            "show \"status\"",
            "show route \"",
            "\u{0}\u{7f}",
        ] {
            assert_eq!(code(line), 9001, "{line}");
        }
        for line in ["configure", "configure soft", "disable Mesh_10_0_0_2", "down", "dump routes", "restart all"] {
            assert_eq!(code(line), 8007, "{line}");
        }
        assert_eq!(code("show route table other"), 9002);
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("Mesh_*", "Mesh_10_0_0_2", true),
            ("Mesh_*_2", "Mesh_10_0_2_2", true),
            ("Mesh_?", "Mesh_10", false),
            ("*a*b*", "xxaxxb", true),
            ("*a*b*", "xxbxxa", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
