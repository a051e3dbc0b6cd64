//! For the terminal.

use super::{Comparison, tables::tables};
use crate::report::{Column, Paint, table};

pub fn text(comparison: &Comparison, paint: Paint) -> String {
    let mut out = Vec::new();
    for part in tables(comparison) {
        if !out.is_empty() {
            out.push(String::new());
        }
        out.push(paint.bold(part.title));
        if part.rows.is_empty() {
            out.push(format!("  {}", part.none));
            continue;
        }
        let columns: Vec<Column> = part
            .head
            .iter()
            .map(|(title, number)| if *number { Column::right(title) } else { Column::left(title) })
            .collect();
        out.extend(table(&columns, &part.rows, paint));
        if !part.note.is_empty() {
            out.push(paint.dim(&format!("  {}", part.note)));
        }
    }
    out.push(String::new());
    out.join("\n")
}
