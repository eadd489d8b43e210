//! From a job's report to points for the sample store: what each attempt said of each test, with the run
//! that it is part of and what it is evidence of.

use super::{Chunk, Phases, Point, PointOutcome, codec};
use crate::outcome::PhaseTimes;
use crate::{
    AttemptRecord, Digest, JobId, JobReport, JobSpec, Outcome, RunOrigin, Sample, Source, SourceClass,
    SweepContext, SweepId, TestId, TreatmentClass, WorkerId, World, WorldClass,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What a job's samples are filed under, kept with its report until they are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filing {
    /// The project's name.
    project: String,
    /// What kind of run it is part of.
    origin: RunOrigin,
    /// What plain means in it.
    under: World,
    /// As in the [`crate::JobMessage`].
    #[serde(default)]
    again: u32,
}

impl Filing {
    /// Of a job.
    pub fn of(spec: &JobSpec, context: &SweepContext) -> Self {
        Self { project: context.project.name.clone(), origin: spec.origin, under: context.under, again: 0 }
    }

    /// The same of a job that is made anew for the `again`th time.
    pub fn again(self, again: u32) -> Self {
        Self { again, ..self }
    }

    /// The name that samples of a job are stored under: what is stored under one name is stored once.
    fn name(&self, job: JobId) -> JobId {
        match self.again {
            0 => job,
            again => JobId(Uuid::new_v5(&job.0, &again.to_be_bytes())),
        }
    }

    /// What an attempt is evidence of. Where a sweep runs under another world, its plain attempts are
    /// stressed.
    fn class(&self, attempt: &AttemptRecord) -> TreatmentClass {
        let plain = attempt.treatment.world.is_plain() && self.under.is_plain();
        let world = if plain { WorldClass::Plain } else { WorldClass::Changed };
        let source = match attempt.treatment.source {
            Source::Submitted => SourceClass::Submitted,
            Source::Snapshot(_) => SourceClass::Other,
        };
        TreatmentClass::of(self.origin, source, world, attempt.level)
    }
}

/// The points of all samples of a report, by test and class.
pub fn chunks(filing: &Filing, sweep: SweepId, job: JobId, report: &JobReport) -> Vec<Chunk> {
    let mut points: BTreeMap<&TestId, Vec<(TreatmentClass, Point)>> = BTreeMap::new();
    for attempt in &report.attempts {
        let (class, worker) = (filing.class(attempt), worker_hash(&attempt.worker));
        for sample in &attempt.samples {
            points.entry(&sample.test).or_default().push((class, point(worker, attempt, sample)));
        }
    }
    let name = filing.name(job);
    points
        .into_iter()
        .flat_map(|(test, points)| codec::chunks(&filing.project, test, sweep.0, name, &points))
        .collect()
}

fn point(worker: u16, attempt: &AttemptRecord, sample: &Sample) -> Point {
    let (outcome, signature) = match &sample.outcome {
        Outcome::Pass => (PointOutcome::Pass, None),
        Outcome::Fail(failure) => (PointOutcome::Fail, u64::from_str_radix(&failure.signature, 16).ok()),
        Outcome::Skip { .. } => (PointOutcome::Skip, None),
    };
    Point {
        at: attempt.started_at,
        wall_us: micros(sample.wall_us),
        outcome,
        concurrency: u8::try_from(attempt.concurrency).unwrap_or(u8::MAX),
        worker,
        attempt: (attempt.index & 0xffff) as u16,
        phases: sample.phases.map(|PhaseTimes { setup_us, teardown_us, .. }| Phases {
            setup_us: micros(setup_us),
            teardown_us: micros(teardown_us),
        }),
        signature,
    }
}

fn micros(micros: u64) -> u32 {
    u32::try_from(micros).unwrap_or(u32::MAX)
}

/// Tells workers apart in a time series; two of many may collide.
pub fn worker_hash(worker: &WorkerId) -> u16 {
    u16::from_str_radix(&Digest::of(worker.0.as_bytes()).as_str()[..4], 16).expect("a digest is hexadecimal")
}
