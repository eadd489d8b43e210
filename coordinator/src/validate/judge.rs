//! What a validation has shown of one test, as data for reports.

use super::case::{Case, Finding};
use super::neighbours;
use super::planner;
use crate::experiment::{Arm, Counts, Ledger, Question, Trials, ValidateRequest};
use crate::score::interval::{RateEstimate, rate_interval, upper_bound_after_clean_runs};
use flakefarm_shared::TestId;

/// What the patch does to a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It failed without the patch and does not with it, in enough runs, and no neighbour fails instead.
    Fixed,
    /// It fails more seldom with it.
    Improved,
    /// No difference is shown.
    NotShown(Why),
    /// It, or a neighbour, fails with the patch where it passed without it.
    MadeWorse,
    /// Not enough runs yet, or no more may be made.
    Undecided,
}

/// Why no difference is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It fails with the patch, too.
    StillFails,
    /// It never failed without the patch.
    NeverFailed,
    /// It does not run with the patch.
    Gone,
    /// It fails so seldom that more runs would be needed than are made.
    TooSeldom,
}

/// Runs of one arm.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmCounts {
    /// Which.
    pub arm: Arm,
    /// Passes and failures.
    pub counts: Counts,
    /// Its failure rate.
    pub rate: RateEstimate,
}

/// Another test, as it fared without the patch and with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Which.
    pub test: TestId,
    /// How it stands.
    pub state: NeighbourState,
    /// Without the patch.
    pub before: Counts,
    /// With it.
    pub after: Counts,
}

/// How a neighbour stands that does not simply pass on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourState {
    /// It fails with the patch.
    Red,
    /// It failed with the patch, no more often than chance explains.
    Chance,
    /// It is not there with the patch.
    Gone,
}

/// What is shown of one test.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// The answer.
    pub answer: Answer,
    /// Without the patch, where it fails; none as long as it was not seen to.
    pub before: Option<ArmCounts>,
    /// With it.
    pub after: Option<ArmCounts>,
    /// Clean runs that prove a fix, given the old rate.
    pub clean_runs_wanted: Option<u32>,
    /// The new rate is below this.
    pub new_upper: Option<f64>,
    /// The patched test in other company.
    pub beside: Vec<ArmCounts>,
    /// Neighbours that passed on both sides.
    pub neighbours_passed: u32,
    /// Those that did not.
    pub neighbours: Vec<Neighbour>,
    /// Whether nothing runs with the patch although something does without it.
    pub nothing_runs: bool,
    /// Attempts made for all tests of the request.
    pub spent: u64,
    /// Fewer than with the classical number of runs of both arms; negative if it took more.
    pub saved: i64,
}

/// What is known of `test` so far.
pub fn judge(question: &Question, request: &ValidateRequest, ledger: &Ledger, test: &TestId) -> Validation {
    let targets = neighbours::targets(question, &request.tests, ledger);
    let trials = Trials::read(ledger, test);
    let case = Case { question, request, trials: &trials };
    let beside = neighbours::read(question, request, ledger, &targets);
    let of = |arm: Arm| {
        let counts = trials.tally(&arm).counts();
        let rate = rate_interval(counts.failures, counts.attempts, question.confidence);
        ArmCounts { arm, counts, rate }
    };
    let (before, after) = case.arms().map_or((None, None), |(old, new)| (Some(of(old)), Some(of(new))));
    let worse = beside.nothing_runs || !beside.red.is_empty();
    let decided = planner::is_decided(question, request, ledger) && ledger.outstanding().next().is_none();
    let answer = match case.finding() {
        Finding::Worse => Answer::MadeWorse,
        _ if worse => Answer::MadeWorse,
        // What is better is so for good only once the neighbours were asked.
        Finding::Fixed | Finding::Improved if !decided => Answer::Undecided,
        Finding::Fixed => Answer::Fixed,
        Finding::Improved => Answer::Improved,
        Finding::StillFails => Answer::NotShown(Why::StillFails),
        Finding::NeverFailed => Answer::NotShown(Why::NeverFailed),
        Finding::Gone => Answer::NotShown(Why::Gone),
        Finding::TooSeldom => Answer::NotShown(Why::TooSeldom),
        Finding::Open => Answer::Undecided,
    };
    let new_upper = after.as_ref().map(|after| match after.counts {
        Counts { attempts, failures: 0 } => upper_bound_after_clean_runs(attempts, question.confidence),
        Counts { .. } => after.rate.upper,
    });
    let spent = ledger.attempts();
    let fixed = 2 * u64::from(question.runs_for_guarantee()) * targets.len() as u64;
    let neighbour = |state| {
        move |(test, before, after): (&TestId, Counts, Counts)| Neighbour {
            test: test.clone(),
            state,
            before,
            after,
        }
    };
    let gone = beside.gone.iter().map(|test| (*test, Counts::default(), Counts::default()));
    let neighbours = beside.red.iter().copied().map(neighbour(NeighbourState::Red));
    let neighbours = neighbours.chain(beside.suspects.iter().copied().map(neighbour(NeighbourState::Chance)));
    let neighbours = neighbours.chain(gone.map(neighbour(NeighbourState::Gone))).collect();
    Validation {
        answer,
        clean_runs_wanted: before.as_ref().and_then(|before| case.clean_runs(before.counts)),
        before,
        after,
        new_upper,
        beside: case.side_looks().into_iter().map(of).filter(|side| side.counts.attempts > 0).collect(),
        neighbours_passed: u32::try_from(beside.passed).unwrap_or(u32::MAX),
        neighbours,
        nothing_runs: beside.nothing_runs,
        spent,
        saved: i64::try_from(fixed).unwrap_or(i64::MAX) - i64::try_from(spent).unwrap_or(i64::MAX),
    }
}
