//! What attempts say of themselves beside their outcomes, a sentence for each kind: starts that failed, ends that
//! were odd, results that somebody wrote who had no business to.

use super::model::OddEnds;
use super::{asides, words};
use crate::experiment::ledger::{AttemptFacts, Ledger, Standing};
use flakefarm_shared::{AttemptEnd, NothingRan, Remark, TestId};
use std::collections::{BTreeMap, BTreeSet};

/// How many lines of a text a note quotes, the last ones.
const QUOTED_LINES: usize = 3;
const NAMED: usize = 5;

/// Attempts that died before their first test, unless that happened only where something was changed around
/// the tests.
pub(super) fn failed_starts(ledger: &Ledger) -> u64 {
    starts(ledger).filter(|record| died(record)).count() as u64
}

/// All attempts if one with nothing changed around the tests died before its first test; else none.
fn starts(ledger: &Ledger) -> impl Iterator<Item = &AttemptFacts> {
    let dies = plain(ledger).any(died);
    ended(ledger).filter(move |_| dies)
}

/// Attempts after which the framework ended oddly, with nothing changed around the tests.
pub(super) fn odd_ends(ledger: &Ledger) -> Option<OddEnds> {
    let ran = || plain(ledger).filter(|record| matches!(record.end, AttemptEnd::Completed));
    let odd = |record: &&AttemptFacts| {
        record.remarks.iter().any(|remark| matches!(remark, Remark::AbnormalEnd { .. }))
    };
    let attempts = ran().filter(odd).count() as u64;
    (attempts > 0).then(|| OddEnds { attempts, of: ran().count() as u64 })
}

/// A sentence for each kind of remark.
pub(super) fn notes(ledger: &Ledger) -> Vec<String> {
    let records: Vec<&AttemptFacts> = plain(ledger).collect();
    let all = records.len();
    let of = |n: usize| format!("{n} of {}", words::count(all as u64, "attempt"));
    let mut notes = Vec::new();
    let of_starts = words::count(starts(ledger).count() as u64, "attempt");
    let failed: BTreeMap<&str, usize> =
        counted(starts(ledger).filter(|record| died(record)).map(|record| match &record.end {
            AttemptEnd::NothingRan { reason, .. } => reason.as_str(),
            AttemptEnd::Completed | AttemptEnd::Interrupted { .. } | AttemptEnd::Infrastructure(_) => "",
        }));
    let failed = failed.iter();
    notes.extend(failed.map(|(reason, n)| format!("{n} of {of_starts} could not start: {}", quoted(reason))));
    let empty: BTreeSet<&str> = records
        .iter()
        .filter(|record| !died(record))
        .filter_map(|record| match &record.end {
            AttemptEnd::NothingRan { reason, .. } => Some(reason.as_str()),
            AttemptEnd::Completed | AttemptEnd::Interrupted { .. } | AttemptEnd::Infrastructure(_) => None,
        })
        .collect();
    notes.extend(empty.into_iter().map(|reason| format!("nothing ran in an attempt: {}", quoted(reason))));
    let remarks = || records.iter().flat_map(|record| &record.remarks);
    let tampered = counted(remarks().filter_map(|remark| match remark {
        Remark::Tampering { what } => Some(what.as_str()),
        Remark::AbnormalEnd { .. }
        | Remark::Reordered
        | Remark::SharedIds { .. }
        | Remark::TearDown { .. }
        | Remark::Unknown => None,
    }));
    notes.extend(
        tampered.iter().map(|(what, n)| format!("the results of {} were tampered with: {what}", of(*n))),
    );
    let ends = counted(remarks().filter_map(|remark| match remark {
        Remark::AbnormalEnd { exit_code, text } => Some((*exit_code, text.as_str())),
        Remark::Tampering { .. }
        | Remark::Reordered
        | Remark::SharedIds { .. }
        | Remark::TearDown { .. }
        | Remark::Unknown => None,
    }));
    let mut by_code: BTreeMap<i64, (usize, &str)> = BTreeMap::new();
    for ((code, text), n) in ends {
        by_code.entry(code).or_insert((0, text)).0 += n;
    }
    notes.extend(by_code.iter().map(|(code, (n, text))| {
        format!(
            "the framework ended oddly after the tests of {}, with exit code {code}: {}",
            of(*n),
            quoted(text)
        )
    }));
    let reordered = remarks().filter(|remark| **remark == Remark::Reordered).count();
    if reordered > 0 {
        notes.push(format!(
            "the project put the tests into an order of its own in {}: other orders were not had there",
            of(reordered)
        ));
    }
    let shared: BTreeSet<&TestId> = remarks()
        .filter_map(|remark| match remark {
            Remark::SharedIds { tests } => Some(tests),
            Remark::Tampering { .. }
            | Remark::AbnormalEnd { .. }
            | Remark::Reordered
            | Remark::TearDown { .. }
            | Remark::Unknown => None,
        })
        .flatten()
        .collect();
    notes.extend(shared.iter().take(NAMED).map(|test| {
        format!("several tests have the id `{test}`: what is told of it and of `{test}#2` is whichever fared better and worse")
    }));
    notes.extend(changing(ledger.changing().iter()));
    notes.extend(asides::notes(ledger));
    notes
}

/// What a listing knows, a sentence each.
pub fn of_listing(listing: &flakefarm_shared::Listing) -> Vec<String> {
    let mut notes = Vec::new();
    if listing.failed_starts > 0 {
        notes.push(format!(
            "{} could not start when the tests were listed",
            words::count(u64::from(listing.failed_starts), "attempt")
        ));
    }
    notes.extend(changing(listing.changing.iter()));
    notes
}

/// One sentence for all tests whose ids change.
fn changing<'t>(tests: impl ExactSizeIterator<Item = &'t TestId>) -> Option<String> {
    let all = tests.len();
    let named: Vec<String> = tests.take(NAMED).map(|test| format!("`{test}`")).collect();
    let named = match named.as_slice() {
        [] => return None,
        [one] => {
            return Some(format!(
                "ids of {one} change from run to run: its parameters count as one test; give `ids=` to tell them apart"
            ));
        }
        many if many.len() < all => format!("{} and {} more", many.join(", "), all - many.len()),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    };
    Some(format!(
        "ids of {named} change from run to run: the parameters of each count as one test; give `ids=` to tell them apart"
    ))
}

fn ended(ledger: &Ledger) -> impl Iterator<Item = &AttemptFacts> {
    ledger.each_attempt().filter_map(|attempt| match attempt.standing {
        Standing::Ended(record) => Some(record),
        Standing::Outstanding | Standing::Lost => None,
    })
}

fn plain(ledger: &Ledger) -> impl Iterator<Item = &AttemptFacts> {
    ended(ledger).filter(|record| record.treatment.is_plain())
}

fn died(record: &AttemptFacts) -> bool {
    matches!(record.end, AttemptEnd::NothingRan { why: NothingRan::Died | NothingRan::Refused, .. })
}

fn counted<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts
}

fn quoted(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let lines: Vec<&str> =
        lines[lines.len().saturating_sub(QUOTED_LINES)..].iter().map(|line| line.trim()).collect();
    lines.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_whose_ids_change_are_told_in_one_sentence() {
        let tests: Vec<TestId> = (0..7).map(|n| TestId(format!("t.py::test_{n}"))).collect();
        let told = |many: usize| changing(tests[..many].iter()).unwrap_or_default();
        assert_eq!(told(0), "");
        assert!(told(1).starts_with("ids of `t.py::test_0` change from run to run: its parameters"));
        assert!(told(3).starts_with("ids of `t.py::test_0`, `t.py::test_1` and `t.py::test_2` change"));
        assert!(told(7).contains("`t.py::test_4` and 2 more change"), "{}", told(7));
    }
}
