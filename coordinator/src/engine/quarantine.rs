//! What a sweep of a project as it is means for its quarantine: tests enter by the project's rule, are
//! measured, and leave when they are shown to be healthy. What has expired is told once.

use super::{Coordinator, EngineError};
use crate::db::{Deed, NewEvent, SweepRow};
use crate::events::Event;
use crate::plan::{Question, QuestionKind};
use crate::quarantine::rule::{self, Change, Found};
use crate::quarantine::{Entry, Origin, Standing};
use crate::report::Report;
use flakefarm_shared::{Digest, SweepId, TestId, UnixMicros};
use tracing::info;

impl Coordinator {
    /// Applies what follows from a sweep's report. Repeating it changes nothing.
    pub(super) async fn quarantine_after(
        &self,
        row: &SweepRow,
        question: &Question,
        report: &Report,
        now: UnixMicros,
    ) -> Result<(), EngineError> {
        // What is tried on a change, or in a changed world, says nothing of the project as it is.
        if question.kind != QuestionKind::Detect || question.rerun.is_some() || report.sweep.under.is_some() {
            return Ok(());
        }
        let entries = self.db.quarantine(&row.project).await?;
        let rule = self.db.quarantine_rule(&row.project).await?;
        if entries.is_empty() && !rule.enters {
            return Ok(());
        }
        let found: Vec<Found<'_>> = report
            .tests
            .iter()
            .map(|test| Found {
                test: &test.id,
                verdict: test.verdict,
                runs: test.attempts,
                failures: test.failures,
                lower: test.rate.as_ref().map_or(0.0, |rate| rate.lower),
            })
            .collect();
        let mut events = Vec::new();
        for change in rule::decide(&rule, &entries, &found, row.id, now) {
            match change {
                Change::Measured { entry, runs, failures } => {
                    self.db.note_measured(&row.project, &entry, row.id, runs, failures, now).await?;
                }
                Change::Leaves { entry, why } => {
                    let deed = Deed { at: now, who: "flakefarm", why: &why };
                    let (test, signature) = (entry.test.as_str(), entry.signature.as_deref());
                    if self.db.take_from_quarantine(&row.project, test, signature, "left", deed).await? {
                        info!(sweep.id = %row.id, test, why, "a test leaves quarantine");
                        events.push(changed(&row.project, Some(row.id), &entry, "left", &why, now));
                    }
                }
                Change::Enters { test, why, expires } => {
                    let owner = self.owners_of(&row.context).await.of(&test);
                    let entry = Entry {
                        test,
                        signature: None,
                        reason: why.clone(),
                        owner,
                        ticket: None,
                        expires,
                        added_at: now,
                        added_by: "rule".to_owned(),
                        origin: Origin::Rule,
                        runs: 0,
                        failures: 0,
                        measured_by: None,
                        measured_at: None,
                    };
                    let deed = Deed { at: now, who: "rule", why: &why };
                    self.db.put_in_quarantine(&row.project, &entry, deed).await?;
                    events.push(changed(&row.project, Some(row.id), &entry, "entered", &why, now));
                }
            }
        }
        Ok(self.db.record_events(&events).await?)
    }

    /// Events of entries that have expired: each is told once, however often this is asked.
    pub(super) async fn expired_quarantines(&self, now: UnixMicros) -> Result<Vec<NewEvent>, EngineError> {
        let all = self.db.all_quarantined().await?;
        let expired = all.iter().filter(|(_, entry)| entry.standing(now) == Standing::Expired);
        let event = |(project, entry): &(String, Entry)| {
            let why = format!("it held until {}: its failures count again", entry.expires);
            changed(project, None, entry, "expired", &why, now)
        };
        Ok(expired.map(event).collect())
    }
}

fn changed(
    project: &str,
    sweep: Option<SweepId>,
    entry: &Entry,
    action: &str,
    why: &str,
    now: UnixMicros,
) -> NewEvent {
    let named = format!("{project}\n{}\n{}", entry.test, entry.signature.as_deref().unwrap_or_default());
    let occasion = sweep.map_or_else(|| entry.expires.clone(), |sweep| sweep.to_string());
    NewEvent {
        key: format!("quarantine-{action}/{occasion}/{}", Digest::of(named.as_bytes())),
        at: now,
        project: Some(project.to_owned()),
        sweep,
        event: Event::QuarantineChanged {
            sweep,
            test: TestId(entry.test.clone()),
            action: action.to_owned(),
            why: why.to_owned(),
        },
    }
}
