//! The gates that need the code to be changed: can the repaired test still fail, and does it run all that it ran? One
//! question about the old tests and one about the repaired ones, each with all mutants of the code (crate `repair`,
//! `mutants`).

use super::beside::StillFailing;
use super::candidates::Candidate;
use super::told::{Outcome, Proof};
use crate::ask::{Asked, Session};
use crate::exit::{Complaint, Exit};
use crate::sweep::{Wishes, question};
use crate::trees;
use flakefarm_coordinator::plan::{Question, QuestionKind, Runs, TestFilter};
use flakefarm_project::snapshot::Archive;
use flakefarm_repair::SourceTree;
use flakefarm_repair::changes::Changes;
use flakefarm_repair::mutants::{self, Mutants, Noticed};
use flakefarm_shared::Class;
use std::num::NonZeroU32;

/// Each mutant meets each test once.
const RUNS: NonZeroU32 = NonZeroU32::new(1).expect("not 0");

/// The two trees with all mutants in them.
struct Laid {
    mutants: Mutants,
    /// Patches of the old tree and of the repaired one.
    before: String,
    after: String,
}

/// Asks whether the tests of a proved candidate can still fail; it is proved no more if they notice less than before.
/// `old` is the tree in which the tests were right.
pub(super) async fn asked(
    session: &mut Session<'_>,
    old: &Archive,
    here: &Archive,
    candidate: &Candidate,
    mut proof: Proof,
) -> Result<Result<Proof, Exit>, Complaint> {
    if proof.outcome != Outcome::Proved {
        return Ok(Ok(proof));
    }
    let diff = candidate.diff.clone().into_bytes();
    let repaired = trees::patched(&session.root, here, diff, &candidate.strategy).await?.archive;
    let Some(laid) = laid(old, &repaired, proof.mended()).await? else {
        proof.still_fails = Some(StillFailing::NotAsked);
        return Ok(Ok(proof));
    };
    session.progress.note(&format!("can it still fail? {} mutants of the code", laid.mutants.mutants.len()));
    let mut beside = session.beside();
    // One question does not wait for the other.
    let (before, after) = tokio::join!(
        Box::pin(noticed_in(session, old, &laid.before, &laid.mutants)),
        Box::pin(noticed_in(&mut beside, &repaired, &laid.after, &laid.mutants))
    );
    let (before, after) = match (before?, after?) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(exit), _) | (_, Err(exit)) => return Ok(Err(exit)),
    };
    let told = laid.mutants.compare(&before, &after);
    if !told.is_kept() {
        proof.outcome = Outcome::AsksLess;
    }
    proof.still_fails = Some(StillFailing::of(laid.mutants.mutants.len(), told));
    Ok(Ok(proof))
}

async fn laid(old: &Archive, repaired: &Archive, tests: Vec<String>) -> Result<Option<Laid>, Complaint> {
    let (old, repaired) = (old.clone(), repaired.clone());
    trees::analyse(move || {
        let (old_files, new_files) = (trees::files(&old)?, trees::files(&repaired)?);
        let sources = |files| -> Result<SourceTree, Complaint> { trees::sources(files) };
        let (old, new) = (sources(&old_files)?, sources(&new_files)?);
        let changes = Changes::between(&old, &new);
        Ok(mutants::plan(&old, &new, &changes, &tests).map(|mutants| Laid {
            before: trees::diff(&old_files, &mutants.before),
            after: trees::diff(&new_files, &mutants.after),
            mutants,
        }))
    })
    .await
}

async fn noticed_in(
    session: &mut Session<'_>,
    tree: &Archive,
    diff: &str,
    mutants: &Mutants,
) -> Result<Result<Noticed, Exit>, Complaint> {
    let mutated = trees::patched(&session.root, tree, diff.as_bytes().to_vec(), "the mutants").await?.archive;
    let tests = TestFilter(mutants.tests.clone());
    let wishes = Wishes { kind: QuestionKind::Detect, tests, order: None, repeats: true };
    let mut question = Question { runs: Runs::Fixed(RUNS), budget: None, ..question(wishes, session)? };
    session.hurry(&mut question);
    Ok(match session.ask_about(&mutated, question, Some(Class::Interactive)).await? {
        Asked::Detached => Err(Exit::Clean),
        Asked::Ended(ended) if ended.state == "interrupted" || ended.state == "cancelled" => {
            Err(Exit::Interrupted)
        }
        // Nothing could be collected: nothing was noticed.
        Asked::Ended(ended) if ended.failure.is_some() => Ok(Noticed::new()),
        Asked::Ended(ended) => {
            let ran = ended.report.tests.iter().filter(|test| test.attempts > 0);
            Ok(mutants.noticed(ran.map(|test| (test.id.as_str(), test.failures > 0))))
        }
    })
}
