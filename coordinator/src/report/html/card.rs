//! What the page says of one test: how it failed, where, why as far as it shows, and how to see it again.

use super::super::model::{InfrastructureError, SignatureCount, TestReport};
use super::super::{svg, words};
use super::command::command;
use super::experiment::experiment;
use super::{badge, id, short};
use maud::{Markup, html};
use std::collections::BTreeMap;

const SIGNATURES: usize = 8;
/// Characters kept of a message and of a captured output.
const MESSAGE: usize = 2_000;
const OUTPUT: usize = 8_000;

pub(super) fn card(
    place: usize,
    test: &TestReport,
    infrastructure: &[InfrastructureError],
    outputs: &BTreeMap<String, String>,
) -> Markup {
    html! {
        article id=(format!("t{place}")) {
            h3 { (badge(test.verdict)) " " (id(&test.id)) }
            p class="lead" {
                "Failed " b { (test.failures) } " of " (words::count(test.attempts, "attempt"))
                @if let Some(rate) = test.rate { ": " b { (words::percent(rate.estimate)) } ", between " (words::percent_number(rate.lower)) " and " (words::percent(rate.upper)) span class="quiet" { " with " (words::percent(rate.confidence)) " confidence" } }
                "."
            }
            @if !test.stopped_because.is_empty() { p class="why" { (sentence(&words::visible(&test.stopped_because))) "." } }
            @if let Some(cause) = &test.cause {
                div class="cause" {
                    p { b { (sentence(&words::category(&cause.category))) } span class="quiet" { " · " (words::percent(cause.confidence)) " sure" } }
                    ul { @for line in &cause.evidence { li { (words::visible(line)) } } }
                }
                @if let Some(found) = &cause.experiment { (experiment(found, outputs)) }
            }
            (svg::attempts(test, infrastructure))
            div class="pair" {
                @if let Some(picture) = svg::positions(test) { (picture) }
                @if let Some(picture) = svg::durations(test) { (picture) }
            }
            div class="pair" {
                div {
                    h4 { "Failures" }
                    @for signature in test.failures_by_signature.iter().take(SIGNATURES) { (failure(signature, outputs)) }
                    @if test.failures_by_signature.len() > SIGNATURES {
                        p class="quiet" { (words::count((test.failures_by_signature.len() - SIGNATURES) as u64, "other kind")) " of failure" }
                    }
                }
                div { h4 { "Conditions" } (conditions(test)) }
            }
            h4 { "Reproduce" }
            (command("the finding", &test.reproduce))
            @if let Some(text) = &test.reproduce_failure { (command("one failing attempt, exactly", text)) }
        }
    }
}

/// With a capital first letter.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn failure(signature: &SignatureCount, outputs: &BTreeMap<String, String>) -> Markup {
    let message = words::bounded(&words::visible_lines(&signature.message), MESSAGE);
    let line = short(&words::first_line(&signature.message, &signature.kind));
    let output = signature.output.as_ref().and_then(|digest| outputs.get(digest));
    html! {
        details class="failure" {
            summary {
                span class="times" { (signature.count) "×" }
                span class="what" { (line) }
            }
            p class="quiet small" {
                (words::visible(&signature.kind))
                @if let Some(location) = &signature.location { @if location.line > 0 { " at " span class="mono" { (words::visible(&location.path)) ":" (location.line) } } }
                " · signature " span class="mono" { (words::visible(&signature.signature)) }
            }
            @if message.trim() != line { pre { (message) } }
            @if let Some(output) = output {
                p class="quiet small" { "Captured output of one of them" }
                pre { (words::bounded(&words::visible_lines(output), OUTPUT)) }
            }
        }
    }
}

fn conditions(test: &TestReport) -> Markup {
    html! {
        table class="conditions" {
            thead { tr { th scope="col" { "Condition" } th scope="col" class="r" { "Failed" } th scope="col" class="r" { "Share" } th scope="col" aria-hidden="true" {} } }
            tbody {
                @for count in &test.conditions {
                    @let share = count.failures as f64 / (count.attempts.max(1)) as f64;
                    tr {
                        td { (words::visible(&count.condition)) }
                        td class="r" { (count.failures) span class="quiet" { "/" (count.attempts) } }
                        td class="r" { (words::percent(share)) }
                        td class="meter" aria-hidden="true" { div { i style=(format!("width:{:.1}%", share * 100.0)) {} } }
                    }
                }
            }
        }
    }
}
