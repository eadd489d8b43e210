//! `flakefarm repair`: proposes changes of tests and proves them by experiment. What the difference between
//! two trees, or a diagnosis, says of a test becomes proposals (crate `repair`); gates refuse those that ask
//! less of a test; each that is left is one arm of a question. Nothing is written unless it is proved and
//! `--apply` was given.

mod candidates;
mod told;
mod trees;

use crate::args::{Format, RepairArgs};
use crate::ask::{self, Asked, Ended, Session, describe, tests_and_path};
use crate::exit::{Complaint, Exit};
use crate::sweep::{Wishes, question};
use crate::{output, signals};
use candidates::{Candidate, Proposed};
use flakefarm_coordinator::experiment::{FailingIn, ValidateRequest};
use flakefarm_coordinator::plan::{QuestionKind, TestFilter};
use flakefarm_coordinator::report::Report;
use flakefarm_project::patch;
use flakefarm_project::revisions;
use flakefarm_project::snapshot::Archive;
use flakefarm_shared::World;
use std::path::Path;
use told::{Outcome, Told, ToldProposal};

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
        let ended = match prove(&mut session, &here, &candidate, &tests).await? {
            Ok(ended) => ended,
            Err(exit) => return Ok(exit),
        };
        let outcome = Outcome::of(&ended.report);
        undecided |= outcome == Outcome::Undecided;
        told.proposals.push(ToldProposal::tried(&candidate, outcome, &ended.report));
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
    let place = session.place(question.sandbox).await?;
    let snapshot = place.put(here.bytes.clone()).await?;
    session.progress.note(&format!(
        "{}: {}; why do the tests fail? seed {}",
        session.loaded.spec.name,
        describe(&session.loaded),
        question.seed
    ));
    let submission = session.submission(question, snapshot, here.revision.clone(), World::Plain);
    Ok(ended(session.carry_out(place, &submission).await?)?.map(|ended| ended.report))
}

/// Whether the candidate mends the tests.
async fn prove(
    session: &mut Session<'_>,
    here: &Archive,
    candidate: &Candidate,
    tests: &[String],
) -> Result<Result<Box<Ended>, Exit>, Complaint> {
    let (base, diff, name) = (here.clone(), candidate.diff.clone(), candidate.strategy.clone());
    let prefix = revisions::prefix(&session.root).unwrap_or_default();
    let patched = tokio::task::spawn_blocking(move || {
        patch::apply(&base, Path::new(prefix.trim_end_matches('/')), diff.as_bytes(), &name)
    });
    let patched = patched.await?.map_err(|error| Complaint::wrong(&error, error.hint()))?;
    let tests = if candidate.tests.is_empty() { tests } else { &candidate.tests };
    let request = |patched, failing_in: Option<FailingIn>| {
        QuestionKind::Validate(Box::new(ValidateRequest {
            tests: TestFilter(tests.to_vec()),
            patched,
            patch: candidate.strategy.clone(),
            failing_in,
        }))
    };
    let digest = flakefarm_shared::Digest::of(&patched.archive.bytes);
    let kind = request(digest, candidate.failing_in.clone());
    let question =
        question(Wishes { kind, tests: TestFilter::default(), order: None, repeats: true }, session)?;
    let place = session.place(question.sandbox).await?;
    let snapshot = place.put(here.bytes.clone()).await?;
    place.put(patched.archive.bytes).await?;
    let submission = session.submission(question, snapshot, here.revision.clone(), World::Plain);
    ended(session.carry_out(place, &submission).await?)
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
