//! What came of a publication of a job, as data that outlives the process: [`crate::spool`] keeps it,
//! [`crate::delivery`] brings it home.

use crate::job::Worked;
use flakefarm_shared::samples::{Chunk, Point, PointOutcome, codec};
use flakefarm_shared::{
    Digest, InfraError, JobId, JobReport, Outcome, Refusal, SweepId, TestId, WIRE_VERSION, WorkerId,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Ready to be brought home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// [`WIRE_VERSION`].
    pub(crate) v: u32,
    pub(crate) job: JobId,
    pub(crate) sweep: SweepId,
    pub(crate) publication: u32,
    /// The name under which its samples are filed.
    pub(crate) project: String,
    /// All attempts that have ended, those of earlier publications too.
    pub(crate) report: Option<JobReport>,
    pub(crate) how: How,
    /// Whether its samples are to be recorded: nobody makes the rest.
    pub(crate) record: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    Done,
    HandedBack(Option<InfraError>),
    Retryable(InfraError),
    Refused(Refusal),
}

impl Finished {
    /// `cancelled`: the sweep has ended, nobody goes on with what is left.
    pub(crate) fn of(job: JobId, sweep: SweepId, publication: u32, worked: Worked, cancelled: bool) -> Self {
        let (project, report, how) = match worked {
            Worked::Done { project, report } => (project, Some(report), How::Done),
            Worked::Left { made: None, because: Some(error), .. } => {
                (String::new(), None, How::Retryable(error))
            }
            Worked::Left { project, made, because } => (project, made, How::HandedBack(because)),
            Worked::Refused(refusal) => (String::new(), None, How::Refused(refusal)),
        };
        let record = cancelled || how == How::Done;
        Self { v: WIRE_VERSION, job, sweep, publication, project, report, how, record }
    }

    /// Points of all samples, by test.
    pub(crate) fn chunks(&self) -> Vec<Chunk> {
        let mut points: HashMap<&TestId, Vec<Point>> = HashMap::new();
        for attempt in self.report.iter().filter(|_| self.record).flat_map(|report| &report.attempts) {
            let worker = worker_hash(&attempt.worker);
            for sample in &attempt.samples {
                points.entry(&sample.test).or_default().push(Point {
                    at: attempt.started_at,
                    wall_us: u32::try_from(sample.wall_us).unwrap_or(u32::MAX),
                    outcome: match sample.outcome {
                        Outcome::Pass => PointOutcome::Pass,
                        Outcome::Fail(_) => PointOutcome::Fail,
                        Outcome::Skip { .. } => PointOutcome::Skip,
                    },
                    concurrency: u8::try_from(attempt.concurrency).unwrap_or(u8::MAX),
                    worker,
                    run: (attempt.index & 0xffff) as u16,
                });
            }
        }
        points
            .into_iter()
            .flat_map(|(test, points)| codec::chunks(&self.project, test, self.job, &points))
            .collect()
    }
}

/// Tells workers apart in a time series; two of many may collide.
fn worker_hash(worker: &WorkerId) -> u16 {
    u16::from_str_radix(&Digest::of(worker.0.as_bytes()).as_str()[..4], 16).expect("a digest is hexadecimal")
}
