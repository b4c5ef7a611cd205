//! Tables for people: columns as wide as their widest cell where there is room, nothing at the ends of lines.
//!
//! On a terminal that is too narrow, columns of free text are cut first (`…` says where), down to the width that they name; then whole
//! columns are left out, the least important first, and [`Table::note`] names them. A pipe gets everything.

use std::fmt::Write;

use crate::cli::terminal::{Screen, Tone};

/// Between two columns.
const GAP: usize = 2;

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    /// It may be cut to this many characters; none: never.
    least: Option<usize>,
    /// When it is left out: the greatest goes first; 0 never goes.
    order: u8,
}

/// A column that is always shown in full.
pub const fn column(title: &'static str) -> Column {
    Column { title, least: None, order: 0 }
}

impl Column {
    /// Free text: it may be cut, but not below `least` characters.
    pub const fn text(self, least: usize) -> Self {
        Self { least: Some(least), ..self }
    }

    /// Left out where there is no room; the greatest `order` goes first.
    pub const fn spare(self, order: u8) -> Self {
        Self { order, ..self }
    }
}

/// A cell: what it says, and how it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A word that means something good or bad.
    pub const fn new(text: String, tone: Tone) -> Self {
        Self { text, tone }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Rows under a header.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the header are left out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<Cell>>) {
        self.rows.push(cells.into_iter().map(Into::into).take(self.columns.len()).collect());
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, each line ended.
    pub fn render(&self, screen: &Screen) -> String {
        let widths = self.widths(screen.width);
        let mut text = String::new();
        line(&mut text, self.columns.iter().map(|column| (column.title, Tone::Plain)), &widths, screen);
        for row in &self.rows {
            line(&mut text, row.iter().map(|cell| (cell.text.as_str(), cell.tone)), &widths, screen);
        }
        text
    }

    /// What was left out for want of room, in lines that fit; none where nothing was.
    pub fn note(&self, screen: &Screen) -> Option<String> {
        let widths = self.widths(screen.width);
        let hidden: Vec<&str> =
            self.columns.iter().zip(&widths).filter(|(_, width)| width.is_none()).map(|(column, _)| column.title).collect();
        let (last, others) = hidden.split_last()?;
        let titles = others.iter().map(|title| format!("{title},")).chain([format!("{last}:")]);
        let mut note = "(no room for".to_owned();
        let mut column = note.len();
        for piece in titles.chain(["--wide shows all)".to_owned()]) {
            let fits = screen.width.is_none_or(|width| column + 1 + piece.len() <= width);
            column = if fits { column + 1 + piece.len() } else { piece.len() };
            note.push(if fits { ' ' } else { '\n' });
            note += &piece;
        }
        Some(note + "\n")
    }

    /// The width of each column; none of those that are left out.
    fn widths(&self, limit: Option<usize>) -> Vec<Option<usize>> {
        let natural: Vec<usize> = (0..self.columns.len()).map(|number| self.natural(number)).collect();
        let Some(limit) = limit else { return natural.into_iter().map(Some).collect() };
        let least = |number: usize| self.columns[number].least.map_or(natural[number], |least| natural[number].min(least));
        let mut widths: Vec<Option<usize>> = (0..self.columns.len()).map(|number| Some(least(number))).collect();
        while taken(&widths) > limit {
            let spare = (0..widths.len()).filter(|number| widths[*number].is_some() && self.columns[*number].order > 0);
            let Some(goes) = spare.max_by_key(|number| self.columns[*number].order) else { break };
            widths[goes] = None;
        }
        let mut room = limit.saturating_sub(taken(&widths));
        for (number, width) in widths.iter_mut().enumerate() {
            let Some(width) = width else { continue };
            let more = (natural[number] - *width).min(room);
            *width += more;
            room -= more;
        }
        widths
    }

    fn natural(&self, number: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(number)).map(|cell| cell.text.chars().count());
        cells.chain([self.columns[number].title.len()]).max().unwrap_or(0)
    }
}

/// Characters of a line.
fn taken(widths: &[Option<usize>]) -> usize {
    widths.iter().flatten().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
}

fn line<'a>(text: &mut String, cells: impl Iterator<Item = (&'a str, Tone)>, widths: &[Option<usize>], screen: &Screen) {
    let shown: Vec<(&str, Tone, usize)> =
        cells.zip(widths).filter_map(|((cell, tone), width)| width.map(|width| (cell, tone, width))).collect();
    let last = shown.iter().rposition(|(cell, ..)| !cell.is_empty()).map_or(0, |last| last + 1);
    for (number, (cell, tone, width)) in shown[..last].iter().enumerate() {
        let cut = cut(cell, *width);
        let padding = if number + 1 == last { 0 } else { width - cut.chars().count() + GAP };
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{:padding$}", screen.paint(*tone, &cut), "");
    }
    text.push('\n');
}

/// The text in so many characters; the last is `…` where there is more.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Table {
        let columns = [column("NAME"), column("STATE"), column("SINCE").spare(1), column("TYPE").spare(2), column("ERROR").text(8)];
        let mut table = Table::new(&columns);
        table.row(["Mesh_10_0_0_2", "Established", "10:00", "mesh", ""].map(|cell| Cell::from(cell.to_owned())));
        let tones = [Tone::Plain, Tone::Bad, Tone::Plain, Tone::Plain, Tone::Plain];
        let cells = ["x", "Idle", "10:01", "node", "connection refused by it"];
        table.row(cells.into_iter().zip(tones).map(|(text, tone)| Cell::new(text.to_owned(), tone)));
        table
    }

    #[test]
    fn columns_fit_their_widest_cell() {
        let mut table = Table::new(&[column("NAME"), column("STATE")]);
        table.row(["Mesh_10_0_0_2".to_owned(), "Established".to_owned()]);
        table.row(["x".to_owned(), String::new()]);
        assert_eq!(table.render(&Screen::default()), "NAME           STATE\nMesh_10_0_0_2  Established\nx\n");
    }

    #[test]
    fn a_narrow_terminal_cuts_text_and_then_leaves_columns_out() {
        let (table, at) = (peers(), |width| Screen::of(Some(width), false));
        for width in 36..90 {
            let text = table.render(&at(width));
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= width, "{longest} of {width}:\n{text}");
        }
        assert!(table.render(&at(70)).ends_with("connection refused by i…\n") || table.render(&at(71)).ends_with("by it\n"));
        assert_eq!(table.note(&at(80)), None);
        assert_eq!(table.note(&at(44)).unwrap(), "(no room for TYPE: --wide shows all)\n");
        assert_eq!(table.note(&at(36)).unwrap(), "(no room for SINCE, TYPE:\n--wide shows all)\n");
        assert_eq!(table.render(&at(36)).lines().last().unwrap(), "x              Idle         connect…");
    }

    #[test]
    fn with_colours_columns_stay_in_line() {
        let text = peers().render(&Screen::of(Some(100), true));
        assert_eq!(
            text.lines().last().unwrap(),
            "x              \u{1b}[1m\u{1b}[31mIdle\u{1b}[0m         10:01  node  connection refused by it"
        );
        assert!(!peers().render(&Screen::of(Some(100), false)).contains('\u{1b}'));
    }
}
