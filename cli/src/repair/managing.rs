//! What was repaired before: the list, taking it back, and how proposals fared.

use super::experience::Experience;
use super::probation;
use super::sessions::{self, Record, Standing, Written};
use super::writing::Kept;
use crate::args::{Format, RepairArgs};
use crate::ask::config_complaint;
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::operators::{ago, json, print_table};
use crate::say::say;
use flakefarm_coordinator::http::RepairView;
use flakefarm_coordinator::repairs::{Guess, Probation, Success};
use flakefarm_project::branch::{self, Committed};
use flakefarm_project::config::without_project;
use serde::Serialize;

/// One line of the list; `flakefarm.repairs/v1` holds them.
#[derive(Serialize)]
struct Listed {
    id: String,
    root: String,
    state: &'static str,
    /// How its probation stands, as the farm says; absent where no farm is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    probation: Option<Probation>,
    /// Microseconds since 1970.
    started_at: i64,
    tests: Vec<String>,
    provider: String,
    proposals: usize,
    files: Vec<String>,
}

#[derive(Serialize)]
struct List {
    schema: &'static str,
    repairs: Vec<Listed>,
    /// Those that the farm carries out, where one is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_farm: Option<Vec<RepairView>>,
}

#[derive(Serialize)]
struct Fared {
    strategy: String,
    failure: String,
    tried: u64,
    proved: u64,
    /// The success rate is this or higher, with a probability of 0.9.
    at_least: f64,
}

#[derive(Serialize)]
struct Stats {
    schema: &'static str,
    outcomes: Vec<Fared>,
}

/// `flakefarm repair --list`.
pub(super) async fn list(kept: &Kept, args: &RepairArgs) -> Result<Exit, Complaint> {
    let settings = without_project(&args.options()).map_err(|error| config_complaint(&error))?;
    let farm = match settings.text("farm.url") {
        Some(address) => Some(Farm::new(&address, settings.text("farm.token"))?),
        None => None,
    };
    let mut repairs = Vec::new();
    for found in sessions::all(kept) {
        match found {
            Ok(record) => {
                let probation = match (&record.probation, &farm) {
                    (Some(probation), Some(farm)) if probation.farm == farm.address() => {
                        Some(probation::standing(farm, probation).await?)
                    }
                    _ => None,
                };
                repairs.push(listed(&record, probation));
            }
            Err(complaint) => say(format!("warning: {}", complaint.message)),
        }
    }
    let on_farm = match &farm {
        Some(farm) => Some(farm.repairs().await?.repairs),
        None => None,
    };
    if args.ask.output.format == Format::Json {
        return json(&List { schema: "flakefarm.repairs/v1", repairs, on_farm });
    }
    if let Some(on_farm) = &on_farm {
        let mut rows = vec![["ON THE FARM", "STATE", "ASKED", "PROJECT", "MENDED"].map(str::to_owned)];
        rows.extend(on_farm.iter().map(|one| {
            let state = one.state.replace('_', " ");
            [one.id.clone(), state, ago(one.created_at), one.project.clone(), one.mended.join(" ")]
        }));
        print_table(&rows, "the farm has carried out no repair")?;
        if repairs.is_empty() {
            return Ok(Exit::Clean);
        }
        crate::output::print("\n")?;
    }
    let mut rows = vec![["REPAIR", "STATE", "STARTED", "PROPOSALS", "PROJECT", "FILES"].map(str::to_owned)];
    rows.extend(repairs.into_iter().map(|one| {
        let files = one.files.join(" ");
        let state = match &one.probation {
            Some(probation) => format!("{}, {}", one.state, probation.words()),
            None => one.state.to_owned(),
        };
        [one.id, state, ago(one.started_at), one.proposals.to_string(), one.root, files]
    }));
    print_table(&rows, "no repair is recorded here")?;
    Ok(Exit::Clean)
}

fn listed(record: &Record, probation: Option<Probation>) -> Listed {
    Listed {
        probation,
        id: record.id.clone(),
        root: record.root.display().to_string(),
        state: record.standing.words(),
        started_at: record.started_at,
        tests: record.request.tests.clone(),
        provider: record.request.provider.clone(),
        proposals: record.told.proposals.len(),
        files: record.proved.keys().cloned().collect(),
    }
}

/// `flakefarm repair --undo ID`.
pub(super) async fn undo(kept: &Kept, id: &str) -> Result<Exit, Complaint> {
    let mut record = sessions::find(kept, id)?;
    let (Standing::Written, Some(written)) = (record.standing, record.written.clone()) else {
        return Err(Complaint::usage(format!(
            "repair {} stands as {}: there is nothing to take back",
            record.id,
            record.standing.words()
        ))
        .hint("flakefarm repair --list shows what was written"));
    };
    let (kept_there, root, session) = (kept.clone(), record.root.clone(), record.id.clone());
    let what = tokio::task::spawn_blocking(move || match written {
        Written::Tree(files) => {
            kept_there.recover(&root)?;
            kept_there.undo(&session, &root, &files)?;
            Ok(match files.as_slice() {
                [one] => format!("{} is as it was before", one.path),
                several => format!("{} files are as they were before", several.len()),
            })
        }
        Written::Branch { name, commit, parent, new_branch } => {
            branch::take_back(&root, &name, &Committed { commit, parent, new_branch })
                .map_err(|error| Complaint::wrong(&error, error.hint()))?;
            Ok(if new_branch { format!("{name} is gone") } else { format!("{name} is where it was") })
        }
    });
    let what: Result<String, Complaint> = what.await?;
    let what = what?;
    record.standing = Standing::Undone;
    record.keep(kept)?;
    say(format!("repair {} is undone: {what}", record.id));
    Ok(Exit::Clean)
}

/// `flakefarm repair --stats`.
pub(super) async fn stats(experience: &Experience, format: Format) -> Result<Exit, Complaint> {
    let learnt = experience.learnt().await?;
    let row = |(guess, success): (&Guess, Success)| Fared {
        strategy: guess.strategy.clone(),
        failure: guess.failure.clone(),
        tried: success.tried,
        proved: success.proved,
        at_least: learnt.lower_bound(guess),
    };
    let mut outcomes: Vec<Fared> = learnt.rows().map(row).collect();
    outcomes.sort_by(|a, b| b.at_least.total_cmp(&a.at_least));
    if format == Format::Json {
        return json(&Stats { schema: "flakefarm.repair-stats/v1", outcomes });
    }
    let mut rows = vec![["STRATEGY", "FAILURE", "TRIED", "PROVED", "AT LEAST"].map(str::to_owned)];
    rows.extend(outcomes.into_iter().map(|one| {
        let at_least = format!("{:.0} %", one.at_least * 100.0);
        [one.strategy, one.failure, one.tried.to_string(), one.proved.to_string(), at_least]
    }));
    print_table(&rows, "no repair was tried in this project yet")?;
    Ok(Exit::Clean)
}
