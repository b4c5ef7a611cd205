//! The table as a picture: a panel a row, a bar a speaker, as an SVG that needs nothing but itself.

use std::fmt::Write as _;

use super::report::Line;

const WIDTH: f64 = 860.0;
/// Where bars begin.
const LEFT: f64 = 130.0;
/// The longest bar.
const LONGEST: f64 = 300.0;
/// From the beginning of the first bar to that of the second figure's.
const COLUMN: f64 = 370.0;
const BAR: f64 = 14.0;
const GAP: f64 = 4.0;
const HEAD: f64 = 30.0;

/// A figure of a line, and how it is written.
type Figure = (&'static str, fn(&Line) -> f64, fn(f64) -> String);

/// The chart of these lines: seconds (or milliseconds of latency) and CPU on the left, memory on the right.
pub fn svg(lines: &[Line]) -> String {
    let mut rows: Vec<&str> = Vec::new();
    for line in lines {
        if !rows.contains(&&*line.row) {
            rows.push(&line.row);
        }
    }
    let mut body = String::new();
    let mut top = 10.0;
    for row in rows {
        let panel: Vec<&Line> = lines.iter().filter(|line| line.row == row && line.error.is_none()).collect();
        if panel.is_empty() {
            continue;
        }
        let _ = writeln!(body, r#"<text x="8" y="{:.0}" class="row">{}</text>"#, top + 16.0, escape(row));
        let time: Figure = match panel.iter().any(|line| line.latency.is_some()) {
            true => ("p99 in ms", |line| line.latency.map_or(0.0, |(_, worst)| worst), |value| format!("{value:.2}")),
            false => ("CPU seconds", |line| line.cpu, |value| format!("{value:.2}")),
        };
        let memory: Figure = ("peak memory in MB", |line| line.peak / 1e6, |value| format!("{value:.0}"));
        for (column, (title, figure, text)) in [time, memory].into_iter().enumerate() {
            let left = LEFT + column as f64 * COLUMN;
            let longest = panel.iter().map(|line| figure(line)).fold(f64::MIN_POSITIVE, f64::max);
            let _ = writeln!(body, r#"<text x="{left:.0}" y="{:.0}" class="what">{title}</text>"#, top + 16.0);
            for (at, line) in panel.iter().enumerate() {
                let y = top + HEAD + at as f64 * (BAR + GAP);
                let value = figure(line);
                let class = if line.speaker.starts_with("margay") { "own" } else { "other" };
                let length = (value / longest * LONGEST).max(1.0);
                let _ = writeln!(body, r#"<rect x="{left:.0}" y="{y:.0}" width="{length:.1}" height="{BAR}" class="{class}"/>"#);
                let (x, base) = (left + length + 5.0, y + BAR - 3.0);
                let _ = writeln!(body, r#"<text x="{x:.0}" y="{base:.0}">{}</text>"#, text(value));
                if column == 0 {
                    let _ = writeln!(body, r#"<text x="{:.0}" y="{base:.0}" class="name">{}</text>"#, LEFT - 6.0, escape(&line.speaker));
                }
            }
        }
        top += HEAD + panel.len() as f64 * (BAR + GAP) + 14.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <style>text{{fill:#444}}.row{{font-size:14px;font-weight:bold;fill:#111}}.what{{fill:#777}}.name{{text-anchor:end}}\
         .own{{fill:#c2571a}}.other{{fill:#9db4c0}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::lines;
    use super::super::run::Row;
    use super::*;

    #[test]
    fn each_row_has_a_panel_and_each_speaker_that_ran_two_bars() {
        let row = |row: &str, speaker: &str, error: Option<&str>| Row {
            row: row.into(),
            speaker: speaker.into(),
            error: error.map(Into::into),
            cpu: 1.0,
            peak: 5_000_000,
            ..Row::default()
        };
        let picture =
            svg(&lines(&[row("S1", "margay", None), row("S1", "a<b", None), row("S2", "margay", None), row("S2", "bird", Some("no"))]));
        assert_eq!((picture.matches("class=\"row\"").count(), picture.matches("height=\"14\"").count()), (2, 6));
        assert_eq!(picture.matches("class=\"own\"").count(), 4);
        assert!(picture.contains("a&lt;b") && picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    }
}
