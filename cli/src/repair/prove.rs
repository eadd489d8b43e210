//! Proposals under experiment. A patch is a treatment and its proof a question like every other: here it is said
//! which question, what it may cost, and what its report proves.

use super::candidates::Candidate;
use super::told::Proof;
use crate::ask::{self, Asked, Ended, Session};
use crate::exit::{Complaint, Exit};
use crate::output::Outputs;
use crate::sweep::{Wishes, question};
use crate::trees;
use flakefarm_coordinator::experiment::{Budget, ValidateRequest};
use flakefarm_coordinator::plan::{Question, QuestionKind, Runs, TestFilter};
use flakefarm_coordinator::repairs::{Left, Purse};
use flakefarm_coordinator::report::{Report, Stopped};
use flakefarm_project::snapshot::Archive;
use flakefarm_shared::{Digest, World};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Runs of each test as it is, where it fails every time.
const RUNS_BEFORE: NonZeroU32 = NonZeroU32::new(1).expect("not 0");
/// Clean runs of each test with a change of the kind that fails every time or never, some of them in other
/// orders.
const RUNS_AFTER: NonZeroU32 = NonZeroU32::new(5).expect("not 0");

/// How a question ended.
pub(super) enum Answer<T> {
    /// With an answer.
    Known(T),
    /// What it may cost is spent.
    NoBudget,
    /// The user has ended it.
    Stopped(Exit),
}

/// How the tests fare in one tree.
pub(super) struct Before {
    tree: Digest,
    /// The tests that were asked about.
    tests: Vec<String>,
    /// Nothing if nothing could be run.
    pub(super) report: Option<Report>,
    /// What was printed where nothing could be run.
    pub(super) log: String,
    pub(super) outputs: Option<Outputs>,
}

/// Who asks, of which purse.
pub(super) struct Asking<'s, 'a> {
    pub(super) session: &'s mut Session<'a>,
    pub(super) purse: &'s mut Purse,
}

impl Asking<'_, '_> {
    /// Why the tests fail, by a diagnosis.
    pub(super) async fn diagnosis(
        &mut self,
        here: &Archive,
        tests: &[String],
    ) -> Result<Answer<Box<Ended>>, Complaint> {
        let kind = QuestionKind::Diagnose { tests: TestFilter(tests.to_vec()) };
        let question = self.question(kind, TestFilter::default())?;
        self.session.progress.note(&format!(
            "{}: {}; why do the tests fail? seed {}",
            self.session.loaded.spec.name,
            ask::describe(&self.session.loaded),
            question.seed
        ));
        self.ask(here, None, question).await
    }

    /// One run of the tests as they are, once for each tree.
    pub(super) async fn before(
        &mut self,
        tree: &Archive,
        tests: &[String],
        known: &mut Option<Before>,
    ) -> Result<Answer<()>, Complaint> {
        let digest = Digest::of(&tree.bytes);
        if known.as_ref().is_some_and(|known| known.tree == digest && known.tests == tests) {
            return Ok(Answer::Known(()));
        }
        let (report, log, outputs) = match Box::pin(self.sweep(tree, tests, RUNS_BEFORE)).await {
            Ok(Answer::Known(ended)) => (Some(ended.report), String::new(), Some(ended.outputs)),
            Ok(Answer::NoBudget) => return Ok(Answer::NoBudget),
            Ok(Answer::Stopped(exit)) => return Ok(Answer::Stopped(exit)),
            // Nothing could be imported: nothing passed.
            Err(complaint) if complaint.exit == Exit::NothingRan => {
                (None, format!("{}\n{}", complaint.message, complaint.log), None)
            }
            Err(complaint) => return Err(complaint),
        };
        *known = Some(Before { tree: digest, tests: tests.to_vec(), report, log, outputs });
        Ok(Answer::Known(()))
    }

    /// Whether the candidate mends its tests: if it is known where they fail, both arms in turns, as often as the
    /// old failure rate asks; else, since a tree whose tests cannot even be imported lists nothing that two arms
    /// could be compared on, one run without and enough runs with it.
    pub(super) async fn proof(
        &mut self,
        here: &Archive,
        candidate: &Candidate,
        tests: &[String],
        by_arms: ByArms,
        before: &mut Option<Before>,
    ) -> Result<Answer<Proof>, Complaint> {
        let diff = candidate.diff.clone().into_bytes();
        let root = self.session.root.clone();
        let patched = trees::patched(&root, here, diff, &candidate.strategy).await?.archive;
        let tests = if candidate.tests.is_empty() { tests } else { &candidate.tests };
        if by_arms == ByArms::Yes {
            return Box::pin(self.compared(here, patched, candidate, tests)).await;
        }
        Box::pin(self.swept(here, &patched, tests, before)).await
    }

    async fn compared(
        &mut self,
        here: &Archive,
        patched: Archive,
        candidate: &Candidate,
        tests: &[String],
    ) -> Result<Answer<Proof>, Complaint> {
        let kind = QuestionKind::Validate(Box::new(ValidateRequest {
            tests: TestFilter(tests.to_vec()),
            patched: Digest::of(&patched.bytes),
            patch: candidate.strategy.clone(),
            failing_in: candidate.failing_in.clone(),
        }));
        let question = self.question(kind, TestFilter::default())?;
        Ok(match self.ask(here, Some(patched), question).await? {
            Answer::Known(ended) => Answer::Known(Proof::of_comparison(&ended.report)),
            Answer::NoBudget => Answer::NoBudget,
            Answer::Stopped(exit) => Answer::Stopped(exit),
        })
    }

    async fn swept(
        &mut self,
        here: &Archive,
        patched: &Archive,
        tests: &[String],
        before: &mut Option<Before>,
    ) -> Result<Answer<Proof>, Complaint> {
        let suite = if self.is_unbounded() {
            // Nothing of it waits for anything else: all are asked at the same time, each of which begins with the same
            // preparations. The suite is asked before it is known whether it will be needed.
            let (mut beside, mut further) = (self.session.beside(), self.session.beside());
            let no_more = further.stop().clone();
            let whole = async {
                if tests.is_empty() {
                    return None;
                }
                let mut purse = Purse::of(None);
                let mut asking = Asking { session: &mut further, purse: &mut purse };
                Some(Box::pin(asking.sweep(patched, &[], RUNS_BEFORE)).await)
            };
            let mended = async {
                let mut purse = Purse::of(None);
                let mut asking = Asking { session: &mut beside, purse: &mut purse };
                let after = Box::pin(asking.sweep(patched, tests, RUNS_AFTER)).await;
                let failed = |ended: &Ended| ended.report.tests.iter().any(|test| test.failures > 0);
                if !matches!(&after, Ok(Answer::Known(ended)) if !failed(ended)) {
                    no_more.cancel();
                }
                after
            };
            let (known, after, whole) =
                tokio::join!(Box::pin(self.before(here, tests, before)), mended, whole);
            (known?, after, whole)
        } else {
            match Box::pin(self.before(here, tests, before)).await? {
                Answer::Known(()) => {}
                Answer::NoBudget => return Ok(Answer::NoBudget),
                Answer::Stopped(exit) => return Ok(Answer::Stopped(exit)),
            }
            (Answer::Known(()), Box::pin(self.sweep(patched, tests, RUNS_AFTER)).await, None)
        };
        let (known, after, whole) = suite;
        if let Answer::Stopped(exit) = known {
            return Ok(Answer::Stopped(exit));
        }
        let without = before.as_ref().and_then(|before| before.report.as_ref());
        let after = match after {
            Ok(Answer::Known(after)) => after.report,
            Ok(Answer::NoBudget) => return Ok(Answer::NoBudget),
            Ok(Answer::Stopped(exit)) => return Ok(Answer::Stopped(exit)),
            Err(complaint) if complaint.exit == Exit::NothingRan => {
                return Ok(Answer::Known(Proof::nothing_ran()));
            }
            Err(complaint) => return Err(complaint),
        };
        if is_short_of_budget(&after) {
            return Ok(Answer::NoBudget);
        }
        let proof = Proof::of_sweeps(without, &after);
        if tests.is_empty() || !proof.is_proved() {
            return Ok(Answer::Known(proof));
        }
        // The tests are mended: now for those beside them.
        let whole = match whole {
            Some(whole) => whole,
            None => Box::pin(self.sweep(patched, &[], RUNS_BEFORE)).await,
        };
        Box::pin(self.neighbours(here, patched, proof, whole)).await
    }

    /// Whether nothing that is asked may cost only so much.
    fn is_unbounded(&self) -> bool {
        matches!(self.purse.left(), Left::Everything)
    }

    /// `with` is the suite once with the change; what fails there and has not been told of must fail without the change,
    /// too.
    async fn neighbours(
        &mut self,
        here: &Archive,
        patched: &Archive,
        mut proof: Proof,
        with: Result<Answer<Box<Ended>>, Complaint>,
    ) -> Result<Answer<Proof>, Complaint> {
        let with = match with {
            Ok(Answer::Known(with)) => with.report,
            Ok(Answer::NoBudget) => return Ok(Answer::NoBudget),
            Ok(Answer::Stopped(exit)) => return Ok(Answer::Stopped(exit)),
            // The suite as a whole cannot be run: there are no neighbours to be looked at.
            Err(complaint) if complaint.exit == Exit::NothingRan => return Ok(Answer::Known(proof)),
            Err(complaint) => return Err(complaint),
        };
        let failing: Vec<String> = with
            .tests
            .iter()
            .filter(|test| test.failures > 0 && !proof.tells_of(&test.id))
            .map(|test| test.id.clone())
            .collect();
        if failing.is_empty() {
            return Ok(Answer::Known(proof));
        }
        // Nothing ran without the change: then nothing passed, and nothing is made worse.
        let without = match Box::pin(self.sweep(here, &failing, RUNS_BEFORE)).await {
            Ok(Answer::Known(without)) => without.report,
            Ok(Answer::NoBudget) => return Ok(Answer::NoBudget),
            Ok(Answer::Stopped(exit)) => return Ok(Answer::Stopped(exit)),
            Err(complaint) if complaint.exit == Exit::NothingRan => return Ok(Answer::Known(proof)),
            Err(complaint) => return Err(complaint),
        };
        let passing: Vec<String> = without
            .tests
            .iter()
            .filter(|test| test.attempts > 0 && test.failures == 0)
            .map(|test| test.id.clone())
            .collect();
        if passing.is_empty() {
            return Ok(Answer::Known(proof));
        }
        // One failure may be chance: it must fail again with the change, and not without it.
        let again = match Box::pin(self.sweep(patched, &passing, RUNS_AFTER)).await? {
            Answer::Known(again) => again.report,
            Answer::NoBudget => return Ok(Answer::NoBudget),
            Answer::Stopped(exit) => return Ok(Answer::Stopped(exit)),
        };
        for test in again.tests.iter().filter(|test| test.failures > 0) {
            proof.made_worse(test, without.tests.iter().find(|known| known.id == test.id));
        }
        Ok(Answer::Known(proof))
    }

    async fn sweep(
        &mut self,
        tree: &Archive,
        tests: &[String],
        runs: NonZeroU32,
    ) -> Result<Answer<Box<Ended>>, Complaint> {
        let question = self.question(QuestionKind::Detect, TestFilter(tests.to_vec()))?;
        let question = Question { runs: Runs::Fixed(runs), budget: None, ..question };
        self.ask(tree, None, question).await
    }

    fn question(&self, kind: QuestionKind, tests: TestFilter) -> Result<Question, Complaint> {
        question(Wishes { kind, tests, order: None, repeats: true }, self.session)
    }

    /// Asks within what the purse allows, and spends.
    async fn ask(
        &mut self,
        tree: &Archive,
        patched: Option<Archive>,
        mut question: Question,
    ) -> Result<Answer<Box<Ended>>, Complaint> {
        let mut end_after = None;
        match self.purse.left() {
            Left::Nothing => return Ok(Answer::NoBudget),
            Left::Everything => {}
            // A fixed number of runs is made, or it is not: it ends with its time.
            Left::Some(Budget::Clock(left)) if matches!(question.runs, Runs::Fixed(_)) => {
                end_after = Some(left)
            }
            Left::Some(_) if matches!(question.runs, Runs::Fixed(_)) => {}
            Left::Some(left) => question.budget = Some(smaller(question.budget, left)),
        }
        let began = Instant::now();
        let place = self.session.place(question.sandbox).await?;
        let snapshot = place.put(tree.bytes.clone()).await?;
        if let Some(patched) = patched {
            place.put(patched.bytes).await?;
        }
        let submission = self.session.submission(question, snapshot, tree.revision.clone(), World::Plain);
        let asked = match end_after {
            None => self.session.carry_out(place, &submission).await?,
            Some(limit) => self.session.carry_out_within(place, &submission, limit).await?,
        };
        let Asked::Ended(ended) = asked else { return Ok(Answer::Stopped(Exit::Clean)) };
        let sweep = &ended.report.sweep;
        self.purse.spend(began.elapsed(), sweep.container_seconds, sweep.attempts);
        if let Some(refusal) = &ended.failure {
            return Err(ask::refused(refusal));
        }
        if ended.state == "interrupted" || ended.state == "cancelled" {
            let out_of_time =
                end_after.is_some_and(|limit| began.elapsed() >= limit) && !self.session.is_stopped();
            return Ok(if out_of_time { Answer::NoBudget } else { Answer::Stopped(Exit::Interrupted) });
        }
        Ok(Answer::Known(ended))
    }
}

/// Whether two arms are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ByArms {
    /// The tests can be run without the change.
    Yes,
    /// Perhaps not even that.
    No,
}

fn is_short_of_budget(report: &Report) -> bool {
    report.sweep.stopped == Some(Stopped::Budget)
}

/// The smaller of two budgets; of two currencies, what is left in the purse.
fn smaller(asked: Option<Budget>, left: Budget) -> Budget {
    let least = |a: Duration, b: Duration| a.min(b);
    match (asked, left) {
        (Some(Budget::Clock(a)), Budget::Clock(b)) => Budget::Clock(least(a, b)),
        (Some(Budget::Container(a)), Budget::Container(b)) => Budget::Container(least(a, b)),
        (Some(Budget::Attempts(a)), Budget::Attempts(b)) => Budget::Attempts(a.min(b)),
        _ => left,
    }
}
