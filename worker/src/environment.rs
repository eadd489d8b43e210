//! Environments: from a project's image, set-up steps and snapshot to the image attempts run in.
//!
//! Layers, each an image that is found again by its key: the base image; what is known to be the same
//! for every snapshot (dependencies, see [`reads`]); what set-up made of this snapshot; the tree and the
//! plugin. A step that may read the sources runs again when these change, and what it leaves in the tree
//! is what attempts see. Layers that hold anything of a project's are no other project's.

mod base;
mod images;
mod local;
mod reads;
mod set_up;
mod tree;
mod workshop;

pub use images::Images;
pub use local::LocalPlaces;
pub(crate) use set_up::{BUNDLE_VARIABLES, CERTIFICATES};

use crate::ceilings::SetupCeiling;
use crate::sandbox::Engine;
use flakefarm_project::snapshot::SIZE_LIMIT;
use flakefarm_shared::blobs::{BlobError, Blobs};
use flakefarm_shared::{Digest, InfraError, InfraStage, Refusal, SweepContext};

/// A tar archive is a little larger than its files.
const UNPACKED_LIMIT: u64 = SIZE_LIMIT + (256 << 20);

/// Where attempts find what they run in. Cloning is cheap.
#[derive(Debug, Clone)]
pub enum Environments {
    /// Images, built on an engine.
    Images(Images),
    /// Directories of this machine.
    Local(LocalPlaces),
    /// One that is there already, whatever is asked for: scripted sandboxes need none.
    Given(PreparedImage),
}

/// An image attempts can run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedImage {
    /// Its id; of a directory of this machine, its path.
    pub image_id: String,
}

/// An environment could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It cannot work as it is; the user can mend it.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// Something of ours failed.
    #[error(transparent)]
    Infra(#[from] InfraError),
}

impl From<BlobError> for PrepareError {
    fn from(error: BlobError) -> Self {
        PrepareError::Infra(InfraError { stage: InfraStage::Blobs, message: flakefarm_shared::chain(&error) })
    }
}

impl Environments {
    /// Images built on `engine`, with snapshots out of `blobs`.
    pub fn new(engine: Engine, blobs: Blobs) -> Self {
        Self::Images(Images::new(engine, blobs))
    }

    /// The same with set-up steps that have no more than this.
    pub fn with_setup(self, setup: SetupCeiling) -> Self {
        match self {
            Self::Images(images) => Self::Images(images.with_setup(setup)),
            Self::Local(_) | Self::Given(_) => self,
        }
    }

    /// What attempts on `snapshot` run in, as `context` describes the project, with `plugin_files`
    /// (path, content) in `/flakefarm/plugin`.
    /// Made if it is not there yet; says in `progress` what takes time. Cancel safe: a container it
    /// had started is removed.
    pub async fn prepare(
        &self,
        context: &SweepContext,
        snapshot: &Digest,
        plugin_files: &[(String, &str)],
        progress: impl Fn(String) + Send + Sync,
    ) -> Result<PreparedImage, PrepareError> {
        match self {
            Environments::Images(images) => {
                images.prepare_once(context, snapshot, plugin_files, progress).await
            }
            Environments::Local(places) => places.prepare(context, snapshot, plugin_files, progress).await,
            Environments::Given(given) => Ok(given.clone()),
        }
    }
}

/// A tag that differs if any part differs.
fn key(parts: &[&str]) -> String {
    let framed: Vec<u8> = parts
        .iter()
        .flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.bytes()))
        .collect();
    Digest::of(&framed).as_str()[..32].to_owned()
}

fn refused(message: String, log: &str, hint: Option<&str>) -> PrepareError {
    PrepareError::Refused(Refusal { message, log: log.to_owned(), hint: hint.map(str::to_owned) })
}

fn worker_failed(message: String) -> PrepareError {
    PrepareError::Infra(InfraError { stage: InfraStage::Worker, message })
}
