//! Times as people write them: `90s`, `2m`, `1h`.

use std::time::Duration;

/// A number alone counts seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    time(text, 1)
}

/// A number alone counts minutes.
pub fn minutes(text: &str) -> Result<Duration, String> {
    let time = time(text, 60)?;
    if time.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(time) }
}

fn time(text: &str, plain: u64) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" => plain,
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("`{unit}` is no unit: s, m or h")),
    };
    let seconds: u64 = number.parse().map_err(|_| format!("`{text}` is no time such as `60s`"))?;
    seconds.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| format!("`{text}` is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in
            [("30", Some(30)), ("30s", Some(30)), ("2m", Some(120)), ("1h", Some(3600)), ("1d", None), ("", None), ("-1s", None)]
        {
            assert_eq!(seconds(text).ok(), expected.map(Duration::from_secs), "{text}");
        }
        assert!(seconds("18446744073709551615h").is_err());
        assert_eq!((minutes("2"), minutes("90s")), (Ok(Duration::from_secs(120)), Ok(Duration::from_secs(90))));
        assert!(minutes("0").is_err());
    }
}
