//! What a side should have come to, and how it differs.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::case::Case;

/// The lines of each phase.
pub type Phases = BTreeMap<String, Vec<String>>;

/// Reads `truth.txt`: `== PHASE ==`, then its lines.
pub fn read(case: &Case) -> Result<Phases> {
    let path = case.truth();
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}: BLESS=1 writes what BIRD does", path.display()))?;
    let (mut phases, mut now) = (Phases::new(), String::new());
    for line in text.lines() {
        match line.strip_prefix("== ").and_then(|line| line.strip_suffix(" ==")) {
            Some(phase) => now = phase.to_owned(),
            None => phases.entry(now.clone()).or_default().push(line.to_owned()),
        }
    }
    Ok(phases)
}

/// Writes `truth.txt`.
pub fn write(case: &Case, phases: &Phases) -> Result<()> {
    let mut text = String::new();
    for phase in case.phases() {
        text += &format!("== {phase} ==\n");
        phases.get(phase).into_iter().flatten().for_each(|line| text += &format!("{line}\n"));
    }
    Ok(std::fs::write(case.truth(), text)?)
}

/// The Partial bit, in every case. RFC 4271 section 5: who attaches an optional transitive attribute to a path that it did not originate
/// sets the bit, and nobody clears it again, not even where the attribute is known. BIRD sets it where the path came without communities and
/// a filter adds the first one. margay follows the rule for attributes that it does not know; those that it knows are held
/// decoded, without the bit, and are sent with their table's flags: a deviation, on which no speaker is known to act.
const PARTIAL: &str = " (flags e0)";

/// margay's lines: BIRD's, with the announced differences. An announced difference that is none is an error.
pub fn announced(case: &Case, truth: &Phases) -> Result<Phases> {
    let mut wanted = truth.clone();
    wanted.values_mut().flatten().for_each(|line| *line = line.replace(PARTIAL, ""));
    for difference in &case.differences {
        for (phase, lines) in &mut wanted {
            if difference.step.as_ref().is_some_and(|step| step != phase) {
                continue;
            }
            for line in &difference.bird {
                match lines.iter().position(|found| found == line) {
                    Some(at) => drop(lines.remove(at)),
                    None => bail!("{phase}: BIRD does not say `{line}`, so it cannot differ ({})", difference.because),
                }
            }
            for line in &difference.margay {
                lines.push(line.clone());
            }
            lines.sort();
        }
    }
    Ok(wanted)
}

/// The lines that only one of the two has, marked `-` (wanted) and `+` (found); empty when they agree.
pub fn difference(wanted: &[String], found: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&String, i32> = BTreeMap::new();
    found.iter().for_each(|line| *counts.entry(line).or_default() += 1);
    wanted.iter().for_each(|line| *counts.entry(line).or_default() -= 1);
    let lines = |(line, count): (&String, i32)| {
        let sign = if count > 0 { '+' } else { '-' };
        vec![format!("{sign} {line}"); usize::try_from(count.abs()).unwrap_or(0)]
    };
    counts.into_iter().flat_map(lines).collect()
}
