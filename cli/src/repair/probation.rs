//! Repairs that were written stay on probation on the farm that was asked (`coordinator::repairs`).

use super::sessions::{Probation, Record};
use crate::ask::{Place, Session};
use crate::exit::Complaint;
use crate::farm::Farm;
use crate::sweep::{Wishes, question};
use flakefarm_coordinator::plan::{QuestionKind, TestFilter};
use flakefarm_coordinator::repairs::{Probation as Standing, probation_question};
use flakefarm_project::snapshot::Archive;
use flakefarm_shared::{Class, World};

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
        Wishes { kind: QuestionKind::Detect, tests: TestFilter::default(), order: None, repeats: true };
    let question = probation_question(question(wishes, session)?, &tests);
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
