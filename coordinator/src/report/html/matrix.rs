//! The experiment as one picture: every test to look at against every condition it ran under.

use super::super::model::{Cluster, Report, TestReport};
use super::super::words;
use super::{CARDS, id};
use maud::{Markup, html};
use std::fmt::Write as _;

const ROWS: usize = 60;
/// Tests named of one cluster.
const NAMED: usize = 20;

const CELL: f64 = 26.0;
const HEAD: f64 = 150.0;

/// A table with a cell for each test and condition, shaded by the share of failures.
pub(super) fn matrix(notable: &[&TestReport]) -> Markup {
    let mut conditions: Vec<&str> = Vec::new();
    for count in notable.iter().take(ROWS).flat_map(|test| &test.conditions) {
        if !conditions.contains(&count.condition.as_str()) {
            conditions.push(&count.condition);
        }
    }
    // Plain conditions first, then worlds, as each test lists them.
    conditions.sort_by_key(|condition| words::is_world(condition));
    if notable.is_empty() || conditions.len() < 2 {
        return html! {};
    }
    html! {
        section {
            h2 { "What decides" }
            p class="quiet" { "Each cell is one condition: the fuller, the more often the test failed under it; a dot where it never did, nothing where it did not run." }
            div class="scroll" {
                table class="matrix" {
                    thead { tr {
                        th scope="col" { "Test" }
                        @for condition in &conditions { th scope="col" class="turned" { (turned(condition)) } }
                    } }
                    tbody {
                        @for (place, test) in notable.iter().take(ROWS).enumerate() {
                            tr {
                                td class="id" { @if place < CARDS { a href=(format!("#t{place}")) { (id(&test.id)) } } @else { (id(&test.id)) } }
                                @for condition in &conditions { td class="cell" { (cell(test, condition)) } }
                            }
                        }
                    }
                }
            }
            @if notable.len() > ROWS { p class="quiet" { (words::count((notable.len() - ROWS) as u64, "more test")) " without a row." } }
        }
    }
}

fn turned(condition: &str) -> Markup {
    let place = format!("translate({} {}) rotate(-90)", CELL / 2.0 + 4.0, HEAD - 4.0);
    html! {
        svg width=(CELL) height=(HEAD) role="img" aria-label=(words::visible(condition)) {
            text transform=(place) class="axis" { (words::visible(condition)) }
        }
    }
}

fn cell(test: &TestReport, condition: &str) -> Markup {
    let Some(count) = test.conditions.iter().find(|count| count.condition == condition && count.attempts > 0)
    else {
        return html! {};
    };
    let share = count.failures as f64 / count.attempts as f64;
    let mut label = String::new();
    let _ = write!(label, "{}: failed {} of {}", words::visible(condition), count.failures, count.attempts);
    let side = CELL - 8.0;
    let filled = (side * share).max(if count.failures > 0 { 3.0 } else { 0.0 });
    html! {
        svg width=(CELL) height=(CELL) role="img" aria-label=(label) {
            title { (label) }
            @if count.failures == 0 {
                circle cx=(CELL / 2.0) cy=(CELL / 2.0) r="1.6" class="never" {}
            } @else {
                rect x="4" y="4" width=(side) height=(side) rx="3" class="frame" {}
                rect x="4" y=(format!("{:.1}", 4.0 + side - filled)) width=(side) height=(format!("{filled:.1}")) rx="3" class="share" {}
            }
        }
    }
}

/// Tests that fail together, each set as one cause.
pub(super) fn clusters(report: &Report) -> Markup {
    let clusters = &report.sweep.clusters;
    html! {
        @if !clusters.is_empty() {
            section {
                h2 { "Failing together" }
                p class="quiet" { "Tests that fail in the same attempts most likely have one cause." }
                @for cluster in clusters.iter().take(ROWS) { (one(report, cluster)) }
            }
        }
    }
}

fn one(report: &Report, cluster: &Cluster) -> Markup {
    html! {
        details open[cluster.tests.len() <= NAMED] {
            summary { (words::cluster(report, cluster)) }
            ul {
                @for test in cluster.tests.iter().take(NAMED) { li { (id(test)) } }
                @if cluster.tests.len() > NAMED { li class="quiet" { (words::count((cluster.tests.len() - NAMED) as u64, "more test")) } }
            }
        }
    }
}
