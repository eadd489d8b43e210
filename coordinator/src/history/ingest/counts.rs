//! What a report's attempts are in history: points, failures by signature, and whether the whole run was
//! an incident rather than news of its tests. Pure.

use super::case::{Case, CaseAttempt, CaseOutcome};
use flakefarm_shared::UnixMicros;
use flakefarm_shared::samples::{Point, PointOutcome};
use flakefarm_shared::signature::mask;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A run of fewer tests is no incident, however many fail.
const INCIDENT_TESTS: u64 = 10;
/// Clocks that are ahead by no more than this are believed.
const TOLERANCE_MICROS: UnixMicros = 300_000_000;

/// What was counted of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Cases.
    pub cases: u64,
    /// Attempts that passed or failed.
    pub attempts: u64,
    /// Attempts that passed.
    pub passed: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Cases that were skipped.
    pub skipped: u64,
    /// Cases that ran.
    pub ran: u64,
    /// Cases whose last attempt failed.
    pub broken: u64,
    /// Durations that nobody can believe, or that were not said.
    pub without_duration: u64,
    /// Moments that lay in the future and were taken for now.
    pub from_the_future: u64,
}

impl Counts {
    /// Counts one case.
    pub fn add(&mut self, case: &Case) {
        self.cases += 1;
        for attempt in &case.attempts {
            match attempt.outcome {
                CaseOutcome::Pass => self.passed += 1,
                CaseOutcome::Fail { .. } => self.failed += 1,
                CaseOutcome::Skip => continue,
            }
            self.attempts += 1;
            self.without_duration += u64::from(attempt.wall_us.is_none());
        }
        let ran = case.attempts.iter().any(|attempt| attempt.outcome != CaseOutcome::Skip);
        let failed = case.attempts.last().is_some_and(|attempt| attempt.outcome.is_failure());
        // After a failure, reruns tell of tests that failed at all of them.
        self.ran += u64::from(ran);
        self.skipped += u64::from(!ran);
        self.broken += u64::from(failed);
    }
}

/// Why a run's outcomes say nothing of its tests, if they do not: most of them failed at once.
pub fn incident(ran: u64, failed: u64) -> Option<String> {
    (ran >= INCIDENT_TESTS && 2 * failed > ran)
        .then(|| format!("{failed} of {ran} tests failed at once: an incident, not news of these tests"))
}

/// When a case ran: as it says, or as the upload is; never in the future.
pub fn moment(case: &Case, now: UnixMicros, counts: &mut Counts) -> UnixMicros {
    match case.at {
        Some(at) if at > now + TOLERANCE_MICROS => {
            counts.from_the_future += 1;
            now
        }
        Some(at) => at.min(now),
        None => now,
    }
}

/// The point of one attempt. A duration of 0 is one that nobody knows.
pub fn point(at: UnixMicros, place: usize, attempt: &CaseAttempt) -> Point {
    let (outcome, signature) = match &attempt.outcome {
        CaseOutcome::Pass => (PointOutcome::Pass, None),
        CaseOutcome::Fail { kind, message } => (PointOutcome::Fail, Some(signature(kind, message))),
        CaseOutcome::Skip => (PointOutcome::Skip, None),
    };
    Point {
        wall_us: attempt.wall_us.map_or(0, |micros| u32::try_from(micros.max(1)).unwrap_or(u32::MAX)),
        outcome,
        attempt: (place & 0xffff) as u16,
        signature,
        ..Point::passed(at, 0)
    }
}

/// Equal for failures that look alike: of CI there is no more than a type and a message.
pub fn signature(kind: &str, message: &str) -> u64 {
    let first = message.lines().next().unwrap_or_default();
    let digest = Sha256::digest(format!("ci\n{kind}\n{}", mask(first)));
    u64::from_le_bytes(digest[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(outcomes: &[CaseOutcome]) -> Case {
        let attempt = |outcome: &CaseOutcome| CaseAttempt { outcome: outcome.clone(), wall_us: None };
        Case { attempts: outcomes.iter().map(attempt).collect(), ..Case::default() }
    }

    fn fail(message: &str) -> CaseOutcome {
        CaseOutcome::Fail { kind: String::new(), message: message.to_owned() }
    }

    #[test]
    fn every_attempt_counts_and_a_test_is_what_its_last_one_was() {
        let mut counts = Counts::default();
        counts.add(&case(&[fail("x"), CaseOutcome::Pass]));
        counts.add(&case(&[CaseOutcome::Skip]));
        counts.add(&case(&[fail("x")]));
        assert_eq!((counts.cases, counts.attempts, counts.passed, counts.failed), (3, 3, 1, 2));
        assert_eq!((counts.ran, counts.broken, counts.skipped), (2, 1, 1));
    }

    #[test]
    fn most_of_a_suite_failing_at_once_is_an_incident() {
        assert_eq!(incident(100, 50), None);
        assert!(incident(100, 51).unwrap().contains("51 of 100"));
        assert_eq!(incident(9, 9), None, "a handful of tests may well break together");
    }

    #[test]
    fn the_future_is_now() {
        let mut counts = Counts::default();
        let at = |at| Case { at, ..Case::default() };
        assert_eq!(moment(&at(Some(5)), 10, &mut counts), 5);
        assert_eq!(moment(&at(None), 10, &mut counts), 10);
        assert_eq!(moment(&at(Some(i64::MAX / 2)), 10, &mut counts), 10);
        assert_eq!(counts.from_the_future, 1);
    }

    #[test]
    fn failures_that_look_alike_share_a_signature() {
        assert_eq!(signature("E", "took 12 ms\nat line 4"), signature("E", "took 7 ms\nat line 9"));
        assert_ne!(signature("E", "took 12 ms"), signature("F", "took 12 ms"));
    }
}
