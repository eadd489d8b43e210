//! `flakefarm repair --detach` and what follows: a repair that the farm carries out by itself, looked at, waited for,
//! fetched, accepted and cancelled.

use super::told::Told;
use crate::args::{Format, OnFarm, RepairArgs};
use crate::ask::{Session, config_complaint};
use crate::check::failed;
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::operators::{ago, json};
use crate::output;
use crate::say::say;
use crate::sweep::{Wishes, question};
use crate::trees;
use flakefarm_coordinator::experiment::Budget;
use flakefarm_coordinator::http::RepairView;
use flakefarm_coordinator::plan::{QuestionKind, TestFilter};
use flakefarm_coordinator::repairs::{RepairBase, RepairRequest, RepairState};
use flakefarm_project::config::without_project;
use flakefarm_shared::{Class, World};
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;
use uuid::Uuid;

/// Between two looks at a repair that is waited for.
const PAUSE: Duration = Duration::from_secs(1);

/// Leaves a repair to the farm, and prints its id.
pub(super) async fn ask(
    args: &RepairArgs,
    session: Session<'_>,
    mut tests: Vec<String>,
) -> Result<Exit, Complaint> {
    if args.apply || args.branch.is_some() || args.manage.resume.is_some() {
        return Err(Complaint::usage("what the farm repairs by itself is written by nobody")
            .hint("leave out --apply and --branch; --patch ID prints the patch for `git apply`"));
    }
    if !args.junit.is_empty() {
        tests.extend(failed::of_reports(&args.junit, &session, "repair").await?);
    }
    let farm = farm_of(args)?;
    farm.check().await?;
    let settings = &session.loaded.settings;
    // CI waits for it.
    let waits = args.ask.farm.interactive || std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let class = if waits { Class::Interactive } else { Class::Bulk };
    let source = format!("{} of {}", session.loaded.spec.name, session.root.display());
    let id = if let Some(schedule) = &args.schedule {
        farm.repair_of_schedule(&session.loaded.spec.name, schedule, &tests, class, &source).await?
    } else {
        let here = session.archive().await?;
        let base = match trees::base(&session.root, args.base.as_deref(), &here).await? {
            Some(base) => {
                let name = base.archive.revision.clone().unwrap_or(base.name);
                Some(RepairBase { name, snapshot: farm.upload(base.archive.bytes.into()).await? })
            }
            None => None,
        };
        let wishes =
            Wishes { kind: QuestionKind::Detect, tests: TestFilter::default(), order: None, repeats: true };
        let question = question(wishes, &session)?;
        let revision = here.revision.clone();
        let snapshot = farm.upload(here.bytes.into()).await?;
        let budget = |key: &str| -> Result<Option<Budget>, Complaint> {
            settings.parsed(key, crate::args::values::parsed).map_err(|error| Complaint::of_setting(&error))
        };
        let submission = session.submission(question, snapshot, revision, World::Plain);
        farm.repair(&RepairRequest {
            context: submission.context,
            question: submission.question,
            class,
            tests,
            base,
            attempts: settings.whole("repair.attempts").and_then(NonZeroU32::new),
            look_budget: budget("repair.look_budget")?,
            mend_budget: budget("repair.mend_budget")?,
            source,
        })
        .await?
    };
    if let Some(warning) = farm.nobody_works().await {
        say(warning);
    }
    output::print(&format!("{id}\n"))?;
    say(format!("hint: flakefarm repair --follow {id} --farm {} waits for it", farm.address()));
    Ok(Exit::Clean)
}

/// What is wanted of a repair on a farm.
pub(super) async fn about(args: &RepairArgs, wanted: &OnFarm) -> Result<Exit, Complaint> {
    let farm = farm_of(args)?;
    match *wanted {
        OnFarm::Show(id) => show(args, &farm.repair_view(id).await?),
        OnFarm::Follow(id) => follow(args, &farm, id).await,
        OnFarm::Patch(id) => {
            let patch = farm.repair_patch(id).await?;
            match &args.ask.output.output {
                Some(file) => output::write_file(file, &patch)?,
                None => output::print(&patch)?,
            }
            Ok(Exit::Clean)
        }
        OnFarm::Accept(id) => show(args, &farm.accept_repair(id).await?),
        OnFarm::Cancel(id) => show(args, &farm.cancel_repair(id).await?),
    }
}

/// The farm that is asked; there must be one.
fn farm_of(args: &RepairArgs) -> Result<Farm, Complaint> {
    let settings = without_project(&args.options()).map_err(|error| config_complaint(&error))?;
    let address = settings.text("farm.url").ok_or_else(|| {
        Complaint::usage("only a farm carries out repairs by itself, and none is named")
            .hint("pass --farm URL, or set FLAKEFARM_FARM")
    })?;
    Farm::new(&address, settings.text("farm.token"))
}

async fn follow(args: &RepairArgs, farm: &Farm, id: Uuid) -> Result<Exit, Complaint> {
    let stop = crate::signals::stop_on_signal()?;
    let mut after = 0;
    loop {
        // First how it stands: what is told before its end is all there by then.
        let view = farm.repair_view(id).await?;
        for event in farm.repair_events(id, after).await? {
            after = event.id;
            if let Some(line) = event.line() {
                say(line);
            }
        }
        if !view.state.parse::<RepairState>().is_ok_and(RepairState::is_open) {
            return show(args, &view);
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => {
                say(format!("hint: it goes on; flakefarm repair --cancel {id} --farm {} ends it", farm.address()));
                return Ok(Exit::Interrupted);
            }
        }
    }
}

fn show(args: &RepairArgs, view: &RepairView) -> Result<Exit, Complaint> {
    match args.ask.output.format {
        Format::Json => {
            json(view)?;
        }
        _ => output::print(&human(view))?,
    }
    Ok(match view.state.parse() {
        Ok(RepairState::NotProved | RepairState::Relapsed) => Exit::GateFailed,
        Ok(RepairState::Undecided | RepairState::Cancelled | RepairState::Unproven) => Exit::Inconclusive,
        Ok(RepairState::Failed) => Exit::NothingRan,
        _ => Exit::Clean,
    })
}

/// A repair for people.
fn human(view: &RepairView) -> String {
    let mut text = String::new();
    let revision = view.revision.as_ref().map_or_else(String::new, |revision| format!(" at {revision}"));
    let base = view.base.as_ref().map_or_else(String::new, |base| format!(", right at {base}"));
    let state = view.state.replace('_', " ");
    let asked = ago(view.created_at);
    let _infallible =
        writeln!(text, "repair {} of {}{revision}{base}: {state}, asked for {asked}", view.id, view.project);
    if let Some(failure) = &view.failure {
        let _infallible = writeln!(text, "{}", failure.message);
        for line in failure.log.lines() {
            let _infallible = writeln!(text, "  | {line}");
        }
        if let Some(hint) = &failure.hint {
            let _infallible = writeln!(text, "hint: {hint}");
        }
    }
    if let Some(told) = view.told.clone().and_then(|told| serde_json::from_value::<Told>(told).ok()) {
        text.push('\n');
        text.push_str(&told.findings());
    }
    if let Some(runs) = &view.further_runs {
        let _infallible = writeln!(text, "{}", runs.words());
    }
    if view.has_patch {
        let _infallible = writeln!(text, "flakefarm repair --patch {} | git apply takes it over.", view.id);
    }
    if view.state == RepairState::Proved.word() {
        let id = &view.id;
        let _infallible =
            writeln!(text, "flakefarm repair --accept {id} lets its tests run on until it is proven.");
    }
    text
}
