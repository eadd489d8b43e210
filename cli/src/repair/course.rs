//! The course of one repair: what is looked at, which proposal is tried next, and when it is enough. What may be
//! tried at all is for the rules to say that a farm keeps to as well (`coordinator::repairs`).

use super::candidates::{self, Candidate, Proposed};
use super::experience::Experience;
use super::oracles;
use super::prove::{Answer, Asking, Before, ByArms};
use super::provider::Provider;
use super::sessions::{Record, Standing, Target};
use super::still;
use super::told::{Outcome, Proof, ToldProposal};
use super::writing::Kept;
use crate::ask::Session;
use crate::exit::{Complaint, Exit};
use crate::output::Outputs;
use crate::trees::{self, Base};
use flakefarm_coordinator::repairs::{Guess, Learnt, Rules};
use flakefarm_coordinator::report::Report;
use flakefarm_project::snapshot::Archive;
use flakefarm_repair::FileAdaptation;
use flakefarm_shared::Digest;
use std::path::PathBuf;

/// How sure a change is to be what was meant, if all of it follows from the difference of the code and leads back.
const FOLLOWS: f64 = 0.95;
/// The same where it does not lead back to the same text.
const FOLLOWS_ROUGHLY: f64 = 0.75;
/// Where a value had to be made up, or what the test asks for was changed.
pub(super) const ASSUMED: f64 = 0.5;
/// Of a cause that an experiment has shown.
const DIAGNOSED: f64 = 0.85;

/// The strategy of a person who chose among hunks.
const CHOSEN: &str = "chosen";

/// One repair on its way.
pub(super) struct Course<'a> {
    pub(super) session: Session<'a>,
    pub(super) state: PathBuf,
    pub(super) kept: Kept,
    pub(super) rules: Rules,
    pub(super) provider: Provider,
    pub(super) experience: Experience,
    pub(super) record: Record,
    /// The tree as it lies there.
    pub(super) here: Archive,
    /// Where trees of earlier revisions are.
    pub(super) bases: Bases,
    /// A person looks at everything before it is written: what is less sure counts, too.
    pub(super) stack_all: bool,
}

/// Where the tree is that the tests were right for.
pub(super) enum Bases {
    /// In the repository of the project.
    Repository,
    /// It was given, or there is none.
    Given(Option<Base>),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// There is nothing more to try.
    ToTheEnd,
    /// The user has ended it.
    Stopped(Exit),
}

/// A proposal that waits, and what it is to mend.
pub(super) struct Waiting {
    pub(super) candidate: Candidate,
    pub(super) failure: String,
    pub(super) confidence: f64,
    pub(super) by_arms: ByArms,
}

/// What was found out so far.
#[derive(Default)]
pub(super) struct Known {
    pub(super) base: Option<Base>,
    pub(super) before: Option<Before>,
    pub(super) diagnosis: Option<Report>,
    /// Where the outputs of the diagnosis are.
    pub(super) outputs: Option<Outputs>,
}

/// What came of trying.
pub(super) enum Tried {
    Proof(Outcome, Vec<String>),
    NoBudget,
    Stopped(Exit),
}

impl Course<'_> {
    pub(super) async fn run(&mut self) -> Result<Ended, Complaint> {
        let tests = self.record.request.tests.clone();
        let name = self.record.request.base.clone();
        self.record.told.left_out = 0;
        let base = match &mut self.bases {
            Bases::Repository => trees::base(&self.session.root, name.as_deref(), &self.here).await?,
            Bases::Given(base) => base.take(),
        };
        let mut known = Known { base, ..Known::default() };
        let mut waiting = Vec::new();
        if known.base.is_none() {
            self.record.told.no_base();
        }
        if let Some(base) = &known.base {
            let proposed = candidates::from_difference(base.archive.clone(), self.here.clone()).await?;
            self.record.told.changed(&base.name, &proposed);
            waiting.extend(proposed.candidates.into_iter().map(of_difference));
        }
        let all_tried = waiting.iter().all(|one| self.is_known(&one.candidate));
        if all_tried && !tests.is_empty() {
            match self.diagnose(&tests, &mut known).await? {
                Answer::Known(()) => {}
                Answer::NoBudget => {
                    self.session.progress.note("the budget for looking is spent: no cause is known");
                    self.record.told.ran_out_of_budget();
                }
                Answer::Stopped(exit) => return Ok(Ended::Stopped(exit)),
            }
            if let Some(report) = &known.diagnosis {
                let proposed = candidates::from_diagnosis(report, self.here.clone()).await?;
                self.record.told.diagnosed(report, &proposed);
                waiting.extend(of_diagnosis(report, proposed));
            }
        }
        let mut ended = self.try_all(waiting, &mut known).await?;
        if ended == Ended::ToTheEnd && self.is_open() {
            ended = Box::pin(self.show_oracles(&tests, &mut known)).await?;
        }
        if ended == Ended::ToTheEnd && !matches!(self.provider, Provider::None) && self.is_open() {
            ended = Box::pin(self.ask_provider(&mut known)).await?;
        }
        if ended == Ended::ToTheEnd {
            let proved = self.record.told.is_proved();
            self.record.standing = if proved { Standing::Proved } else { Standing::NotProved };
        }
        self.record.keep(&self.kept)?;
        Ok(ended)
    }

    /// Whether something may still be to be mended.
    fn is_open(&self) -> bool {
        let told = &self.record.told;
        !told.is_proved() && !told.nothing_fails()
    }

    fn is_known(&self, candidate: &Candidate) -> bool {
        self.record.course.knows(&fingerprint(&candidate.diff))
    }

    pub(super) fn asking<'s, 'p>(
        session: &'s mut Session<'p>,
        purse: &'s mut flakefarm_coordinator::repairs::Purse,
    ) -> Asking<'s, 'p> {
        Asking { session, purse }
    }

    async fn diagnose(&mut self, tests: &[String], known: &mut Known) -> Result<Answer<()>, Complaint> {
        let mut asking = Self::asking(&mut self.session, &mut self.record.looking);
        Ok(match Box::pin(asking.diagnosis(&self.here, tests)).await? {
            Answer::Known(ended) => {
                known.diagnosis = Some(ended.report);
                known.outputs = Some(ended.outputs);
                Answer::Known(())
            }
            Answer::NoBudget => Answer::NoBudget,
            Answer::Stopped(exit) => Answer::Stopped(exit),
        })
    }

    /// Tries what waits, the most promising first, until each test is mended or nothing is left.
    async fn try_all(&mut self, mut waiting: Vec<Waiting>, known: &mut Known) -> Result<Ended, Complaint> {
        let learnt = self.experience.learnt().await.unwrap_or_else(|complaint| {
            self.session.progress.note(&format!("warning: nothing is known of earlier repairs: {complaint}"));
            Learnt::default()
        });
        let mut current = self.here.clone();
        for step in 0.. {
            let guesses: Vec<Guess> = waiting.iter().map(guess).collect();
            let Some(turn) = learnt.next(&guesses, self.record.request.seed, step) else { break };
            let one = waiting.remove(turn.place);
            if turn.explores {
                self.session.progress.note(&format!(
                    "{} comes first for once: little is known of how it fares",
                    one.candidate.strategy
                ));
            }
            let tests = one.candidate.tests.clone();
            match Box::pin(self.try_one(&one, &current, known)).await? {
                None => {}
                Some(Tried::Stopped(exit)) => return Ok(Ended::Stopped(exit)),
                Some(Tried::NoBudget) => break,
                Some(Tried::Proof(Outcome::Proved, _)) => {
                    if tests.is_empty() {
                        break;
                    }
                    waiting.retain(|other| other.candidate.tests != tests);
                    // What is proved is part of the tree from now on.
                    current = self.with_what_is_proved().await?;
                    let left: Vec<Vec<String>> =
                        waiting.iter().map(|other| other.candidate.tests.clone()).collect();
                    if let (false, Some(report)) = (left.is_empty(), &known.diagnosis) {
                        let proposed = candidates::from_diagnosis(report, current.clone()).await?;
                        waiting = of_diagnosis(report, proposed);
                        waiting.retain(|other| left.contains(&other.candidate.tests));
                    }
                }
                Some(Tried::Proof(Outcome::NothingFails, _)) => {
                    waiting.retain(|other| other.candidate.tests != tests);
                }
                Some(Tried::Proof(..)) => {}
            }
        }
        Ok(Ended::ToTheEnd)
    }

    pub(super) async fn with_what_is_proved(&self) -> Result<Archive, Complaint> {
        let files = self.record.files();
        if files.is_empty() {
            return Ok(self.here.clone());
        }
        let diff = trees::diff(&trees::files(&self.here)?, &files).into_bytes();
        Ok(trees::patched(&self.session.root, &self.here, diff, "what is proved").await?.archive)
    }

    /// One proposal: gates, rules, experiment. Nothing if it is not tried.
    pub(super) async fn try_one(
        &mut self,
        one: &Waiting,
        current: &Archive,
        known: &mut Known,
    ) -> Result<Option<Tried>, Complaint> {
        let candidate = &one.candidate;
        let patch = fingerprint(&candidate.diff);
        if candidate.is_refused() {
            if !self.record.course.knows(&patch) {
                self.record.course.refuses(&patch);
                self.record.told.proposals.push(ToldProposal::refused(candidate, one.confidence));
                self.record.keep(&self.kept)?;
            }
            return Ok(None);
        }
        match self.record.course.may_try(&self.rules, &patch, &candidate.tests) {
            Ok(()) => {}
            Err(flakefarm_coordinator::repairs::Passed::TriedBefore) => return Ok(None),
            Err(flakefarm_coordinator::repairs::Passed::NoAttemptsLeft) => {
                self.record.told.left_out += 1;
                return Ok(None);
            }
        }
        Box::pin(self.experiment(one, current, known)).await.map(Some)
    }

    /// What the experiment says of it.
    async fn experiment(
        &mut self,
        one: &Waiting,
        current: &Archive,
        known: &mut Known,
    ) -> Result<Tried, Complaint> {
        let candidate = &one.candidate;
        let patch = fingerprint(&candidate.diff);
        let number = self.record.told.proposals.len() + 1;
        self.session.progress.note(&format!("proposal {number}: {}", candidate.explanation));
        let tests = self.record.request.tests.clone();
        let mut asking = Self::asking(&mut self.session, &mut self.record.mending);
        let answer = asking.proof(current, candidate, &tests, one.by_arms, &mut known.before);
        let proof = match Box::pin(answer).await? {
            Answer::Known(proof) => proof,
            Answer::NoBudget => {
                self.session.progress.note("the budget for mending is spent");
                let proof = Proof::undecided();
                self.record.told.proposals.push(ToldProposal::tried(candidate, one.confidence, proof));
                self.record.keep(&self.kept)?;
                return Ok(Tried::NoBudget);
            }
            Answer::Stopped(exit) => return Ok(Tried::Stopped(exit)),
        };
        // What fails without a difference of the code was right in this very tree.
        let old = known.base.as_ref().filter(|_| one.by_arms == ByArms::No);
        let old = old.map_or(current, |base| &base.archive).clone();
        let asked = still::asked(&mut self.session, &old, current, candidate, proof);
        let proof = match Box::pin(asked).await? {
            Ok(proof) => proof,
            Err(exit) => return Ok(Tried::Stopped(exit)),
        };
        self.record.course.tries(&patch, &candidate.tests);
        let (outcome, objections) = (proof.outcome, proof.objections());
        if matches!(outcome, Outcome::Proved | Outcome::NotProved | Outcome::AsksLess)
            && candidate.strategy != CHOSEN
        {
            self.note(guess(one), outcome == Outcome::Proved).await;
        }
        let (tests, failing_in) = (candidate.tests.clone(), candidate.failing_in.clone());
        let target = Target { tests, failing_in, by_arms: one.by_arms };
        if outcome != Outcome::Proved || candidate.strategy == CHOSEN {
            // Nothing is added to what is proved.
        } else if self.stack_all || one.confidence >= self.rules.threshold {
            self.record.proves(&candidate.files, one.confidence, target);
        } else {
            self.record.shows(&candidate.files, one.confidence, target);
            self.session.progress.note(&format!(
                "proved, but to be looked at: the confidence that it is what was meant is {:.2}, below {:.2} \
                 (--threshold; --interactive asks)",
                one.confidence, self.rules.threshold
            ));
        }
        self.record.told.proposals.push(ToldProposal::tried(candidate, one.confidence, proof));
        self.record.keep(&self.kept)?;
        Ok(Tried::Proof(outcome, objections))
    }

    /// What tests could expect instead, where code does something else: shown, and not tried.
    async fn show_oracles(&mut self, tests: &[String], known: &mut Known) -> Result<Ended, Complaint> {
        let Some(base) = &known.base else { return Ok(Ended::ToTheEnd) };
        let base = base.archive.clone();
        let here = self.here.clone();
        match self.failing_in(&here, tests, &base, &mut known.before).await? {
            Answer::Known(shown) => {
                (self.record.told.oracles, self.record.told.regressions) = (shown.oracles, shown.regressions);
            }
            Answer::NoBudget => return Ok(Ended::ToTheEnd),
            Answer::Stopped(exit) => return Ok(Ended::Stopped(exit)),
        }
        // What still fails where the tests follow the code fails for a reason of its own; before that, perhaps nothing ran.
        if let Some(diff) = self.record.told.follows_in_part() {
            let root = self.session.root.clone();
            let followed =
                trees::patched(&root, &here, diff.into_bytes(), "what follows the code").await?.archive;
            match self.failing_in(&followed, tests, &base, &mut None).await? {
                Answer::Known(shown) => self.record.told.regressions = shown.regressions,
                Answer::NoBudget => {}
                Answer::Stopped(exit) => return Ok(Ended::Stopped(exit)),
            }
        }
        Ok(Ended::ToTheEnd)
    }

    /// What is shown of the tests that fail in `tree`.
    async fn failing_in(
        &mut self,
        tree: &Archive,
        tests: &[String],
        base: &Archive,
        before: &mut Option<Before>,
    ) -> Result<Answer<oracles::Shown>, Complaint> {
        let mut asking = Self::asking(&mut self.session, &mut self.record.looking);
        match Box::pin(asking.before(tree, tests, before)).await? {
            Answer::Known(()) => {}
            Answer::NoBudget => return Ok(Answer::NoBudget),
            Answer::Stopped(exit) => return Ok(Answer::Stopped(exit)),
        }
        let Some(report) = before.as_ref().and_then(|before| before.report.as_ref()) else {
            return Ok(Answer::Known(oracles::Shown::default()));
        };
        let mended = self.record.told.mended_by_any();
        Ok(Answer::Known(oracles::shown(report, &mended, base, tree).await?))
    }

    async fn note(&self, guess: Guess, proved: bool) {
        if let Err(complaint) = self.experience.note(guess, proved).await {
            self.session.progress.note(&format!("warning: how it fared is not remembered: {complaint}"));
        }
    }

    /// Whether a part of what was proved is proved by itself; told like every other proposal.
    pub(super) async fn prove_part(&mut self, files: &[FileAdaptation]) -> Result<bool, Complaint> {
        let known_files = trees::files(&self.here)?;
        let here = self.here.clone();
        let words = (CHOSEN, "the chosen part of what was proved");
        // What the gates excused in the whole is excused in its part.
        let whole = candidates::of_edits(words, &known_files, self.record.files(), (Vec::new(), None));
        for target in self.record.targets.clone() {
            let candidate =
                candidates::of_edits(words, &known_files, files.to_vec(), (target.tests, target.failing_in));
            let refused = candidate.violations.iter().any(|found| !whole.violations.contains(found));
            let confidence = self.record.confidence;
            let one = Waiting { candidate, failure: "part".to_owned(), confidence, by_arms: target.by_arms };
            let proved = !refused
                && matches!(
                    Box::pin(self.experiment(&one, &here, &mut Known::default())).await?,
                    Tried::Proof(Outcome::Proved, _)
                );
            if !proved {
                self.session.progress.note("the chosen part is not proved: nothing is written");
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn guess(one: &Waiting) -> Guess {
    Guess { strategy: one.candidate.strategy.clone(), failure: one.failure.clone() }
}

/// What tells patches apart: files, and lines that go and come with those around them, wherever they stand.
pub(super) fn fingerprint(diff: &str) -> String {
    let lines: Vec<&str> = diff.lines().filter(|line| !line.starts_with("@@")).collect();
    Digest::of(lines.join("\n").as_bytes()).to_string()
}

fn of_difference(candidate: Candidate) -> Waiting {
    let confidence = match (candidate.assumes, candidate.inverse) {
        (true, _) => ASSUMED,
        (false, Some(true)) => FOLLOWS,
        (false, _) => FOLLOWS_ROUGHLY,
    };
    let by_arms = if candidate.failing_in.is_some() { ByArms::Yes } else { ByArms::No };
    Waiting { candidate, failure: "change".to_owned(), confidence, by_arms }
}

fn of_diagnosis(report: &Report, proposed: Proposed) -> Vec<Waiting> {
    let category = |candidate: &Candidate| {
        let test = report.tests.iter().find(|test| candidate.tests.contains(&test.id))?;
        Some(test.cause.as_ref()?.category.clone())
    };
    let waiting = |candidate: Candidate| Waiting {
        failure: category(&candidate).unwrap_or_else(|| "unknown".to_owned()),
        confidence: if candidate.assumes { ASSUMED } else { DIAGNOSED },
        by_arms: if candidate.failing_in.is_some() { ByArms::Yes } else { ByArms::No },
        candidate,
    };
    proposed.candidates.into_iter().map(waiting).collect()
}
