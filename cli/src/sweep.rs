//! `flakefarm sweep` and `flakefarm init`: from a path to a submission, here or on a farm, to a
//! report and an exit code.

use crate::args::{Gate, InitArgs, SweepArgs};
use crate::embedded::{self, Embedded, Task};
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::output::{self, Outputs};
use crate::progress::Progress;
use crate::{signals, stores};
use flakefarm_coordinator::Submission;
use flakefarm_coordinator::db::SweepRow;
use flakefarm_coordinator::plan::{
    Confidence, Guarantee, Panel, Question, QuestionKind, Rate, Runs, SandboxChoice, ScopeChoice, TestFilter,
};
use flakefarm_coordinator::report::{Report, Verdict};
use flakefarm_project::config::{LoadedProject, ProjectSource};
use flakefarm_project::snapshot;
use flakefarm_shared::{Class, Digest, Refusal, SweepContext, WIRE_VERSION, World};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

pub(crate) async fn sweep(args: SweepArgs) -> Result<Exit, Complaint> {
    ask(args, QuestionKind::Detect).await
}

/// Asks a question of any kind about a project.
pub(crate) async fn ask(args: SweepArgs, kind: QuestionKind) -> Result<Exit, Complaint> {
    let stop = signals::stop_on_signal()?;
    let root = project_root(&args.path)?;
    let mut progress = Progress::new();
    let ended = match &args.farm {
        Some(farm) => on_farm(&args, kind, &root, farm, &mut progress, stop.clone()).await?,
        None if args.resume => resume(&args, &root, &mut progress, stop.clone()).await?,
        None => here(&args, kind, &root, &mut progress, stop.clone()).await?,
    };
    finish(&args, ended).await
}

/// A sweep that has ended, wherever it ran.
pub(crate) struct Ended {
    state: String,
    failure: Option<Refusal>,
    report: Report,
    outputs: Outputs,
}

pub(crate) fn project_root(path: &Path) -> Result<PathBuf, Complaint> {
    let root = path.canonicalize().map_err(|error| {
        Complaint::usage(format!("failed to open project {}: {error}", path.display()))
            .hint("flakefarm sweep takes the directory of the project")
    })?;
    if root.is_dir() {
        Ok(root)
    } else {
        Err(Complaint::usage(format!("{} is not a directory", path.display()))
            .hint("flakefarm sweep takes the directory of the project; choose tests with --tests"))
    }
}

pub(crate) fn load(args: &SweepArgs, root: &Path, progress: &Progress) -> Result<LoadedProject, Complaint> {
    let mut loaded =
        LoadedProject::load(root, args.config.as_deref()).map_err(|error| config_complaint(&error))?;
    for warning in &loaded.warnings {
        progress.note(&format!("warning: {warning}"));
    }
    loaded.spec.arguments.extend(args.framework_arguments.iter().cloned());
    Ok(loaded)
}

fn config_complaint(error: &flakefarm_project::config::ConfigError) -> Complaint {
    let complaint = Complaint::usage(flakefarm_shared::chain(error));
    match error.hint() {
        Some(hint) => complaint.hint(hint),
        None => complaint,
    }
}

pub(crate) fn question(
    args: &SweepArgs,
    kind: QuestionKind,
    loaded: &LoadedProject,
    workers: NonZeroU16,
) -> Result<Question, Complaint> {
    let defaults = &loaded.sweep;
    let wrong = |error: flakefarm_coordinator::plan::QuestionError| {
        Complaint::usage(format!("flakefarm.toml: {error}"))
    };
    let max_flake_rate = match (args.max_flake_rate, defaults.max_flake_rate) {
        (Some(rate), _) => rate,
        (None, Some(rate)) => Rate::new(rate).map_err(wrong)?,
        (None, None) => Rate::DEFAULT,
    };
    let confidence = match (args.confidence, defaults.confidence) {
        (Some(confidence), _) => confidence,
        (None, Some(confidence)) => Confidence::new(confidence).map_err(wrong)?,
        (None, None) => Confidence::DEFAULT,
    };
    let guarantee = match (args.guarantee, &defaults.guarantee) {
        (Some(guarantee), _) => guarantee,
        (None, Some(word)) => word.parse().map_err(wrong)?,
        (None, None) => Guarantee::default(),
    };
    let promises = [
        ("--max-flake-rate", args.max_flake_rate.is_some()),
        ("--guarantee", args.guarantee.is_some()),
        ("--budget", args.budget.is_some()),
    ];
    if let (Some(runs), Some((option, _))) = (args.runs, promises.iter().find(|(_, given)| *given)) {
        return Err(Complaint::usage(format!(
            "--runs {runs} and {option} contradict each other: a fixed number of runs leaves nothing to choose"
        ))
        .hint(format!("leave out --runs for as many runs as the answer takes, or {option} for {runs} runs of each test")));
    }
    // An option that only an adaptive sweep has goes before a fixed number in the file.
    let adaptive = args.max_flake_rate.is_some() || args.guarantee.is_some() || args.budget.is_some();
    let fixed = args.runs.or(if adaptive { None } else { defaults.runs.and_then(NonZeroU32::new) });
    let budget = match (args.budget, &defaults.budget) {
        (Some(budget), _) => Some(budget),
        (None, Some(text)) if fixed.is_none() => Some(text.parse().map_err(wrong)?),
        (None, _) => None,
    };
    let scope = match (args.scope, &defaults.scope) {
        (Some(scope), _) => scope,
        (None, Some(word)) => {
            ScopeChoice::ALL.into_iter().find(|scope| scope.word() == word).ok_or_else(|| {
                Complaint::usage(format!("flakefarm.toml: `{word}` is no scope"))
                    .hint("test, file, suite or auto")
            })?
        }
        // An order is one of the suite.
        (None, None) if args.order.is_some() => ScopeChoice::Suite,
        (None, None) => ScopeChoice::Auto,
    };
    // A sweep that repeats one finding tries nothing else.
    let repeats = args.under.is_some() || args.order.is_some() || kind != QuestionKind::Detect;
    let panel = match (args.panel, &defaults.panel) {
        _ if repeats => Panel::None,
        (Some(panel), _) => panel,
        (None, Some(word)) => {
            word.parse().map_err(|error| Complaint::usage(format!("flakefarm.toml: {error}")))?
        }
        (None, None) => Panel::default(),
    };
    Ok(Question {
        kind,
        runs: fixed.map_or(Runs::Adaptive, Runs::Fixed),
        scope,
        order: args.order,
        seed: args.seed.or(defaults.seed).unwrap_or_else(fresh_seed),
        confidence,
        max_flake_rate,
        guarantee,
        budget,
        workers,
        tests: TestFilter(args.tests.clone()),
        sandbox: args.sandbox.unwrap_or_default(),
        panel: panel.worlds(&loaded.spec),
    })
}

/// A seed short enough to be typed again.
fn fresh_seed() -> u64 {
    let id = flakefarm_shared::SweepId::new();
    u64::from(id.0.as_fields().3[7]) << 24 | u64::from(id.0.as_u128() as u32 & 0x00ff_ffff)
}

pub(crate) fn slots(args: &SweepArgs, loaded: Option<&LoadedProject>) -> NonZeroU16 {
    args.workers
        .or_else(|| loaded.and_then(|loaded| loaded.sweep.workers.and_then(NonZeroU16::new)))
        .unwrap_or_else(embedded::slots_of_this_machine)
}

pub(crate) fn submission(
    loaded: LoadedProject,
    question: Question,
    snapshot: Digest,
    revision: Option<String>,
    args: &SweepArgs,
    root: &Path,
) -> Submission {
    let under = args.under.unwrap_or(World::Plain);
    Submission {
        context: SweepContext { v: WIRE_VERSION, project: loaded.spec, snapshot, revision, under },
        question,
        class: if args.interactive { Class::Interactive } else { Class::Bulk },
        source: root.display().to_string(),
    }
}

async fn archive(root: &Path, progress: &Progress) -> Result<snapshot::Archive, Complaint> {
    let path = root.to_owned();
    let archive = tokio::task::spawn_blocking(move || snapshot::archive(&path)).await?.map_err(|error| {
        let complaint = Complaint::usage(flakefarm_shared::chain(&error));
        match error.hint() {
            Some(hint) => complaint.hint(hint),
            None => complaint,
        }
    })?;
    for warning in &archive.warnings {
        progress.note(&format!("warning: {warning}"));
    }
    Ok(archive)
}

async fn here(
    args: &SweepArgs,
    kind: QuestionKind,
    root: &Path,
    progress: &mut Progress,
    stop: CancellationToken,
) -> Result<Ended, Complaint> {
    let loaded = load(args, root, progress)?;
    let slots = slots(args, Some(&loaded));
    let question = question(args, kind, &loaded, slots)?;
    let state = stores::state_dir(args.state.as_deref())?;
    let embedded = Embedded::open(&state, slots, question.sandbox, &args.runtime).await?;
    let archive = archive(root, progress).await?;
    let snapshot = embedded.blobs.put(archive.bytes).await?;
    progress.note(&announcement(&loaded, &question));
    if question.sandbox == SandboxChoice::Process {
        progress.note(
            "warning: --sandbox process isolates nothing: tests run as you, on this machine, with all that \
             you may read and write",
        );
    }
    let submission = submission(loaded, question, snapshot, archive.revision, args, root);
    let outputs = Outputs::Blobs(embedded.blobs.clone());
    let (row, report) = embedded.run(Task::Submit(&submission), progress, stop).await?;
    Ok(ended_here(row, report, outputs))
}

async fn resume(
    args: &SweepArgs,
    root: &Path,
    progress: &mut Progress,
    stop: CancellationToken,
) -> Result<Ended, Complaint> {
    let state = stores::state_dir(args.state.as_deref())?;
    let source = root.display().to_string();
    let db = embedded::open_database(&state).await?;
    let row = match db.last_interrupted(&source).await? {
        Some(row) => Some(row),
        // A process that was killed could not record that it was interrupted.
        None => db.unfinished_sweeps().await?.into_iter().rfind(|row| row.source == source),
    };
    let Some(row) = row else {
        return Err(Complaint::usage(format!("there is no interrupted sweep of {source}"))
            .hint("start one without --resume"));
    };
    let question: Question = serde_json::from_str(&row.question)?;
    drop(db);
    let embedded = Embedded::open(&state, slots(args, None), question.sandbox, &args.runtime).await?;
    progress.note(&format!("resuming sweep {} (seed {})", row.id, row.seed));
    let outputs = Outputs::Blobs(embedded.blobs.clone());
    let (row, report) = embedded.run(Task::Resume(&row), progress, stop).await?;
    Ok(ended_here(row, report, outputs))
}

pub(crate) fn ended_here(row: SweepRow, report: Report, outputs: Outputs) -> Ended {
    let state = row.state.word().to_owned();
    Ended { state, failure: row.state.refusal().cloned(), report, outputs }
}

async fn on_farm(
    args: &SweepArgs,
    kind: QuestionKind,
    root: &Path,
    address: &str,
    progress: &mut Progress,
    stop: CancellationToken,
) -> Result<Ended, Complaint> {
    let farm = Farm::new(address, args.token.as_ref())?;
    let loaded = load(args, root, progress)?;
    let question = question(args, kind, &loaded, slots(args, Some(&loaded)))?;
    farm.check().await?;
    let archive = archive(root, progress).await?;
    let snapshot = farm.upload(archive.bytes.into()).await?;
    progress.note(&announcement(&loaded, &question));
    let submission = submission(loaded, question, snapshot, archive.revision, args, root);
    let id = farm.submit(&submission).await?;
    progress.note(&format!("sweep {id} on {address}"));
    let ended = farm.follow(id, progress, &stop).await?;
    progress.clear();
    if !ended {
        progress.note("stopping the sweep on the farm");
    }
    let report = if ended { farm.report(id).await? } else { farm.cancel(id).await? };
    let status = farm.status(id).await?;
    let state = if ended { status.state } else { "interrupted".to_owned() };
    Ok(Ended { state, failure: status.failure, report, outputs: Outputs::Farm(farm) })
}

/// Said before the work: what was detected, what will be proved, and the seed.
fn announcement(loaded: &LoadedProject, question: &Question) -> String {
    if let QuestionKind::Diagnose { tests } = &question.kind {
        let (name, how) = (&loaded.spec.name, describe(loaded));
        return format!("{name}: {how}; diagnosing {}, seed {}", tests.describe(), question.seed);
    }
    format!(
        "{}: {}; {}{}, scope {}, seed {}",
        loaded.spec.name,
        describe(loaded),
        aim(question),
        question.budget.map_or_else(String::new, |budget| format!(", budget {budget}")),
        question.scope.word(),
        question.seed,
    )
}

fn aim(question: &Question) -> String {
    let percent = |share: f64| format!("{} %", (share * 1e6).round() / 1e4);
    let (rate, sure) = (percent(question.max_flake_rate.get()), percent(question.confidence.get()));
    match (question.runs, question.guarantee) {
        (Runs::Fixed(runs), _) if runs.get() == 1 => "1 run of each test".to_owned(),
        (Runs::Fixed(runs), _) => format!("{runs} runs of each test"),
        (Runs::Adaptive, Guarantee::PerTest) => {
            format!(
                "each test that flakes {rate} of the time or more, {sure} sure (up to {} runs of each)",
                question.runs_per_test()
            )
        }
        (Runs::Adaptive, Guarantee::PerSuite) => {
            format!("{sure} of the tests that flake {rate} of the time or more")
        }
    }
}

pub(crate) fn describe(loaded: &LoadedProject) -> String {
    match &loaded.source {
        ProjectSource::Configured { path } => format!("configured by {}", path.display()),
        ProjectSource::Detected { why } => format!("detected by {why}"),
    }
}

pub(crate) async fn finish(args: &SweepArgs, ended: Ended) -> Result<Exit, Complaint> {
    if let Some(refusal) = ended.failure {
        let mut complaint = Complaint::new(Exit::NothingRan, refusal.message).log(refusal.log);
        complaint.hint = refusal.hint;
        return Err(complaint);
    }
    output::write(&ended.report, &args.output, &ended.outputs).await?;
    if ended.state == "interrupted" || ended.state == "cancelled" {
        if args.farm.is_none() {
            eprintln!("hint: flakefarm sweep {} --resume goes on from here", args.path.display());
        }
        return Ok(Exit::Interrupted);
    }
    if nothing_ran(&ended.report) {
        return Err(Complaint::new(Exit::NothingRan, "no test ran")
            .log(ended.report.sweep.notes.join("\n"))
            .hint("flakefarm doctor says what is wrong with this machine"));
    }
    Ok(gate(&ended.report, &args.fail_on))
}

/// Whether there is nothing to tell. A sweep whose tests were all answered by earlier ones has run
/// nothing, and tells.
fn nothing_ran(report: &Report) -> bool {
    let answered_before = || report.tests.iter().any(|test| test.older_evidence.is_some());
    report.sweep.samples == 0 && (report.sweep.attempts > 0 || !answered_before())
}

fn gate(report: &Report, gates: &[Gate]) -> Exit {
    let found = |wanted: &[Verdict]| report.tests.iter().any(|test| wanted.contains(&test.verdict));
    if gates.contains(&Gate::Flaky) && found(&[Verdict::Flaky, Verdict::Fragile])
        || gates.contains(&Gate::Broken) && found(&[Verdict::Broken])
    {
        Exit::GateFailed
    } else if gates.contains(&Gate::Inconclusive) && found(&[Verdict::Inconclusive]) {
        Exit::Inconclusive
    } else {
        Exit::Clean
    }
}

pub(crate) fn init(args: &InitArgs) -> Result<Exit, Complaint> {
    let root = project_root(&args.path)?;
    let file = root.join("flakefarm.toml");
    if file.exists() && !args.force && !args.print {
        return Err(
            Complaint::usage(format!("{} exists already", file.display())).hint("--force replaces it")
        );
    }
    let detected = LoadedProject::load(&root, None).map_err(|error| config_complaint(&error))?;
    let text = flakefarm_project::config::init_text(&detected);
    if args.print {
        output::print(&text)?;
    } else {
        output::write_file(&file, &text)?;
        eprintln!("wrote {}: {}", file.display(), describe(&detected));
    }
    Ok(Exit::Clean)
}
