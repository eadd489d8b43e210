//! Jobs: bounded batches of attempts, and what a worker reports of them. Specs and reports travel
//! as blobs; the queue carries only their digests (see [`crate::message`]).

use crate::attempt::{AttemptRecord, CollectionError, InfraError};
use crate::capabilities::Capabilities;
use crate::ids::{AttemptId, Digest, JobId, SweepId, TestId, TestParts};
use crate::message::Class;
use crate::project::ProjectSpec;
use crate::run::RunOrigin;
use crate::source::TestSource;
use crate::spec::AttemptSpec;
use crate::world::World;
use serde::{Deserialize, Serialize};

/// What all jobs of one sweep share; a blob, named by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepContext {
    /// [`crate::WIRE_VERSION`].
    pub v: u32,
    /// How to run the project.
    pub project: ProjectSpec,
    /// The source tree that was submitted: a blob, a zstd-compressed tar archive. Attempts whose treatment
    /// names another one run on that.
    pub snapshot: Digest,
    /// The revision the snapshot was taken from, for people.
    pub revision: Option<String>,
    /// The world that attempts run in which ask for no other: what `plain` means in this sweep.
    #[serde(default, skip_serializing_if = "World::is_plain")]
    pub under: World,
    /// What was typed to ask for the sweep, for the commands that repeat it.
    #[serde(default, skip_serializing_if = "Typed::is_nothing")]
    pub typed: Typed,
}

/// What somebody typed to ask for a sweep. It changes nothing of how the sweep is carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typed {
    /// Where the project lies, from where the command was typed; empty for there itself.
    #[serde(default)]
    pub path: String,
    /// Further arguments to the framework, beside those of the project's configuration.
    #[serde(default)]
    pub arguments: Vec<String>,
}

impl Typed {
    fn is_nothing(&self) -> bool {
        self.path.is_empty() && self.arguments.is_empty()
    }
}

/// One job; a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// [`crate::WIRE_VERSION`].
    pub v: u32,
    /// Derived from the sweep and the planner's name of the step.
    pub id: JobId,
    /// The sweep it belongs to.
    pub sweep: SweepId,
    /// Which queue it waits in.
    pub class: Class,
    /// The [`SweepContext`] blob.
    pub context: Digest,
    /// What kind of run it is part of: with world and level it says what its samples are evidence of.
    #[serde(default, skip_serializing_if = "RunOrigin::is_sweep")]
    pub origin: RunOrigin,
    /// What to do.
    pub work: Work,
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Prepare the environment and list the tests.
    List,
    /// Run attempts, each in a fresh sandbox.
    Run {
        /// In the order they are to be started.
        attempts: Vec<AttemptSpec>,
    },
}

/// What a worker made of a job; a blob, named in [`crate::JobEnd::Done`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// [`crate::WIRE_VERSION`].
    pub v: u32,
    /// The job.
    pub job: JobId,
    /// The listing, for [`Work::List`].
    pub listing: Option<Listing>,
    /// The attempts, for [`Work::Run`], in the order they ended.
    pub attempts: Vec<AttemptRecord>,
}

/// The tests of a project, as its framework lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// In the order the framework runs them.
    pub tests: Vec<TestId>,
    /// What the ids are made of, in the order of `tests`; empty in listings recorded before this was told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TestParts>,
    /// Files that could not be collected.
    pub collection_errors: Vec<CollectionError>,
    /// Framework and interpreter, as they name themselves (`pytest 9.2.0, CPython 3.11.2`).
    pub framework_version: String,
    /// The image attempts run in, by its id: the environment, pinned.
    pub image: String,
    /// The command that runs the given order by hand in that image, without the test ids.
    pub command: String,
    /// What the sources say of each test, in the order of `tests`; empty if nothing.
    #[serde(default)]
    pub sources: Vec<TestSource>,
    /// Of `tests`, those that stand for all tests of a function, since their ids change from run to run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changing: Vec<TestId>,
    /// Starts that failed before the tests could be listed.
    #[serde(default)]
    pub failed_starts: u32,
    /// What the framework can do with the tests.
    #[serde(default)]
    pub capabilities: Capabilities,
}

impl Listing {
    /// What the id of the test at `place` is made of; `None` beyond the end.
    pub fn parts_of(&self, place: usize) -> Option<TestParts> {
        let test = self.tests.get(place)?;
        Some(self.parts.get(place).cloned().unwrap_or_else(|| TestParts::of_recorded(test)))
    }
}

impl JobReport {
    /// Infrastructure errors among the attempts.
    pub fn infrastructure_errors(&self) -> impl Iterator<Item = (AttemptId, &InfraError)> {
        self.attempts.iter().filter_map(|attempt| match &attempt.end {
            crate::AttemptEnd::Infrastructure(error) => {
                Some((AttemptId { job: self.job, index: attempt.index }, error))
            }
            crate::AttemptEnd::Completed
            | crate::AttemptEnd::Interrupted { .. }
            | crate::AttemptEnd::NothingRan { .. } => None,
        })
    }
}
