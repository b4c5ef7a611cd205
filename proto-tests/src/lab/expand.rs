//! Text before it is YAML: `${VAR}` and `${VAR:-default}`; and command lines into words, as containerlab does without a shell.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// Replaces `$VAR`, `${VAR}` and `${VAR:-default}` by `vars`; `$$` is one dollar sign.
///
/// Go templates (`{{`), which containerlab would run, are refused: the lab files of this repository are plain text.
pub fn variables(text: &str, vars: &BTreeMap<String, String>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        // A comment may speak of `$VAR` and of templates; containerlab expands there too, harmlessly.
        if line.trim_start().starts_with('#') {
            out.push_str(line);
            continue;
        }
        if line.contains("{{") {
            bail!("line {}: Go templates are not supported here: write the text out", number + 1);
        }
        expand_line(line, vars, &mut out).map_err(|error| error.context(format!("line {}", number + 1)))?;
    }
    Ok(out)
}

fn expand_line(line: &str, vars: &BTreeMap<String, String>, out: &mut String) -> Result<()> {
    let mut rest = line;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some(end) = after.find('}') else { bail!("`${{` without `}}`") };
            let (name, default) = match after[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&after[..end], None),
            };
            push_variable(name, default, vars, out)?;
            rest = &after[end + 1..];
        } else {
            let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            if end == 0 {
                out.push('$');
                continue;
            }
            push_variable(&rest[..end], None, vars, out)?;
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    Ok(())
}

fn push_variable(name: &str, default: Option<&str>, vars: &BTreeMap<String, String>, out: &mut String) -> Result<()> {
    match (vars.get(name), default) {
        (Some(value), _) if !value.is_empty() || default.is_none() => out.push_str(value),
        (_, Some(default)) => out.push_str(default),
        _ => bail!("the variable {name} is not set: set it, or write ${{{name}:-default}}, or $$ for a dollar sign"),
    }
    Ok(())
}

/// Splits a command line into words: blanks separate, `'…'` is literal, in `"…"` and outside a backslash escapes.
pub fn words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => quoted(&mut chars, '\'', word.get_or_insert_default(), line)?,
            '"' => quoted(&mut chars, '"', word.get_or_insert_default(), line)?,
            '\\' => match chars.next() {
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => bail!("a backslash ends the command `{line}`"),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(chars: &mut std::str::Chars<'_>, end: char, word: &mut String, line: &str) -> Result<()> {
    while let Some(c) = chars.next() {
        match c {
            c if c == end => return Ok(()),
            '\\' if end == '"' => match chars.next() {
                Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                Some(other) => word.extend(['\\', other]),
                None => break,
            },
            other => word.push(other),
        }
    }
    bail!("a quote is not closed in `{line}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_missing_ones_are_named() {
        let vars = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("EMPTY".to_owned(), String::new())]);
        for (text, expected) in [
            ("x: $A", "x: 1"),
            ("x: ${A}b", "x: 1b"),
            ("x: ${B:-two}", "x: two"),
            ("x: ${EMPTY:-two}", "x: two"),
            ("cmd: echo $$A", "cmd: echo $A"),
            ("cost: 5$ each", "cost: 5$ each"),
            ("# ${NOT_HERE} {{ }}\ny: 1", "# ${NOT_HERE} {{ }}\ny: 1"),
        ] {
            assert_eq!(variables(text, &vars).unwrap(), expected);
        }
        assert!(format!("{:#}", variables("a: 1\nb: ${B}", &vars).unwrap_err()).starts_with("line 2: the variable B"));
        assert!(variables("a: {{ .Name }}", &vars).unwrap_err().to_string().contains("line 1"));
        assert!(variables("a: ${A", &vars).is_err());
    }

    #[test]
    fn command_lines_become_words_without_a_shell() {
        assert_eq!(words("ip addr add 10.0.0.1/24 dev net0").unwrap(), ["ip", "addr", "add", "10.0.0.1/24", "dev", "net0"]);
        assert_eq!(words(r#"sh -c 'a "b" c' "d \"e\" \n" f\ g ''"#).unwrap(), ["sh", "-c", "a \"b\" c", "d \"e\" \\n", "f g", ""]);
        assert!(words("sh -c 'open").is_err());
        assert!(words("").unwrap().is_empty());
    }
}
