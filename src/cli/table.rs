//! Tables for people: columns as wide as their widest cell, nothing at the ends of lines.

use std::fmt::Write;

/// Rows under a header.
#[derive(Debug)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the header are left out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().take(self.header.len()).collect());
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, each line ended.
    pub fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.header.len()).map(|column| self.width(column)).collect();
        let mut text = String::new();
        line(&mut text, self.header.iter().copied(), &widths);
        for row in &self.rows {
            line(&mut text, row.iter().map(String::as_str), &widths);
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([self.header[column].len()]).max().unwrap_or(0)
    }
}

fn line<'a>(text: &mut String, cells: impl Iterator<Item = &'a str>, widths: &[usize]) {
    let mut one = String::new();
    for (cell, width) in cells.zip(widths) {
        // Writing to a String cannot fail.
        let _ = write!(one, "{cell:<width$}  ");
    }
    text.push_str(one.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["Mesh_10_0_0_2".into(), "Established".into()]);
        table.row(["x".into(), String::new()]);
        assert_eq!(table.render(), "NAME           STATE\nMesh_10_0_0_2  Established\nx\n");
    }
}
