//! A test's attempts, told within a bound: which ones are kept, and how each is written down.

use super::model::{AttemptOutcome, TimelineEntry};
use super::values::{date_time, round};
use crate::experiment::{Observation, Seen};
use flakefarm_shared::{FailureKind, Order};

/// The attempts of a test in the order they started, at most `limit`.
pub(super) fn timeline(observations: &[Observation], limit: usize) -> Vec<TimelineEntry> {
    let mut all: Vec<&Observation> = observations.iter().collect();
    all.sort_by(|a, b| (a.started_at, &a.key, a.index).cmp(&(b.started_at, &b.key, b.index)));
    most_informative(&all, limit).into_iter().map(timeline_entry).collect()
}

/// Keeps failures before passes before skips, but never more failures than three quarters when there
/// is anything else, and thins each evenly over time.
fn most_informative<'a>(all: &[&'a Observation], limit: usize) -> Vec<&'a Observation> {
    if all.len() <= limit {
        return all.to_vec();
    }
    let places = |wanted: fn(&Seen) -> bool| -> Vec<usize> {
        (0..all.len()).filter(|&i| wanted(&all[i].seen)).collect()
    };
    let failures = places(|seen| matches!(seen, Seen::Fail(_)));
    let passes = places(|seen| matches!(seen, Seen::Pass));
    let skips = places(|seen| matches!(seen, Seen::Skip));
    let others = passes.len() + skips.len();
    let for_failures = failures.len().min(limit - others.min(limit / 4));
    let for_passes = passes.len().min(limit - for_failures);
    let for_skips = skips.len().min(limit - for_failures - for_passes);
    let mut kept = thinned(&failures, for_failures);
    kept.extend(thinned(&passes, for_passes));
    kept.extend(thinned(&skips, for_skips));
    kept.sort_unstable();
    kept.into_iter().map(|i| all[i]).collect()
}

/// `n` of `from`, evenly spread, the first and the last among them.
fn thinned(from: &[usize], n: usize) -> Vec<usize> {
    match n {
        0 => Vec::new(),
        1 => from.iter().take(1).copied().collect(),
        _ => (0..n).map(|i| from[i * (from.len() - 1) / (n - 1)]).collect(),
    }
}

fn timeline_entry(seen: &Observation) -> TimelineEntry {
    let (outcome, signature) = match &seen.seen {
        Seen::Pass => (AttemptOutcome::Pass, None),
        Seen::Skip => (AttemptOutcome::Skip, None),
        Seen::Fail(failed) => {
            let outcome = match failed.failure.kind {
                FailureKind::Assertion | FailureKind::Exception | FailureKind::Framework => {
                    AttemptOutcome::Fail
                }
                FailureKind::Timeout { .. } => AttemptOutcome::Timeout,
                FailureKind::Crash { .. } => AttemptOutcome::Crash,
                FailureKind::OutOfMemory => AttemptOutcome::Oom,
            };
            (outcome, Some(failed.failure.signature.clone()))
        }
    };
    TimelineEntry {
        at: date_time(seen.started_at),
        condition: seen.condition().words().into_owned(),
        order_seed: match seen.order {
            Order::Shuffled { seed } => Some(seed),
            Order::Given | Order::Reversed | Order::AsListed => None,
        },
        position: seen.position,
        outcome,
        wall_ms: round(seen.wall_us as f64 / 1e3, 3),
        signature,
        worker: seen.worker.to_string(),
        concurrency: seen.concurrency,
    }
}
