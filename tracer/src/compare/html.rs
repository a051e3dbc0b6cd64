//! As one page that needs nothing else. There is no script on it, and its policy allows none:
//! every string of a recording is a text node.

use std::fmt::Write as _;

use super::{
    Comparison, chart,
    tables::{Table, tables},
};
use crate::report;

const STYLE: &str = include_str!("page.css");

pub fn html(comparison: &Comparison) -> String {
    let csp = format!(
        "default-src 'none'; style-src '{}'; base-uri 'none'; form-action 'none'",
        report::digest(STYLE)
    );
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{csp}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>tracer comparison</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Comparison of recordings</h1>\n"
    );
    for figure in chart::figures(comparison) {
        page.push_str(&figure);
        page.push('\n');
    }
    for table in tables(comparison) {
        section(&table, &mut page);
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn section(table: &Table, page: &mut String) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "<section><h2>{}</h2>", escape(table.title));
    if table.rows.is_empty() {
        let _ = writeln!(page, "<p>{}</p></section>", escape(table.none));
        return;
    }
    let class = |at: usize| if table.head[at].1 { " class=\"number\"" } else { "" };
    page.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    for (at, (title, _)) in table.head.iter().enumerate() {
        let _ = write!(page, "<th scope=\"col\"{}>{}</th>", class(at), escape(title));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let _ = write!(page, "<td{}>{}</td>", class(at), escape(cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>");
    if !table.note.is_empty() {
        let _ = write!(page, "<p>{}</p>", escape(table.note));
    }
    page.push_str("</section>\n");
}

/// Text that is nothing but text, between tags and in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(character),
        }
    }
    out
}
