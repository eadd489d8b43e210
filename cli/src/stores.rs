//! From addresses to opened stores.

use crate::exit::Complaint;
use flakefarm_coordinator::db::Db;
use flakefarm_coordinator::history::retention::HistoryRetention;
use flakefarm_coordinator::stores::sqlite_samples::SqliteSamples;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::queue::{Queue, Role};
use flakefarm_shared::samples::{Counted, RedisSamples, Retention, Samples};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where embedded sweeps keep their state: the given directory, else the user's state directory.
pub(crate) fn state_dir(given: Option<&Path>) -> Result<PathBuf, Complaint> {
    let dir = match given {
        Some(dir) => dir.to_owned(),
        None => {
            let base = std::env::var_os("XDG_STATE_HOME")
                .map(PathBuf::from)
                .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state")))
                .ok_or_else(|| {
                    Complaint::usage("no home directory for the state")
                        .hint("pass --state DIR, or set FLAKEFARM_STATE")
                })?;
            base.join("flakefarm")
        }
    };
    std::fs::create_dir_all(&dir).and_then(|()| dir.canonicalize()).map_err(|error| {
        Complaint::farm(format!("failed to make state directory {}: {error}", dir.display()))
    })
}

/// The same for commands without `--state`: FLAKEFARM_STATE, else the user's.
pub(crate) fn state_dir_here() -> Result<PathBuf, Complaint> {
    let given = std::env::var_os("FLAKEFARM_STATE").filter(|dir| !dir.is_empty());
    state_dir(given.as_deref().map(Path::new))
}

pub(crate) async fn open_database(url: &str) -> Result<Db, Complaint> {
    Db::open(url).await.map_err(|error| {
        Complaint::of(&error)
            .hint("is the database up, and the address in --database (FLAKEFARM_DATABASE) right?")
    })
}

pub(crate) fn open_queue(url: &str, role: Role) -> Result<Queue, Complaint> {
    Queue::open(url, role).map_err(|error| Complaint::usage(error.to_string()))
}

/// Samples, of which points are kept as long as `keep` says.
pub(crate) async fn open_samples(address: &str, keep: &HistoryRetention) -> Result<Samples, Complaint> {
    let keep = Retention { points: keep.points };
    if let Some(path) = address.strip_prefix("embedded:") {
        let samples =
            SqliteSamples::open(Path::new(path), keep).await.map_err(|error| Complaint::of(&error))?;
        return Ok(Counted::around(Arc::new(samples)));
    }
    let samples = RedisSamples::open(address, keep, None)
        .map_err(|error| Complaint::usage(format!("samples address `{address}`: {error}")))?;
    Ok(Counted::around(Arc::new(samples)))
}

pub(crate) fn open_blobs(address: &str) -> Result<Blobs, Complaint> {
    Blobs::open(address)
        .map_err(|error| Complaint::of(&error).hint("expected file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, which needs \
               AZURE_STORAGE_ACCOUNT_NAME, too"))
}
