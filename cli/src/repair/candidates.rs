//! Proposals that have been through the gates which need no experiment.

use crate::exit::Complaint;
use crate::trees;
use flakefarm_coordinator::experiment::FailingIn;
use flakefarm_coordinator::report::Report;
use flakefarm_project::snapshot::Archive;
use flakefarm_repair::adapt::{AsyncStyle, Note};
use flakefarm_repair::changes::{Change, ChangeKind};
use flakefarm_repair::difference::from_difference as from_difference_of;
use flakefarm_repair::flaky::{self, Category, Finding, LeakedState};
use flakefarm_repair::gates::{Violation, cheats};
use flakefarm_repair::{FileAdaptation, SourceTree};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is proposed, and what it rests on.
pub(super) struct Proposed {
    /// What changed in the code, a line each.
    pub(super) changes: Vec<String>,
    /// What could not be decided, a line each.
    pub(super) notes: Vec<String>,
    pub(super) candidates: Vec<Candidate>,
}

/// One proposal.
pub(super) struct Candidate {
    /// How.
    pub(super) strategy: String,
    /// What it does, in a sentence.
    pub(super) explanation: String,
    pub(super) files: Vec<FileAdaptation>,
    /// The same as a patch.
    pub(super) diff: String,
    /// What the gates object to.
    pub(super) violations: Vec<Violation>,
    /// Whether the change in the other direction leads back to the tests as they were; where that can be
    /// asked.
    pub(super) inverse: Option<bool>,
    /// Whether something had to be made up.
    pub(super) assumes: bool,
    /// The tests it is to mend; empty: those that fail.
    pub(super) tests: Vec<String>,
    /// Where they fail, if that is known.
    pub(super) failing_in: Option<FailingIn>,
}

impl Candidate {
    /// Whether the gates refuse it.
    pub(super) fn is_refused(&self) -> bool {
        !self.violations.is_empty()
    }
}

/// What follows from the difference between two trees.
pub(super) async fn from_difference(old: Archive, new: Archive) -> Result<Proposed, Complaint> {
    trees::analyse(move || {
        let (old_files, new_files) = (trees::files(&old)?, trees::files(&new)?);
        let (old, new) = (trees::sources(&old_files)?, trees::sources(&new_files)?);
        let style = async_style(&new_files);
        let flakefarm_repair::difference::Proposed { changes, adapted, violations, inverse } =
            from_difference_of(&old, &new, style);
        let mut candidates = Vec::new();
        if !adapted.files.is_empty() {
            candidates.push(Candidate {
                strategy: "adapt".to_owned(),
                explanation: "the tests' references follow the code".to_owned(),
                diff: trees::diff(&new_files, &adapted.files),
                violations,
                inverse: Some(inverse),
                assumes: !adapted.is_proved(),
                files: adapted.files,
                tests: Vec::new(),
                failing_in: None,
            });
        }
        let unreadable = new.unreadable().iter().map(|(path, why)| format!("{path} was not read: {why}"));
        let notes = adapted.notes.iter().map(note).chain(unreadable).collect();
        Ok(Proposed { changes: changes.list().iter().map(change).collect(), notes, candidates })
    })
    .await
}

/// What follows from a diagnosis of each of its tests.
pub(super) async fn from_diagnosis(report: &Report, here: Archive) -> Result<Proposed, Complaint> {
    let findings: Vec<(Finding, Option<FailingIn>)> = report.tests.iter().filter_map(finding).collect();
    trees::analyse(move || {
        let files = trees::files(&here)?;
        let tree = trees::sources(&files)?;
        let mut candidates = Vec::new();
        for (finding, failing_in) in findings {
            candidates.extend(of_finding(&tree, &files, &finding, failing_in.as_ref()));
        }
        Ok(Proposed { changes: Vec::new(), notes: Vec::new(), candidates })
    })
    .await
}

/// What somebody else proposes: the changed files, whole.
pub(super) fn of_edits(
    (strategy, explanation): (&str, &str),
    tree: &BTreeMap<PathBuf, Vec<u8>>,
    files: Vec<FileAdaptation>,
    (tests, failing_in): (Vec<String>, Option<FailingIn>),
) -> Candidate {
    Candidate {
        strategy: strategy.to_owned(),
        explanation: explanation.to_owned(),
        diff: trees::diff(tree, &files),
        violations: objections(tree, &files, &[]),
        inverse: None,
        assumes: false,
        files,
        tests,
        failing_in,
    }
}

fn of_finding(
    tree: &SourceTree,
    files: &BTreeMap<PathBuf, Vec<u8>>,
    finding: &Finding,
    failing_in: Option<&FailingIn>,
) -> Vec<Candidate> {
    flaky::propose(tree, finding)
        .into_iter()
        .map(|proposal| Candidate {
            strategy: proposal.strategy.word().to_owned(),
            explanation: proposal.explanation,
            diff: trees::diff(files, &proposal.files),
            violations: objections(files, &proposal.files, proposal.strategy.excused()),
            inverse: None,
            assumes: false,
            files: proposal.files,
            tests: vec![finding.test.clone()],
            failing_in: failing_in.cloned(),
        })
        .collect()
}

/// What the gates object to, beside what is the point of the proposal.
fn objections(
    files: &BTreeMap<PathBuf, Vec<u8>>,
    changed: &[FileAdaptation],
    excused: &[flakefarm_repair::gates::Rule],
) -> Vec<Violation> {
    let of_file = |file: &FileAdaptation| {
        let before =
            files.get(Path::new(&file.path)).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        cheats(&file.path, before.as_deref(), Some(&file.text), str::to_owned)
    };
    changed.iter().flat_map(of_file).filter(|violation| !excused.contains(&violation.rule)).collect()
}

/// How the project runs coroutines, as far as its configuration says.
fn async_style(files: &BTreeMap<PathBuf, Vec<u8>>) -> AsyncStyle {
    AsyncStyle::of_configuration(|name| {
        files.get(Path::new(name)).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    })
}

/// What a diagnosed test says to repairs.
fn finding(test: &flakefarm_coordinator::report::TestReport) -> Option<(Finding, Option<FailingIn>)> {
    let cause = test.cause.as_ref()?;
    let category = match cause.category.as_str() {
        "order_victim" => Category::OrderVictim,
        "order_brittle" => Category::OrderBrittle,
        "not_idempotent" => Category::NotIdempotent,
        "randomness" => Category::Randomness,
        "hash_order" => Category::HashOrder,
        "time_zone" => Category::TimeZone,
        "clock" => Category::Clock,
        "timing" => Category::Timing,
        "file_system" => Category::FileSystem,
        "locale" => Category::Locale,
        _ => return None,
    };
    let experiment = cause.experiment.as_ref()?;
    let state = experiment
        .state
        .iter()
        .map(|found| LeakedState {
            test: found.test.clone(),
            kind: found.kind.clone(),
            name: found.name.clone(),
            before: found.before.clone(),
            after: found.after.clone(),
        })
        .collect();
    let others =
        experiment.order.as_ref().and_then(|order| order.groups.first().cloned()).unwrap_or_default();
    let finding = Finding { test: test.id.clone(), category, state, others };
    Some((finding, experiment.failing_in.clone()))
}

fn change(change: &Change) -> String {
    let path = &change.path;
    match &change.kind {
        ChangeKind::Renamed(name) => format!("{path} is called {name} now"),
        ChangeKind::Moved(to) => format!("{path} is {to} now"),
        ChangeKind::Signature(old, new) => format!("{path}({old}) takes ({new}) now"),
        ChangeKind::NowAsync => format!("{path} must be awaited now"),
        ChangeKind::NoLongerAsync => format!("{path} need not be awaited any more"),
        ChangeKind::NowCalled => format!("{path} was a property, and must be called now"),
        ChangeKind::NowProperty => format!("{path} is a property now"),
        ChangeKind::Gone => format!("{path} is gone, and it is not clear what took its place"),
    }
}

fn note(note: &Note) -> String {
    match note {
        Note::ValueAssumed { path, line, called } => {
            format!("{path}:{line}: {called} needs a value that the code does not show: None was put in")
        }
        Note::CallNotUnderstood { path, line, called } => {
            format!("{path}:{line}: the arguments of {called} are unpacked: left as they are")
        }
        Note::CannotAwait { path, line } => format!("{path}:{line}: nothing can be awaited here"),
        Note::Unsound { path, reason } => format!("{path} was left as it is: {reason}"),
    }
}
