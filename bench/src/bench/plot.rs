//! Bars on a logarithmic scale, as SVG: one picture for each payload.

use super::report::{BenchReport, Row};
use super::stats::rounded;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LABEL: f64 = 230.0;
const BAR: f64 = 22.0;
const GAP: f64 = 8.0;
const TOP: f64 = 44.0;

/// File name and content of each picture.
pub(crate) fn plots(report: &BenchReport) -> Vec<(String, String)> {
    let mut payloads: Vec<&str> = report.rows.iter().map(|row| row.payload.as_str()).collect();
    payloads.dedup();
    payloads
        .into_iter()
        .map(|payload| {
            let rows: Vec<&Row> = report.rows.iter().filter(|row| row.payload == payload).collect();
            let name: String =
                payload.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            (format!("attempts-{}.svg", name.trim_matches('-')), bars(payload, &rows))
        })
        .collect()
}

fn bars(payload: &str, rows: &[&Row]) -> String {
    let most = rows.iter().map(|row| row.per_second.max).fold(1.0, f64::max);
    let least = rows.iter().map(|row| row.per_second.min).fold(f64::MAX, f64::min).max(0.01);
    let (from, to) = (least.log10().floor(), most.log10().ceil());
    let span = (to - from).max(1.0);
    let at = |value: f64| LABEL + (value.max(least).log10() - from) / span * (WIDTH - LABEL - 80.0);
    let height = TOP + rows.len() as f64 * (BAR + GAP) + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"22\" font-size=\"15\">attempts per second, {} (logarithmic; lines: least and most of the rounds)</text>\n",
        escaped(payload)
    );
    for (place, row) in rows.iter().enumerate() {
        let y = TOP + place as f64 * (BAR + GAP);
        let middle = y + BAR / 2.0;
        let (start, end) = (LABEL, at(row.per_second.median));
        let colour = if row.way.to_string().starts_with("flakefarm") { "#2f7d4f" } else { "#8a93a3" };
        writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{start:.1}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" y1=\"{middle:.0}\" x2=\"{:.1}\" y2=\"{middle:.0}\" stroke=\"black\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            LABEL - 8.0,
            middle + 4.0,
            escaped(&row.way.to_string().replace('`', "")),
            (end - start).max(1.0),
            at(row.per_second.min),
            at(row.per_second.max),
            at(row.per_second.max) + 6.0,
            middle + 4.0,
            rounded(row.per_second.median),
        )
        .expect("writing to memory");
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
