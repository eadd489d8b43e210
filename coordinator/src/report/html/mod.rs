//! The report as one self-contained page: no script, nothing loaded from anywhere, light and dark, bounded
//! in size however large the sweep. Text of tests is escaped by the template and made visible first.

mod card;
mod command;
mod experiment;
mod matrix;

use super::model::{Report, TestReport, Verdict};
use super::trusting::trust_line;
use super::{svg, words};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;

/// Rows of the table of tests to look at, tests told with pictures, and rows of the folded lists.
const ROWS: usize = 500;
const CARDS: usize = 60;
const LIST: usize = 2_000;

const STYLE: &str = include_str!("../style.css");

/// The page. `outputs` are the captured outputs by their digests; one that is absent is left out.
pub fn render(report: &Report, outputs: &BTreeMap<String, String>) -> String {
    let notable: Vec<&TestReport> = report.notable().collect();
    let title = format!("{}: {}", words::visible(&report.sweep.project), words::headline(report));
    page(
        &title,
        html! {
                    (svg::symbols())
                    (header(report))
                    main {
                        (overview(&notable))
                        (matrix::clusters(report))
                        (matrix::matrix(&notable))
                        @for (i, test) in notable.iter().take(CARDS).enumerate() {
                            (card::card(i, test, &report.sweep.infrastructure, outputs))
                        }
                        @if notable.len() > CARDS {
                            p class="quiet" { (words::count((notable.len() - CARDS) as u64, "more test")) " without pictures; all of them are in the JSON report." }
                        }
                        (missing(report))
                        (infrastructure(report))
                        (lists(report))
                    }
                    footer { "flakefarm · sweep " (words::visible(&report.sweep.id)) " · " (report.schema) }
        },
    )
}

/// One self-contained page: no script, nothing loaded.
pub(crate) fn page(title: &str, body: Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

fn header(report: &Report) -> Markup {
    let sweep = &report.sweep;
    let started = sweep.started_at.to_offset(time::UtcOffset::UTC);
    html! {
        header {
            p class="eyebrow" {
                b { (words::visible(&sweep.project)) }
                @if let Some(revision) = &sweep.revision { " at " code { (words::visible(revision)) } }
                " · " (words::visible(&sweep.question)) " · "
                time { (started.date()) " " (format!("{:02}:{:02}", started.hour(), started.minute())) " UTC" }
            }
            h1 { (words::headline(report)) }
            @if let Some(ending) = words::ending(report) { p class="notice" { (ending) } }
            @if !report.tests.is_empty() {
                ul class="tally" {
                    @for verdict in Verdict::ALL {
                        @let count = report.count(verdict);
                        @if count > 0 { li class=(format!("v-{}", verdict.word())) { b { (words::thousands(count as u64)) } span { (verdict.word()) } } }
                    }
                }
            }
            dl class="facts" {
                dt { "Cost" } dd { (words::cost(report)) }
                @if let Some(guarantee) = words::guarantee(report) { dt { "Proved" } dd { (guarantee) } }
                @if let Some(missed) = words::missed(report) { dt { "Missed" } dd { (missed) } }
                @if let Some(unproved) = words::unproved(report) { dt { "Open" } dd { (unproved) } }
                dt { "Seed" } dd { code { (sweep.seed) } }
                @if let Some(framework) = &sweep.framework {
                    dt { "Ran in" } dd { (words::visible(framework)) @if let Some(image) = &sweep.image { ", image " code { (words::visible(image)) } } @if let Some(sandbox) = &sweep.sandbox { ", attempts isolated by " code { (words::visible(sandbox)) } } }
                }
                @if !sweep.workers.is_empty() { dt { "Workers" } dd { (words::visible(&sweep.workers.join(", "))) } }
                @if let Some(trust) = &sweep.trust { dt { "Trust" } dd { (trust_line(trust)) } }
                @for note in &sweep.notes { dt { "Note" } dd { (words::visible(note)) } }
            }
        }
    }
}

/// The table of what is not healthy, with the rates as a forest plot.
fn overview(notable: &[&TestReport]) -> Markup {
    if notable.is_empty() {
        return html! {};
    }
    let most = notable.iter().filter_map(|test| test.rate).map(|rate| rate.upper).fold(0.0, f64::max);
    let end = svg::axis_end(most);
    html! {
        section {
            h2 { "Tests to look at" }
            div class="scroll" {
                table class="overview" {
                    thead { tr {
                        th scope="col" { "Verdict" }
                        th scope="col" { "Test" }
                        th scope="col" class="r" { "Failed" }
                        th scope="col" class="r" { "Rate" }
                        th scope="col" { span class="ends" { span { "0" } span { (words::percent(end)) } } }
                        th scope="col" class="r" { "Score" }
                    } }
                    tbody {
                        @for (i, test) in notable.iter().take(ROWS).enumerate() {
                            tr {
                                td { (badge(test.verdict)) }
                                td class="id" {
                                    @if i < CARDS { a href=(format!("#t{i}")) { (id(&test.id)) } } @else { (id(&test.id)) }
                                    @if let Some(message) = words::top_message(test) { div class="message" { (short(&message)) } }
                                }
                                td class="r" { b { (test.failures) } span class="quiet" { "/" (test.attempts) } }
                                td class="r" { @if let Some(rate) = test.rate { (words::percent(rate.estimate)) div class="quiet small" { (words::interval(rate.lower, rate.upper)) } } @else { "–" } }
                                td { @if let Some(rate) = &test.rate { (svg::interval(rate, end)) } }
                                td class="r" { (format!("{:.2}", test.score)) }
                            }
                        }
                    }
                }
            }
            @if notable.len() > ROWS { p class="quiet" { (words::count((notable.len() - ROWS) as u64, "more test")) "; all of them are in the JSON report." } }
        }
    }
}

fn badge(verdict: Verdict) -> Markup {
    html! { span class=(format!("badge v-{}", verdict.word())) { (verdict.word()) } }
}

/// An id that may break after its separators, so that long ones wrap where a person would.
fn id(text: &str) -> Markup {
    let text = words::visible(text);
    let mut parts = text.split_inclusive(['/', ':', '[', '-', ',', '_']);
    html! { bdi class="mono" { @if let Some(first) = parts.next() { (first) } @for part in parts { wbr; (part) } } }
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(200).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn missing(report: &Report) -> Markup {
    let errors = &report.sweep.collection_errors;
    html! {
        @if !errors.is_empty() {
            section {
                h2 { "Missing" }
                p { (words::count(errors.len() as u64, "file")) " could not be collected, so " @if errors.len() == 1 { "its" } @else { "their" } " tests are not in this report." }
                @for error in errors.iter().take(100) {
                    details { summary class="mono" { (words::visible(&error.path)) } pre { (words::bounded(&words::visible_lines(&error.message), 8_000)) } }
                }
            }
        }
    }
}

fn infrastructure(report: &Report) -> Markup {
    let n = report.sweep.infrastructure_errors;
    html! {
        @if n > 0 {
            section {
                h2 { "Infrastructure" }
                details {
                    summary { (words::count(n, "infrastructure error")) span class="quiet" { " · counted apart, charged to no test" } }
                    table { tbody {
                        @for error in report.sweep.infrastructure.iter().take(200) {
                            tr { td class="quiet nowrap" { (error.at.to_offset(time::UtcOffset::UTC).time()) } td { (words::visible(&error.message)) } }
                        }
                    } }
                }
            }
        }
    }
}

/// Everything else, folded.
fn lists(report: &Report) -> Markup {
    let of = |verdict: Verdict| {
        report.tests.iter().filter(move |test| test.verdict == verdict && !test.is_notable())
    };
    html! {
        @let groups = [(Verdict::Inconclusive, "never failed, too few runs to be called healthy"), (Verdict::Healthy, ""), (Verdict::Skipped, "skipped every time")];
        @if groups.iter().any(|(verdict, _)| of(*verdict).next().is_some()) {
            section {
                h2 { "Everything else" }
                @for (verdict, what) in groups {
                    @let count = of(verdict).count();
                    @if count > 0 {
                        details {
                            summary { (words::count(count as u64, &format!("{} test", verdict.word()))) @if !what.is_empty() { span class="quiet" { " · " (what) } } }
                            (list(of(verdict).take(LIST)))
                            @if count > LIST { p class="quiet" { (words::count((count - LIST) as u64, "more test")) "; all of them are in the JSON report." } }
                        }
                    }
                }
            }
        }
    }
}

fn list<'a>(tests: impl Iterator<Item = &'a TestReport>) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead { tr { th scope="col" { "Test" } th scope="col" class="r" { "Runs" } th scope="col" class="r" { "Median" } th scope="col" class="r" { "p95" } } }
                tbody {
                    @for test in tests {
                        tr {
                            td class="id" { bdi class="mono" { (words::visible(&test.id)) } }
                            td class="r" { (test.attempts) }
                            @if let Some(d) = test.duration_ms { td class="r" { (words::duration(d.p50)) } td class="r" { (words::duration(d.p95)) } } @else { td class="r" { "–" } td class="r" { "–" } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// `FLAKEFARM_REPORT_PAGE=FILE cargo test -p flakefarm-coordinator --lib page` leaves a page to look at.
    #[test]
    fn a_page_loads_nothing_and_runs_nothing() {
        let page = render(&sample::realistic(), &sample::outputs());
        if let Some(path) = std::env::var_os("FLAKEFARM_REPORT_PAGE") {
            std::fs::write(path, &page).expect("the file can be written");
        }
        for forbidden in ["<script", "http://", "https://", "url(", "@import", "src=\"", "onclick"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert!(page.contains("cart is not empty: {'sku-1': 3}") && !page.contains('\u{1b}'));
    }

    #[test]
    fn a_small_page() {
        let page = render(&sample::one_test(), &BTreeMap::new());
        let body = page.split_once("</style>").expect("there is a style").1;
        // One element per line reads better, and differs better.
        insta::assert_snapshot!(body.replace("><", ">\n<"));
    }

    #[test]
    fn hostile_names_stay_text() {
        let report = sample::hostile();
        let outputs = BTreeMap::from([(
            "output-of-9f31c07ab2d4e518".to_owned(),
            "</pre><script>\0\u{202e}".to_owned(),
        )]);
        let page = render(&report, &outputs);
        assert!(!page.contains("<script"));
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
        assert!(!page.contains('\u{202e}'));
        for tag in ["details", "pre", "code", "article", "svg", "table"] {
            let closed = page.matches(&format!("</{tag}>")).count();
            let opened =
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, closed, "{tag}");
        }
    }

    #[test]
    fn an_empty_page_says_that_nothing_ran() {
        assert!(render(&sample::empty(), &BTreeMap::new()).contains("<h1>No test ran.</h1>"));
    }

    #[test]
    fn thousands_of_tests_stay_a_page() {
        let page = render(&sample::large(), &BTreeMap::new());
        assert!(page.len() < 5_000_000, "{} bytes", page.len());
    }
}
