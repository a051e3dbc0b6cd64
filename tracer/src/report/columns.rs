//! Tables of text, by the width that characters have on a terminal.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::paint::Paint;

const INDENT: usize = 2;
const GAP: usize = 2;
/// A column is not made narrower than this.
const NARROWEST: usize = 12;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    right: bool,
}

impl Column {
    pub(crate) fn left(title: &'static str) -> Column {
        Column { title, right: false }
    }

    pub(crate) fn right(title: &'static str) -> Column {
        Column { title, right: true }
    }
}

/// Lines of a table: a head, then the rows. Columns without any content are left out. Where the
/// terminal is too narrow the widest columns are wrapped, and the last ones go below their row where even
/// that is too wide; elsewhere a row is one line.
pub(crate) fn table(columns: &[Column], rows: &[Vec<String>], paint: Paint) -> Vec<String> {
    let mut used: Vec<usize> = (0..columns.len())
        .filter(|at| rows.iter().any(|row| row.get(*at).is_some_and(|cell| !cell.is_empty())))
        .collect();
    let cell = |row: &[String], at: usize| row.get(at).cloned().unwrap_or_default();
    let mut widths: Vec<usize> = used
        .iter()
        .map(|at| {
            let cells = rows.iter().map(|row| cell(row, *at).width());
            cells.chain([columns[*at].title.width()]).max().unwrap_or(0)
        })
        .collect();
    let mut below = Vec::new();
    if let Some(width) = paint.width() {
        let available = width.saturating_sub(INDENT);
        let fitting = fitting(&widths, available);
        below = used.split_off(fitting);
        widths.truncate(fitting);
        narrow(&mut widths, available);
    }
    let head: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    let head = lines(columns, &used, &widths, &head).into_iter().map(|line| paint.dim(&line));
    let body = rows.iter().flat_map(|row| {
        let rest = under(columns, &below, row, paint.width().unwrap_or(usize::MAX));
        lines(columns, &used, &widths, row).into_iter().chain(rest)
    });
    head.chain(body).collect()
}

/// A sentence behind `lead`, which is `indent` wide. Where the terminal is too narrow for it, it goes on below
/// itself.
pub(super) fn sentence(lead: &str, indent: usize, text: &str, paint: Paint) -> Vec<String> {
    let Some(width) = paint.width() else { return vec![format!("{lead}{text}")] };
    let mut lines = wrapped(text, width.saturating_sub(indent).max(NARROWEST));
    for (at, line) in lines.iter_mut().enumerate() {
        let before = if at == 0 { lead } else { &" ".repeat(indent) };
        line.insert_str(0, before);
    }
    lines
}

/// How many columns fit beside each other when all are as narrow as they may be; the first one does.
fn fitting(widths: &[usize], available: usize) -> usize {
    let mut taken = 0;
    let fits = |width: &&usize| {
        taken += (**width).min(NARROWEST) + GAP;
        taken <= available + GAP
    };
    widths.iter().take_while(fits).count().max(1)
}

/// Cells of these columns, each with its title, as lines below their row.
fn under(columns: &[Column], of: &[usize], row: &[String], width: usize) -> Vec<String> {
    const DEEPER: usize = INDENT + 4;
    let cells = of.iter().filter_map(|at| Some((columns[*at].title, row.get(*at)?)));
    let named: Vec<String> = cells
        .filter(|(_, cell)| !cell.is_empty())
        .map(|(title, cell)| format!("{title}: {cell}"))
        .collect();
    if named.is_empty() {
        return Vec::new();
    }
    let pieces = wrapped(&named.join("; "), width.saturating_sub(DEEPER).max(NARROWEST));
    pieces.into_iter().map(|piece| " ".repeat(DEEPER) + &piece).collect()
}

/// Takes from the widest column until all fit.
fn narrow(widths: &mut [usize], available: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    loop {
        let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(available);
        let Some(widest) = widths.iter_mut().max().filter(|width| **width > NARROWEST) else {
            return;
        };
        if excess == 0 {
            return;
        }
        *widest -= 1;
    }
}

fn lines(columns: &[Column], used: &[usize], widths: &[usize], row: &[String]) -> Vec<String> {
    let empty = String::new();
    let cells: Vec<Vec<String>> = used
        .iter()
        .zip(widths)
        .map(|(at, width)| wrapped(row.get(*at).unwrap_or(&empty), *width))
        .collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    (0..height)
        .map(|line| {
            let mut out = " ".repeat(INDENT);
            for ((at, width), cell) in used.iter().zip(widths).zip(&cells) {
                let text = cell.get(line).map_or("", String::as_str);
                let space = " ".repeat(width.saturating_sub(text.width()));
                let (before, after) =
                    if columns[*at].right { (&*space, "") } else { ("", &*space) };
                out.extend([before, text, after, &" ".repeat(GAP)]);
            }
            out.trim_end().to_owned()
        })
        .collect()
}

/// The text, or its beginning and its end with an ellipsis between them, no wider than `width`.
pub(super) fn shortened(text: &str, width: usize) -> String {
    const ELLIPSIS: &str = "\u{2026}";
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(ELLIPSIS.width());
    let end_room = room / 3;
    let begin: String = fitting_in(text.chars(), room - end_room).collect();
    let end: Vec<char> = fitting_in(text.chars().rev(), end_room).collect();
    [begin, ELLIPSIS.to_owned(), end.into_iter().rev().collect()].concat()
}

/// The first characters that have room.
fn fitting_in(text: impl Iterator<Item = char>, mut room: usize) -> impl Iterator<Item = char> {
    text.map_while(move |character| {
        room = room.checked_sub(character.width().unwrap_or(0))?;
        Some(character)
    })
}

/// Pieces no wider than `width`, cut at spaces where there are some.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        let fits_alone = word.trim_end().width() <= width;
        if used > 0 && fits_alone && used + word.trim_end().width() > width {
            pieces.push(String::new());
            used = 0;
        }
        for character in word.chars() {
            let wide = character.width().unwrap_or(0);
            if used + wide > width && character != ' ' && used > 0 {
                pieces.push(String::new());
                used = 0;
            }
            if let Some(piece) = pieces.last_mut() {
                piece.push(character);
            }
            used += wide;
        }
    }
    pieces.into_iter().map(|piece| piece.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(width: Option<usize>, rows: &[&[&str]], expected: &str) {
        let columns = [Column::left("to"), Column::right("bytes"), Column::left("none")];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        let lines = table(&columns, &rows, Paint::OFF.at_width(width));
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        check(
            None,
            &[&["127.0.0.1:80", "7", ""], &["::1", "12345678"]],
            "  to               bytes\n  127.0.0.1:80         7\n  ::1           12345678",
        );
    }

    #[test]
    fn width_is_what_the_terminal_shows() {
        check(
            None,
            &[&["\u{8868}\u{8868}", "1"], &["abcd", "2"]],
            "  to    bytes\n  \u{8868}\u{8868}      1\n  abcd      2",
        );
    }

    #[test]
    fn columns_that_do_not_fit_go_below() {
        check(
            Some(20),
            &[&["127.0.0.1:80", "7", "x"], &["::1", "", "y z"]],
            "  to\n  127.0.0.1:80\n      bytes: 7;\n      none: x\n  ::1\n      none: y z",
        );
    }

    #[test]
    fn sentences_go_on_below_themselves() {
        let lines = |width| sentence("  ok ", 5, "one two three four", Paint::OFF.at_width(width));
        assert_eq!(lines(None), ["  ok one two three four"]);
        assert_eq!(lines(Some(19)), ["  ok one two three", "     four"]);
    }

    #[test]
    fn long_texts_keep_their_ends() {
        assert_eq!(shortened("0123456789", 10), "0123456789");
        assert_eq!(shortened("0123456789", 7), "0123\u{2026}89");
        // Of twice the width.
        assert_eq!(shortened(&"\u{8868}".repeat(5), 7), "\u{8868}\u{8868}\u{2026}\u{8868}");
        for width in 0..12 {
            assert!(shortened("0123456789", width).width() <= width.max(1));
        }
    }

    #[test]
    fn what_is_too_wide_is_wrapped_and_nothing_is_lost() {
        check(
            Some(28),
            &[&["one two three four five", "12"]],
            "  to                   bytes\n  one two three four      12\n  five",
        );
        let long = "x".repeat(50);
        let columns = [Column::left("a")];
        let lines = table(&columns, &[vec![long.clone()]], Paint::OFF.at_width(Some(22)));
        assert!(lines.iter().all(|line| line.width() <= 22), "{lines:?}");
        assert_eq!(lines[1..].iter().map(|line| line.trim()).collect::<String>(), long);
    }
}
