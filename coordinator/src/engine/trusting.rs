//! The control beside each sweep of a schedule: begun with it, waited for at its end, and judged in its
//! report.

use super::{Coordinator, EngineError};
use crate::control::{self, CONTROL};
use crate::db::{FiringRow, NewEvent, NewSweep, SweepRow, SweepState};
use crate::events::Event;
use crate::plan::Question;
use crate::report::model::{Trust, TrustState};
use crate::report::trust_line;
use bytes::Bytes;
use flakefarm_shared::blobs::BlobError;
use flakefarm_shared::metrics::catalogue::FARM_DOUBTS;
use flakefarm_shared::{Digest, SweepContext, SweepId, UnixMicros, now_micros};
use futures::StreamExt;
use std::pin::pin;
use tracing::warn;

impl Coordinator {
    /// The control beside a sweep; none if its sources are not there, which the sweep itself will say.
    pub(super) async fn control_of(
        &self,
        sweep: &NewSweep,
        context: &SweepContext,
        question: &Question,
        now: UnixMicros,
    ) -> Result<Option<NewSweep>, EngineError> {
        let snapshot = match self.with_known_tests(&context.snapshot).await {
            Ok(snapshot) => snapshot,
            Err(error @ (BlobError::Missing(_) | BlobError::Damaged(_))) => {
                warn!(sweep.id = %sweep.id, error = %error, "a scheduled sweep has no control");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let question = control::question(question, sweep.id);
        Ok(Some(NewSweep {
            id: control::id_of(sweep.id),
            project: CONTROL.to_owned(),
            revision: None,
            question: serde_json::to_string(&question).expect("a question serialises"),
            context: self.kept(&control::context(context, snapshot), now).await?,
            class: sweep.class,
            seed: question.seed,
            source: format!("control:{}", sweep.id),
            created_at: now,
        }))
    }

    /// A snapshot with the known tests in it.
    async fn with_known_tests(&self, snapshot: &Digest) -> Result<Digest, BlobError> {
        let (_, pieces) = self.blobs.stream(snapshot).await?;
        let mut pieces = pin!(pieces);
        let mut upload = self.blobs.upload().await?;
        let beginning = control::beginning().expect("an archive in memory can be written");
        let mut written = upload.write(Bytes::from(beginning)).await;
        while let (Ok(()), Some(piece)) = (&written, pieces.next().await) {
            written = match piece {
                Ok(piece) => upload.write(piece).await,
                Err(error) => Err(error),
            };
        }
        match written {
            Ok(()) => upload.finish().await,
            Err(error) => {
                upload.abort().await?;
                Err(error)
            }
        }
    }

    /// Whether the control of a sweep that is at its end still runs. One that takes too long is not
    /// waited for.
    pub(super) async fn waits_for_control(&self, sweep: SweepId) -> Result<bool, EngineError> {
        let Some(firing) = self.db.firing(sweep).await? else { return Ok(false) };
        Ok(self.control_row(&firing).await?.is_some_and(|control| is_waited_for(&control)))
    }

    async fn control_row(&self, firing: &FiringRow) -> Result<Option<SweepRow>, EngineError> {
        let Some(control) = firing.control else { return Ok(None) };
        Ok(self.db.sweep(SweepId(control)).await?)
    }

    /// What the control of a scheduled sweep says of the farm.
    pub(super) async fn trust(&self, firing: &FiringRow) -> Result<Trust, EngineError> {
        let unknown = |why: &str| {
            control::silent(TrustState::Unknown, firing.control.map(SweepId), Some(why.to_owned()))
        };
        let Some(row) = self.control_row(firing).await? else {
            return Ok(unknown("its control could not be made"));
        };
        Ok(match &row.state {
            SweepState::Running if is_waited_for(&row) => {
                control::silent(TrustState::Pending, Some(row.id), None)
            }
            SweepState::Running => unknown("its control took too long"),
            SweepState::Failed(refusal) => {
                unknown(&format!("its control could not run: {}", refusal.message))
            }
            SweepState::Cancelled | SweepState::Interrupted => unknown("its control was cancelled"),
            SweepState::Answered => match Box::pin(self.report(row.id)).await {
                Ok(report) => control::judge(row.id, &report),
                Err(error) if error.end_of_sweep().is_some() => unknown("its control's report is lost"),
                Err(error) => return Err(error),
            },
        })
    }

    /// Records what a control said, for lists, and tells it if the farm is not to be trusted.
    pub(super) async fn remember_trust(
        &self,
        row: &SweepRow,
        trust: &Trust,
        at: UnixMicros,
    ) -> Result<(), EngineError> {
        if trust.state == TrustState::NotTrusted {
            let event = NewEvent {
                key: format!("doubted/{}", row.id),
                at,
                project: Some(row.project.clone()),
                sweep: Some(row.id),
                event: Event::FarmDoubted { sweep: row.id, why: trust_line(trust) },
            };
            self.db.record_events(&[event]).await?;
            FARM_DOUBTS.count(&[]);
        }
        Ok(self.db.set_trust(row.id, &serde_json::to_string(trust).expect("trust serialises")).await?)
    }
}

fn is_waited_for(control: &SweepRow) -> bool {
    let patience = i64::try_from(control::PATIENCE.as_micros()).unwrap_or(i64::MAX);
    matches!(control.state, SweepState::Running) && now_micros() - control.created_at < patience
}

/// What was left out of the sources of a scheduled sweep.
pub(super) fn left_out_of(firing: &FiringRow) -> Vec<String> {
    let notes = firing.notes.as_ref();
    notes.and_then(|notes| serde_json::from_str(notes).ok()).unwrap_or_default()
}
