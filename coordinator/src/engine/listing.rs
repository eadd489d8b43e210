//! The first step of a sweep: a worker lists the tests, and what cannot be swept is refused.

use super::advance::Spent;
use super::{Coordinator, EngineError};
use crate::db::{JobState, Settlement, SweepRow, SweepState};
use crate::events::Event;
use crate::experiment::{JobKey, narrowed};
use crate::plan::Question;
use flakefarm_shared::{JobId, JobReport, Listing, Refusal, TestId, WIRE_VERSION, Work, now_micros};

impl Coordinator {
    /// The tests of a sweep, once they are known.
    pub(super) async fn listing(&self, row: &SweepRow) -> Result<Option<Listing>, EngineError> {
        match &row.listing {
            Some(digest) => Ok(Some(self.blobs.get_json(digest, "a listing").await?)),
            None => Ok(None),
        }
    }

    pub(super) async fn advance_listing(
        &self,
        row: &SweepRow,
        question: &Question,
    ) -> Result<(), EngineError> {
        let id = JobKey::LIST.id(row.id);
        let Some(job) = self.db.job(id).await? else {
            let jobs = self.new_jobs(row, [(JobKey::LIST, Work::List)]).await?;
            self.db.insert_jobs(row.id, &jobs, now_micros()).await?;
            self.wake_outbox.notify_one();
            return Ok(());
        };
        let JobState::Settled { settlement, .. } = &job.state else { return Ok(()) };
        let refusal = match settlement {
            Settlement::Done { report } => {
                let report: JobReport = self.blobs.unpack(report, "a job report").await?;
                match self.take_listing(row, question, id, report).await? {
                    Ok(()) => return Ok(()),
                    Err(refusal) => refusal,
                }
            }
            Settlement::Refused(refusal) => refusal.clone(),
            Settlement::Dead { reason } => Refusal {
                message: "the farm could not list the tests".to_owned(),
                log: reason.clone(),
                hint: Some("flakefarm doctor says what is wrong with this machine".to_owned()),
            },
            Settlement::Cancelled => return Ok(()),
        };
        self.finish(row, question, SweepState::Failed(refusal), Spent::Enough).await
    }

    /// Records what a worker listed, or says why nothing can be done with it.
    async fn take_listing(
        &self,
        row: &SweepRow,
        question: &Question,
        job: JobId,
        report: JobReport,
    ) -> Result<Result<(), Refusal>, EngineError> {
        let listing = match listing_of(job, report) {
            Ok(listing) => listing,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let question = &match narrowed(question, &listing) {
            Ok(asked) => asked.question,
            Err(incapable) => {
                return Ok(Err(Refusal { message: incapable.to_string(), log: String::new(), hint: None }));
            }
        };
        let unmatched = question.unmatched(&listing.tests);
        let selected = if unmatched.is_empty() { question.targets(&listing.tests) } else { Vec::new() };
        if let Err(error) = self.affords_one_round(row, question, &selected, &listing).await? {
            return Ok(Err(Refusal {
                message: error.to_string(),
                log: String::new(),
                hint: Some("raise --budget, or select fewer tests with --tests".to_owned()),
            }));
        }
        if selected.is_empty() {
            return Ok(Err(no_such_test(question, &listing.tests)));
        }
        if let Err(exceeded) = self.limits.admit_tests(question, selected.len()) {
            return Ok(Err(exceeded.refusal()));
        }
        self.note_listing(row, question, &listing).await?;
        let digest = self.blobs.put_json(&listing).await?;
        self.db.set_listing(row.id, &digest).await?;
        self.events.send(Event::Listed {
            sweep: row.id,
            tests: selected.len(),
            collection_errors: listing.collection_errors.len(),
        });
        self.wake.notify_one();
        Ok(Ok(()))
    }
}

/// The listing in a report on the job `job`, if it is that.
fn listing_of(job: JobId, report: JobReport) -> Result<Listing, Refusal> {
    let unusable = |message: String| Refusal {
        message,
        log: String::new(),
        hint: Some("do coordinator and workers run the same version of flakefarm?".to_owned()),
    };
    if report.v != WIRE_VERSION {
        return Err(unusable(format!(
            "the worker's listing is of version {}, this coordinator reads version {WIRE_VERSION}",
            report.v
        )));
    }
    if report.job != job {
        return Err(unusable(format!("the worker reported job {} in the place of {job}", report.job)));
    }
    report.listing.ok_or_else(|| unusable("the worker reported no listing of the tests".to_owned()))
}

fn no_such_test(question: &Question, tests: &[TestId]) -> Refusal {
    match question.unmatched(tests).as_slice() {
        [] => Refusal {
            message: "the selection matches no test".to_owned(),
            log: nearest_tests(&question.tests.describe(), tests),
            hint: Some("--tests takes ids, parts of ids or patterns with *".to_owned()),
        },
        unmatched => Refusal {
            message: format!("no test is called {}", unmatched.join(", ")),
            log: nearest_tests(&unmatched.join(", "), tests),
            hint: Some("a test is named by its id, a part of it or a pattern with *".to_owned()),
        },
    }
}

/// Up to five ids that share a word with the pattern, for people who mistyped one.
fn nearest_tests(wanted: &str, tests: &[TestId]) -> String {
    let mut ranked: Vec<_> =
        tests.iter().map(|test| (common_prefix(wanted, test.as_str()), test.as_str())).collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let nearest: Vec<_> = ranked.into_iter().take(5).map(|(_, test)| test).collect();
    format!("wanted: {wanted}\nthere are {} tests, such as:\n  {}", tests.len(), nearest.join("\n  "))
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::SweepId;

    #[test]
    fn what_is_no_listing_of_this_job_is_refused_with_a_reason() {
        let job = JobKey::LIST.id(SweepId::new());
        let other = JobKey::LIST.id(SweepId::new());
        let report = |v, job| JobReport { v, job, listing: None, attempts: Vec::new() };
        let said = |report| listing_of(job, report).unwrap_err().message;
        assert_eq!(said(report(WIRE_VERSION, job)), "the worker reported no listing of the tests");
        assert!(said(report(WIRE_VERSION + 1, job)).contains(&format!("version {}", WIRE_VERSION + 1)));
        assert!(said(report(WIRE_VERSION, other)).contains(&other.to_string()));
    }
}
