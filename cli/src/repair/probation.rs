//! Repairs that were written stay on probation: the mended tests run 59 times more on the farm, behind everything that
//! somebody waits for. 59 clean runs show, at 95 %, that a test fails less than once in twenty.

use super::sessions::{Probation, Record};
use crate::ask::{Place, Session};
use crate::exit::Complaint;
use crate::farm::Farm;
use crate::sweep::{Wishes, question};
use flakefarm_coordinator::plan::{Question, QuestionKind, Runs, TestFilter};
use flakefarm_coordinator::report::Report;
use flakefarm_project::snapshot::Archive;
use flakefarm_shared::{Class, World};
use serde::Serialize;
use std::num::NonZeroU32;

/// Further runs.
const RUNS: NonZeroU32 = NonZeroU32::new(59).expect("not 0");

/// How a probation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// So many clean runs of the test that has fewest.
    Running(u64),
    /// All were clean.
    Proven,
    /// A test has failed again.
    Failed(String),
    /// The runs ended before they were enough.
    Ended(u64),
}

impl Standing {
    pub(super) fn words(&self) -> String {
        match self {
            Standing::Running(clean) => format!("on probation, {clean} of {RUNS} clean"),
            Standing::Proven => "proven".to_owned(),
            Standing::Failed(test) => format!("not proven: {test} failed again"),
            Standing::Ended(clean) => format!("probation ended after {clean} of {RUNS} clean"),
        }
    }

    fn of(report: &Report, tests: &[String], ended: bool) -> Self {
        let known = |id: &String| report.tests.iter().find(|test| test.id == *id);
        if let Some(failed) = tests.iter().find(|id| known(id).is_some_and(|test| test.failures > 0)) {
            return Standing::Failed(failed.clone());
        }
        let clean = tests.iter().map(|id| known(id).map_or(0, |test| test.attempts)).min().unwrap_or(0);
        if clean >= u64::from(RUNS.get()) {
            Standing::Proven
        } else if ended {
            Standing::Ended(clean)
        } else {
            Standing::Running(clean)
        }
    }
}

/// Begins it on the farm that was asked, with the tree as it was proved; nothing where none was asked.
pub(super) async fn begin(
    session: &Session<'_>,
    record: &Record,
    proved: &Archive,
) -> Result<Option<Probation>, Complaint> {
    if session.loaded.settings.text("farm.url").is_none() {
        return Ok(None);
    }
    let tests = record.told.mended();
    if tests.is_empty() {
        return Ok(None);
    }
    let wishes =
        Wishes { kind: QuestionKind::Detect, tests: TestFilter(tests.clone()), order: None, repeats: true };
    let question = Question { runs: Runs::Fixed(RUNS), budget: None, ..question(wishes, session)? };
    let Place::Farm(farm) = session.place(question.sandbox).await? else { return Ok(None) };
    let snapshot = farm.upload(proved.bytes.clone().into()).await?;
    let mut submission = session.submission(question, snapshot, proved.revision.clone(), World::Plain);
    submission.class = Class::Bulk;
    let sweep = farm.submit(&submission).await?;
    Ok(Some(Probation { farm: farm.address().to_owned(), sweep, tests }))
}

/// How it stands, as the farm says.
pub(super) async fn standing(farm: &Farm, probation: &Probation) -> Result<Standing, Complaint> {
    let status = farm.status(probation.sweep).await?;
    let report = farm.report(probation.sweep).await?;
    Ok(Standing::of(&report, &probation.tests, status.state != "running"))
}
