//! A diagnosis for a person at a terminal: for each test its cause, what shows it, what was tried,
//! a failing attempt beside a passing one, and how to see it again.

use super::experiment::{ArmRole, Experiment, ExperimentArm, Side, StateDifference};
use super::model::{Cause, Report, TestReport};
use super::table::{Style, Tone, end_cut, field, pad};
use super::words;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use unicode_width::UnicodeWidthStr;

/// Changes of state, and lines of each attempt, that are shown.
const STATES: usize = 8;
const LINES: usize = 14;
/// Lines before the first difference.
const BEFORE: usize = 3;
/// Where the text of a field begins.
const INDENT: usize = 11;

/// The diagnosis as text of about `width` columns; `outputs` are captured outputs by their digests.
pub fn render(report: &Report, outputs: &BTreeMap<String, String>, style: Style, width: usize) -> String {
    let width = width.clamp(60, 160);
    let mut out = String::new();
    for test in &report.tests {
        diagnosis(&mut out, test, outputs, style, width);
        out.push('\n');
    }
    let sweep = &report.sweep;
    field(&mut out, style, width, "project", &words::visible(&sweep.project));
    field(&mut out, style, width, "cost", &words::cost(report));
    field(&mut out, style, width, "seed", &sweep.seed.to_string());
    for note in &sweep.notes {
        field(&mut out, style, width, "note", &words::visible(note));
    }
    out
}

fn diagnosis(
    out: &mut String,
    test: &TestReport,
    outputs: &BTreeMap<String, String>,
    style: Style,
    width: usize,
) {
    let category = test.cause.as_ref().map_or("unknown", |cause| cause.category.as_str());
    let _ = writeln!(
        out,
        "{}  {}",
        style.paint(Tone::Of(test.verdict), &words::category(category)),
        style.paint(Tone::Strong, &words::visible(&test.id)),
    );
    let Some(cause) = &test.cause else { return };
    because(out, cause, style, width);
    if let Some(experiment) = &cause.experiment {
        state(out, &experiment.state, style, width);
        tried(out, experiment, style, width);
        sides(out, experiment, outputs, style, width);
        if let Some(command) = &experiment.by_hand {
            whole(out, style, "by hand", &words::visible(command));
            if !experiment.order_file.is_empty() {
                let lines = words::count(experiment.order_file.len() as u64, "line");
                let text = format!("order.txt has {lines}: `order_file` in the JSON report");
                field(out, style, width, "", &text);
            }
        }
    }
    whole(out, style, "repeat", &words::visible(&test.reproduce));
}

fn because(out: &mut String, cause: &Cause, style: Style, width: usize) {
    if cause.confidence > 0.0 {
        field(out, style, width, "sure", &words::percent(cause.confidence));
    }
    for (i, line) in cause.evidence.iter().enumerate() {
        field(out, style, width, if i == 0 { "because" } else { "" }, &words::visible(line));
    }
}

fn state(out: &mut String, state: &[StateDifference], style: Style, width: usize) {
    for (i, change) in state.iter().take(STATES).enumerate() {
        let value = |text: &str| {
            if text.is_empty() { "nothing".to_owned() } else { end_cut(&words::visible(text), width / 2) }
        };
        let text = format!(
            "{} {}: {} → {}",
            words::visible(&change.kind),
            words::visible(&change.name),
            value(&change.before),
            value(&change.after)
        );
        field(out, style, width, if i == 0 { "changed" } else { "" }, &text);
    }
    if state.len() > STATES {
        let more = words::count((state.len() - STATES) as u64, "more change");
        field(out, style, width, "", &format!("{more}; all are in the JSON report"));
    }
}

/// Conditions that say something in a table, the others in a line.
fn tried(out: &mut String, experiment: &Experiment, style: Style, width: usize) {
    let base = experiment.arms.iter().find(|arm| arm.role == ArmRole::Baseline);
    let as_baseline = |arm: &ExperimentArm| base.is_some_and(|base| always(base) == always(arm));
    let (quiet, telling): (Vec<&ExperimentArm>, Vec<&ExperimentArm>) = experiment
        .arms
        .iter()
        .partition(|arm| arm.role == ArmRole::Unavailable || arm.role == ArmRole::Tried && as_baseline(arm));
    let room = telling.iter().map(|arm| arm.condition.width()).max().unwrap_or(0).min(width - INDENT - 24);
    for (i, arm) in telling.into_iter().enumerate() {
        let mark = match arm.role {
            ArmRole::Explains => "  <-",
            ArmRole::Baseline | ArmRole::Tried | ArmRole::Unavailable => "",
        };
        let condition = pad(&end_cut(&words::visible(&arm.condition), room), room);
        let text = format!("{condition}  failed {}/{}{mark}", arm.failures, arm.attempts);
        let label = pad(if i == 0 { "tried" } else { "" }, 9);
        let _ = writeln!(out, "  {}{text}", style.paint(Tone::Quiet, &label));
    }
    let names = |wanted: &dyn Fn(&ExperimentArm) -> bool| {
        let short = |arm: &&&ExperimentArm| {
            if arm.changed.is_empty() { arm.condition.clone() } else { arm.changed.clone() }
        };
        quiet.iter().filter(|arm| wanted(arm)).map(|arm| short(&arm)).collect::<Vec<_>>().join("; ")
    };
    let same = names(&|arm| arm.role != ArmRole::Unavailable);
    if !same.is_empty() {
        field(out, style, width, "", &format!("no difference: {}", words::visible(&same)));
    }
    let none = names(&|arm| arm.role == ArmRole::Unavailable);
    if !none.is_empty() {
        field(out, style, width, "", &format!("no outcome: {}", words::visible(&none)));
    }
}

/// Whether an arm always did one thing, and which.
fn always(arm: &ExperimentArm) -> Option<bool> {
    if arm.failures == 0 {
        Some(false)
    } else if arm.failures == arm.attempts {
        Some(true)
    } else {
        None
    }
}

/// The failing attempt beside the passing one, from shortly before the first difference.
fn sides(
    out: &mut String,
    experiment: &Experiment,
    outputs: &BTreeMap<String, String>,
    style: Style,
    width: usize,
) {
    let (Some(failing), Some(passing)) = (&experiment.failing, &experiment.passing) else { return };
    let column = (width - INDENT - 4) / 2;
    let left = lines(failing, outputs);
    let right = lines(passing, outputs);
    let difference = first_difference(&left, &right);
    let head = |text: String| pad(&end_cut(&words::visible(&text), column), column);
    let (one, other) =
        (head(format!("failed {}", failing.condition)), head(format!("passed {}", passing.condition)));
    let label = style.paint(Tone::Quiet, &pad("compare", 9));
    let _ = writeln!(
        out,
        "  {label}{}  | {}",
        style.paint(Tone::Strong, &one),
        style.paint(Tone::Strong, other.trim_end())
    );
    let from = difference.saturating_sub(BEFORE);
    let last = left.len().max(right.len()).min(from + LINES);
    for place in from..last {
        let cell = |lines: &[String]| {
            let text = lines.get(place).map_or("", String::as_str);
            pad(&end_cut(text, column), column)
        };
        let mark = if place == difference { ">" } else { " " };
        let line = format!("  {}{mark} {}| {}", " ".repeat(INDENT - 4), cell(&left), cell(&right));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let more = left.len().max(right.len()).saturating_sub(last);
    if more > 0 {
        let _ = writeln!(out, "{}… {}", " ".repeat(INDENT), words::count(more as u64, "more line"));
    }
}

/// What an attempt shows, line by line.
pub(super) fn lines(side: &Side, outputs: &BTreeMap<String, String>) -> Vec<String> {
    let printed = side.output.as_ref().and_then(|digest| outputs.get(digest)).map_or("", String::as_str);
    let mut lines: Vec<String> = words::visible_lines(printed).lines().map(ToOwned::to_owned).collect();
    lines.extend(words::visible_lines(&side.message).lines().map(ToOwned::to_owned));
    if side.message.is_empty() && lines.is_empty() {
        lines.push("(printed nothing)".to_owned());
    }
    lines
}

/// The first line in which they differ, or the length of the shorter.
pub(super) fn first_difference(one: &[String], other: &[String]) -> usize {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    same.min(one.len().max(other.len()).saturating_sub(1))
}

/// A field that is never broken, so that it can be copied.
fn whole(out: &mut String, style: Style, label: &str, text: &str) {
    let _ = writeln!(out, "  {}{text}", style.paint(Tone::Quiet, &pad(label, 9)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found_and_never_beyond_the_end() {
        let lines = |text: &str| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        assert_eq!(first_difference(&lines("a\nb\nc"), &lines("a\nx\nc")), 1);
        assert_eq!(first_difference(&lines("a\nb"), &lines("a")), 1);
        assert_eq!(first_difference(&lines("a"), &lines("a")), 0);
        assert_eq!(first_difference(&[], &[]), 0);
    }
}
