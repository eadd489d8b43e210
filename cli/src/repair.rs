//! `flakefarm repair`: proposes changes of tests and proves them by experiment. What the difference between
//! two trees, or a diagnosis, says of a test becomes proposals (crate `repair`); gates refuse those that ask
//! less of a test; each that is left is one arm of a question. Nothing is written unless it is proved and
//! `--apply` was given.

mod candidates;
mod told;

use crate::args::{Format, RepairArgs};
use crate::ask::{self, Asked, Ended, Session, describe, tests_and_path};
use crate::exit::{Complaint, Exit};
use crate::sweep::{Wishes, question};
use crate::{output, signals, trees};
use candidates::{Candidate, Proposed};
use flakefarm_coordinator::experiment::ValidateRequest;
use flakefarm_coordinator::plan::{Question, QuestionKind, Runs, TestFilter};
use flakefarm_coordinator::report::Report;
use flakefarm_project::snapshot::Archive;
use flakefarm_shared::World;
use std::num::NonZeroU32;
use told::{Outcome, Proof, Told, ToldProposal};

/// Runs of each test as it is, where it fails every time.
const RUNS_BEFORE: NonZeroU32 = NonZeroU32::new(1).expect("not 0");
/// Clean runs of each test with a change of the kind that fails every time or never, some of them in other
/// orders.
const RUNS_AFTER: NonZeroU32 = NonZeroU32::new(5).expect("not 0");

pub(crate) async fn repair(args: &RepairArgs) -> Result<Exit, Complaint> {
    let (tests, path) = tests_and_path(&args.tests);
    let mut session = Session::open(&args.ask, &path, &args.options(), signals::stop_on_signal()?)?;
    if session.printed_settings()? {
        return Ok(Exit::Clean);
    }
    if args.ask.farm.detach {
        return Err(Complaint::usage("repair asks several questions in turn and cannot be left")
            .hint("run it without --detach"));
    }
    if !matches!(args.ask.output.format, Format::Human | Format::Json) {
        return Err(Complaint::usage("repair writes for people or as JSON").hint("--format human or json"));
    }
    let here = session.archive().await?;
    let mut told = Told::new(&session.loaded.spec.name);
    let mut candidates = Vec::new();
    if let Some(base) = trees::base(&session.root, args.base.as_deref(), &here).await? {
        let name = base.name.clone();
        let proposed = candidates::from_difference(base.archive, here.clone()).await?;
        told.changed(&name, &proposed);
        candidates.extend(proposed.candidates);
    }
    if candidates.is_empty() && !tests.is_empty() {
        let diagnosis = match diagnose(&mut session, &here, &tests).await? {
            Ok(report) => report,
            Err(exit) => return Ok(exit),
        };
        let proposed: Proposed = candidates::from_diagnosis(&diagnosis, here.clone()).await?;
        told.diagnosed(&diagnosis, &proposed);
        candidates.extend(proposed.candidates);
    }
    let mut undecided = false;
    let mut proved = None;
    let mut tried = 0;
    for candidate in candidates {
        if candidate.is_refused() {
            told.proposals.push(ToldProposal::refused(&candidate));
            continue;
        }
        if tried >= args.attempts.get() {
            told.left_out += 1;
            continue;
        }
        tried += 1;
        session.progress.note(&format!("proposal {tried}: {}", candidate.explanation));
        // A tree whose tests cannot even be imported lists nothing that two arms could be compared on.
        let proof = if candidate.failing_in.is_some() {
            Box::pin(compared(&mut session, &here, &candidate, &tests)).await?
        } else {
            Box::pin(swept(&mut session, &here, &candidate, &tests)).await?
        };
        let proof = match proof {
            Ok(proof) => proof,
            Err(exit) => return Ok(exit),
        };
        let outcome = proof.outcome;
        undecided |= outcome == Outcome::Undecided;
        told.proposals.push(ToldProposal::tried(&candidate, proof));
        if outcome == Outcome::Proved {
            proved = Some(candidate);
            break;
        }
        if outcome == Outcome::NothingFails {
            break;
        }
    }
    if let Some(candidate) = &proved
        && args.apply
    {
        if candidate.assumes {
            session
                .progress
                .note("not applied: a value had to be assumed; look at the diff, and apply it by hand");
        } else {
            trees::write(&session.root, &here, &candidate.files)?;
            told.applied = true;
        }
    }
    let text = match args.ask.output.format {
        Format::Json => told.json()?,
        _ => told.human(),
    };
    match &args.ask.output.output {
        Some(file) => output::write_file(file, &text)?,
        None => output::print(&text)?,
    }
    Ok(match (proved, undecided) {
        (Some(_), _) => Exit::Clean,
        (None, true) => Exit::Inconclusive,
        (None, false) if told.nothing_fails() => Exit::Clean,
        (None, false) => Exit::GateFailed,
    })
}

/// Why the tests are flaky. The exit code, if asking was ended.
async fn diagnose(
    session: &mut Session<'_>,
    here: &Archive,
    tests: &[String],
) -> Result<Result<Report, Exit>, Complaint> {
    let kind = QuestionKind::Diagnose { tests: TestFilter(tests.to_vec()) };
    let wishes = Wishes { kind, tests: TestFilter::default(), order: None, repeats: true };
    let question = question(wishes, session)?;
    session.progress.note(&format!(
        "{}: {}; why do the tests fail? seed {}",
        session.loaded.spec.name,
        describe(&session.loaded),
        question.seed
    ));
    Ok(ended(session.ask_about(here, question, None).await?)?.map(|ended| ended.report))
}

/// The tree with the candidate's change.
async fn patched(session: &Session<'_>, here: &Archive, candidate: &Candidate) -> Result<Archive, Complaint> {
    let diff = candidate.diff.clone().into_bytes();
    Ok(trees::patched(&session.root, here, diff, &candidate.strategy).await?.archive)
}

/// Whether the candidate mends a test of which it is known where it fails: both arms in turns, as often as
/// the old failure rate asks.
async fn compared(
    session: &mut Session<'_>,
    here: &Archive,
    candidate: &Candidate,
    tests: &[String],
) -> Result<Result<Proof, Exit>, Complaint> {
    let patched = patched(session, here, candidate).await?;
    let tests = if candidate.tests.is_empty() { tests } else { &candidate.tests };
    let kind = QuestionKind::Validate(Box::new(ValidateRequest {
        tests: TestFilter(tests.to_vec()),
        patched: flakefarm_shared::Digest::of(&patched.bytes),
        patch: candidate.strategy.clone(),
        failing_in: candidate.failing_in.clone(),
    }));
    let question =
        question(Wishes { kind, tests: TestFilter::default(), order: None, repeats: true }, session)?;
    let place = session.place(question.sandbox).await?;
    let snapshot = place.put(here.bytes.clone()).await?;
    place.put(patched.bytes).await?;
    let submission = session.submission(question, snapshot, here.revision.clone(), World::Plain);
    Ok(ended(session.carry_out(place, &submission).await?)?.map(|ended| Proof::of_comparison(&ended.report)))
}

/// Whether the candidate mends tests that fail every time or cannot be imported: one run of the suite as it
/// is, and enough runs with the change, in several orders.
async fn swept(
    session: &mut Session<'_>,
    here: &Archive,
    candidate: &Candidate,
    tests: &[String],
) -> Result<Result<Proof, Exit>, Complaint> {
    let before = match Box::pin(sweep(session, here, tests, RUNS_BEFORE)).await {
        Ok(Ok(report)) => Some(report),
        Ok(Err(exit)) => return Ok(Err(exit)),
        // Nothing could be imported: nothing passed.
        Err(complaint) if complaint.exit == Exit::NothingRan => None,
        Err(complaint) => return Err(complaint),
    };
    let patched = patched(session, here, candidate).await?;
    Ok(match Box::pin(sweep(session, &patched, tests, RUNS_AFTER)).await {
        Ok(after) => after.map(|after| Proof::of_sweeps(before.as_ref(), &after)),
        Err(complaint) if complaint.exit == Exit::NothingRan => Ok(Proof::nothing_ran()),
        Err(complaint) => return Err(complaint),
    })
}

async fn sweep(
    session: &mut Session<'_>,
    tree: &Archive,
    tests: &[String],
    runs: NonZeroU32,
) -> Result<Result<Report, Exit>, Complaint> {
    let wishes =
        Wishes { kind: QuestionKind::Detect, tests: TestFilter(tests.to_vec()), order: None, repeats: true };
    let question = Question { runs: Runs::Fixed(runs), budget: None, ..question(wishes, session)? };
    Ok(ended(session.ask_about(tree, question, None).await?)?.map(|ended| ended.report))
}

/// What ended to its end; the exit code otherwise.
fn ended(asked: Asked) -> Result<Result<Box<Ended>, Exit>, Complaint> {
    let Asked::Ended(ended) = asked else { return Ok(Err(Exit::Clean)) };
    if let Some(refusal) = &ended.failure {
        return Err(ask::refused(refusal));
    }
    if ended.state == "interrupted" || ended.state == "cancelled" {
        return Ok(Err(Exit::Interrupted));
    }
    Ok(Ok(ended))
}
