//! Turns what is wanted into jobs: each of one arm, so of one source, the two sides in turns.

use super::case::Case;
use super::neighbours;
use crate::experiment::{
    Arm, Budget, Company, Estimate, JobKey, JobPhase, Ledger, Plan, PlannedJob, Planning, Question, Trials,
    ValidateRequest, derive_seed,
};
use flakefarm_shared::{AttemptSpec, Selection, Source, TestId};
use std::collections::BTreeMap;
use std::time::Duration;

/// Runs that are missing of each arm.
type Wanted = BTreeMap<Arm, u32>;

/// Most attempts of one job.
const JOB_ATTEMPTS: u32 = 8;

/// What to run next to see whether the patch of `request` mends its tests. `elapsed` is the time since
/// the submission, which matters only to a budget on the clock.
pub fn plan(question: &Question, request: &ValidateRequest, ledger: &Ledger, elapsed: Duration) -> Plan {
    let outstanding = ledger.outstanding().count();
    let mut jobs = Vec::new();
    let mut limited = false;
    if outstanding == 0 {
        jobs = wanted_jobs(question, request, ledger);
        limited = afford(question, ledger, elapsed, &mut jobs);
    }
    let attempts = jobs.iter().map(|job| job.attempts.len() as u64).sum::<u64>() + outstanding as u64;
    let state = match (jobs.is_empty(), outstanding) {
        (true, 0) => Planning::Complete,
        (true, _) | (false, _) if is_overdue(question, elapsed) => Planning::Overdue,
        (true, _) | (false, _) => Planning::Working,
    };
    Plan { jobs, remaining: Estimate { attempts, container_seconds: 0.0 }, state, limited }
}

/// Whether nothing more is wanted.
pub(super) fn is_decided(question: &Question, request: &ValidateRequest, ledger: &Ledger) -> bool {
    wanted_jobs(question, request, ledger).is_empty()
}

fn wanted_jobs(question: &Question, request: &ValidateRequest, ledger: &Ledger) -> Vec<PlannedJob> {
    let targets = neighbours::targets(question, &request.tests, ledger);
    let mut suites = Wanted::new();
    let want = |suites: &mut Wanted, arm: Arm, missing: u32| {
        let known = suites.entry(arm).or_default();
        *known = missing.max(*known);
    };
    if request.tests.is_everything() {
        let seed = derive_seed(question.seed, "validate");
        for (arm, runs) in neighbours::first_looks(question, seed) {
            let missing = neighbours::missing(ledger, &arm, runs);
            want(&mut suites, arm, missing);
        }
        suites.retain(|_, missing| *missing > 0);
        if !suites.is_empty() {
            return suite_jobs(question, ledger, suites);
        }
    }
    if targets.is_empty() {
        return Vec::new();
    }
    let beside = neighbours::read(question, request, ledger, &targets);
    if beside.nothing_runs || !beside.red.is_empty() {
        return Vec::new(); // made worse: nothing else matters
    }
    let mut jobs = Vec::new();
    let mut open = false;
    for test in &targets {
        let trials = Trials::read(ledger, test);
        let case = Case { question, request, trials: &trials };
        let wanted = case.wanted();
        open |= !wanted.is_empty();
        let mut own = Vec::new();
        for (arm, runs) in wanted {
            let missing = trials.tally(&arm).missing(runs);
            match arm.company {
                Company::Suite(_) | Company::File(_) => want(&mut suites, arm, missing),
                Company::Alone | Company::Listed(_) => own.push((arm, missing)),
            }
        }
        jobs.extend(own_jobs(question, ledger, test, own));
    }
    // Neighbours are asked once something may be proved of the tests themselves.
    let proved = !open
        && targets.iter().any(|test| {
            let trials = Trials::read(ledger, test);
            Case { question, request, trials: &trials }.is_better()
        });
    if let (true, Some(arms)) = (proved, neighbours::arms(question, request)) {
        for arm in arms {
            let missing = neighbours::missing(ledger, &arm, beside.wanted);
            want(&mut suites, arm, missing);
        }
    }
    suites.retain(|_, missing| *missing > 0);
    let mut all = suite_jobs(question, ledger, suites);
    all.extend(jobs);
    all
}

fn own_jobs(question: &Question, ledger: &Ledger, test: &TestId, arms: Vec<(Arm, u32)>) -> Vec<PlannedJob> {
    let place = ledger.place(test).map_or(0, |place| u32::try_from(place).unwrap_or(u32::MAX / 2));
    let mut jobs = Vec::new();
    for source in [SourceSide::Before, SourceSide::After] {
        let of_side = arms.iter().filter(|(arm, _)| SourceSide::of(&arm.treatment.source) == source);
        let specs: Vec<AttemptSpec> = of_side
            .flat_map(|(arm, missing)| {
                let spec = arm.spec(test, &Selection::All);
                std::iter::repeat_n(spec, *missing as usize)
            })
            .collect();
        let arm = place * 2 + u32::from(source == SourceSide::After);
        jobs.extend(pack(question, ledger, JobPhase::ValidateTest, arm, specs));
    }
    jobs
}

fn suite_jobs(question: &Question, ledger: &Ledger, suites: Wanted) -> Vec<PlannedJob> {
    let others = if question.tests.is_everything() {
        Selection::All
    } else {
        Selection::only(question.select(ledger.tests()))
    };
    let mut jobs = Vec::new();
    for source in [SourceSide::Before, SourceSide::After] {
        let of_side = suites.iter().filter(|(arm, _)| SourceSide::of(&arm.treatment.source) == source);
        let specs: Vec<AttemptSpec> = of_side
            .flat_map(|(arm, missing)| {
                std::iter::repeat_n(arm.spec(&TestId::from(""), &others), *missing as usize)
            })
            .collect();
        let arm = u32::from(source == SourceSide::After);
        jobs.extend(pack(question, ledger, JobPhase::ValidateSuite, arm, specs));
    }
    jobs
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceSide {
    Before,
    After,
}

impl SourceSide {
    fn of(source: &Source) -> Self {
        match source {
            Source::Submitted => SourceSide::Before,
            Source::Snapshot(_) => SourceSide::After,
        }
    }
}

fn pack(
    question: &Question,
    ledger: &Ledger,
    phase: JobPhase,
    arm: u32,
    specs: Vec<AttemptSpec>,
) -> Vec<PlannedJob> {
    let workers = usize::from(question.workers.get());
    let size = specs.len().div_ceil(workers).clamp(1, JOB_ATTEMPTS as usize);
    (ledger.next_number(phase, Some(arm))..)
        .zip(specs.chunks(size))
        .map(|(number, chunk)| PlannedJob {
            key: JobKey::of_arm(phase, arm, number),
            attempts: (0..).zip(chunk).map(|(index, spec)| AttemptSpec { index, ..spec.clone() }).collect(),
        })
        .collect()
}

/// Drops what the budget does not pay for; whether it did.
fn afford(question: &Question, ledger: &Ledger, elapsed: Duration, jobs: &mut Vec<PlannedJob>) -> bool {
    let before = jobs.len();
    match question.budget {
        None => {}
        Some(Budget::Attempts(most)) => {
            let mut left = most.get().saturating_sub(ledger.attempts());
            jobs.retain_mut(|job| {
                let take = left.min(job.attempts.len() as u64);
                left -= take;
                take > 0 && take == job.attempts.len() as u64
            });
        }
        Some(Budget::Container(most)) if ledger.container_seconds() >= most.as_secs_f64() => jobs.clear(),
        Some(Budget::Clock(most)) if elapsed >= most => jobs.clear(),
        Some(Budget::Container(_) | Budget::Clock(_)) => {}
    }
    jobs.len() < before
}

fn is_overdue(question: &Question, elapsed: Duration) -> bool {
    matches!(question.budget, Some(Budget::Clock(most)) if elapsed >= most)
}
