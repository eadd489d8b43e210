//! Images on a container engine: which layers a snapshot needs, found again or made.

use super::reads::{self, Division, Own, Sees};
use super::set_up::{self, Sources};
use super::tree::{self, Tree};
use super::workshop::{Reach, Room, Workshop};
use super::{PrepareError, PreparedImage, UNPACKED_LIMIT, key, refused, worker_failed};
use crate::ceilings::SetupCeiling;
use crate::sandbox::{Engine, infra, is_missing, label};
use bollard::query_parameters::{
    ListImagesOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::{Digest, EnvironmentSpec, InfraStage, SweepContext};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

/// Changes when the same inputs make another image.
pub(super) const RECIPE: &str = "5";
const REPOSITORY_ENV: &str = "flakefarm/env";
const REPOSITORY_WORK: &str = "flakefarm/work";
pub(super) const KIND: &str = "image";
const IMAGES_KEPT: usize = 20;
/// A sweep's jobs follow one another; a tag that was moved in between sweeps is to be seen soon.
const REMEMBERED: Duration = Duration::from_secs(120);
/// Files by which projects say what they depend on, beside those that they name themselves.
const DESCRIBING: [&str; 9] = [
    "**/pyproject.toml",
    "**/setup.py",
    "**/setup.cfg",
    "**/*requirements*",
    "**/requirements/**",
    "**/Pipfile*",
    "**/*.lock",
    "**/pdm.lock",
    "**/environment.y*ml",
];

/// Builds images, each once. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Images {
    pub(super) engine: Engine,
    blobs: Blobs,
    pub(super) setup: SetupCeiling,
    /// One lock per key in preparation, so that equal requests share one build.
    building: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    /// By the digest of what was asked for.
    prepared: Arc<Mutex<HashMap<Digest, (PreparedImage, Instant)>>>,
}

/// What an image is made of, but for the layers below.
#[derive(Clone, Copy)]
struct Work<'a> {
    project: &'a str,
    environment: &'a EnvironmentSpec,
    snapshot: &'a Digest,
    tree: &'a Tree,
    plugin_files: &'a [(String, &'a str)],
}

impl Images {
    /// Images built on `engine`, with snapshots out of `blobs`.
    pub(super) fn new(engine: Engine, blobs: Blobs) -> Self {
        Self {
            engine,
            blobs,
            setup: SetupCeiling::default(),
            building: Arc::default(),
            prepared: Arc::default(),
        }
    }

    pub(super) fn with_setup(self, setup: SetupCeiling) -> Self {
        Self { setup, ..self }
    }

    fn room(&self) -> Room {
        Room { memory_bytes: self.setup.memory, pids: self.setup.pids }
    }

    /// What set-up steps may reach.
    fn reach(&self) -> Reach<'_> {
        self.setup.network().map_or(Reach::Nothing, Reach::Network)
    }

    /// As [`super::Environments::prepare`]; what was prepared a moment ago is looked for by its id alone, so
    /// that the jobs of a sweep unpack its snapshot once.
    pub(super) async fn prepare_once(
        &self,
        context: &SweepContext,
        snapshot: &Digest,
        plugin_files: &[(String, &str)],
        progress: impl Fn(String) + Send + Sync,
    ) -> Result<PreparedImage, PrepareError> {
        let asked = serde_json::to_vec(&(context, snapshot, plugin_files)).expect("wire types serialise");
        let asked = Digest::of(&asked);
        let known = {
            let mut prepared = self.prepared.lock().expect("no holder panics");
            prepared.retain(|_, (_, made)| made.elapsed() < REMEMBERED);
            prepared.get(&asked).map(|(image, _)| image.clone())
        };
        if let Some(known) = known
            && self.engine.docker().inspect_image(&known.image_id).await.is_ok()
        {
            return Ok(known);
        }
        let image = self.prepare(context, snapshot, plugin_files, progress).await?;
        let mut prepared = self.prepared.lock().expect("no holder panics");
        prepared.insert(asked, (image.clone(), Instant::now()));
        Ok(image)
    }

    /// The image of `snapshot` in its environment, with `plugin_files` (path, content) in
    /// `/flakefarm/plugin`.
    async fn prepare(
        &self,
        context: &SweepContext,
        snapshot: &Digest,
        plugin_files: &[(String, &str)],
        progress: impl Fn(String) + Send + Sync,
    ) -> Result<PreparedImage, PrepareError> {
        let archive = self.blobs.get(snapshot).await?;
        let environment = &context.project.environment;
        let globs = |patterns: &[String]| {
            tree::globs(patterns).map_err(|error| {
                let hint = Some("correct `inputs` in flakefarm.toml");
                refused(format!("environment input is no glob: {error}"), "", hint)
            })
        };
        let own_globs = globs(&environment.inputs)?;
        let describing = globs(&DESCRIBING.map(str::to_owned))?;
        let (setup, variables) = (environment.setup.clone(), environment.setup_variables.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let tree = Tree::unpack(&archive, UNPACKED_LIMIT)?;
            let division = reads::divide(&setup, &variables, &tree);
            let inputs = tree.inputs(&own_globs)?;
            let read = match &division.sees {
                Sees::Files(files) => Digest::of(&tree.only(files.iter().map(String::as_str))),
                Sees::Everything => tree.inputs(&describing)?,
            };
            Ok::<_, std::io::Error>((tree, division, [inputs, read]))
        });
        let (tree, division, inputs) = unpacked
            .await
            .map_err(|error| worker_failed(format!("unpacking a snapshot panicked: {error}")))?
            .map_err(|error| {
                refused(format!("snapshot {} cannot be unpacked: {error}", snapshot.short()), "", None)
            })?;
        let base = self.base_image(&environment.image, snapshot, &tree, &progress).await?;
        let work = Work { project: &context.project.name, environment, snapshot, tree: &tree, plugin_files };
        let shared = Box::pin(self.shared_layer(&work, &division, &base, &inputs, &progress)).await?;
        let image_id = Box::pin(self.work_image(&work, &division, &shared, &progress)).await?;
        Ok(PreparedImage { image_id })
    }

    /// The layer that snapshots share; the base image where set-up has nothing to put into one.
    async fn shared_layer(
        &self,
        work: &Work<'_>,
        division: &Division,
        base: &str,
        [inputs, read]: &[Digest; 2],
        progress: &(impl Fn(String) + Send + Sync),
    ) -> Result<String, PrepareError> {
        if division.shared.is_empty() {
            return Ok(base.to_owned());
        }
        let steps = set_up::text(work.environment, &division.shared);
        // A layer of what comes from indexes alone has nothing of the project in it.
        let (project, sees) = match &division.sees {
            Sees::Files(files) if files.is_empty() => ("", "index"),
            Sees::Files(_) => (work.project, "files"),
            Sees::Everything => (work.project, "everything"),
        };
        let python = &work.environment.python;
        let key = key(&[RECIPE, base, project, sees, &steps, python, inputs.as_str(), read.as_str()]);
        let build = async {
            let workshop =
                Workshop::open(&self.engine, base, self.reach(), self.room(), set_up::LIFETIME).await?;
            let done = set_up::dependencies(&workshop, work.environment, division, work.tree, progress).await;
            self.keep(workshop, done, REPOSITORY_ENV, &key, "env").await
        };
        self.cached(REPOSITORY_ENV, &key, Box::pin(build)).await
    }

    /// The image of one snapshot on the shared layer.
    async fn work_image(
        &self,
        work: &Work<'_>,
        division: &Division,
        shared: &str,
        progress: &(impl Fn(String) + Send + Sync),
    ) -> Result<String, PrepareError> {
        let Work { project, environment, snapshot, tree, plugin_files } = *work;
        let own: Vec<usize> =
            division.own_from.map_or_else(Vec::new, |first| (first..environment.setup.len()).collect());
        let steps = set_up::text(environment, &own);
        let (from, steps, sources) = match &division.own {
            Own::Layout(layout) if !own.is_empty() => {
                let key = key(&[RECIPE, shared, project, "layout", &steps, layout.as_str()]);
                let build = async {
                    let workshop =
                        Workshop::open(&self.engine, shared, self.reach(), self.room(), set_up::LIFETIME)
                            .await?;
                    let done = set_up::in_place(&workshop, environment, &own, tree, progress).await;
                    self.keep(workshop, done, REPOSITORY_ENV, &key, "env").await
                };
                (self.cached(REPOSITORY_ENV, &key, Box::pin(build)).await?, String::new(), Sources::Fresh)
            }
            Own::Layout(_) | Own::Sources if own.is_empty() => {
                (shared.to_owned(), String::new(), Sources::Fresh)
            }
            Own::Layout(_) | Own::Sources => (shared.to_owned(), steps, Sources::SetUp),
        };
        let certificates = environment.extra_ca_certificates.as_deref().unwrap_or_default();
        let mut parts =
            vec![RECIPE, &from, project, &steps, snapshot.as_str(), &environment.python, certificates];
        parts.extend(plugin_files.iter().flat_map(|(path, content)| [path.as_str(), content]));
        let key = key(&parts);
        let build = async {
            let reach = match sources {
                Sources::Fresh => Reach::Nothing,
                Sources::SetUp => self.reach(),
            };
            let workshop = Workshop::open(&self.engine, &from, reach, self.room(), set_up::LIFETIME).await?;
            let done = async {
                match sources {
                    Sources::Fresh => progress("making the image of this snapshot".to_owned()),
                    Sources::SetUp => {
                        set_up::of_snapshot(&workshop, environment, &own, tree, progress).await?
                    }
                }
                set_up::furnish(&workshop, environment, tree, plugin_files, sources).await
            };
            let done = done.await;
            let made = self.keep(workshop, done, REPOSITORY_WORK, &key, "work").await?;
            self.forget_old_images().await;
            Ok(made)
        };
        self.cached(REPOSITORY_WORK, &key, Box::pin(build)).await
    }

    /// What was made in `workshop` as an image, or the failure to make it.
    async fn keep(
        &self,
        workshop: Workshop,
        done: Result<(), PrepareError>,
        repository: &str,
        key: &str,
        kind: &str,
    ) -> Result<String, PrepareError> {
        match done {
            Ok(()) => Ok(workshop.commit(repository, key, &[(KIND, kind)]).await?),
            Err(error) => {
                workshop.discard().await;
                Err(error)
            }
        }
    }

    /// The image tagged `repository:key`, built by `build` if it is not there. Of equal calls at the
    /// same time, one builds and the others wait for it.
    pub(super) async fn cached(
        &self,
        repository: &str,
        key: &str,
        build: impl Future<Output = Result<String, PrepareError>>,
    ) -> Result<String, PrepareError> {
        let lock = {
            let mut building = self.building.lock().expect("no holder panics");
            building.retain(|_, lock| Arc::strong_count(lock) > 1);
            building.entry(format!("{repository}:{key}")).or_default().clone()
        };
        let _turn = lock.lock().await;
        let reference = format!("{repository}:{key}");
        match self.engine.docker().inspect_image(&reference).await {
            Ok(found) => {
                if let Some(id) = found.id {
                    self.touch(&id, repository, key).await;
                    return Ok(id);
                }
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                return Err(infra(InfraStage::Environment, "failed to look for an image", &error).into());
            }
        }
        build.await
    }

    /// Tagging again is how an image remembers when it was used last.
    async fn touch(&self, id: &str, repository: &str, key: &str) {
        let options = TagImageOptionsBuilder::default().repo(repository).tag(key).build();
        if let Err(error) = self.engine.docker().tag_image(id, Some(options)).await {
            tracing::debug!("failed to note the use of image {repository}:{key}: {error}");
        }
    }

    /// Removes the images of ours that were used longest ago. Never fails: images in use stay.
    async fn forget_old_images(&self) {
        let docker = self.engine.docker();
        for kind in ["work", "env", "base"] {
            let filters = HashMap::from([("label", vec![format!("{}={kind}", label(KIND))])]);
            let options = ListImagesOptionsBuilder::default().filters(&filters).build();
            let Ok(images) = docker.list_images(Some(options)).await else { return };
            let mut aged = Vec::new();
            for image in images.into_iter().filter(|image| !image.repo_tags.is_empty()) {
                let tags = image.repo_tags;
                let tagged = docker.inspect_image(&image.id).await.ok();
                let used =
                    tagged.and_then(|found| found.metadata).and_then(|metadata| metadata.last_tag_time);
                let used = used.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok());
                let used = used.map_or(image.created, OffsetDateTime::unix_timestamp);
                aged.push((used, tags));
            }
            aged.sort();
            let excess = aged.len().saturating_sub(IMAGES_KEPT);
            for tag in aged.into_iter().take(excess).flat_map(|(_, tags)| tags) {
                let options = RemoveImageOptionsBuilder::default().build();
                match docker.remove_image(&tag, Some(options), None).await {
                    Ok(_) => tracing::info!("removed image {tag}, unused for longest"),
                    Err(error) => tracing::debug!("image {tag} stays: {error}"),
                }
            }
        }
    }
}
