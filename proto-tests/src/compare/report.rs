//! Many rows to one table: medians, and ratios to the best of the others.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::run::Row;

/// The medians of one speaker in one row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The scenario or its phase.
    pub row: String,
    /// The speaker.
    pub speaker: String,
    /// Runs that went well, and all runs.
    pub runs: (usize, usize),
    /// Why one failed.
    pub error: Option<String>,
    /// Seconds until the last receiver had arrived.
    pub seconds: f64,
    /// CPU seconds until it was quiet.
    pub cpu: f64,
    /// The most memory, in octets.
    pub peak: f64,
    /// Messages that receivers heard.
    pub messages: f64,
    /// Milliseconds: half of the changes were heard by then, 99 of 100.
    pub latency: Option<(f64, f64)>,
    /// Octets in them.
    pub octets: f64,
    /// Hundredths of one core's time, where nothing was done.
    pub idle: Option<f64>,
    /// Where sessions idle beside others: the longest silence of the speaker on any, in seconds.
    pub silence: Option<f64>,
    /// Sessions.
    pub sessions: usize,
    /// The fewest messages that would do, where that is known.
    pub least: u64,
    /// To the best of the others, which is 1 where it is this one: time (for latency the 99th), CPU, memory, messages.
    pub ratios: Option<[f64; 4]>,
}

impl Line {
    /// The four figures that are compared.
    pub fn figures(&self) -> [f64; 4] {
        [self.latency.map_or(self.seconds, |(_, worst)| worst), self.cpu, self.peak, self.messages]
    }
}

/// Sums up. A speaker whose name begins with `margay` is no other.
pub fn lines(rows: &[Row]) -> Vec<Line> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    let mut grouped: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let key = (&*row.row, &*row.speaker);
        if !order.contains(&key) {
            order.push(key);
        }
        grouped.entry(key).or_default().push(row);
    }
    let position = |name: &str| order.iter().position(|(row, _)| *row == name);
    let mut lines: Vec<Line> = order.iter().map(|key| line(key, &grouped[key])).collect();
    for at in 0..lines.len() {
        let others = lines.iter().filter(|line| line.row == lines[at].row && line.error.is_none() && !line.speaker.starts_with("margay"));
        let others: Vec<[f64; 4]> = others.map(Line::figures).collect();
        if others.is_empty() || lines[at].error.is_some() {
            continue;
        }
        let best = |figure: usize| others.iter().map(|figures| figures[figure]).fold(f64::INFINITY, f64::min);
        let own = lines[at].figures();
        // CPU is counted in steps of 10 ms: nothing at all is no measure.
        lines[at].ratios = Some([0, 1, 2, 3].map(|figure| if best(figure) > 0.0 { own[figure] / best(figure) } else { f64::NAN }));
    }
    lines.sort_by_key(|line| position(&line.row));
    lines
}

fn line((row, speaker): &(&str, &str), rows: &[&Row]) -> Line {
    let good: Vec<&&Row> = rows.iter().filter(|row| row.error.is_none()).collect();
    let of = |figure: &dyn Fn(&Row) -> f64| median(good.iter().map(|row| figure(row)).collect());
    let has_latency = good.iter().any(|row| row.latency.is_some());
    Line {
        row: (*row).to_owned(),
        speaker: (*speaker).to_owned(),
        runs: (good.len(), rows.len()),
        error: if good.is_empty() { rows.iter().find_map(|row| row.error.clone()) } else { None },
        seconds: of(&|row| row.seconds),
        cpu: of(&|row| row.cpu),
        peak: of(&|row| row.peak as f64),
        messages: of(&|row| row.messages as f64),
        latency: has_latency.then(|| (of(&|row| row.latency.unwrap_or_default().0), of(&|row| row.latency.unwrap_or_default().1))),
        octets: of(&|row| row.octets as f64),
        idle: good.iter().any(|row| row.idle.is_some()).then(|| of(&|row| row.idle.unwrap_or_default())),
        silence: good.iter().filter_map(|row| row.silence).reduce(f64::max),
        sessions: good.iter().map(|row| row.sessions).max().unwrap_or(0),
        least: good.iter().map(|row| row.least).max().unwrap_or(0),
        ratios: None,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

/// The table as Markdown.
pub fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| | speaker | runs | seconds | CPU s | peak MB | messages | time ÷ best peer | CPU ÷ | memory ÷ | messages ÷ |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for line in lines {
        let (good, all) = line.runs;
        let _ = write!(text, "| {} | {} | {good} of {all} | ", line.row, line.speaker);
        if let Some(error) = &line.error {
            let short: String = error.replace(['|', '\n'], " ").chars().take(160).collect();
            let _ = writeln!(text, "failed: {short} | | | | | | | |");
            continue;
        }
        let seconds = line.latency.map_or(String::new(), |(half, worst)| format!("p50 {half:.2} ms, p99 {worst:.2} ms; "))
            + &line.idle.map_or(String::new(), |share| format!("{share:.2} % of a core; "))
            + &line.silence.map_or(String::new(), |longest| format!("silent {longest:.2} s at most; "))
            + &format!("{:.2}", line.seconds);
        let _ = write!(text, "{seconds} | {:.2} | {:.0} | {:.0} |", line.cpu, line.peak / 1e6, line.messages);
        for (ratio, figure) in line.ratios.unwrap_or([f64::NAN; 4]).iter().zip(line.figures()) {
            let _ = if ratio.is_nan() || figure == 0.0 { write!(text, " – |") } else { write!(text, " {ratio:.2} |") };
        }
        text.push('\n');
    }
    text
}

/// How the meshes grow, as Markdown: what lines of one family of scenarios (`S4-125`, `S4-250`, …) have in messages, octets, CPU and memory, and
/// the power of the number of sessions with which messages and CPU have grown from the line before. Nothing if no family has two sizes.
pub fn curve(lines: &[Line]) -> Option<String> {
    let mut text = String::from(
        "| | speaker | sessions | messages | of the fewest | octets | a session: messages | octets | CPU ms | peak KB | growth: messages | CPU |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut families: BTreeMap<(&str, &str), Vec<&Line>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.error.is_none() && line.least > 0) {
        if let Some((family, _)) = line.row.split_once('-').filter(|(_, size)| size.parse::<usize>().is_ok()) {
            families.entry((family, &line.speaker)).or_default().push(line);
        }
    }
    families.retain(|_, family| family.len() > 1);
    for family in families.values_mut() {
        family.sort_by_key(|line| line.sessions);
        for (at, line) in family.iter().enumerate() {
            let each = |figure: f64| figure / line.sessions as f64;
            let before = at.checked_sub(1).map(|at| family[at]);
            let growth = |figure: fn(&Line) -> f64| match before {
                Some(before) => format!("n^{:.2}", power(line.sessions, before.sessions, figure(line) / figure(before))),
                None => "–".to_owned(),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.0} | {:.2} | {:.0} | {:.1} | {:.0} | {:.2} | {:.0} | {} | {} |",
                line.row,
                line.speaker,
                line.sessions,
                line.messages,
                line.messages / line.least as f64,
                line.octets,
                each(line.messages),
                each(line.octets),
                each(line.cpu * 1e3),
                each(line.peak / 1e3),
                growth(|line| line.messages),
                growth(|line| line.cpu)
            );
        }
    }
    (!families.is_empty()).then_some(text)
}

fn power(sessions: usize, before: usize, ratio: f64) -> f64 {
    ratio.ln() / (sessions as f64 / before as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(speaker: &str, seconds: f64, cpu: f64, error: Option<&str>) -> Row {
        let (row, speaker, error) = ("S1".to_owned(), speaker.to_owned(), error.map(str::to_owned));
        Row { row, speaker, seconds, cpu, error, peak: 2_000_000, messages: 10, ..Row::default() }
    }

    #[test]
    fn the_best_peer_is_the_measure_of_all() {
        let rows = [
            row("margay", 1.0, 0.9, None),
            row("bird", 4.0, 2.0, None),
            row("frr", 2.0, 3.0, None),
            row("gobgp", 0.0, 0.0, Some("it did | not start")),
            row("margay", 3.0, 1.1, None),
            row("margay", 2.0, 1.0, None),
        ];
        let lines = lines(&rows);
        assert_eq!(lines.len(), 4);
        let margay = &lines[0];
        assert_eq!((margay.seconds, margay.runs, margay.ratios), (2.0, (3, 3), Some([1.0, 0.5, 1.0, 1.0])));
        assert_eq!(lines[3].ratios, None);
        let text = table(&lines);
        assert!(text.contains("| S1 | margay | 3 of 3 | 2.00 | 1.00 | 2 | 10 | 1.00 | 0.50 | 1.00 | 1.00 |"), "{text}");
        assert!(text.contains("| S1 | gobgp | 0 of 1 | failed: it did   not start |"), "{text}");
    }

    #[test]
    fn growth_is_told_as_a_power_of_the_number_of_sessions() {
        let row = |row: &str, sessions: usize, messages: u64| Row {
            row: row.into(),
            speaker: "margay".into(),
            sessions,
            messages,
            octets: 100 * messages,
            cpu: 1.0,
            least: messages / 2,
            ..Row::default()
        };
        let text = curve(&lines(&[row("S4-500", 500, 4000), row("S4-250", 250, 1000), row("mesh-125", 125, 10)])).unwrap();
        assert!(text.contains("| S4-500 | margay | 500 | 4000 | 2.00 | 400000 | 8.0 | 800 | 2.00 | 0 | n^2.00 | n^0.00 |"), "{text}");
        assert!(!text.contains("mesh"), "one size is no curve: {text}");
        assert_eq!(curve(&lines(&[row("S4-500", 500, 4000), row("S4-herd", 250, 1000)])), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
