//! What came of a publication of a job, as data that outlives the process: [`crate::spool`] keeps it,
//! [`crate::delivery`] brings it home.

use crate::job::Worked;
use flakefarm_shared::samples::Chunk;
use flakefarm_shared::samples::filing::{self, Filing};
use flakefarm_shared::{InfraError, JobId, JobReport, Refusal, SweepId, WIRE_VERSION};
use serde::{Deserialize, Serialize};

/// Ready to be brought home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// [`WIRE_VERSION`].
    pub(crate) v: u32,
    pub(crate) job: JobId,
    pub(crate) sweep: SweepId,
    pub(crate) publication: u32,
    /// What its samples are filed under.
    pub(crate) filing: Filing,
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
        let (filing, report, how) = match worked {
            Worked::Done { filing, report } => (filing, Some(report), How::Done),
            Worked::Left { made: None, because: Some(error), .. } => {
                (Filing::default(), None, How::Retryable(error))
            }
            Worked::Left { filing, made, because } => (filing, made, How::HandedBack(because)),
            Worked::Refused(refusal) => (Filing::default(), None, How::Refused(refusal)),
        };
        let record = cancelled || how == How::Done;
        Self { v: WIRE_VERSION, job, sweep, publication, filing, report, how, record }
    }

    /// Points of all samples that are to be recorded.
    pub(crate) fn chunks(&self) -> Vec<Chunk> {
        let recorded = self.report.iter().filter(|_| self.record);
        recorded.flat_map(|report| filing::chunks(&self.filing, self.sweep, self.job, report)).collect()
    }
}
