//! How proposals fared so far in this project, here or on the farm that is asked: what orders the next ones.

use crate::embedded;
use crate::exit::Complaint;
use crate::farm::Farm;
use flakefarm_coordinator::db::RepairOutcome;
use flakefarm_coordinator::http::NewRepairOutcome;
use flakefarm_coordinator::repairs::{Guess, Learnt};
use flakefarm_project::settings::Settings;
use flakefarm_shared::now_micros;
use std::path::{Path, PathBuf};

/// Where it is kept.
pub(super) struct Experience {
    project: String,
    place: Place,
}

enum Place {
    /// In the embedded store of this state directory.
    Here(PathBuf),
    Farm(Farm),
}

impl Experience {
    pub(super) fn of(project: &str, settings: &Settings, state: &Path) -> Result<Self, Complaint> {
        let place = match settings.text("farm.url") {
            Some(address) => Place::Farm(Farm::new(&address, settings.text("farm.token"))?),
            None => Place::Here(state.to_owned()),
        };
        Ok(Self { project: project.to_owned(), place })
    }

    /// What was learnt.
    pub(super) async fn learnt(&self) -> Result<Learnt, Complaint> {
        match &self.place {
            Place::Here(state) => {
                let db = embedded::open_database(state).await?;
                Ok(db.repairs_learnt(&self.project, 0).await?)
            }
            Place::Farm(farm) => Ok(farm.repair_outcomes(&self.project).await?.learnt()),
        }
    }

    /// Adds how a proposal fared.
    pub(super) async fn note(&self, guess: Guess, proved: bool) -> Result<(), Complaint> {
        let id = uuid::Uuid::now_v7();
        match &self.place {
            Place::Here(state) => {
                let db = embedded::open_database(state).await?;
                let outcome = RepairOutcome { id, guess, proved, at: now_micros() };
                Ok(db.note_repair(&self.project, &outcome).await?)
            }
            Place::Farm(farm) => {
                let Guess { strategy, failure } = guess;
                let project = self.project.clone();
                farm.note_repair_outcome(&NewRepairOutcome { id, project, strategy, failure, proved }).await
            }
        }
    }
}
