//! How wanted attempts are packed into jobs: about half a minute each, never two minutes of what
//! is foreseen, and no worker left idle for more than a few seconds for the sake of packing.

use super::costs::Costs;
use crate::experiment::{JobKey, JobPhase, Ledger, PlannedJob};
use flakefarm_shared::AttemptSpec;
use std::cmp::Reverse;

/// Seconds a job is to take.
const JOB_SECONDS: f64 = 30.0;
/// And at least, even where workers are left idle for it: the first attempt of a job makes ready what the
/// others find ready, which takes as long as one or two of them.
pub(super) const LEAST_JOB_SECONDS: f64 = 4.0;
/// Most attempts of one job, however short.
const JOB_ATTEMPTS: usize = 1000;
/// Most attempts of a kind that are looked at in one turn of planning: those after them are only counted, however
/// many were asked for, and come at a later turn.
pub(super) const AT_A_TURN: usize = 4_000;
/// Jobs under way beyond which nothing is planned that can wait, or four per worker.
const JOBS_UNDER_WAY: usize = 256;

/// Jobs under way beyond which nothing is planned that can wait.
pub(super) fn most_under_way(workers: usize) -> usize {
    JOBS_UNDER_WAY.max(4 * workers)
}

/// An attempt to be planned.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) spec: AttemptSpec,
    /// What it is foreseen to take; none if nothing like it was measured.
    pub(super) seconds: Option<f64>,
}

/// Seconds that each of the jobs is to take that make up `total` seconds of work.
pub(super) fn job_seconds(total: f64, workers: usize) -> f64 {
    JOB_SECONDS.min((total / workers as f64).max(LEAST_JOB_SECONDS))
}

/// Packs `wanted`, in order, into jobs of `phase`, numbered by the place of their first attempt after
/// `first`. What was never measured travels alone.
pub(super) fn pack(phase: JobPhase, first: usize, wanted: Vec<Wanted>, workers: usize) -> Vec<PlannedJob> {
    pack_some(phase, first, wanted, 0.0, workers)
}

/// The same of attempts after which others come that take `later` seconds together.
pub(super) fn pack_some(
    phase: JobPhase,
    first: usize,
    wanted: Vec<Wanted>,
    later: f64,
    workers: usize,
) -> Vec<PlannedJob> {
    let total: f64 = wanted.iter().filter_map(|wanted| wanted.seconds).sum();
    let target = job_seconds(total + later, workers);
    let mut jobs: Vec<PlannedJob> = Vec::new();
    let mut filled = f64::INFINITY;
    for (place, Wanted { mut spec, seconds }) in wanted.into_iter().enumerate() {
        let cost = seconds.unwrap_or(f64::INFINITY);
        match jobs.last_mut() {
            // What adds up to the target exactly may be a rounding error beyond it.
            Some(job) if filled + cost <= target * (1.0 + 1e-9) && job.attempts.len() < JOB_ATTEMPTS => {
                spec.index = index(job.attempts.len());
                job.attempts.push(spec);
                filled += cost;
            }
            Some(_) | None => {
                spec.index = 0;
                jobs.push(PlannedJob { key: JobKey::new(phase, index(first + place)), attempts: vec![spec] });
                filled = cost;
            }
        }
    }
    jobs
}

/// Numbers jobs of `phase` by how many the ledger knows.
pub(super) fn numbered(phase: JobPhase, jobs: Vec<PlannedJob>, ledger: &Ledger) -> Vec<PlannedJob> {
    let numbers = ledger.next_number(phase, None)..;
    numbers.zip(jobs).map(|(number, job)| PlannedJob { key: JobKey::new(phase, number), ..job }).collect()
}

/// Orders jobs that are planned together: the longest first, so that at the end no worker is left with a
/// long one while the others idle (Graham's LPT rule); what was never measured before all others.
pub(super) fn longest_first(jobs: &mut [PlannedJob], costs: &Costs<'_>) {
    jobs.sort_by_cached_key(|job| {
        let seconds: Option<f64> = job.attempts.iter().map(|attempt| costs.of(attempt)).sum();
        // Microseconds: whole numbers have an order.
        Reverse(seconds.map_or(u64::MAX, |seconds| (seconds * 1e6) as u64))
    });
}

pub(super) fn index(place: usize) -> u32 {
    u32::try_from(place).expect("a job is bounded")
}
