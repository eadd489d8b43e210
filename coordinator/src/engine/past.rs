//! What earlier sweeps of a project say of its tests, and what must not have changed for that to count.

use super::{Coordinator, EngineError};
use crate::db::SweepRow;
use crate::plan::{self, History, Question, QuestionError};
use flakefarm_shared::{Digest, Listing, TestId, TestSource};
use std::collections::HashMap;

/// Earlier sweeps of a project that count as its history.
const PAST_SWEEPS: u32 = 45;

impl Coordinator {
    /// What was known of the tests when the sweep was submitted; the same however often it is asked.
    pub(super) async fn history(&self, row: &SweepRow, listing: &Listing) -> Result<History, EngineError> {
        if !self.makes_history(row).await? {
            return Ok(History::default());
        }
        let past = self.db.past_runs(&row.project, row.created_at, PAST_SWEEPS).await?;
        let fingerprints = self.fingerprints(row, listing).await?;
        let of = |(test, source): (&TestId, &TestSource)| TestSource {
            fingerprint: fingerprints[test].clone(),
            risks: source.risks.clone(),
        };
        let sources: Vec<TestSource> = listing.tests.iter().zip(&listing.sources).map(of).collect();
        Ok(History::new(&listing.tests, &sources, past, row.created_at))
    }

    pub(super) async fn affords_one_round(
        &self,
        row: &SweepRow,
        question: &Question,
        selected: &[TestId],
        listing: &Listing,
    ) -> Result<Result<(), QuestionError>, EngineError> {
        if question.budget.is_none() {
            return Ok(Ok(()));
        }
        let history = self.history(row, listing).await?;
        Ok(plan::affords_one_round(question, selected, &history))
    }

    /// What each test touches: its sources, and all that the attempts on it have in common.
    pub(super) async fn fingerprints(
        &self,
        row: &SweepRow,
        listing: &Listing,
    ) -> Result<HashMap<TestId, Digest>, EngineError> {
        let context = self.context(row).await?;
        let common = serde_json::to_string(&context.project).expect("a project serialises");
        let common = Digest::of(format!("{common}\n{}", listing.framework_version).as_bytes());
        let of = |(test, source): (&TestId, &TestSource)| {
            (test.clone(), Digest::of(format!("{common} {}", source.fingerprint).as_bytes()))
        };
        Ok(listing.tests.iter().zip(&listing.sources).map(of).collect())
    }
}
