//! What attempts say of themselves beside their outcomes, a sentence for each kind: starts that failed, ends that
//! were odd, results that somebody wrote who had no business to.

use super::model::OddEnds;
use super::{asides, words};
use crate::experiment::ledger::{Ledger, Standing};
use flakefarm_shared::{AttemptEnd, AttemptRecord, NothingRan, Remark, TestId};
use std::collections::{BTreeMap, BTreeSet};

/// How many lines of a text a note quotes, the last ones.
const QUOTED_LINES: usize = 3;
const NAMED: usize = 5;

/// Attempts that died before their first test, with nothing changed around the tests.
pub(super) fn failed_starts(ledger: &Ledger) -> u64 {
    plain(ledger).filter(|record| died(record)).count() as u64
}

/// Attempts after which the framework ended oddly, with nothing changed around the tests.
pub(super) fn odd_ends(ledger: &Ledger) -> Option<OddEnds> {
    let ran = || plain(ledger).filter(|record| matches!(record.end, AttemptEnd::Completed));
    let odd = |record: &&AttemptRecord| {
        record.remarks.iter().any(|remark| matches!(remark, Remark::AbnormalEnd { .. }))
    };
    let attempts = ran().filter(odd).count() as u64;
    (attempts > 0).then(|| OddEnds { attempts, of: ran().count() as u64 })
}

/// A sentence for each kind of remark.
pub(super) fn notes(ledger: &Ledger) -> Vec<String> {
    let records: Vec<&AttemptRecord> = plain(ledger).collect();
    let all = records.len();
    let of = |n: usize| format!("{n} of {}", words::count(all as u64, "attempt"));
    let mut notes = Vec::new();
    let starts: BTreeMap<&str, usize> =
        counted(records.iter().filter(|record| died(record)).map(|record| match &record.end {
            AttemptEnd::NothingRan { reason, .. } => reason.as_str(),
            AttemptEnd::Completed | AttemptEnd::Interrupted { .. } | AttemptEnd::Infrastructure(_) => "",
        }));
    notes.extend(starts.iter().map(|(reason, n)| format!("{} could not start: {}", of(*n), quoted(reason))));
    let empty: BTreeSet<&str> = records
        .iter()
        .filter(|record| !died(record))
        .filter_map(|record| match &record.end {
            AttemptEnd::NothingRan { reason, .. } => Some(reason.as_str()),
            AttemptEnd::Completed | AttemptEnd::Interrupted { .. } | AttemptEnd::Infrastructure(_) => None,
        })
        .collect();
    notes.extend(empty.into_iter().map(|reason| format!("nothing ran in an attempt: {reason}")));
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
    notes.extend(ledger.changing().iter().take(NAMED).map(changing));
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
    notes.extend(listing.changing.iter().take(NAMED).map(changing));
    notes
}

fn changing(test: &TestId) -> String {
    format!(
        "ids of `{test}` change from run to run: its parameters count as one test; give `ids=` to tell them apart"
    )
}

fn plain(ledger: &Ledger) -> impl Iterator<Item = &AttemptRecord> {
    ledger.each_attempt().filter_map(|attempt| match attempt.standing {
        Standing::Ended(record) if record.treatment.is_plain() => Some(record),
        Standing::Ended(_) | Standing::Outstanding | Standing::Lost => None,
    })
}

fn died(record: &AttemptRecord) -> bool {
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
