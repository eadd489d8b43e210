//! Repairs that a farm carries out, in the process of its coordinator: the same course as of the command, with
//! questions that are sweeps of this farm. Nothing of the tree runs here. Strategies are those that need nobody, unless
//! the operator has configured a provider in the coordinator's environment: what a project says of one does not count.

use super::course::{Bases, Course, Ended};
use super::experience::Experience;
use super::provider::Provider;
use super::sessions::{Record, Request};
use super::told::Told;
use super::writing::Kept;
use crate::args::AskArgs;
use crate::ask::{Session, Within};
use crate::exit::{Complaint, Exit};
use crate::progress::Progress;
use crate::trees::{self, Base};
use flakefarm_coordinator::Coordinator;
use flakefarm_coordinator::engine::{RepairJob, RepairTrouble, Repairer};
use flakefarm_coordinator::repairs::{Purse, RepairEnd, RepairState};
use flakefarm_project::config::{LoadedProject, ProjectSource, without_project};
use flakefarm_project::settings::Settings;
use flakefarm_project::snapshot::{self, Archive};
use flakefarm_shared::{Digest, Refusal};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What a tree may hold to be repaired here, unpacked: it is analysed in memory, beside others.
const TREE_BYTES: u64 = 512 << 20;
/// Lines that are kept of one repair.
const LINES: u64 = 1_000;

/// Carries out repairs of this process's farm.
#[derive(Debug)]
pub(crate) struct OnFarm(());

impl OnFarm {
    /// Refuses a provider in this process's environment of which something is missing: who starts the farm hears of it,
    /// not who asks for a repair.
    pub(crate) fn open() -> Result<Self, Complaint> {
        Provider::of(&own_settings()?).map(|_| Self(()))
    }
}

/// What the environment says, and no project.
fn own_settings() -> Result<Settings, Complaint> {
    without_project(&[]).map_err(|error| crate::ask::config_complaint(&error))
}

impl Repairer for OnFarm {
    fn repair(
        &self,
        job: RepairJob,
        coordinator: Coordinator,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<RepairEnd, RepairTrouble>> {
        async move {
            let (told, lines) = unbounded_channel();
            let project = job.request.context.project.name.clone();
            let telling = tokio::spawn(tell(coordinator.clone(), job.id, project, lines));
            let ended = Box::pin(carry_out(job, coordinator, Progress::telling(told), stop)).await;
            // What was said last is recorded before the end is.
            let _told_what_it_could = telling.await;
            match ended {
                Ok(Some(end)) => Ok(end),
                Ok(None) => Err(RepairTrouble::Stopped),
                Err(complaint) if complaint.exit == Exit::FarmFailed => {
                    Err(RepairTrouble::Ours(complaint.message))
                }
                Err(Complaint { message, log, hint, .. }) => {
                    let refusal = Refusal { message, log, hint };
                    Ok(RepairEnd::without(RepairState::Failed, Some(refusal)))
                }
            }
        }
        .boxed()
    }
}

/// Records what a repair says.
async fn tell(coordinator: Coordinator, repair: Uuid, project: String, mut lines: UnboundedReceiver<String>) {
    let mut place = 0;
    while let Some(line) = lines.recv().await {
        place += 1;
        if place > LINES {
            continue;
        }
        if let Err(error) = coordinator.tell_repair(repair, &project, place, &line).await {
            tracing::warn!(repair.id = %repair, error = flakefarm_shared::chain(&error), "a line of a repair is lost");
        }
    }
}

/// Nothing if it was stopped.
async fn carry_out(
    job: RepairJob,
    coordinator: Coordinator,
    progress: Progress,
    stop: CancellationToken,
) -> Result<Option<RepairEnd>, Complaint> {
    let RepairJob { id, request } = job;
    let rules = request.rules();
    let here = archive(&coordinator, &request.context.snapshot, request.context.revision.clone()).await?;
    let base = match &request.base {
        Some(base) => {
            let archive = archive(&coordinator, &base.snapshot, Some(base.name.clone())).await?;
            Some(Base { name: base.name.clone(), archive })
        }
        None => None,
    };
    let settings = own_settings()?;
    let provider = Provider::of(&settings)?;
    let directory = tempfile::tempdir()?;
    let (root, state) = (directory.path().join("project"), directory.path().join("state"));
    tokio::fs::create_dir(&root).await?;
    if matches!(provider, Provider::Command(_)) {
        // Its program may look at it.
        let (archive, root) = (here.clone(), root.clone());
        tokio::task::spawn_blocking(move || snapshot::unpack(&archive, &root)).await??;
    }
    let project = request.context.project.name.clone();
    let asked = Request {
        tests: request.tests.clone(),
        base: request.base.as_ref().map(|base| base.name.clone()),
        provider: settings.text("repair.provider").unwrap_or_default(),
        seed: request.question.seed,
    };
    let purses = (Purse::of(request.look_budget), Purse::of(request.mend_budget));
    let mut record =
        Record::new(root.clone(), request.context.snapshot.clone(), asked, purses, Told::new(&project));
    record.id = id.to_string();
    let loaded = LoadedProject {
        spec: request.context.project,
        warnings: Vec::new(),
        source: ProjectSource::Detected { why: "the request".to_owned() },
        settings,
    };
    let mut args = AskArgs::default();
    args.farm.interactive = request.class == flakefarm_shared::Class::Interactive;
    let within = Within { coordinator: coordinator.clone(), repair: id, leaves: stop.clone() };
    let session =
        Session::within(&args, &root, loaded, progress, stop.child_token(), (within, request.question));
    let mut course = Course {
        session,
        kept: Kept::of(&state),
        state,
        rules,
        provider,
        experience: Experience::within(&project, coordinator.db().clone(), id),
        record,
        here,
        bases: Bases::Given(base),
        stack_all: false,
    };
    if let Ended::Stopped(_) = Box::pin(course.run()).await? {
        if stop.is_cancelled() {
            return Ok(None);
        }
        // Somebody has ended one of its sweeps.
        course.record.told.ran_out_of_budget();
    }
    // Whoever gets the patch looks at it before it goes anywhere.
    course.record.take_shown(0.0);
    ended(&coordinator, &course).await.map(Some)
}

async fn ended(coordinator: &Coordinator, course: &Course<'_>) -> Result<RepairEnd, Complaint> {
    let told = &course.record.told;
    let mut end = RepairEnd::without(
        if told.is_undecided() {
            RepairState::Undecided
        } else if told.nothing_fails() {
            RepairState::NothingFails
        } else {
            RepairState::NotProved
        },
        None,
    );
    end.told = Some(told.json()?);
    let files = course.record.files();
    if files.is_empty() {
        return Ok(end);
    }
    let patch = trees::diff(&trees::files(&course.here)?, &files);
    let bytes = patch.clone().into_bytes();
    let repaired = trees::patched(&course.session.root, &course.here, bytes, "what is proved").await?;
    let digest = Digest::of(&repaired.archive.bytes);
    let until = flakefarm_shared::now_micros() + flakefarm_coordinator::garbage::LEASE_MICROS;
    coordinator.db().lease_blob(&digest, until).await?;
    coordinator.blobs().put(repaired.archive.bytes).await?;
    Ok(RepairEnd {
        state: RepairState::Proved,
        patch: Some(patch),
        repaired: Some(digest),
        mended: told.mended(),
        ..end
    })
}

/// A snapshot that the farm has.
async fn archive(
    coordinator: &Coordinator,
    digest: &Digest,
    revision: Option<String>,
) -> Result<Archive, Complaint> {
    let bytes = coordinator.blobs().get(digest).await?.to_vec();
    let bounded = tokio::task::spawn_blocking(move || {
        snapshot::is_within(&bytes, TREE_BYTES).map(|within| (within, bytes))
    });
    let (is_within, bytes) = bounded
        .await?
        .map_err(|error| Complaint::usage(format!("the snapshot {digest} cannot be read: {error}")))?;
    if !is_within {
        let message = format!("a tree of more than {} MiB is not repaired here", TREE_BYTES >> 20);
        return Err(Complaint::usage(message)
            .hint("flakefarm repair --farm URL without --detach analyses it on your machine"));
    }
    Ok(Archive { bytes, files: 0, total_bytes: 0, revision, warnings: Vec::new() })
}
