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
use flakefarm_coordinator::http::{NewGit, NewSchedule, ScheduleView};
use flakefarm_coordinator::report::trust_short;
use flakefarm_project::config::{FILE_NAME, without_project};
use flakefarm_shared::Digest;
use std::time::Duration;

/// Between two looks at whether sources are fetched.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `flakefarm schedule`.
pub(crate) async fn schedule(args: &ScheduleArgs) -> Result<Exit, Complaint> {
    match &args.action {
        ScheduleAction::Add(args) => add(args).await,
        ScheduleAction::List(args) => list(args).await,
        ScheduleAction::Run(args) => {
            let (farm, schedule) = find(args).await?;
            let sweep = farm.run_schedule(&schedule.id).await?;
            if schedule.git.is_some() {
                fetched(&farm, &schedule, &sweep).await?;
            }
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
    let git = git_of(args, &session)?;
    let (place, submission) = match &git {
        // Nothing of this tree is swept: it only says how.
        Some(_) => sweep::prepare_elsewhere(asked, &mut session).await?,
        None => sweep::prepare(asked, &mut session).await?,
    };
    let Place::Farm(farm) = place else { return Err(no_farm()) };
    let (name, cron, zone) = (args.name.clone(), args.cron.clone(), args.zone.clone());
    let added = farm
        .add_schedule(&NewSchedule { name, cron, zone, sweep: submission, git, repairs: args.repairs })
        .await?;
    let next = added.next_words.first().map_or("never", String::as_str);
    say(format!("schedule {} of {} fires next at {next}", added.name, added.project));
    Ok(Exit::Clean)
}

/// The git remote that was named.
fn git_of(args: &ScheduleAddArgs, session: &Session<'_>) -> Result<Option<NewGit>, Complaint> {
    let Some(url) = &args.git else { return Ok(None) };
    let credentials = args.git_credentials.as_ref().map(|file| {
        std::fs::read_to_string(file)
            .map_err(|error| Complaint::usage(format!("failed to read {}: {error}", file.display())))
    });
    let own = || flakefarm_project::revisions::prefix(&session.root).unwrap_or_default();
    let configuration = std::fs::read(session.root.join(FILE_NAME)).ok();
    Ok(Some(NewGit {
        url: url.clone(),
        revision: args.branch.clone(),
        directory: args.git_directory.clone().unwrap_or_else(own).trim_end_matches('/').to_owned(),
        credentials: credentials.transpose()?,
        configuration: configuration.map(|text| Digest::of(&text).to_string()),
    }))
}

/// Waits until the sources of a firing are fetched.
async fn fetched(farm: &Farm, schedule: &ScheduleView, sweep: &str) -> Result<(), Complaint> {
    let stop = signals::stop_on_signal()?;
    let mut said = None;
    loop {
        let all = farm.schedules().await?.schedules;
        let found = all.iter().find(|found| found.id == schedule.id);
        let firing = found.and_then(|found| found.firings.iter().find(|firing| firing.sweep == sweep));
        let Some(firing) = firing else {
            return Err(Complaint::farm(format!("schedule {} is gone", schedule.name)));
        };
        let why = firing.why.clone().unwrap_or_default();
        match firing.state.as_str() {
            "fetching" if firing.tries > 0 && said.as_ref() != Some(&firing.tries) => {
                say(format!("not fetched, and tried again: {why}"));
                said = Some(firing.tries);
            }
            "fetching" => {}
            "failed" => return Err(Complaint::new(Exit::NothingRan, why)),
            _ => {
                firing.notes.iter().for_each(|note| say(format!("note: {note}")));
                return Ok(());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = stop.cancelled() => {
                say("it goes on without us: flakefarm schedule list tells");
                return Err(Complaint::new(Exit::Interrupted, "interrupted"));
            }
        }
    }
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
        let firing = schedule.firings.first();
        let last = match (&schedule.last_sweep, schedule.last_at) {
            (_, Some(at)) if firing.is_some_and(|firing| firing.state != "fired") => {
                format!("{}, {}", firing.map_or("", |firing| &firing.state), ago(at))
            }
            (Some(sweep), Some(at)) => format!("{sweep}, {}", ago(at)),
            _ => "none".to_owned(),
        };
        let passed = schedule.skipped_at.filter(|at| schedule.last_at.is_none_or(|last| last < *at));
        let note = passed.map_or_else(|| told(schedule), |at| format!("passed {}: it still ran", ago(at)));
        let when = format!("{} {}", schedule.cron, schedule.zone);
        [schedule.name.clone(), schedule.project.clone(), when, next.to_owned(), last, note]
    }));
    print_table(&rows, "no schedule")?;
    Ok(Exit::Clean)
}

/// What is to be said of a schedule's last firing.
fn told(schedule: &ScheduleView) -> String {
    let Some(firing) = schedule.firings.first() else { return String::new() };
    let tries = if firing.state == "fetching" && firing.tries > 0 { "tried again: " } else { "" };
    let why = firing.why.as_ref().map(|why| format!("{tries}{why}"));
    let notes = (!firing.notes.is_empty()).then(|| firing.notes.join("; "));
    let trust = firing.trust.as_ref().map(trust_short);
    [trust, why, notes].into_iter().flatten().collect::<Vec<_>>().join("; ")
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
