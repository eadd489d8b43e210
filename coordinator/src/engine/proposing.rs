//! Schedules that propose repairs: when the sweep of a firing has found tests that the firing before did not find flaky,
//! a repair is asked for them, behind everything that somebody waits for. Nothing is written anywhere: what is proved
//! waits to be looked at.

use super::repairing::RepairRefused;
use super::{Coordinator, EngineError, SubmitError};
use crate::db::{FiringState, RepairRow, ScheduleRow, SweepRow, SweepState};
use crate::plan::{Question, QuestionKind};
use crate::repairs::RepairRequest;
use crate::report::{Report, Verdict};
use flakefarm_shared::{Class, SweepId};
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};
use tracing::{info, warn};
use uuid::Uuid;

/// How often schedules are looked at.
const PAUSE: Duration = Duration::from_secs(5);
/// Firings of a schedule that are looked at: the last one, and the one before it that it is compared with.
const FIRINGS: u32 = 5;
/// Tests of one sweep that a repair is asked for.
const TESTS: usize = 10;
/// Repairs of a project that are looked through for a test that was asked for before.
const BEFORE: u32 = 200;

/// Where it has looked.
#[derive(Debug, Default)]
pub(super) struct Proposing {
    looked: Option<Instant>,
    /// Sweeps of which nothing more is to be expected.
    seen: HashSet<Uuid>,
}

/// How the source of a proposed repair begins.
pub(super) const PROPOSED: &str = "schedule ";

impl Coordinator {
    /// Asks for what schedules are to propose.
    pub(super) async fn propose(&self, proposing: &mut Proposing) -> Result<(), EngineError> {
        if self.repairing.is_none() || proposing.looked.is_some_and(|at| at.elapsed() < PAUSE) {
            return Ok(());
        }
        proposing.looked = Some(Instant::now());
        for schedule in self.db.schedules().await?.iter().filter(|schedule| schedule.proposes) {
            let mut fired = self.db.firings(schedule.id, FIRINGS).await?;
            fired.retain(|firing| firing.is(FiringState::Fired));
            let mut sweeps = fired.iter().map(|firing| SweepId(firing.sweep));
            let Some(last) = sweeps.next().filter(|last| !proposing.seen.contains(&last.0)) else { continue };
            let Some(row) = self.db.sweep(last).await? else { continue };
            if matches!(row.state, SweepState::Running) {
                continue;
            }
            if matches!(row.state, SweepState::Answered) && row.created_at >= schedule.created_at {
                self.propose_after(schedule, &row, sweeps.next()).await?;
            }
            proposing.seen.insert(last.0);
        }
        Ok(())
    }

    async fn propose_after(
        &self,
        schedule: &ScheduleRow,
        row: &SweepRow,
        before: Option<SweepId>,
    ) -> Result<(), EngineError> {
        // Derived, so that looking twice asks once.
        let id = Uuid::new_v5(&row.id.0, b"repair");
        if self.db.repair(id).await?.is_some() {
            return Ok(());
        }
        let report = match self.report(row.id).await {
            Ok(report) => report,
            Err(error) if error.end_of_sweep().is_some() => return Ok(()),
            Err(error) => return Err(error),
        };
        let before = match before {
            Some(before) => self.report(before).await.ok(),
            None => None,
        };
        let asked = self.db.repairs_page(Some(&schedule.project), None, BEFORE).await?;
        let tests = newly_flaky(&report, before.as_ref(), &asked);
        if tests.is_empty() {
            return Ok(());
        }
        let question: Question = match serde_json::from_str(&row.question) {
            Ok(question) => question,
            Err(_) => return Ok(()),
        };
        let request = RepairRequest {
            context: self.context(row).await?,
            question: Question { kind: QuestionKind::Detect, panel: Vec::new(), rerun: None, ..question },
            class: Class::Bulk,
            tests,
            base: None,
            attempts: None,
            look_budget: None,
            mend_budget: None,
            source: format!("{PROPOSED}{}", schedule.name),
        };
        match self.ask_repair_as(id, &request).await {
            Ok(()) => {
                info!(repair.id = %id, schedule.name = schedule.name, tests = request.tests.len(), "newly flaky tests are to be repaired");
                Ok(())
            }
            Err(RepairRefused::Submit(SubmitError::Engine(error))) => Err(error),
            Err(refused) => {
                warn!(schedule.name = schedule.name, error = %refused, "no repair is asked for");
                Ok(())
            }
        }
    }
}

/// Tests that are flaky in `report`, were not in the report before it, and were not asked for lately.
fn newly_flaky(report: &Report, before: Option<&Report>, asked: &[RepairRow]) -> Vec<String> {
    let flaky = |report: &Report| -> BTreeSet<String> {
        let tests = report.tests.iter();
        let flaky = tests.filter(|test| matches!(test.verdict, Verdict::Flaky | Verdict::Fragile));
        flaky.map(|test| test.id.clone()).collect()
    };
    let known = before.map(flaky).unwrap_or_default();
    let named: BTreeSet<String> = asked
        .iter()
        .filter_map(|row| serde_json::from_str::<RepairRequest>(&row.request).ok())
        .flat_map(|request| request.tests)
        .collect();
    flaky(report)
        .into_iter()
        .filter(|test| !known.contains(test) && !named.contains(test))
        .take(TESTS)
        .collect()
}
