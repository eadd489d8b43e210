//! `flakefarm bisect`: the commit that made a test flaky, asked like every other question, over the
//! snapshots of many revisions.

use crate::args::BisectArgs;
use crate::ask::{self, Asked, Place, Session, describe};
use crate::exit::{Complaint, Exit};
use crate::signals;
use crate::sweep::{Wishes, question};
use flakefarm_coordinator::diagnose::bisect::BisectOutcome;
use flakefarm_coordinator::experiment::{BisectRequest, RevisionSnapshot};
use flakefarm_coordinator::plan::{QuestionKind, ScopeChoice, TestFilter};
use flakefarm_project::revisions::{self, Revision, RevisionError};
use flakefarm_shared::{Digest, Scope, TestId, World};
use std::collections::HashMap;
use std::path::Path;

/// Most revisions of one bisection: each is a snapshot.
const REVISIONS: usize = 1_000;

pub(crate) async fn bisect(args: &BisectArgs) -> Result<Exit, Complaint> {
    let scope = match args.scope {
        ScopeChoice::Test => Scope::Test,
        ScopeChoice::Suite => Scope::Suite,
        ScopeChoice::File | ScopeChoice::Auto => {
            return Err(
                Complaint::usage("bisect runs a test alone or the suite").hint("--scope test or suite")
            );
        }
    };
    let mut session = Session::open(&args.ask, &args.path, &args.ask.options(), signals::stop_on_signal()?)?;
    if session.printed_settings()? {
        return Ok(Exit::Clean);
    }
    let revisions = {
        let (root, good, bad) = (session.root.clone(), args.good.clone(), args.bad.clone());
        let found = tokio::task::spawn_blocking(move || revisions::between(&root, &good, &bad)).await?;
        found.map_err(|error| complaint(&error))?
    };
    if revisions.len() > REVISIONS {
        return Err(Complaint::usage(format!("{} revisions are too many", revisions.len()))
            .hint(format!("choose --good and --bad at most {REVISIONS} revisions apart")));
    }
    let request = BisectRequest {
        test: TestId(args.test.clone()),
        revisions: Vec::new(),
        scope,
        order: args.order,
        world: args.under,
    };
    let wishes = Wishes {
        kind: QuestionKind::Bisect(Box::new(request.clone())),
        tests: TestFilter::default(),
        order: None,
        repeats: true,
    };
    let mut question = question(wishes, &session)?;
    let place = session.place(question.sandbox).await?;
    session.progress.note(&format!(
        "{} revisions, {}, seed {}",
        revisions.len(),
        describe(&session.loaded),
        question.seed
    ));
    let revisions = snapshots(&session.root, revisions, &place).await?;
    let last = revisions.last().expect("a range has two ends").clone();
    question.kind = QuestionKind::Bisect(Box::new(BisectRequest { revisions, ..request }));
    let submission = session.submission(question, last.snapshot, Some(last.commit), World::Plain);
    let ended = match session.carry_out(place, &submission).await? {
        Asked::Detached => return Ok(Exit::Clean),
        Asked::Ended(ended) => ended,
    };
    let outcome = ended.report.tests.first().and_then(|test| test.introduced.as_ref());
    let outcome = outcome.map(|found| found.outcome);
    let exit = ask::finish(&ended, &args.ask.output).await?;
    Ok(match (exit, outcome) {
        (Exit::Clean, Some(BisectOutcome::NotReproduced | BisectOutcome::Open)) => Exit::Inconclusive,
        (exit, _) => exit,
    })
}

fn complaint(error: &RevisionError) -> Complaint {
    Complaint::wrong(error, error.hint())
}

/// Packs each tree once and keeps it where workers find it.
async fn snapshots(
    root: &Path,
    revisions: Vec<Revision>,
    place: &Place,
) -> Result<Vec<RevisionSnapshot>, Complaint> {
    let mut known: HashMap<String, Digest> = HashMap::new();
    let mut packed = Vec::with_capacity(revisions.len());
    for revision in revisions {
        let snapshot = match known.get(&revision.tree) {
            Some(digest) => digest.clone(),
            None => {
                let (root, own) = (root.to_owned(), revision.clone());
                let archive = tokio::task::spawn_blocking(move || revisions::archive(&root, &own)).await?;
                let digest = place.put(archive.map_err(|error| complaint(&error))?.bytes).await?;
                known.insert(revision.tree, digest.clone());
                digest
            }
        };
        packed.push(RevisionSnapshot { commit: revision.commit, subject: revision.subject, snapshot });
    }
    Ok(packed)
}
