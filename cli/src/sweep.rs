//! `flakefarm sweep`: which tests are flaky.

use crate::args::values::{confidence, parsed, rate};
use crate::args::{Gate, SweepArgs};
use crate::ask::{self, Asked, Ended, Leaving, Place, Session, describe};
use crate::embedded::{self, Embedded, Task};
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::{left, signals, stores};
use flakefarm_coordinator::Submission;
use flakefarm_coordinator::plan::{
    Budget, Confidence, Guarantee, Panel, Question, QuestionKind, Rate, Runs, ScopeChoice, TestFilter,
};
use flakefarm_coordinator::report::{Report, Verdict};
use flakefarm_project::settings::{Layer, SettingError, Settings};
use flakefarm_shared::{Capabilities, Digest, World, now_micros};
use std::num::NonZeroU32;

pub(crate) async fn sweep(args: &SweepArgs) -> Result<Exit, Complaint> {
    let mut session = Session::open(&args.ask, &args.path, &args.options(), signals::stop_on_signal()?)?;
    if session.printed_settings()? {
        return Ok(Exit::Clean);
    }
    let asked = if args.resume { resume(&mut session).await? } else { ask(args, &mut session).await? };
    match asked {
        Asked::Detached => Ok(Exit::Clean),
        Asked::Ended(ended) => finish(&ended, args).await,
    }
}

async fn finish(ended: &Ended, args: &SweepArgs) -> Result<Exit, Complaint> {
    let exit = ask::finish(ended, &args.ask.output).await?;
    Ok(if exit == Exit::Clean { gate(&ended.report, &args.fail_on) } else { exit })
}

async fn ask(args: &SweepArgs, session: &mut Session<'_>) -> Result<Asked, Complaint> {
    let (place, submission) = prepare(args, session).await?;
    session.carry_out(place, &submission).await
}

/// All but the submission itself: the question, where it is answered, and the snapshot there.
pub(crate) async fn prepare(
    args: &SweepArgs,
    session: &mut Session<'_>,
) -> Result<(Place, Submission), Complaint> {
    let question = wished(args, session)?;
    let place = session.place(question.sandbox).await?;
    let archive = session.archive().await?;
    let snapshot = place.put(archive.bytes).await?;
    session.progress.note(&announcement(session, &question));
    let under = args.under.unwrap_or(World::Plain);
    let submission = session.submission(question, snapshot, archive.revision, under);
    Ok((place, submission))
}

/// The same of sources that come from elsewhere: nothing is packed, and the snapshot stands for none.
pub(crate) async fn prepare_elsewhere(
    args: &SweepArgs,
    session: &mut Session<'_>,
) -> Result<(Place, Submission), Complaint> {
    let question = wished(args, session)?;
    let place = session.place(question.sandbox).await?;
    session.progress.note(&announcement(session, &question));
    let under = args.under.unwrap_or(World::Plain);
    let submission = session.submission(question, Digest::of(b""), None, under);
    Ok((place, submission))
}

fn wished(args: &SweepArgs, session: &Session<'_>) -> Result<Question, Complaint> {
    let wishes = Wishes {
        kind: QuestionKind::Detect,
        tests: TestFilter(args.tests.clone()),
        order: args.order,
        repeats: args.order.is_some() || args.under.is_some(),
    };
    question(wishes, session)
}

/// Goes on with an interrupted sweep, or follows again one that was left to a farm.
async fn resume(session: &mut Session<'_>) -> Result<Asked, Complaint> {
    let state = session.args.execution.state.as_deref();
    let settings = &session.loaded.settings;
    if let Some(address) = settings.text("farm.url") {
        let farm = Farm::new(&address, settings.text("farm.token"))?;
        farm.check().await?;
        let id = left::last(state, farm.address(), &session.root).ok_or_else(|| {
            Complaint::usage(format!(
                "no sweep of {} was submitted to {address} from here",
                session.root.display()
            ))
            .hint("flakefarm attach ID follows any sweep of the farm")
        })?;
        session.progress.note(&format!("sweep {id} on {address}"));
        let stop = signals::stop_on_signal()?;
        let ended = ask::follow(farm, id, &mut session.progress, &stop, Leaving::LeavesIt).await?;
        return Ok(Asked::Ended(Box::new(ended)));
    }
    let state = stores::state_dir(state)?;
    let source = session.root.display().to_string();
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
    let runtime = ask::runtime(&session.loaded)?;
    let embedded = Embedded::open(&state, session.slots(), question.sandbox, &runtime).await?;
    session.progress.note(&format!("resuming sweep {} (seed {})", row.id, row.seed));
    let ended = Box::pin(session.run_here(embedded, Task::Resume(&row))).await?;
    Ok(Asked::Ended(Box::new(ended)))
}

/// What a command wants beside what settings say.
pub(crate) struct Wishes {
    pub(crate) kind: QuestionKind,
    pub(crate) tests: TestFilter,
    pub(crate) order: Option<flakefarm_shared::Order>,
    /// It repeats one finding: nothing else is tried.
    pub(crate) repeats: bool,
}

/// The question that wishes and settings make together.
pub(crate) fn question(wishes: Wishes, session: &Session<'_>) -> Result<Question, Complaint> {
    if let Some(like) = session.like() {
        let Wishes { kind, tests, order, repeats } = wishes;
        let panel = if repeats { Vec::new() } else { like.panel.clone() };
        return Ok(Question { kind, tests, order, panel, rerun: None, tests_as_given: None, ..like.clone() });
    }
    let settings = &session.loaded.settings;
    let wrong = |error: SettingError| Complaint::of_setting(&error);
    let fixed = fixed_runs(settings)?;
    let budget: Option<Budget> = match fixed {
        Some(_) => None,
        None => settings.parsed("sweep.budget", parsed).map_err(wrong)?,
    };
    let scope: Option<ScopeChoice> = settings.parsed("sweep.scope", parsed).map_err(wrong)?;
    // An order is one of the suite.
    let default_scope = if wishes.order.is_some() { ScopeChoice::Suite } else { ScopeChoice::Auto };
    let panel: Option<Panel> = settings.parsed("sweep.panel", parsed).map_err(wrong)?;
    let panel = if wishes.repeats { Panel::None } else { panel.unwrap_or_default() };
    let guarantee: Option<Guarantee> = settings.parsed("sweep.guarantee", parsed).map_err(wrong)?;
    let sandbox = settings.parsed("sweep.sandbox", parsed).map_err(wrong)?;
    Ok(Question {
        kind: wishes.kind,
        runs: fixed.map_or(Runs::Adaptive, Runs::Fixed),
        scope: scope.unwrap_or(default_scope),
        order: wishes.order,
        seed: settings.whole("sweep.seed").unwrap_or_else(fresh_seed),
        confidence: settings
            .parsed("sweep.confidence", confidence)
            .map_err(wrong)?
            .unwrap_or(Confidence::DEFAULT),
        max_flake_rate: settings
            .parsed("sweep.max_flake_rate", rate)
            .map_err(wrong)?
            .unwrap_or(Rate::DEFAULT),
        guarantee: guarantee.unwrap_or_default(),
        budget,
        workers: session.slots(),
        tests: wishes.tests,
        sandbox: sandbox.unwrap_or_default(),
        panel: panel.worlds(&session.loaded.spec, now_micros()),
        // What the framework can do is known once it has listed the tests.
        able: Capabilities::default(),
        rerun: None,
        tests_as_given: None,
    })
}

/// A fixed number of runs, unless an option of adaptive sweeps is set in a higher layer. In the same
/// layer they contradict each other, but in a file, where the number of runs is a default like others.
fn fixed_runs(settings: &Settings) -> Result<Option<NonZeroU32>, Complaint> {
    let runs = settings.whole("sweep.runs").and_then(NonZeroU32::new);
    let (Some(runs), Some(layer)) = (runs, settings.layer("sweep.runs")) else { return Ok(None) };
    for (key, option) in [
        ("sweep.max_flake_rate", "--max-flake-rate"),
        ("sweep.guarantee", "--guarantee"),
        ("sweep.budget", "--budget"),
    ] {
        match settings.layer(key) {
            Some(of_option) if of_option > layer => return Ok(None),
            Some(of_option) if of_option == layer && layer > Layer::File => {
                return Err(Complaint::usage(format!(
                    "--runs {runs} and {option} contradict each other: a fixed number of runs leaves nothing \
                     to choose"
                ))
                .hint(format!(
                    "leave out --runs for as many runs as the answer takes, or {option} for {runs} runs of \
                     each test"
                )));
            }
            Some(_) | None => {}
        }
    }
    Ok(Some(runs))
}

/// A seed short enough to be typed again.
fn fresh_seed() -> u64 {
    let id = flakefarm_shared::SweepId::new();
    u64::from(id.0.as_fields().3[7]) << 24 | u64::from(id.0.as_u128() as u32 & 0x00ff_ffff)
}

/// Said before the work: what was detected, what will be proved, and the seed.
fn announcement(session: &Session<'_>, question: &Question) -> String {
    format!(
        "{}: {}; {}{}, scope {}, seed {}",
        session.loaded.spec.name,
        describe(&session.loaded),
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

/// What the report means for the exit code.
pub(crate) fn gate(report: &Report, gates: &[Gate]) -> Exit {
    let found = |wanted: &[Verdict]| report.tests.iter().any(|test| wanted.contains(&test.verdict));
    let sweep = &report.sweep;
    // What is red without a test to blame: starts that fail now and then, sessions that end with an error.
    let flaky = found(&[Verdict::Flaky, Verdict::Fragile])
        || sweep.failed_starts > 0
        || sweep.odd_ends.is_some_and(|ends| ends.attempts < ends.of);
    let broken = found(&[Verdict::Broken])
        || !sweep.collection_errors.is_empty()
        || sweep.odd_ends.is_some_and(|ends| ends.attempts == ends.of);
    if gates.contains(&Gate::Flaky) && flaky || gates.contains(&Gate::Broken) && broken {
        Exit::GateFailed
    } else if gates.contains(&Gate::Inconclusive) && found(&[Verdict::Inconclusive]) {
        Exit::Inconclusive
    } else {
        Exit::Clean
    }
}
