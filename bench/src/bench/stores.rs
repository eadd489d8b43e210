//! From addresses to opened stores.

use crate::Unmeasured;
use flakefarm_coordinator::db::Db;
use flakefarm_coordinator::stores::sqlite_samples::SqliteSamples;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::queue::{Queue, Role};
use flakefarm_shared::samples::{RedisSamples, Retention, Samples};
use std::path::Path;
use std::sync::Arc;

pub(super) async fn open_database(url: &str) -> Result<Db, Unmeasured> {
    Ok(Db::open(url).await?)
}

pub(super) fn open_queue(url: &str, role: Role) -> Result<Queue, Unmeasured> {
    Queue::open(url, role).map_err(|error| Unmeasured::usage(error.to_string()))
}

pub(super) async fn open_samples(address: &str) -> Result<Samples, Unmeasured> {
    match address.strip_prefix("embedded:") {
        Some(path) => Ok(Arc::new(SqliteSamples::open(Path::new(path), Retention::default()).await?)),
        None => Ok(Arc::new(RedisSamples::open(address, Retention::default(), None)?)),
    }
}

pub(super) fn open_blobs(address: &str) -> Result<Blobs, Unmeasured> {
    Ok(Blobs::open(address)?)
}
