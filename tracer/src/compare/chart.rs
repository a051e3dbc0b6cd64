//! Charts as inline SVG: bars of means with their range, and boxes of quantiles.

use super::{Comparison, GroupSummary, Quantiles, Spread, html::escape};
use crate::report::duration;

const WIDTH: f64 = 720.0;
const LABEL: f64 = 180.0;
const VALUE: f64 = 110.0;
const ROW: f64 = 30.0;

/// Where a value is on the axis, which begins at zero.
struct Scale {
    max: f64,
}

impl Scale {
    fn x(&self, value: f64) -> f64 {
        let share = if self.max > 0.0 { (value / self.max).clamp(0.0, 1.0) } else { 0.0 };
        LABEL + share * (WIDTH - LABEL - VALUE)
    }
}

/// What a comparison shows as charts.
pub(super) fn figures(comparison: &Comparison) -> Vec<String> {
    let mut figures = vec![
        bars("Connections per session", comparison, |group| Some(group.connections_per_session)),
        boxes("Connect latency", comparison, "no connections", |group| group.connect_latency_ns),
    ];
    if comparison.groups.iter().any(|group| group.calls.is_some()) {
        figures.push(bars("HTTP calls per session", comparison, |group| {
            Some(group.calls.as_ref()?.calls_per_session)
        }));
        figures.push(boxes("Time of calls to APIs", comparison, "no such calls", |group| {
            group.calls.as_ref()?.api_total_ns
        }));
    }
    figures
}

/// The mean, with a line from the fewest to the most.
fn bars(
    title: &str,
    comparison: &Comparison,
    of: impl Fn(&GroupSummary) -> Option<Spread>,
) -> String {
    let max = comparison.groups.iter().filter_map(&of).map(|spread| spread.max).max();
    let scale = Scale { max: max.unwrap_or(0) as f64 };
    let bar = |group: &GroupSummary, middle: f64| {
        let Some(spread) = of(group) else { return value("not recorded", middle) };
        let (from, to) = (scale.x(0.0), scale.x(spread.mean()));
        let (min, max) = (scale.x(spread.min as f64), scale.x(spread.max as f64));
        let bar = format!(
            r#"<rect class="bar" x="{from:.1}" y="{:.1}" width="{:.1}" height="16"/>"#,
            middle - 8.0,
            to - from
        );
        format!(
            "{bar}{}{}",
            whisker(min, max, middle),
            value(&format!("{:.1}", spread.mean()), middle)
        )
    };
    svg(&format!("{title}: mean, and from fewest to most"), comparison, bar)
}

/// A box from the first to the third quartile, its median, and a line from the fastest to the 95th
/// percentile.
fn boxes(
    title: &str,
    comparison: &Comparison,
    none: &str,
    of: impl Fn(&GroupSummary) -> Option<Quantiles>,
) -> String {
    let all = comparison.groups.iter().filter_map(&of);
    let scale = Scale { max: all.map(|times| times.p95).max().unwrap_or(0) as f64 };
    let row = |group: &GroupSummary, middle: f64| {
        let Some(times) = of(group) else { return value(none, middle) };
        let x = |value: u64| scale.x(value as f64);
        let (low, median, high) = (x(times.p25), x(times.median), x(times.p75));
        let lines = whisker(x(times.min), x(times.p95), middle);
        let box_and_median = format!(
            r#"<rect class="box" x="{low:.1}" y="{:.1}" width="{:.1}" height="16"/><line class="median" x1="{median:.1}" x2="{median:.1}" y1="{:.1}" y2="{:.1}"/>"#,
            middle - 8.0,
            (high - low).max(1.0),
            middle - 8.0,
            middle + 8.0
        );
        format!("{lines}{box_and_median}{}", value(&duration(times.median), middle))
    };
    let how = "quartiles and median, from the fastest to the 95th percentile";
    svg(&format!("{title}: {how}"), comparison, row)
}

fn whisker(from: f64, to: f64, middle: f64) -> String {
    let end = |x: f64| {
        let (top, bottom) = (middle - 4.0, middle + 4.0);
        format!(r#"<line class="range" x1="{x:.1}" x2="{x:.1}" y1="{top:.1}" y2="{bottom:.1}"/>"#)
    };
    format!(
        r#"<line class="range" x1="{from:.1}" x2="{to:.1}" y1="{middle:.1}" y2="{middle:.1}"/>{}{}"#,
        end(from),
        end(to)
    )
}

fn value(text: &str, middle: f64) -> String {
    let (x, y) = (WIDTH - VALUE + 12.0, middle + 4.0);
    format!(r#"<text x="{x:.1}" y="{y:.1}">{}</text>"#, escape(text))
}

fn svg(title: &str, comparison: &Comparison, row: impl Fn(&GroupSummary, f64) -> String) -> String {
    const SHOWN_MAX: usize = 22;
    let height = ROW * comparison.groups.len() as f64;
    let rows: String = comparison
        .groups
        .iter()
        .enumerate()
        .map(|(at, group)| {
            let middle = ROW * (at as f64 + 0.5);
            let name: String = crate::report::clean(group.name.as_bytes());
            let short: String = name.chars().take(SHOWN_MAX).collect();
            let label = format!(r#"<text x="0" y="{:.1}">{}</text>"#, middle + 4.0, escape(&short));
            format!("<g>{label}{}</g>", row(group, middle))
        })
        .collect();
    let title = escape(title);
    format!(
        r#"<figure><figcaption>{title}</figcaption><svg role="img" aria-label="{title}" viewBox="0 0 {WIDTH} {height}">{rows}</svg></figure>"#
    )
}
