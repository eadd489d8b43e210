//! `flakefarm bisect`: the commit that made a test flaky, asked like every other question, over the
//! snapshots of many revisions.

use crate::args::{BisectArgs, SweepArgs};
use crate::embedded::{Embedded, Task};
use crate::exit::{Complaint, Exit};
use crate::output::Outputs;
use crate::progress::Progress;
use crate::{signals, stores, sweep};
use flakefarm_coordinator::diagnose::bisect::{BisectOutcome, BisectRequest, RevisionSnapshot};
use flakefarm_coordinator::plan::{QuestionKind, SandboxChoice, ScopeChoice};
use flakefarm_project::revisions::{self, Revision, RevisionError};
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::{Digest, Scope, TestId};
use flakefarm_worker::sandbox::RuntimeChoice;
use std::collections::HashMap;
use std::path::Path;

/// Most revisions of one bisection: each is a snapshot.
const REVISIONS: usize = 1_000;

pub(crate) async fn bisect(args: BisectArgs) -> Result<Exit, Complaint> {
    let stop = signals::stop_on_signal()?;
    let root = sweep::project_root(&args.path)?;
    let mut progress = Progress::new();
    let scope = match args.scope {
        ScopeChoice::Test => Scope::Test,
        ScopeChoice::Suite => Scope::Suite,
        ScopeChoice::File | ScopeChoice::Auto => {
            return Err(
                Complaint::usage("bisect runs a test alone or the suite").hint("--scope test or suite")
            );
        }
    };
    let (test, order, world) = (TestId(args.test.clone()), args.order, args.under);
    let revisions = {
        let (root, good, bad) = (root.clone(), args.good.clone(), args.bad.clone());
        let found = tokio::task::spawn_blocking(move || revisions::between(&root, &good, &bad)).await?;
        found.map_err(|error| complaint(&error))?
    };
    if revisions.len() > REVISIONS {
        return Err(Complaint::usage(format!("{} revisions are too many", revisions.len()))
            .hint(format!("choose --good and --bad at most {REVISIONS} revisions apart")));
    }
    let sweep_args = as_sweep(args);
    let loaded = sweep::load(&sweep_args, &root, &progress)?;
    let slots = sweep::slots(&sweep_args, Some(&loaded));
    let state = stores::state_dir(sweep_args.state.as_deref())?;
    let embedded = Embedded::open(&state, slots, SandboxChoice::Container, &RuntimeChoice::default()).await?;
    progress.note(&format!("{} revisions, {}", revisions.len(), sweep::describe(&loaded)));
    let revisions = snapshots(&root, revisions, &embedded.blobs).await?;
    let last = revisions.last().expect("a range has two ends").clone();
    let request = BisectRequest { test, revisions, scope, order, world };
    let question = sweep::question(&sweep_args, QuestionKind::Bisect(Box::new(request)), &loaded, slots)?;
    let submission =
        sweep::submission(loaded, question, last.snapshot, Some(last.commit), &sweep_args, &root);
    let outputs = Outputs::Blobs(embedded.blobs.clone());
    let (row, report) = embedded.run(Task::Submit(&submission), &mut progress, stop).await?;
    let outcome = report.tests.first().and_then(|test| test.introduced.as_ref()).map(|found| found.outcome);
    let exit = sweep::finish(&sweep_args, sweep::ended_here(row, report, outputs)).await?;
    Ok(match (exit, outcome) {
        (Exit::Clean, Some(BisectOutcome::NotReproduced | BisectOutcome::Open)) => Exit::Inconclusive,
        (exit, _) => exit,
    })
}

fn complaint(error: &RevisionError) -> Complaint {
    let complaint = Complaint::usage(flakefarm_shared::chain(error));
    match error.hint() {
        Some(hint) => complaint.hint(hint),
        None => complaint,
    }
}

/// Packs each tree once and keeps it where workers find it.
async fn snapshots(
    root: &Path,
    revisions: Vec<Revision>,
    blobs: &Blobs,
) -> Result<Vec<RevisionSnapshot>, Complaint> {
    let mut known: HashMap<String, Digest> = HashMap::new();
    let mut packed = Vec::with_capacity(revisions.len());
    for revision in revisions {
        let snapshot = match known.get(&revision.tree) {
            Some(digest) => digest.clone(),
            None => {
                let (root, own) = (root.to_owned(), revision.clone());
                let archive = tokio::task::spawn_blocking(move || revisions::archive(&root, &own)).await?;
                let digest = blobs.put(archive.map_err(|error| complaint(&error))?.bytes).await?;
                known.insert(revision.tree, digest.clone());
                digest
            }
        };
        packed.push(RevisionSnapshot { commit: revision.commit, subject: revision.subject, snapshot });
    }
    Ok(packed)
}

fn as_sweep(args: BisectArgs) -> SweepArgs {
    SweepArgs {
        path: args.path,
        config: args.config,
        runs: None,
        max_flake_rate: None,
        guarantee: None,
        budget: None,
        confidence: args.confidence,
        workers: args.workers,
        seed: None,
        tests: Vec::new(),
        scope: None,
        order: None,
        sandbox: None,
        runtime: RuntimeChoice::default(),
        farm: None,
        token: None,
        interactive: false,
        resume: false,
        output: args.output,
        fail_on: Vec::new(),
        state: args.state,
        framework_arguments: Vec::new(),
        panel: None,
        under: None,
    }
}
