//! Where history is: in this user's state directory, or on a farm. What the commands share that fill it and
//! ask it.

use crate::args::MemoryArgs;
use crate::ask::config_complaint;
use crate::exit::Complaint;
use crate::farm::Farm;
use crate::role_settings::retention_here;
use crate::stores;
use flakefarm_coordinator::db::Db;
use flakefarm_coordinator::history::collect::{CollectError, collect_day, mend_columns};
use flakefarm_project::config::{LoadedProject, without_project};
use flakefarm_shared::now_micros;
use flakefarm_shared::samples::{Samples, codec};
use std::path::{Path, PathBuf};

/// Days that are summed up before a question: what is older was summed up before, or has expired.
const FRESH_DAYS: i64 = 14;
/// Sums younger than this answer a question as they are.
const FRESH_MICROS: i64 = 60_000_000;

/// A project's history, not yet opened.
pub(crate) struct Memory {
    pub(crate) project: String,
    farm: Option<(String, Option<String>)>,
    state: Option<PathBuf>,
}

/// An opened history.
pub(crate) enum Place {
    /// In this user's files.
    Here { db: Db, samples: Samples },
    /// On a farm.
    Farm(Farm),
}

impl Memory {
    pub(crate) fn of(args: &MemoryArgs) -> Result<Self, Complaint> {
        let settings = without_project(&args.farm.options()).map_err(|error| config_complaint(&error))?;
        let farm = settings.text("farm.url").map(|address| (address, settings.text("farm.token")));
        let project = match &args.project {
            Some(project) => project.clone(),
            None => name_of_this_directory(),
        };
        Ok(Self { project, farm, state: args.state.clone() })
    }

    /// As [`Memory::of`], of the project at `root` unless another is named.
    pub(crate) fn of_project(args: &MemoryArgs, root: &Path) -> Result<Self, Complaint> {
        let mut memory = Self::of(args)?;
        if args.project.is_none() {
            memory.project = name_of(root);
        }
        Ok(memory)
    }

    pub(crate) async fn open(&self) -> Result<Place, Complaint> {
        if let Some((address, token)) = &self.farm {
            let farm = Farm::new(address, token.clone())?;
            farm.check().await?;
            return Ok(Place::Farm(farm));
        }
        let (db, samples) = open_here(self.state.as_deref()).await?;
        Ok(Place::Here { db, samples })
    }

    /// Sums up the last days, so that questions over all tests see them.
    pub(crate) async fn sum_up(&self, db: &Db, samples: &Samples) -> Result<(), Complaint> {
        let now = now_micros();
        let today = codec::day_of(now);
        mend_columns(db, &self.project, now).await?;
        let noted = db.noted_days(&self.project, today - FRESH_DAYS, today + 1).await?;
        let late = db.late_days(&self.project).await?;
        let fresh = today - FRESH_DAYS..=today;
        for day in late.iter().copied().filter(|day| *day < today - FRESH_DAYS).chain(fresh) {
            let note = noted.iter().find(|note| note.day == day);
            // A day that was summed up after it had been over for two days does not change any more.
            let settled = |at: i64| at > codec::day_start(day + 3) || now - at < FRESH_MICROS;
            if note.is_some_and(|note| settled(note.at)) && !late.contains(&day) {
                continue;
            }
            match collect_day(db, samples.as_ref(), &self.project, day, now).await {
                Ok(_) => {}
                Err(CollectError::Db(error)) => return Err(error.into()),
                Err(CollectError::Samples(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

pub(crate) async fn open_here(state: Option<&Path>) -> Result<(Db, Samples), Complaint> {
    let state = stores::state_dir(state)?;
    let db = stores::open_database(&format!("sqlite:{}", state.join("farm.db").display())).await?;
    let samples =
        stores::open_samples(&format!("embedded:{}", state.join("samples.db").display()), &retention_here()?)
            .await?;
    Ok((db, samples))
}

/// As configured, or as the directory is called.
pub(crate) fn name_of_this_directory() -> String {
    name_of(&std::env::current_dir().unwrap_or_default())
}

fn name_of(here: &Path) -> String {
    if here.join("flakefarm.toml").is_file()
        && let Ok(loaded) = LoadedProject::load(here, None, &[])
    {
        return loaded.spec.name;
    }
    here.file_name().map_or_else(|| "project".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A field of comma-separated values: quoted where it has to be, and never a formula.
pub(crate) fn csv(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if formula || text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_are_no_formulas() {
        assert_eq!(csv("a::b"), "a::b");
        assert_eq!(csv("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(csv("=cmd|' /C calc'!A0"), "\"'=cmd|' /C calc'!A0\"");
    }
}
