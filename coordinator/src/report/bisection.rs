//! A bisection for a person at a terminal: which revision, how sure, and what each one showed.

use super::model::Report;
use super::table::{Style, Tone, end_cut, field, pad, pad_left};
use super::words;
use crate::diagnose::bisect::{BisectOutcome, BisectRevision, Bisection, RevisionState};
use std::fmt::Write as _;

/// Digits of a commit that are shown.
const DIGITS: usize = 12;

/// The bisection as text of about `width` columns.
pub fn render(report: &Report, style: Style, width: usize) -> String {
    let width = width.clamp(60, 160);
    let mut out = String::new();
    for test in &report.tests {
        let Some(found) = &test.introduced else { continue };
        let _ = writeln!(out, "{}", style.paint(Tone::Strong, &headline(found)));
        field(&mut out, style, width, "test", &words::visible(&test.id));
        candidates(&mut out, found, style, width);
        if found.confidence > 0.0 {
            field(&mut out, style, width, "sure", &words::percent(found.confidence));
        }
        asked(&mut out, found, style, width);
        if found.outcome == BisectOutcome::NotReproduced {
            let hint = "a test that fails among others only needs --scope suite and its --order, one that \
                        fails under a condition needs --under: flakefarm diagnose finds them";
            field(&mut out, style, width, "hint", hint);
        }
    }
    field(&mut out, style, width, "project", &words::visible(&report.sweep.project));
    field(&mut out, style, width, "cost", &words::cost(report));
    field(&mut out, style, width, "seed", &report.sweep.seed.to_string());
    for note in &report.sweep.notes {
        field(&mut out, style, width, "note", &words::visible(note));
    }
    out
}

fn headline(found: &Bisection) -> String {
    match (found.outcome, found.candidates.as_slice()) {
        (BisectOutcome::Found, [one]) => format!("{} made it flaky", named(one)),
        (BisectOutcome::Found | BisectOutcome::Narrowed, several) => {
            let revisions = words::count(several.len() as u64, "revision");
            format!("one of {revisions} made it flaky; those between could not be run")
        }
        (BisectOutcome::NotReproduced, _) => {
            let last = found.asked.last();
            let runs = words::count(last.map_or(0, |last| last.attempts), "attempt");
            format!("could not be reproduced: it never failed in {runs} at the last revision")
        }
        (BisectOutcome::FlakyAtGood, _) => "it is flaky at the first revision already".to_owned(),
        (BisectOutcome::Open, _) => "not decided".to_owned(),
    }
}

fn named(revision: &BisectRevision) -> String {
    let commit: String = revision.commit.chars().take(DIGITS).collect();
    format!("{commit} ({})", end_cut(&words::visible(&revision.subject), 60))
}

fn candidates(out: &mut String, found: &Bisection, style: Style, width: usize) {
    if found.outcome == BisectOutcome::Narrowed {
        for (i, revision) in found.candidates.iter().enumerate() {
            field(out, style, width, if i == 0 { "one of" } else { "" }, &named(revision));
        }
    }
}

fn asked(out: &mut String, found: &Bisection, style: Style, width: usize) {
    for (i, revision) in found.asked.iter().enumerate() {
        let label = style.paint(Tone::Quiet, &pad(if i == 0 { "asked" } else { "" }, 9));
        let counts = pad_left(&format!("{}/{}", revision.failures, revision.attempts), 7);
        let state = match revision.state {
            RevisionState::Good => "not flaky",
            RevisionState::Flaky => "flaky",
            RevisionState::Absent => "no such test",
            RevisionState::Unusable => "cannot run",
            RevisionState::Open => "not decided",
        };
        let line = format!("{counts}  {}  {}", pad(state, 12), named(revision));
        let _ = writeln!(out, "  {label}{}", end_cut(&line, width - 11));
    }
}
