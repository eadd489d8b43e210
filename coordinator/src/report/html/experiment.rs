//! The experiment behind a cause: a picture of outcomes by condition, the tests that matter, the state
//! they changed, and a failing attempt beside a passing one.

use super::super::diagnosis::{first_difference, lines};
use super::super::experiment::{ArmRole, Experiment, ExperimentArm, OrderExperiment};
use super::super::{svg, words};
use super::command::command;
use maud::{Markup, html};
use std::collections::BTreeMap;

/// Lines of each attempt, and changes of state, that are shown.
const LINES: usize = 60;
const STATES: usize = 20;

pub(super) fn experiment(found: &Experiment, outputs: &BTreeMap<String, String>) -> Markup {
    html! {
        @let told: Vec<&ExperimentArm> = found.arms.iter().filter(|arm| arm.role != ArmRole::Unavailable).collect();
        (svg::experiment(&told))
        @let silent: Vec<&str> = found.arms.iter().filter(|arm| arm.role == ArmRole::Unavailable).map(|arm| arm.condition.as_str()).collect();
        @if !silent.is_empty() { p class="quiet small" { "No outcome under: " (words::visible(&silent.join("; "))) } }
        @if let Some(order) = &found.order { (others(order)) }
        @if !found.state.is_empty() {
            h4 { "What it left behind" }
            div class="scroll" { table {
                thead { tr { th scope="col" { "State" } th scope="col" { "Before" } th scope="col" { "After" } } }
                tbody { @for change in found.state.iter().take(STATES) {
                    tr {
                        td { (words::visible(&change.kind)) " " span class="mono" { (words::visible(&change.name)) } }
                        td class="mono" { (value(&change.before)) }
                        td class="mono" { (value(&change.after)) }
                    }
                } }
            } }
        }
        (sides(found, outputs))
        @if let Some(by_hand) = &found.by_hand { (command("without flakefarm, in the image of the sweep", by_hand)) }
        @if !found.order_file.is_empty() {
            details { summary { "order.txt: " (words::count(found.order_file.len() as u64, "test")) } pre { (words::visible_lines(&found.order_file.join("\n"))) } }
        }
    }
}

fn value(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { words::visible(text) }
}

fn others(order: &OrderExperiment) -> Markup {
    html! {
        h4 { @if order.effect == "fails" { "Polluters" } @else { "State-setters" } }
        ul {
            @for group in &order.groups { li class="mono" { (words::visible(&group.join(" and "))) } }
            @if !order.cleaners.is_empty() { li { "hidden when " span class="mono" { (words::visible(&order.cleaners.join(" and "))) } " runs between" } }
        }
    }
}

fn sides(found: &Experiment, outputs: &BTreeMap<String, String>) -> Markup {
    let (Some(failing), Some(passing)) = (&found.failing, &found.passing) else { return html! {} };
    let (left, right) = (lines(failing, outputs), lines(passing, outputs));
    let difference = first_difference(&left, &right);
    let side = |title: String, lines: &[String]| {
        html! {
            div {
                h4 { (title) }
                pre { @for (i, line) in lines.iter().take(LINES).enumerate() {
                    @if i == difference { mark { (line) } } @else { (line) }
                    "\n"
                } }
            }
        }
    };
    html! {
        div class="pair" {
            (side(format!("Failed {}", words::visible(&failing.condition)), &left))
            (side(format!("Passed {}", words::visible(&passing.condition)), &right))
        }
    }
}
