//! Asking the provider: what it is told, what is taken of its answers, and when it is enough.

use super::candidates;
use super::course::{ASSUMED, Course, Ended, Known, Tried, Waiting, fingerprint};
use super::prove::{Answer, ByArms};
use super::provider::{Attempt, Circumstances, FailingTest, File, Material, Reply, Request, Tree, short};
use super::told::{Outcome, ToldProposal};
use crate::exit::{Complaint, Exit};
use crate::trees::{self, Base};
use flakefarm_coordinator::experiment::FailingIn;
use flakefarm_coordinator::report::TestReport;
use flakefarm_repair::FileAdaptation;
use flakefarm_repair::tree::is_test_path;
use std::path::{Path, PathBuf};

/// Of a provider that says nothing about it, and the most that it may say.
const PROVIDED: f64 = 0.75;
const MOST_PROVIDED: f64 = 0.9;
/// Output of one test that a provider may see, in bytes, before it is cut further.
const OUTPUT_BYTES: usize = 64 << 10;

impl Course<'_> {
    /// Asks the provider until something is proved, it has no idea, or its attempts are spent.
    pub(super) async fn ask_provider(&mut self, known: &mut Known) -> Result<Ended, Complaint> {
        let current = self.with_what_is_proved().await?;
        let tests = self.record.request.tests.clone();
        if known.diagnosis.is_none() {
            let mut asking = Self::asking(&mut self.session, &mut self.record.looking);
            match Box::pin(asking.before(&current, &tests, &mut known.before)).await? {
                Answer::Known(()) => {}
                Answer::NoBudget => {
                    self.session.progress.note("the budget for looking is spent: the provider is not asked");
                    self.record.told.ran_out_of_budget();
                    return Ok(Ended::ToTheEnd);
                }
                Answer::Stopped(exit) => return Ok(Ended::Stopped(exit)),
            }
        }
        let (failing, failing_in, failure) = failing(known, &tests);
        let runnable =
            known.diagnosis.is_some() || known.before.as_ref().is_some_and(|one| one.report.is_some());
        if failing.is_empty() && runnable {
            self.record.told.found_nothing_failing();
            return Ok(Ended::ToTheEnd);
        }
        if let Some(warning) = self.provider.warning().await {
            self.session.progress.note(&warning);
        }
        let tree = Tree::of(&current)?;
        let material = self.material(known, &tree, &failing).await?;
        let secrets = self.provider.secrets();
        let ids: Vec<String> = failing.iter().map(|test| test.id.clone()).collect();
        while self.record.rounds < self.rules.attempts.get() {
            let request = Request::new(&material, self.record.rounds, &self.record.attempts, &secrets);
            self.session.progress.note(&format!(
                "asking the provider, {} of at most {}",
                self.record.rounds + 1,
                self.rules.attempts
            ));
            let circumstances = Circumstances {
                tree: &tree,
                original: &self.here,
                root: &self.session.root,
                state: &self.state,
                seed: self.record.request.seed,
                ledger: &mut self.record.ledger,
                stop: self.session.stop(),
            };
            let reply = Box::pin(self.provider.ask(&request, circumstances)).await;
            self.record.told.provider = self.record.ledger.words().or(self.record.told.provider.take());
            if self.session.is_stopped() {
                return Ok(Ended::Stopped(Exit::Interrupted));
            }
            let strategy = self.provider.strategy();
            self.record.rounds += 1;
            let proposal = match reply? {
                Reply::Proposal(proposal) => proposal,
                Reply::NoIdea => {
                    self.session.progress.note("the provider proposes nothing");
                    break;
                }
                Reply::Over(why) => {
                    self.session.progress.note(&format!("the provider is not asked any more: {why}"));
                    self.record.told.provider = Some(match self.record.ledger.words() {
                        Some(words) => format!("{words}; {why}"),
                        None => why,
                    });
                    break;
                }
                Reply::Refused(why) => {
                    self.session.progress.note(&format!("refused: {}", short(&why, 200)));
                    self.record.told.proposals.push(ToldProposal::nonsense(strategy, &why));
                    let attempt = Attempt { diff: String::new(), refused_because: vec![why] };
                    if self.same_as_before(&attempt) {
                        self.session
                            .progress
                            .note("refused for the same reason twice: it is not asked again");
                        break;
                    }
                    self.record.attempts.push(attempt);
                    self.record.keep(&self.kept)?;
                    continue;
                }
            };
            let keeps = keeps_what_tests_ask(&tree, &proposal.files);
            let confidence = match (keeps, proposal.confidence) {
                (true, sure) => sure.unwrap_or(PROVIDED).min(MOST_PROVIDED),
                (false, sure) => sure.unwrap_or(ASSUMED).min(ASSUMED),
            };
            let words = (strategy, proposal.rationale.as_str());
            let target = (ids.clone(), failing_in.clone());
            let candidate = candidates::of_edits(words, &tree.files, proposal.files, target);
            let patch = fingerprint(&candidate.diff);
            if self.record.course.knows(&patch) {
                self.session.progress.note("the provider proposes the same again: it is not asked any more");
                break;
            }
            let objections: Vec<String> = candidate.violations.iter().map(ToString::to_string).collect();
            let diff = candidate.diff.clone();
            let by_arms = if runnable { ByArms::Yes } else { ByArms::No };
            let one = Waiting { candidate, failure: failure.clone(), confidence, by_arms };
            let refused_because = match Box::pin(self.try_one(&one, &current, known)).await? {
                Some(Tried::Stopped(exit)) => return Ok(Ended::Stopped(exit)),
                Some(Tried::NoBudget | Tried::Proof(Outcome::Proved | Outcome::NothingFails, _)) => break,
                Some(Tried::Proof(_, objections)) => objections,
                None if objections.is_empty() => vec!["its tests have had their attempts".to_owned()],
                None => objections,
            };
            self.record.attempts.push(Attempt { diff, refused_because });
            self.record.keep(&self.kept)?;
        }
        Ok(Ended::ToTheEnd)
    }

    fn same_as_before(&self, attempt: &Attempt) -> bool {
        self.record.attempts.last().is_some_and(|last| last.refused_because == attempt.refused_because)
    }

    /// What the provider is told.
    async fn material(
        &self,
        known: &Known,
        tree: &Tree,
        failing: &[TestReport],
    ) -> Result<Material, Complaint> {
        let mut tests = Vec::new();
        for test in failing {
            let signature = test.failures_by_signature.first();
            let mut output = String::new();
            let outputs =
                known.outputs.as_ref().or(known.before.as_ref().and_then(|one| one.outputs.as_ref()));
            if let (Some(outputs), Some(digest)) = (outputs, signature.and_then(|one| one.output.as_ref())) {
                output = outputs.text(digest).await.unwrap_or_default();
                output.truncate(output.floor_char_boundary(OUTPUT_BYTES));
            }
            tests.push(FailingTest {
                id: test.id.clone(),
                cause: test.cause.as_ref().map(|cause| cause.category.clone()),
                exception: signature.and_then(|one| one.exception.clone()),
                message: signature.map(|one| one.message.clone()).unwrap_or_default(),
                output,
            });
        }
        if let Some(before) = &known.before {
            let errors = before.report.iter().flat_map(|report| &report.sweep.collection_errors);
            tests.extend(errors.map(|error| FailingTest {
                id: error.path.clone(),
                cause: Some("it cannot be collected".to_owned()),
                exception: None,
                message: error.message.clone(),
                output: String::new(),
            }));
            if before.report.is_none() {
                tests.push(FailingTest {
                    id: "the suite".to_owned(),
                    cause: Some("no test could be run".to_owned()),
                    exception: None,
                    message: before.log.clone(),
                    output: String::new(),
                });
            }
        }
        Ok(Material {
            project: self.session.loaded.spec.name.clone(),
            changes: self.record.told.changes().to_vec(),
            diff: known
                .base
                .as_ref()
                .map(|base| code_difference(base, tree))
                .transpose()?
                .unwrap_or_default(),
            files: test_files(tree, &tests),
            tests,
        })
    }
}

/// The tests that fail, where, and what that is called.
fn failing(known: &Known, tests: &[String]) -> (Vec<TestReport>, Option<FailingIn>, String) {
    let change = if known.base.is_some() { "change" } else { "unknown" };
    let report = known.diagnosis.as_ref().or(known.before.as_ref().and_then(|one| one.report.as_ref()));
    let Some(report) = report else { return (Vec::new(), None, change.to_owned()) };
    let failing: Vec<TestReport> = report
        .tests
        .iter()
        .filter(|test| test.failures > 0 && (known.diagnosis.is_none() || is_asked(test, tests)))
        .cloned()
        .collect();
    let of_cause = failing.iter().find_map(|test| {
        let cause = test.cause.as_ref().filter(|_| known.diagnosis.is_some())?;
        Some((cause.experiment.as_ref().and_then(|one| one.failing_in.clone()), cause.category.clone()))
    });
    match of_cause {
        // Where several tests fail in places of their own, it is measured first.
        Some((failing_in, category)) if failing.len() == 1 => (failing, failing_in, category),
        Some((_, category)) => (failing, None, category),
        None => (failing, None, change.to_owned()),
    }
}

/// A diagnosis tells of the tests that ran with those that were asked about, too.
fn is_asked(test: &TestReport, tests: &[String]) -> bool {
    test.cause.is_some() || tests.contains(&test.id)
}

/// The files of the failing tests, and what configures them.
fn test_files(tree: &Tree, failing: &[FailingTest]) -> Vec<File> {
    let mut wanted: Vec<String> = Vec::new();
    for test in failing {
        let path = test.id.split("::").next().unwrap_or(&test.id).to_owned();
        let above = Path::new(&path).ancestors().skip(1).map(|place| place.join("conftest.py"));
        let above: Vec<String> = above.filter_map(|path| path.to_str().map(str::to_owned)).collect();
        for path in std::iter::once(path).chain(above) {
            if !wanted.contains(&path) {
                wanted.push(path);
            }
        }
    }
    let text = |path: &String| {
        let bytes = tree.files.get(Path::new(path))?;
        Some(File { path: path.clone(), text: String::from_utf8(bytes.clone()).ok()? })
    };
    wanted.iter().filter_map(text).collect()
}

/// What changed in the code under test, as a diff.
fn code_difference(base: &Base, tree: &Tree) -> Result<String, Complaint> {
    let old = trees::files(&base.archive)?;
    let changed = |(path, bytes): (&PathBuf, &Vec<u8>)| {
        let path = path.to_str().filter(|path| path.ends_with(".py") && !is_test_path(path))?;
        if old.get(Path::new(path)) == Some(bytes) {
            return None;
        }
        Some(FileAdaptation { path: path.to_owned(), text: String::from_utf8(bytes.clone()).ok()? })
    };
    let files: Vec<FileAdaptation> = tree.files.iter().filter_map(changed).collect();
    Ok(trees::diff(&old, &files))
}

/// Whether every test still asks for what it asked for, as far as its text shows.
fn keeps_what_tests_ask(tree: &Tree, files: &[FileAdaptation]) -> bool {
    let before = |path: &str| -> Option<&str> { std::str::from_utf8(tree.files.get(Path::new(path))?).ok() };
    files.iter().all(|file| {
        before(&file.path).is_none_or(|old| flakefarm_repair::expectations::are_kept(old, &file.text))
    })
}
