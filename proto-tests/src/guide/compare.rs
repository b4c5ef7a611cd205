//! What a command has printed against what a guide shows.

/// Stands for anything within a line; alone in a line, for any lines.
const ANY: &str = "…";

/// Whether `shown` describes `said`, both line by line.
pub fn fits(shown: &[String], said: &str) -> bool {
    let said: Vec<String> = said.trim_end().lines().map(plain).collect();
    let shown: Vec<String> = shown.iter().map(|line| plain(line)).collect();
    all(&shown, &said)
}

/// A line without what depends on the width of a terminal or of a neighbour's value.
fn plain(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn all(shown: &[String], said: &[String]) -> bool {
    match shown.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first == ANY => (0..=said.len()).any(|skipped| all(rest, &said[skipped..])),
        Some((first, rest)) => said.split_first().is_some_and(|(line, others)| one(first, line) && all(rest, others)),
    }
}

fn one(shown: &str, line: &str) -> bool {
    let mut parts = shown.split(ANY);
    let Some(mut left) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = shown.rsplit_once(ANY).map(|(_, last)| last) else { return left.is_empty() };
    let between = shown.matches(ANY).count() - 1;
    for part in parts.take(between) {
        let Some((_, after)) = left.split_once(part) else { return false };
        left = after;
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn dots_stand_for_anything_and_blanks_do_not_count() {
        let said = "NAME   STATE\na      Established  1 s\nb      Idle         7 s\n\n";
        for good in ["NAME STATE\na Established … s\nb Idle 7 s", "…\nb … s", "NAME…\n…", "NAME STATE\n…\n…\nb Idle …", "…"]
        {
            assert!(fits(&lines(good), said), "{good}");
        }
        for bad in [
            "NAME STATE",
            "NAME STATE\nb Idle 7 s",
            "…\nb … min",
            "NAME STATE\na Established … s\nb Idle 7 s\nc",
            "NAME STATE\n…\nb Idle",
            "…x…",
        ] {
            assert!(!fits(&lines(bad), said), "{bad}");
        }
        assert!(!fits(&lines("ab…bc"), "abc") && fits(&lines("ab…bc"), "abbc"));
        assert!(fits(&[], "\n") && !fits(&[], "x"));
    }
}
