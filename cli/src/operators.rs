//! What operators ask of a farm, or of this machine's own state: which sweeps there are, their reports,
//! their end; which workers; which jobs are dead, and what becomes of them.

use crate::args::{
    CancelArgs, DeadAction, DeadArgs, ListFormat, OutputArgs, PlaceArgs, SweepsArgs, WorkersArgs,
};
use crate::ask::config_complaint;
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::output::{self, Outputs};
use crate::say::say;
use crate::{embedded, stores};
use comfy_table::{ContentArrangement, Table, presets};
use flakefarm_coordinator::db::{Db, SweepFilter, SweepState};
use flakefarm_coordinator::events::Event;
use flakefarm_coordinator::http::views::{DeadPage, DeadView, ParkedView, SweepView, SweepsPage, WorkerView};
use flakefarm_coordinator::report::Report;
use flakefarm_coordinator::{Coordinator, engine};
use flakefarm_project::config::without_project;
use flakefarm_shared::queue::Role;
use flakefarm_shared::{SweepId, now_micros};
use serde::Serialize;
use std::time::Duration;

/// Where the answers are.
enum Place {
    Farm(Farm),
    Here(Db),
}

impl Place {
    async fn of(args: &PlaceArgs) -> Result<Self, Complaint> {
        let settings = without_project(&args.farm.options()).map_err(|error| config_complaint(&error))?;
        match settings.text("farm.url") {
            Some(address) => Ok(Place::Farm(Farm::new(&address, settings.text("farm.token"))?)),
            None => {
                Ok(Place::Here(embedded::open_database(&stores::state_dir(args.state.as_deref())?).await?))
            }
        }
    }
}

/// `flakefarm sweeps`.
pub(crate) async fn sweeps(args: &SweepsArgs) -> Result<Exit, Complaint> {
    let limit = u32::from(args.limit.get());
    let page = match Place::of(&args.place).await? {
        Place::Farm(farm) => {
            let before = args.before.map(|id| id.to_string());
            farm.sweeps(args.project.as_deref(), args.in_state.as_deref(), before.as_deref(), limit).await?
        }
        Place::Here(db) => {
            let projects = args.project.clone().map(|project| vec![project]);
            let filter = SweepFilter { projects, state: args.in_state.clone(), before: args.before };
            let rows = db.sweeps_page(&filter, limit).await?;
            let next =
                rows.last().filter(|_| rows.len() as u64 == u64::from(limit)).map(|row| row.id.to_string());
            SweepsPage { sweeps: SweepView::all(&rows, db.progress_of(&rows).await?), next }
        }
    };
    if args.format == ListFormat::Json {
        return json(&page);
    }
    let mut rows = vec![["SWEEP", "PROJECT", "STATE", "STARTED", ""].map(str::to_owned)];
    rows.extend(page.sweeps.iter().map(|sweep| {
        [sweep.id.clone(), sweep.project.clone(), sweep.state.clone(), ago(sweep.created_at), how_far(sweep)]
    }));
    print_table(&rows, "no sweep")?;
    if let Some(next) = page.next {
        say(format!("hint: --before {next} lists older ones"));
    }
    Ok(Exit::Clean)
}

fn how_far(sweep: &SweepView) -> String {
    if let Some(failure) = &sweep.failure {
        return failure.message.clone();
    }
    match &sweep.progress {
        Some(Event::Progress { attempts, remaining, flaky, failing, slots, .. }) => {
            let worker = if *slots == 0 { ", no worker" } else { "" };
            format!(
                "{attempts} of about {} attempts, {flaky} flaky, {failing} failing{worker}",
                attempts + remaining
            )
        }
        _ => String::new(),
    }
}

/// `flakefarm report ID`: of a sweep on the farm or on this machine.
pub(crate) async fn report(
    sweep: SweepId,
    place: &PlaceArgs,
    output: &OutputArgs,
) -> Result<Exit, Complaint> {
    let (report, outputs): (Report, Outputs) = match Place::of(place).await? {
        Place::Farm(farm) => (farm.report(sweep).await?, Outputs::Farm(farm)),
        Place::Here(db) => {
            let coordinator = here(db, place)?;
            let unknown = || unknown(sweep);
            coordinator.db().sweep(sweep).await?.ok_or_else(unknown)?;
            (coordinator.report(sweep).await?, Outputs::Blobs(coordinator.blobs().clone()))
        }
    };
    output::write(&report, output, &outputs).await?;
    Ok(Exit::Clean)
}

/// A coordinator over this machine's state that runs no loops.
fn here(db: Db, place: &PlaceArgs) -> Result<Coordinator, Complaint> {
    let state = stores::state_dir(place.state.as_deref())?;
    let blobs = stores::open_blobs(&format!("file://{}", state.join("blobs").display()))?;
    let queue = stores::open_queue("embedded:", Role::Coordinator)?;
    Ok(Coordinator::embedded(db, queue, blobs, engine::DEFAULT_LEASE))
}

fn unknown(sweep: SweepId) -> Complaint {
    Complaint::usage(format!("sweep {sweep} is not known here")).hint("flakefarm sweeps lists what is")
}

/// `flakefarm cancel ID`.
pub(crate) async fn cancel(args: &CancelArgs) -> Result<Exit, Complaint> {
    let state = match Place::of(&args.place).await? {
        Place::Farm(farm) => farm.cancel_only(args.sweep).await?,
        Place::Here(db) => {
            let coordinator = here(db, &args.place)?;
            let row = coordinator.db().sweep(args.sweep).await?.ok_or_else(|| unknown(args.sweep))?;
            if matches!(row.state, SweepState::Running | SweepState::Interrupted) {
                coordinator.cancel(&row).await?;
                "cancelled".to_owned()
            } else {
                row.state.word().to_owned()
            }
        }
    };
    if state == "cancelled" {
        say(format!(
            "sweep {} is cancelled; flakefarm report {} shows what is known",
            args.sweep, args.sweep
        ));
    } else {
        say(format!("sweep {} had ended before: {state}", args.sweep));
    }
    Ok(Exit::Clean)
}

/// `flakefarm workers`.
pub(crate) async fn workers(args: &WorkersArgs) -> Result<Exit, Complaint> {
    let Place::Farm(farm) = Place::of(&args.place).await? else {
        return Err(
            Complaint::usage("only a farm has workers").hint("pass --farm URL, or set FLAKEFARM_FARM")
        );
    };
    let workers = farm.workers().await?;
    if args.format == ListFormat::Json {
        return json(&workers);
    }
    let mut rows = vec![["WORKER", "STATE", "JOBS", "SLOTS", "SEEN", "VERSION"].map(str::to_owned)];
    rows.extend(workers.workers.iter().map(|worker| {
        let seen = format!("{} ago", duration(worker.seconds_since_seen));
        let (jobs, slots) = (worker.jobs.to_string(), worker.slots.to_string());
        [worker.id.clone(), standing(worker).to_owned(), jobs, slots, seen, worker.version.clone()]
    }));
    print_table(&rows, "no worker")?;
    if workers.workers.iter().all(|worker| worker.gone) {
        say("hint: nothing runs until a worker does: flakefarm worker starts one");
    }
    Ok(Exit::Clean)
}

fn standing(worker: &WorkerView) -> &'static str {
    match (worker.gone, worker.draining, worker.jobs) {
        (true, _, _) => "gone",
        (false, true, _) => "draining",
        (false, false, 0) => "idle",
        (false, false, _) => "working",
    }
}

/// `flakefarm dead`.
pub(crate) async fn dead(args: &DeadArgs) -> Result<Exit, Complaint> {
    let place = Place::of(&args.place).await?;
    let Some(action) = args.action else { return list_dead(args, &place).await };
    for job in &args.jobs {
        match (&place, action) {
            (Place::Farm(farm), DeadAction::Requeue) => farm.change_dead(*job, "requeue").await?,
            (Place::Farm(farm), DeadAction::Discard) => farm.change_dead(*job, "discard").await?,
            (Place::Here(db), DeadAction::Requeue) => db.revive_job(*job, now_micros()).await?,
            (Place::Here(db), DeadAction::Discard) => db.discard_job(*job, now_micros()).await?,
        }
        say(match action {
            DeadAction::Requeue => format!("job {job} waits for a worker again"),
            DeadAction::Discard => format!("job {job} is off the list"),
        });
    }
    Ok(Exit::Clean)
}

async fn list_dead(args: &DeadArgs, place: &Place) -> Result<Exit, Complaint> {
    let limit = u32::from(args.limit.get());
    let page = match place {
        Place::Farm(farm) => farm.dead(args.before.map(|job| job.to_string()).as_deref(), limit).await?,
        Place::Here(db) => {
            let rows = db.dead_page(None, args.before, limit).await?;
            let next = rows
                .last()
                .filter(|_| rows.len() as u64 == u64::from(limit))
                .map(|row| row.job.id.to_string());
            let parked = match args.before {
                None => db.parked(limit).await?.into_iter().map(ParkedView::of).collect(),
                Some(_) => Vec::new(),
            };
            DeadPage { dead: rows.into_iter().map(DeadView::of).collect(), parked, next }
        }
    };
    if args.format == ListFormat::Json {
        return json(&page);
    }
    let mut rows = vec![["JOB", "SWEEP", "PROJECT", "DIED", "REASON"].map(str::to_owned)];
    rows.extend(page.dead.iter().map(|dead| {
        let reason = dead.reason.lines().next().unwrap_or_default().to_owned();
        [dead.job.clone(), dead.sweep.clone(), dead.project.clone(), ago(dead.at), reason]
    }));
    rows.extend(page.parked.iter().map(|parked| {
        let origin = parked.origin.as_deref().unwrap_or("unknown");
        let reason = format!("{}: {}", parked.reason, parked.body.lines().next().unwrap_or_default());
        [parked.id.clone(), format!("a message from {origin}"), String::new(), ago(parked.at), reason]
    }));
    print_table(&rows, "no dead job")?;
    if !page.dead.is_empty() {
        say("hint: flakefarm dead requeue JOB, or flakefarm dead discard JOB");
    }
    if let Some(next) = page.next {
        say(format!("hint: --before {next} lists earlier ones"));
    }
    Ok(Exit::Clean)
}

pub(crate) fn json<T: Serialize>(value: &T) -> Result<Exit, Complaint> {
    let mut text = serde_json::to_string_pretty(value).expect("lists serialise");
    text.push('\n');
    output::print(&text)?;
    Ok(Exit::Clean)
}

/// A table with a head; without anything below it, a line that says so.
pub(crate) fn print_table<const N: usize>(rows: &[[String; N]], nothing: &str) -> Result<(), Complaint> {
    if rows.len() < 2 {
        say(nothing);
        return Ok(());
    }
    output::print(&table(rows))
}

pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    // What others have chosen as names is shown as it is written, and moves no cursor.
    let shown =
        |cell: &String| cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.add_rows(rows.iter().map(|row| row.iter().map(shown).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

pub(crate) fn ago(at: i64) -> String {
    format!("{} ago", duration((now_micros() - at) / 1_000_000))
}

pub(crate) fn duration(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    // Of a long time nobody asks for the seconds.
    let unit = match seconds {
        0..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    humantime::format_duration(Duration::from_secs(seconds / unit * unit)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_names_move_no_cursor() {
        let rows = [["A", "LONG"], ["wide cell", "x\u{1b}[2J"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A          LONG\nwide cell  x\u{fffd}[2J\n");
    }

    #[test]
    fn long_times_are_told_roughly() {
        assert_eq!(duration(5), "5s");
        assert_eq!(duration(3_725), "1h 2m");
        assert_eq!(duration(90_061), "1day 1h");
        assert_eq!(duration(-3), "0s");
    }
}
