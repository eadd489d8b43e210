//! Turns what investigations want into jobs. A test's next attempts are planned when those before
//! them have been heard of; attempts on the whole suite serve all tests of the question at once.

use super::investigate::investigate;
use crate::experiment::{
    Arm, Company, Estimate, JobKey, JobPhase, Ledger, Plan, PlannedJob, Planning, Question, Trials,
};
use flakefarm_shared::{AttemptSpec, Detail, Selection, TestId};
use std::collections::BTreeMap;

/// Most attempts of one job.
const JOB_ATTEMPTS: usize = 8;
/// Tests that are investigated at the same time, for each attempt that can run at once.
const TESTS_AT_ONCE: usize = 2;

/// What to run next to diagnose the tests of the question.
pub fn plan(question: &Question, ledger: &Ledger) -> Plan {
    let neighbours = neighbours(question, ledger);
    let workers = usize::from(question.workers.get());
    let mut jobs = Vec::new();
    let mut suites: BTreeMap<Arm, u32> = BTreeMap::new();
    let mut busy = 0;
    for test in question.targets(ledger.tests()) {
        if busy >= TESTS_AT_ONCE * workers {
            break;
        }
        let trials = Trials::read(ledger, &test);
        if trials.under_way() {
            busy += 1;
            continue;
        }
        let investigation = investigate(question, ledger, &trials);
        let mut own: Vec<AttemptSpec> = Vec::new();
        for (arm, runs) in &investigation.wanted {
            let missing = trials.tally(arm).missing(*runs);
            if let Company::Suite(_) = arm.company {
                let known = suites.entry(arm.clone()).or_default();
                *known = missing.max(*known);
            } else {
                own.extend((0..missing).map(|_| arm.spec(&test, &neighbours)));
            }
        }
        // One of each arm before a second of any: arms are compared, so what loads the machine
        // must affect all alike.
        let own = interleaved(own);
        let looks = investigation
            .looks
            .iter()
            .map(|arm| AttemptSpec { detail: Detail::State, ..arm.spec(&test, &neighbours) });
        let own: Vec<AttemptSpec> = own.into_iter().chain(looks).collect();
        busy += usize::from(!own.is_empty() || !suites.is_empty());
        let place = u32::try_from(ledger.place(&test).expect("targets are listed"))
            .expect("tests are counted in 32 bits");
        jobs.extend(pack(JobPhase::DiagnoseTest, Some(place), own, workers, ledger));
    }
    let on_suites: Vec<AttemptSpec> = suites
        .into_iter()
        .flat_map(|(arm, missing)| {
            let spec = arm.spec(&TestId::from(""), &neighbours);
            std::iter::repeat_n(spec, missing as usize)
        })
        .collect();
    // The longest first, so that short ones fill what is left.
    let mut all = pack(JobPhase::DiagnoseSuite, None, on_suites, usize::MAX, ledger);
    all.extend(jobs);
    let outstanding = ledger.outstanding().count();
    let state = if all.is_empty() && outstanding == 0 { Planning::Complete } else { Planning::Working };
    let attempts = all.iter().map(|job| job.attempts.len() as u64).sum::<u64>() + outstanding as u64;
    Plan { jobs: all, remaining: Estimate { attempts, container_seconds: 0.0 }, state, limited: false }
}

/// What an attempt on the suite runs.
fn neighbours(question: &Question, ledger: &Ledger) -> Selection {
    if question.tests.is_everything() {
        Selection::All
    } else {
        Selection::only(ledger.tests().iter().filter(|test| question.tests.selects(test)).cloned().collect())
    }
}

/// Equal attempts as far from each other as their numbers allow.
fn interleaved(specs: Vec<AttemptSpec>) -> Vec<AttemptSpec> {
    let mut numbered: Vec<(usize, usize, AttemptSpec)> = Vec::with_capacity(specs.len());
    for (place, spec) in specs.into_iter().enumerate() {
        let round = numbered.iter().filter(|(_, _, known)| *known == spec).count();
        numbered.push((round, place, spec));
    }
    numbered.sort_by_key(|(round, place, _)| (*round, *place));
    numbered.into_iter().map(|(_, _, spec)| spec).collect()
}

/// Jobs of a few attempts each, so that every worker has some.
fn pack(
    phase: JobPhase,
    arm: Option<u32>,
    wanted: Vec<AttemptSpec>,
    workers: usize,
    ledger: &Ledger,
) -> Vec<PlannedJob> {
    let size = wanted.len().div_ceil(workers).clamp(1, JOB_ATTEMPTS);
    (ledger.next_number(phase, arm)..)
        .zip(wanted.chunks(size))
        .map(|(number, chunk)| PlannedJob {
            key: JobKey { phase, arm, number },
            attempts: (0..).zip(chunk).map(|(index, spec)| AttemptSpec { index, ..spec.clone() }).collect(),
        })
        .collect()
}
