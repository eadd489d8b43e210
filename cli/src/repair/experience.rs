//! How proposals fared so far in this project, here or on the farm that is asked: what orders the next ones.

use crate::embedded;
use crate::exit::Complaint;
use crate::farm::Farm;
use flakefarm_coordinator::db::{Db, RepairOutcome};
use flakefarm_coordinator::http::NewRepairOutcome;
use flakefarm_coordinator::repairs::{Guess, Learnt};
use flakefarm_project::settings::Settings;
use flakefarm_shared::now_micros;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use uuid::Uuid;

/// Where it is kept.
pub(super) struct Experience {
    project: String,
    place: Place,
}

enum Place {
    /// In the embedded store of this state directory.
    Here(PathBuf),
    Farm(Farm),
    /// On the farm whose coordinator this process is. Outcomes have ids that follow from the repair: one that is begun
    /// again tells nothing twice.
    Within {
        db: Db,
        repair: Uuid,
        noted: AtomicU32,
    },
}

impl Experience {
    pub(super) fn of(project: &str, settings: &Settings, state: &Path) -> Result<Self, Complaint> {
        let place = match settings.text("farm.url") {
            Some(address) => Place::Farm(Farm::new(&address, settings.text("farm.token"))?),
            None => Place::Here(state.to_owned()),
        };
        Ok(Self { project: project.to_owned(), place })
    }

    /// In a farm's coordinator, of one of its repairs.
    pub(super) fn within(project: &str, db: Db, repair: Uuid) -> Self {
        Self { project: project.to_owned(), place: Place::Within { db, repair, noted: AtomicU32::new(0) } }
    }

    /// What was learnt.
    pub(super) async fn learnt(&self) -> Result<Learnt, Complaint> {
        match &self.place {
            Place::Here(state) => {
                let db = embedded::open_database(state).await?;
                Ok(db.repairs_learnt(&self.project, 0).await?)
            }
            Place::Farm(farm) => Ok(farm.repair_outcomes(&self.project).await?.learnt()),
            Place::Within { db, .. } => Ok(db.repairs_learnt(&self.project, 0).await?),
        }
    }

    /// Adds how a proposal fared.
    pub(super) async fn note(&self, guess: Guess, proved: bool) -> Result<(), Complaint> {
        let id = Uuid::now_v7();
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
            Place::Within { db, repair, noted } => {
                let number = noted.fetch_add(1, Ordering::Relaxed);
                let id =
                    Uuid::new_v5(repair, format!("{number}/{}/{}", guess.strategy, guess.failure).as_bytes());
                let outcome = RepairOutcome { id, guess, proved, at: now_micros() };
                Ok(db.note_repair(&self.project, &outcome).await?)
            }
        }
    }
}
