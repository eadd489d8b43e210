//! Two arms beside each other, without a change and with it: from a validation to the report's data, and
//! from that to text for a person at a terminal.

use super::compared::{ComparedArm, ComparedTest, Comparison};
use super::model::{Rate, Report, TestReport};
use super::table::{Style, Tone, field};
use super::values::{order_word, round, scope_word};
use super::words;
use crate::experiment::{Arm, Company};
use crate::validate::{Answer, ArmCounts, NeighbourState, Validation, Why};
use flakefarm_shared::Scope;
use std::fmt::Write as _;

/// What a validation shows, as reports carry it.
pub(super) fn of(change: &str, shown: Validation) -> Comparison {
    let (answer, why) = match shown.answer {
        Answer::Fixed => ("fixed", None),
        Answer::Improved => ("improved", None),
        Answer::NotShown(why) => ("not_shown", Some(why)),
        Answer::MadeWorse => ("made_worse", None),
        Answer::Undecided => ("undecided", None),
    };
    let why = why.map(|why| match why {
        Why::StillFails => "still_fails",
        Why::NeverFailed => "never_failed",
        Why::Gone => "gone",
        Why::TooSeldom => "too_seldom",
    });
    let state = |state| match state {
        NeighbourState::Red => "red",
        NeighbourState::Chance => "chance",
        NeighbourState::Gone => "gone",
    };
    let neighbours = shown.neighbours.into_iter().map(|neighbour| ComparedTest {
        id: neighbour.test.0,
        state: state(neighbour.state).to_owned(),
        before: (neighbour.before.failures.into(), neighbour.before.attempts.into()),
        after: (neighbour.after.failures.into(), neighbour.after.attempts.into()),
    });
    Comparison {
        change: change.to_owned(),
        answer: answer.to_owned(),
        why: why.map(str::to_owned),
        before: shown.before.as_ref().map(arm),
        after: shown.after.as_ref().map(arm),
        beside: shown.beside.iter().map(arm).collect(),
        clean_runs_wanted: shown.clean_runs_wanted.map(u64::from),
        new_upper: shown.new_upper.map(|upper| round(upper, 6)),
        neighbours_passed: shown.neighbours_passed.into(),
        neighbours: neighbours.collect(),
        spent: shown.spent,
        saved: shown.saved,
    }
}

fn arm(shown: &ArmCounts) -> ComparedArm {
    let Arm { company, treatment } = &shown.arm;
    let (scope, order) = match company {
        Company::Alone => (Scope::Test, "given".to_owned()),
        Company::File(order) => (Scope::File, order_word(*order)),
        Company::Suite(order) => (Scope::Suite, order_word(*order)),
        Company::Listed(tests) => (Scope::Suite, format!("{} chosen tests", tests.len())),
    };
    ComparedArm {
        scope: scope_word(scope).to_owned(),
        order,
        condition: treatment.world.to_string(),
        attempts: shown.counts.attempts.into(),
        failures: shown.counts.failures.into(),
        rate: Rate {
            estimate: round(shown.rate.estimate, 6),
            lower: round(shown.rate.lower, 6),
            upper: round(shown.rate.upper, 6),
            confidence: shown.rate.confidence,
        },
    }
}

/// Comparisons as text of about `width` columns.
pub fn render(report: &Report, style: Style, width: usize) -> String {
    let width = width.clamp(60, 160);
    let mut out = String::new();
    for test in &report.tests {
        if let Some(found) = &test.comparison {
            one(&mut out, test, found, style, width);
            out.push('\n');
        }
    }
    if out.is_empty() {
        let _ = writeln!(out, "{}", style.paint(Tone::Strong, "no test failed without the change"));
    }
    field(&mut out, style, width, "project", &words::visible(&report.sweep.project));
    field(&mut out, style, width, "cost", &words::cost(report));
    field(&mut out, style, width, "seed", &report.sweep.seed.to_string());
    for note in &report.sweep.notes {
        field(&mut out, style, width, "note", &words::visible(note));
    }
    out
}

fn one(out: &mut String, test: &TestReport, found: &Comparison, style: Style, width: usize) {
    let answer = found.answer.replace('_', " ");
    let id = words::visible(&test.id);
    let _ = writeln!(out, "{}  {}", style.paint(Tone::Strong, &answer), id);
    field(out, style, width, "change", &words::visible(&found.change));
    let because = match found.why.as_deref() {
        Some("still_fails") => "it fails with the change, too",
        Some("never_failed") => "it never failed without the change: name the condition in which it does",
        Some("gone") => "it does not run with the change",
        Some("too_seldom") => "it fails so seldom that more runs would be needed than are made",
        Some(_) | None => "",
    };
    if !because.is_empty() {
        field(out, style, width, "because", because);
    }
    for (name, arm) in [("before", &found.before), ("after", &found.after)] {
        if let Some(arm) = arm {
            field(out, style, width, name, &counts(arm));
        }
    }
    for arm in &found.beside {
        field(out, style, width, "beside", &counts(arm));
    }
    if let (Some(wanted), Some(upper)) = (found.clean_runs_wanted, found.new_upper) {
        let confidence = found.after.as_ref().map_or(0.95, |after| after.rate.confidence);
        let text = format!(
            "{wanted} clean runs prove a fix of what failed that often; it now fails less than {} of the time ({})",
            words::percent(upper),
            words::percent(confidence)
        );
        field(out, style, width, "proof", &text);
    }
    for other in &found.neighbours {
        let text = match other.state.as_str() {
            "gone" => format!("{} is not there with the change", words::visible(&other.id)),
            state => format!(
                "{} failed {} of {} before and {} of {} after{}",
                words::visible(&other.id),
                other.before.0,
                other.before.1,
                other.after.0,
                other.after.1,
                if state == "red" { "" } else { ", which may be chance" }
            ),
        };
        field(out, style, width, "neighbour", &text);
    }
    if found.neighbours_passed > 0 {
        let others = words::count(found.neighbours_passed, "other test");
        field(out, style, width, "neighbours", &format!("{others} passed on both sides"));
    }
    let saved = match found.saved {
        0.. => format!("{} fewer", found.saved),
        _ => format!("{} more", -found.saved),
    };
    let text =
        format!("{}, {saved} than the classical number of both arms", words::count(found.spent, "attempt"));
    field(out, style, width, "runs", &text);
}

fn counts(arm: &ComparedArm) -> String {
    let company = match arm.scope.as_str() {
        "test" => "alone".to_owned(),
        scope => format!("{scope}, {} order", arm.order),
    };
    let world = if arm.condition == "plain" { String::new() } else { format!(", under {}", arm.condition) };
    format!(
        "failed {} of {} {company}{world} ({} to {})",
        arm.failures,
        arm.attempts,
        words::percent(arm.rate.lower),
        words::percent(arm.rate.upper)
    )
}
