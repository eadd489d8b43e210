//! What people type about it.

use super::Quarantine;
use crate::args::{
    ListFormat, QuarantineAction, QuarantineAddArgs, QuarantineArgs, QuarantineExportArgs,
    QuarantineListArgs, QuarantineRemoveArgs, QuarantineRuleArgs, QuarantineVerifyArgs,
};
use crate::exit::{Complaint, Exit};
use crate::memory::{self, Memory, Place};
use crate::operators::{ago, json, print_table};
use crate::output;
use crate::say::say;
use flakefarm_coordinator::db::Deed;
use flakefarm_coordinator::http::{NewEntry, NewRule, QuarantineLog, QuarantineView, Removal};
use flakefarm_coordinator::owners::Owners;
use flakefarm_coordinator::quarantine::export::{Format, export};
use flakefarm_coordinator::quarantine::{Entry, Origin, Standing, day, day_at, file};
use flakefarm_shared::now_micros;
use std::path::Path;

/// Lines of the log that are shown.
const LOG_LINES: u32 = 1_000;
/// Furthest last day, from today, in days.
const FURTHEST: u64 = 3_660;

/// `flakefarm quarantine`.
pub(crate) async fn quarantine(args: &QuarantineArgs) -> Result<Exit, Complaint> {
    match &args.action {
        QuarantineAction::Add(args) => add(args).await,
        QuarantineAction::List(args) => list(args).await,
        QuarantineAction::Remove(args) => remove(args).await,
        QuarantineAction::Export(args) => write(args).await,
        QuarantineAction::Verify(args) => verify(args).await,
        QuarantineAction::Log(args) => log(args).await,
        QuarantineAction::Rule(args) => rule(args).await,
    }
}

async fn add(args: &QuarantineAddArgs) -> Result<Exit, Complaint> {
    let memory = Memory::of(&args.memory)?;
    let (now, owners) = (now_micros(), Owners::in_tree(&std::env::current_dir()?));
    let who = args.who.clone().unwrap_or_else(somebody);
    let place = memory.open().await?;
    for test in &args.tests {
        let entry = Entry {
            test: test.clone(),
            signature: args.signature.as_ref().map(|signature| signature.to_lowercase()),
            reason: args.reason.clone(),
            owner: args.owner.clone().or_else(|| owners.of(test)),
            ticket: args.ticket.clone(),
            expires: last_day(&args.expires)?,
            added_at: now,
            added_by: who.clone(),
            origin: Origin::Hand,
            runs: 0,
            failures: 0,
            measured_by: None,
            measured_at: None,
        };
        if let Some((key, what)) = entry.wrong().into_iter().next() {
            return Err(Complaint::usage(format!("{key} of {test}: {what}")));
        }
        if entry.standing(now) == Standing::Expired {
            return Err(Complaint::usage(format!("{} is over: the entry would mute nothing", entry.expires))
                .hint("--expires names its last day, or for how long it holds: 14d"));
        }
        let described = entry.describe();
        match &place {
            Place::Here { db, .. } => {
                let deed = Deed { at: now, who: &who, why: &entry.reason };
                db.put_in_quarantine(&memory.project, &entry, deed).await?;
            }
            Place::Farm(farm) => {
                let (project, who) = (memory.project.clone(), Some(who.clone()));
                farm.put_in_quarantine(&NewEntry { project, entry, who }).await?;
            }
        }
        say(format!("{test} is in quarantine: {described}"));
    }
    Ok(Exit::Clean)
}

/// `2026-12-24`, or so many days from today.
fn last_day(text: &str) -> Result<String, Complaint> {
    if day(text).is_some() {
        return Ok(text.trim().to_owned());
    }
    let wrong = || {
        Complaint::usage(format!("--expires {text} is no day"))
            .hint("such as 2026-12-24, or 14d for two weeks from today")
    };
    let length = humantime::parse_duration(text).map_err(|_| wrong())?;
    let days = length.as_secs().div_ceil(86_400);
    if days == 0 || days > FURTHEST {
        return Err(wrong());
    }
    let last =
        day_at(now_micros()).checked_add(time::Duration::days(days.cast_signed())).ok_or_else(wrong)?;
    Ok(last.to_string())
}

/// Whoever runs this, for the log.
fn somebody() -> String {
    let named = ["FLAKEFARM_WHO", "GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILDKITE_BUILD_CREATOR", "USER"];
    named
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|who| !who.is_empty()))
        .unwrap_or_else(|| "somebody".to_owned())
}

async fn view(memory: &Memory) -> Result<QuarantineView, Complaint> {
    Ok(match memory.open().await? {
        Place::Farm(farm) => farm.quarantine(&memory.project).await?,
        Place::Here { db, .. } => QuarantineView {
            project: memory.project.clone(),
            entries: db.quarantine(&memory.project).await?,
            rule: db.quarantine_rule(&memory.project).await?,
        },
    })
}

/// What the project's file says beside what is recorded, if this directory is the project's.
fn in_file(memory: &Memory, recorded: &[Entry]) -> Vec<Entry> {
    if memory.project != memory::name_of_this_directory() {
        return Vec::new();
    }
    let found = Quarantine::of_file(Path::new("."));
    for note in &found.notes {
        say(format!("warning: {note}"));
    }
    let same = |a: &Entry, b: &Entry| a.test == b.test && a.signature == b.signature;
    found.entries.into_iter().filter(|entry| !recorded.iter().any(|known| same(known, entry))).collect()
}

async fn list(args: &QuarantineListArgs) -> Result<Exit, Complaint> {
    let memory = Memory::of(&args.memory)?;
    let view = view(&memory).await?;
    if args.format == ListFormat::Json {
        output::print(&export(&view.entries, Format::Json, now_micros()).text)?;
        return Ok(Exit::Clean);
    }
    let now = now_micros();
    let mut rows = vec![["TEST", "UNTIL", "OWNER", "SINCE THEN", "WHY"].map(str::to_owned)];
    let beside = in_file(&memory, &view.entries);
    rows.extend(view.entries.iter().chain(&beside).map(|entry| {
        let until = match entry.standing(now) {
            Standing::Holds => entry.expires.clone(),
            Standing::Expired => format!("EXPIRED {}", entry.expires),
        };
        let measured = match entry.measured_at {
            Some(at) => format!("failed {} of {}, {}", entry.failures, entry.runs, ago(at)),
            None if entry.origin == Origin::File => format!("in {} alone", file::NAME),
            None => "not measured yet".to_owned(),
        };
        let signature = entry.signature.as_ref().map_or_else(String::new, |only| format!(" (only {only})"));
        let ticket = entry.ticket.as_ref().map_or_else(String::new, |ticket| format!(", {ticket}"));
        let owner = entry.owner.clone().unwrap_or_else(|| "nobody".to_owned());
        [format!("{}{signature}", entry.test), until, owner, measured, format!("{}{ticket}", entry.reason)]
    }));
    print_table(&rows, &format!("no test of {} is in quarantine", view.project))?;
    Ok(Exit::Clean)
}

async fn remove(args: &QuarantineRemoveArgs) -> Result<Exit, Complaint> {
    let memory = Memory::of(&args.memory)?;
    let who = args.who.clone().unwrap_or_else(somebody);
    let place = memory.open().await?;
    let signature = args.signature.as_ref().map(|signature| signature.to_lowercase());
    for test in &args.tests {
        let taken = match &place {
            Place::Here { db, .. } => {
                let deed = Deed { at: now_micros(), who: &who, why: &args.why };
                db.take_from_quarantine(&memory.project, test, signature.as_deref(), "removed", deed).await?
            }
            Place::Farm(farm) => {
                farm.take_from_quarantine(&Removal {
                    project: memory.project.clone(),
                    test: test.clone(),
                    signature: signature.clone(),
                    why: args.why.clone(),
                    who: Some(who.clone()),
                })
                .await?
            }
        };
        if !taken {
            return Err(Complaint::usage(format!("{test} of {} is not in quarantine", memory.project))
                .hint("`flakefarm quarantine list` names those that are; --signature names one failure"));
        }
        say(format!("{test} is out of quarantine"));
    }
    Ok(Exit::Clean)
}

async fn write(args: &QuarantineExportArgs) -> Result<Exit, Complaint> {
    let memory = Memory::of(&args.memory)?;
    let mut entries = view(&memory).await?.entries;
    match args.format {
        // They are what is recorded: what left there by itself is to leave the file, too.
        Format::Toml | Format::Json => {}
        _ => entries.extend(in_file(&memory, &entries)),
    }
    let exported = export(&entries, args.format, now_micros());
    for line in &exported.left_out {
        say(format!("left out: {line}"));
    }
    match &args.output {
        Some(path) => output::write_file(path, &exported.text)?,
        None => output::print(&exported.text)?,
    }
    Ok(Exit::Clean)
}

async fn verify(args: &QuarantineVerifyArgs) -> Result<Exit, Complaint> {
    let path = if args.path.is_dir() { args.path.join(file::NAME) } else { args.path.clone() };
    let mut found = 0;
    let mut tell = |line: String| {
        found += 1;
        output::print(&format!("{line}\n"))
    };
    let now = now_micros();
    let mut entries = Vec::new();
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let read = file::read(&text);
            for problem in &read.problems {
                let key = if problem.key.is_empty() { String::new() } else { format!("`{}`: ", problem.key) };
                tell(format!("{}:{}: {key}{}", path.display(), problem.line, problem.what))?;
            }
            let dated = |entry: &&Entry| day(&entry.expires).is_some();
            for entry in
                read.entries.iter().filter(dated).filter(|entry| entry.standing(now) == Standing::Expired)
            {
                tell(format!("{}: {} has expired: {}", path.display(), entry.test, entry.describe()))?;
            }
            entries = read.entries;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && args.path.is_dir() => {}
        Err(error) => {
            return Err(Complaint::usage(format!("failed to read {}: {error}", path.display())));
        }
    }
    let recorded = view(&Memory::of(&args.memory)?).await?.entries;
    for entry in recorded.iter().filter(|entry| entry.standing(now) == Standing::Expired) {
        tell(format!("recorded: {} has expired: {}", entry.test, entry.describe()))?;
    }
    let all = entries.len() + recorded.len();
    if found > 0 {
        say(format!("{found} to be seen to, of {all} entries"));
        return Ok(Exit::GateFailed);
    }
    say(format!("{all} entries, all of them in order"));
    Ok(Exit::Clean)
}

async fn log(args: &QuarantineListArgs) -> Result<Exit, Complaint> {
    let memory = Memory::of(&args.memory)?;
    let log = match memory.open().await? {
        Place::Farm(farm) => farm.quarantine_log(&memory.project).await?,
        Place::Here { db, .. } => {
            QuarantineLog { done: db.quarantine_log(&memory.project, LOG_LINES).await? }
        }
    };
    if args.format == ListFormat::Json {
        return json(&log);
    }
    let mut rows = vec![["WHEN", "WHAT", "TEST", "WHO", "WHY"].map(str::to_owned)];
    rows.extend(log.done.into_iter().map(|done| [ago(done.at), done.action, done.test, done.who, done.why]));
    print_table(&rows, "nothing was done to it")?;
    Ok(Exit::Clean)
}

async fn rule(args: &QuarantineRuleArgs) -> Result<Exit, Complaint> {
    let memory = Memory::of(&args.memory)?;
    let mut rule = view(&memory).await?.rule;
    let before = rule.clone();
    rule.enters = args.enter.as_ref().map_or(rule.enters, |enter| enter == "on");
    rule.at_least = args.at_least.map_or(rule.at_least, |rate| rate.get());
    rule.days = args.days.unwrap_or(rule.days);
    rule.most = args.most.unwrap_or(rule.most);
    if rule != before {
        match memory.open().await? {
            Place::Here { db, .. } => db.set_quarantine_rule(&memory.project, &rule).await?,
            Place::Farm(farm) => {
                farm.set_quarantine_rule(&NewRule { project: memory.project.clone(), rule: rule.clone() })
                    .await?;
            }
        }
    }
    let text = if rule.enters {
        format!(
            "flaky tests of {} that fail {:.1} % of the time or more enter by themselves, for {} days, at most {}\n",
            memory.project,
            rule.at_least * 100.0,
            rule.days,
            rule.most
        )
    } else {
        format!(
            "no test of {} enters by itself; those that sweeps show to be healthy leave\n",
            memory.project
        )
    };
    output::print(&text)?;
    Ok(Exit::Clean)
}
