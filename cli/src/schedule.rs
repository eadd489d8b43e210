//! `flakefarm schedule`: sweeps of a farm that begin by the clock.

use crate::args::{
    FarmAddressArgs, ListFormat, ScheduleAction, ScheduleAddArgs, ScheduleArgs, ScheduleListArgs,
    ScheduleNameArgs,
};
use crate::ask::{Place, Session, config_complaint};
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::operators::{ago, json, print_table};
use crate::say::say;
use crate::{signals, sweep};
use flakefarm_coordinator::http::{NewSchedule, ScheduleView};
use flakefarm_project::config::without_project;

/// `flakefarm schedule`.
pub(crate) async fn schedule(args: &ScheduleArgs) -> Result<Exit, Complaint> {
    match &args.action {
        ScheduleAction::Add(args) => add(args).await,
        ScheduleAction::List(args) => list(args).await,
        ScheduleAction::Run(args) => {
            let (farm, schedule) = find(args).await?;
            let sweep = farm.run_schedule(&schedule.id).await?;
            crate::output::print(&format!("{sweep}\n"))?;
            say(format!("hint: flakefarm attach {sweep} --farm {} follows it", farm.address()));
            Ok(Exit::Clean)
        }
        ScheduleAction::Pause(args) => change(args, "pause", "is paused").await,
        ScheduleAction::Resume(args) => change(args, "resume", "goes on").await,
        ScheduleAction::Remove(args) => {
            let (farm, schedule) = find(args).await?;
            farm.remove_schedule(&schedule.id).await?;
            say(format!("schedule {} is removed", schedule.name));
            Ok(Exit::Clean)
        }
    }
}

fn farm(args: &FarmAddressArgs) -> Result<Farm, Complaint> {
    let settings = without_project(&args.options()).map_err(|error| config_complaint(&error))?;
    let address = settings.text("farm.url").ok_or_else(no_farm)?;
    Farm::new(&address, settings.text("farm.token"))
}

fn no_farm() -> Complaint {
    Complaint::usage("only a farm keeps schedules").hint("pass --farm URL, or set FLAKEFARM_FARM")
}

async fn add(args: &ScheduleAddArgs) -> Result<Exit, Complaint> {
    let asked = &args.sweep;
    let mut session = Session::open(&asked.ask, &asked.path, &asked.options(), signals::stop_on_signal()?)?;
    if session.loaded.settings.text("farm.url").is_none() {
        return Err(no_farm());
    }
    let (place, submission) = sweep::prepare(asked, &mut session).await?;
    let Place::Farm(farm) = place else { return Err(no_farm()) };
    let (name, cron, zone) = (args.name.clone(), args.cron.clone(), args.zone.clone());
    let added = farm.add_schedule(&NewSchedule { name, cron, zone, sweep: submission }).await?;
    let next = added.next_words.first().map_or("never", String::as_str);
    say(format!("schedule {} of {} fires next at {next}", added.name, added.project));
    Ok(Exit::Clean)
}

async fn list(args: &ScheduleListArgs) -> Result<Exit, Complaint> {
    let found = farm(&args.farm)?.schedules().await?;
    if args.format == ListFormat::Json {
        return json(&found);
    }
    let mut rows = vec![["SCHEDULE", "PROJECT", "WHEN", "NEXT", "LAST SWEEP", ""].map(str::to_owned)];
    rows.extend(found.schedules.iter().map(|schedule| {
        let next = match (schedule.paused, schedule.next_words.first()) {
            (true, _) => "paused",
            (false, Some(next)) => next,
            (false, None) => "never",
        };
        let last = match (&schedule.last_sweep, schedule.last_at) {
            (Some(sweep), Some(at)) => format!("{sweep}, {}", ago(at)),
            _ => "none".to_owned(),
        };
        let passed = schedule.skipped_at.filter(|at| schedule.last_at.is_none_or(|last| last < *at));
        let note = passed.map_or_else(String::new, |at| format!("passed {}: it still ran", ago(at)));
        let when = format!("{} {}", schedule.cron, schedule.zone);
        [schedule.name.clone(), schedule.project.clone(), when, next.to_owned(), last, note]
    }));
    print_table(&rows, "no schedule")?;
    Ok(Exit::Clean)
}

async fn change(args: &ScheduleNameArgs, action: &str, said: &str) -> Result<Exit, Complaint> {
    let (farm, schedule) = find(args).await?;
    farm.change_schedule(&schedule.id, action).await?;
    say(format!("schedule {} {said}", schedule.name));
    Ok(Exit::Clean)
}

/// The schedule that is named, and its farm.
async fn find(args: &ScheduleNameArgs) -> Result<(Farm, ScheduleView), Complaint> {
    let farm = farm(&args.farm)?;
    let all = farm.schedules().await?.schedules;
    let meant = |schedule: &ScheduleView| {
        (schedule.name == args.name || schedule.id == args.name)
            && args.of.as_ref().is_none_or(|project| *project == schedule.project)
    };
    let mut found: Vec<ScheduleView> = all.into_iter().filter(meant).collect();
    match (found.pop(), found.len()) {
        (Some(schedule), 0) => Ok((farm, schedule)),
        (Some(_), _) => Err(Complaint::usage(format!("several projects have a schedule `{}`", args.name))
            .hint("say which with --of PROJECT")),
        (None, _) => Err(Complaint::usage(format!("there is no schedule `{}`", args.name))
            .hint("flakefarm schedule list names them")),
    }
}
