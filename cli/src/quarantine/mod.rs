//! `flakefarm quarantine`: tests that may fail until a day; and what of it holds for a project, from its
//! file and from what is recorded here or on a farm.

mod commands;

pub(crate) use commands::quarantine;

use crate::ask::Session;
use crate::exit::Complaint;
use crate::farm::Farm;
use crate::memory::{self, Memory, Place};
use flakefarm_coordinator::quarantine::{Entry, Standing, file};
use flakefarm_shared::{UnixMicros, now_micros};
use std::path::Path;

/// The quarantine of a project.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    entries: Vec<Entry>,
    now: UnixMicros,
    /// What is to be told: what is wrong in the file, what could not be asked.
    pub(crate) notes: Vec<String>,
}

impl Quarantine {
    /// For a question about a project.
    pub(crate) async fn of_session(session: &Session<'_>) -> Self {
        let mut found = Self::of_file(&session.root);
        let project = &session.loaded.spec.name;
        let settings = &session.loaded.settings;
        let recorded = match settings.text("farm.url") {
            Some(address) => match Farm::new(&address, settings.text("farm.token")) {
                Ok(farm) => farm.quarantine(project).await.map(|view| view.entries),
                Err(complaint) => Err(complaint),
            },
            None => recorded_here(session.args.execution.state.as_deref(), project).await,
        };
        found.add(recorded);
        found
    }

    /// For a command that is wrapped.
    pub(crate) async fn of_memory(root: &Path, memory: &Memory) -> Self {
        let mut found = Self::of_file(root);
        let recorded = async {
            Ok(match memory.open().await? {
                Place::Farm(farm) => farm.quarantine(&memory.project).await?.entries,
                Place::Here { db, .. } => db.quarantine(&memory.project).await?,
            })
        };
        found.add(recorded.await);
        found
    }

    fn of_file(root: &Path) -> Self {
        let path = root.join(file::NAME);
        let mut found = Self { now: now_micros(), ..Self::default() };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let read = file::read(&text);
                let problem = |problem: &file::Problem| format!("{}, {problem}", file::NAME);
                found.notes.extend(read.problems.iter().map(problem));
                found.entries = read.entries;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => found.notes.push(format!("failed to read {}: {error}", path.display())),
        }
        found
    }

    fn add(&mut self, recorded: Result<Vec<Entry>, Complaint>) {
        match recorded {
            Ok(entries) => self.entries.extend(entries),
            Err(complaint) => {
                let why = complaint.message;
                self.notes.push(format!("what is recorded in quarantine is not known here: {why}"));
            }
        }
    }

    /// The entry that mutes a failure of the test that goes by these names.
    pub(crate) fn muting(&self, names: &[&String], signature: u64) -> Option<&Entry> {
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        self.entries.iter().find(|entry| entry.mutes(&names, signature, self.now))
    }

    /// An entry of such a test that has expired.
    pub(crate) fn expired(&self, names: &[&String]) -> Option<&Entry> {
        let about = |entry: &&Entry| names.iter().any(|name| entry.is_about(name));
        self.entries.iter().filter(about).find(|entry| entry.standing(self.now) == Standing::Expired)
    }
}

async fn recorded_here(state: Option<&Path>, project: &str) -> Result<Vec<Entry>, Complaint> {
    let (db, _) = memory::open_here(state).await?;
    let entries = db.quarantine(project).await?;
    db.close().await;
    Ok(entries)
}
