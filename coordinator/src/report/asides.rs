//! What tests said beside passing and failing, a sentence each: that they were skipped in some runs only, that an
//! expected failure did not come each time.

use super::words;
use crate::experiment::{Aside, Condition, Ledger, Observation, Seen, Standing};
use flakefarm_shared::{ExpectedFailure, TestId};
use std::collections::BTreeMap;

const NAMED: usize = 5;

/// A sentence for each test that does not always do the same in this.
pub(super) fn notes(ledger: &Ledger) -> Vec<String> {
    let skips = ledger.tests().iter().filter_map(|test| skipped(ledger, test));
    let expected = ledger.tests().iter().filter_map(|test| expected(ledger, test));
    [
        some(skipped_files(ledger).into_iter(), "were skipped as a whole in some runs only"),
        some(skips, "were skipped in some runs only"),
        some(expected, "passed in some runs although expected to fail"),
    ]
    .concat()
}

/// `a.py was skipped as a whole in 3 of 9 attempts (no database)`, of files with tests that ran in others.
fn skipped_files(ledger: &Ledger) -> Vec<String> {
    let mut skipped: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    let mut attempts = 0;
    for attempt in ledger.each_attempt() {
        let Standing::Ended(record) = attempt.standing else { continue };
        if record.treatment.is_plain() {
            attempts += 1;
            for file in &record.skipped_files {
                skipped.entry(&file.path).or_insert((0, &file.message)).0 += 1;
            }
        }
    }
    let ran = |path: &str| {
        let mut tests = ledger.tests().iter().filter(|test| ledger.file_of(test) == path);
        tests.any(|test| !ledger.observations(test).is_empty())
    };
    let told = |(path, (count, reason)): (&str, (usize, &str))| {
        let reason = words::first_line(reason.trim_start_matches("Skipped: "), "no reason given");
        format!(
            "{path} was skipped as a whole in {count} of {} ({reason})",
            words::count(attempts, "attempt")
        )
    };
    skipped.into_iter().filter(|(path, _)| ran(path)).map(told).collect()
}

fn some(notes: impl Iterator<Item = String>, what: &str) -> Vec<String> {
    let mut notes: Vec<String> = notes.collect();
    if let Some(more @ 1..) = notes.len().checked_sub(NAMED) {
        notes.truncate(NAMED);
        notes.push(format!("{} {what}", words::count(more as u64, "more test")));
    }
    notes
}

/// `a was skipped in 4 of 12 runs (port is taken)`, and where, if that decides.
fn skipped(ledger: &Ledger, test: &TestId) -> Option<String> {
    let runs: Vec<&Observation> = ledger.plain(test).collect();
    let skips = runs.iter().filter(|o| matches!(o.seen, Seen::Skip)).count();
    if skips == 0 || skips == runs.len() {
        return None;
    }
    let reason = runs.iter().find_map(|o| match o.aside.as_deref() {
        Some(Aside::SkippedBecause(reason)) if matches!(o.seen, Seen::Skip) && !reason.is_empty() => {
            Some(reason)
        }
        Some(Aside::SkippedBecause(_) | Aside::Expected(_)) | None => None,
    });
    let reason = reason.map(|reason| format!(" ({})", words::first_line(reason, "no reason given")));
    let runs_of = words::count(runs.len() as u64, "run");
    let mut text = format!("`{test}` was skipped in {skips} of {runs_of}{}", reason.unwrap_or_default());
    let mut by_condition: BTreeMap<Condition, (usize, usize)> = BTreeMap::new();
    for run in &runs {
        let (skips, all) = by_condition.entry(run.condition()).or_default();
        *skips += usize::from(matches!(run.seen, Seen::Skip));
        *all += 1;
    }
    let always = |condition| by_condition.get(&condition).is_some_and(|(skips, all)| skips == all);
    let never = |condition| by_condition.get(&condition).is_some_and(|(skips, _)| *skips == 0);
    if always(Condition::Alone) && never(Condition::Given) {
        text.push_str(": always alone, never in the given order; it needs another test to run before it");
    } else if never(Condition::Alone) && always(Condition::Given) {
        text.push_str(": never alone, always in the given order; another test has it skipped");
    }
    Some(text)
}

/// `a is expected to fail, and passed in 4 of 12 runs`.
fn expected(ledger: &Ledger, test: &TestId) -> Option<String> {
    let mut counts = [0_usize; 2];
    for run in ledger.plain(test) {
        match run.aside.as_deref() {
            Some(Aside::Expected(ExpectedFailure::Failed)) => counts[0] += 1,
            Some(Aside::Expected(ExpectedFailure::Passed)) => counts[1] += 1,
            Some(Aside::SkippedBecause(_)) | None => {}
        }
    }
    let [failed, passed] = counts;
    (failed > 0 && passed > 0).then(|| {
        let runs = words::count((failed + passed) as u64, "run");
        format!("`{test}` is expected to fail, and passed in {passed} of {runs}")
    })
}
