//! Environments: from a project's image, set-up steps and snapshot to the image attempts run in.
//!
//! Three layers, each an image that is found again by its key: the base image, the environment
//! (base + what set-up left) and the work image (environment + tree + plugin). Set-up runs again only
//! if what it depends on changes; a new snapshot costs one small layer.

mod base;
mod local;
mod tree;
mod workshop;

pub use local::LocalPlaces;

use crate::sandbox::{Engine, infra, is_missing, label};
use bollard::query_parameters::{
    ListImagesOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use flakefarm_project::snapshot::SIZE_LIMIT;
use flakefarm_shared::blobs::{BlobError, Blobs};
use flakefarm_shared::{Digest, EnvironmentSpec, InfraError, InfraStage, Refusal, SweepContext};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tree::{Tree, tar_of};
use workshop::{Reach, Workshop};

/// Changes when the same inputs make another image.
const RECIPE: &str = "1";
const REPOSITORY_ENV: &str = "flakefarm/env";
const REPOSITORY_WORK: &str = "flakefarm/work";
const KIND: &str = "image";
const IMAGES_KEPT: usize = 20;
/// A sweep's jobs follow one another; a tag that was moved in between sweeps is to be seen soon.
const REMEMBERED: Duration = Duration::from_secs(120);
const SETUP_LIMIT: Duration = Duration::from_secs(30 * 60);
/// A tar archive is a little larger than its files.
const UNPACKED_LIMIT: u64 = SIZE_LIMIT + (256 << 20);

/// Trusts the uploaded certificates and writes the bundle that set-up steps are pointed at.
const TRUST: &str = r#"
mkdir -p /usr/local/share/ca-certificates
cp /flakefarm/setup/extra.crt /usr/local/share/ca-certificates/flakefarm-extra.crt
for system in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  if [ -f "$system" ]; then cat "$system"; break; fi
done > /flakefarm/setup/bundle.crt
cat /flakefarm/setup/extra.crt >> /flakefarm/setup/bundle.crt
if command -v update-ca-certificates > /dev/null; then update-ca-certificates > /dev/null 2>&1 || true; fi
"#;
const BUNDLE: &str = "/flakefarm/setup/bundle.crt";
const BUNDLE_VARIABLES: [&str; 6] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
];

/// Leaves only what set-up made: the sources come fresh with each work image, and bytecode goes by
/// times that all sources share.
const TIDY: &str = r#"
cd /work
xargs -0 rm -f -- < /flakefarm/setup/files
find . -name __pycache__ -type d -prune -exec rm -rf {} +
xargs -0 rmdir -- < /flakefarm/setup/directories 2> /dev/null || true
if [ -f /usr/local/share/ca-certificates/flakefarm-extra.crt ]; then
  rm -f /usr/local/share/ca-certificates/flakefarm-extra.crt
  if command -v update-ca-certificates > /dev/null; then update-ca-certificates --fresh > /dev/null 2>&1 || true; fi
fi
rm -rf /flakefarm/setup
"#;

/// Joins sources and artefacts; sources win.
const JOIN: &str = r#"
for found in /work/* /work/.[!.]* /work/..?*; do
  if [ -e "$found" ] || [ -L "$found" ]; then cp -an "$found" /flakefarm/tree/; fi
done
chown -R 1000:1000 /flakefarm/tree
chmod -R a+rX /flakefarm
"#;

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

/// Builds images, each once. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Images {
    engine: Engine,
    blobs: Blobs,
    /// One lock per key in preparation, so that equal requests share one build.
    building: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    /// By the digest of what was asked for.
    prepared: Arc<Mutex<HashMap<Digest, (PreparedImage, Instant)>>>,
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
        Self::Images(Images { engine, blobs, building: Arc::default(), prepared: Arc::default() })
    }

    /// What attempts of `context` run in, with `plugin_files` (path, content) in `/flakefarm/plugin`.
    /// Made if it is not there yet; says in `progress` what takes time. Cancel safe: a container it
    /// had started is removed.
    pub async fn prepare(
        &self,
        context: &SweepContext,
        plugin_files: &[(String, &str)],
        progress: impl Fn(String) + Send + Sync,
    ) -> Result<PreparedImage, PrepareError> {
        match self {
            Environments::Images(images) => images.prepare_once(context, plugin_files, progress).await,
            Environments::Local(places) => places.prepare(context, plugin_files, progress).await,
            Environments::Given(given) => Ok(given.clone()),
        }
    }
}

impl Images {
    /// As [`Environments::prepare`]; what was prepared a moment ago is looked for by its id alone, so
    /// that the jobs of a sweep unpack its snapshot once.
    async fn prepare_once(
        &self,
        context: &SweepContext,
        plugin_files: &[(String, &str)],
        progress: impl Fn(String) + Send + Sync,
    ) -> Result<PreparedImage, PrepareError> {
        let asked = serde_json::to_vec(&(context, plugin_files)).expect("wire types serialise");
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
        let image = self.prepare(context, plugin_files, progress).await?;
        let mut prepared = self.prepared.lock().expect("no holder panics");
        prepared.insert(asked, (image.clone(), Instant::now()));
        Ok(image)
    }

    /// The image of `context`'s snapshot in its environment, with `plugin_files` (path, content) in
    /// `/flakefarm/plugin`.
    async fn prepare(
        &self,
        context: &SweepContext,
        plugin_files: &[(String, &str)],
        progress: impl Fn(String) + Send + Sync,
    ) -> Result<PreparedImage, PrepareError> {
        let snapshot = self.blobs.get(&context.snapshot).await?;
        let environment = &context.project.environment;
        let globs = tree::globs(&environment.inputs).map_err(|error| {
            refused(
                format!("environment input is no glob: {error}"),
                "",
                Some("mend `inputs` in flakefarm.toml"),
            )
        })?;
        let unpacked = tokio::task::spawn_blocking(move || {
            let tree = Tree::unpack(&snapshot, UNPACKED_LIMIT)?;
            let inputs = tree.inputs(&globs)?;
            Ok::<_, std::io::Error>((tree, inputs))
        });
        let (tree, inputs) = unpacked
            .await
            .map_err(|error| worker_failed(format!("unpacking a snapshot panicked: {error}")))?
            .map_err(|error| {
                refused(
                    format!("snapshot {} cannot be unpacked: {error}", context.snapshot.short()),
                    "",
                    None,
                )
            })?;

        let base = self.base_image(&environment.image, &context.snapshot, &tree, &progress).await?;
        let env_key = key(&[RECIPE, &base, &environment_text(environment), inputs.as_str()]);
        let env_image = self
            .cached(
                REPOSITORY_ENV,
                &env_key,
                self.build_environment(environment, &tree, &base, &env_key, &progress),
            )
            .await?;
        let mut parts = vec![RECIPE, &env_image, context.snapshot.as_str(), &environment.python];
        parts.extend(plugin_files.iter().flat_map(|(path, content)| [path.as_str(), content]));
        let work_key = key(&parts);
        let image_id = self
            .cached(REPOSITORY_WORK, &work_key, async {
                progress("making the image of this snapshot".to_owned());
                let made = self.build_work(environment, &tree, plugin_files, &env_image, &work_key).await?;
                self.forget_old_images().await;
                Ok(made)
            })
            .await?;
        Ok(PreparedImage { image_id })
    }

    /// The image tagged `repository:key`, built by `build` if it is not there. Of equal calls at the
    /// same time, one builds and the others wait for it.
    async fn cached(
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

    async fn build_environment(
        &self,
        environment: &EnvironmentSpec,
        tree: &Tree,
        base: &str,
        key: &str,
        progress: &(impl Fn(String) + Send + Sync),
    ) -> Result<String, PrepareError> {
        let workshop =
            Workshop::open(&self.engine, base, Reach::Network, SETUP_LIMIT + Duration::from_secs(600))
                .await?;
        match set_up(&workshop, environment, tree, progress).await {
            Ok(()) => Ok(workshop.commit(REPOSITORY_ENV, key, &[(KIND, "env")]).await?),
            Err(error) => {
                workshop.discard().await;
                Err(error)
            }
        }
    }

    async fn build_work(
        &self,
        environment: &EnvironmentSpec,
        tree: &Tree,
        plugin_files: &[(String, &str)],
        env_image: &str,
        key: &str,
    ) -> Result<String, PrepareError> {
        let workshop = Workshop::open(&self.engine, env_image, Reach::Nothing, SETUP_LIMIT).await?;
        match furnish(&workshop, environment, tree, plugin_files).await {
            Ok(()) => Ok(workshop.commit(REPOSITORY_WORK, key, &[(KIND, "work")]).await?),
            Err(error) => {
                workshop.discard().await;
                Err(error)
            }
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

/// Runs the set-up steps on the uploaded tree and takes the tree away again.
async fn set_up(
    workshop: &Workshop,
    environment: &EnvironmentSpec,
    tree: &Tree,
    progress: &(impl Fn(String) + Send + Sync),
) -> Result<(), PrepareError> {
    let nothing = BTreeMap::new();
    ours(workshop, "/", "mkdir -p /work /flakefarm/setup", "making directories").await?;
    workshop.upload("/work", tree.tar.clone()).await?;
    let certificates = environment.extra_ca_certificates.as_deref();
    let lists = [("files", tree.files.as_slice()), ("directories", tree.directories.as_slice())];
    let uploads = lists.into_iter().chain(certificates.map(|pem| ("extra.crt", pem.as_bytes())));
    workshop.upload("/flakefarm/setup", tar_of(uploads)).await?;
    let mut variables = nothing;
    // Without .git, packages that take their version from it could not be installed.
    variables.insert("SETUPTOOLS_SCM_PRETEND_VERSION".to_owned(), "0.0.0".to_owned());
    if certificates.is_some() {
        ours(workshop, "/", TRUST, "trusting certificates").await?;
        variables.extend(BUNDLE_VARIABLES.map(|key| (key.to_owned(), BUNDLE.to_owned())));
    }
    variables.extend(environment.setup_variables.clone());

    let deadline = Instant::now() + SETUP_LIMIT;
    let count = environment.setup.len();
    for (index, command) in environment.setup.iter().enumerate() {
        let step = format!("set-up step {} of {count}", index + 1);
        let shown = workshop::mask_credentials(command);
        progress(format!("{step}: {shown}"));
        let ran = match tokio::time::timeout_at(deadline, workshop.run("/work", command, &variables)).await {
            Ok(ran) => ran?,
            Err(_) => {
                let minutes = SETUP_LIMIT.as_secs() / 60;
                let message = format!("{step} was not done when set-up had taken {minutes} minutes: {shown}");
                return Err(refused(
                    message,
                    "",
                    Some("build an image with these steps and name it as `image`"),
                ));
            }
        };
        if ran.exit_code != 0 {
            return Err(step_failed(&step, &shown, &ran));
        }
    }
    ours(workshop, "/work", TIDY, "tidying up after set-up").await
}

fn step_failed(step: &str, command: &str, ran: &workshop::Ran) -> PrepareError {
    let transient = ["No space left on device", "Temporary failure in name resolution"];
    let message = format!("{step} failed with exit code {}: {command}", ran.exit_code);
    match transient.iter().find(|said| ran.log.contains(*said)) {
        Some(said) => {
            let message = format!("{message}: {said}");
            PrepareError::Infra(InfraError { stage: InfraStage::Environment, message })
        }
        None => {
            let hint = "run the command in the image by hand, or correct `setup` in flakefarm.toml";
            refused(message, &ran.log, Some(hint))
        }
    }
}

/// Puts tree and plugin into the image.
async fn furnish(
    workshop: &Workshop,
    environment: &EnvironmentSpec,
    tree: &Tree,
    plugin_files: &[(String, &str)],
) -> Result<(), PrepareError> {
    let mut directories: Vec<String> = plugin_files
        .iter()
        .filter_map(|(path, _)| path.rsplit_once('/'))
        .map(|(directory, _)| format!("/flakefarm/plugin/{directory}"))
        .collect();
    directories.dedup();
    let mkdir = format!("mkdir -p /work /flakefarm/tree /flakefarm/plugin {}", directories.join(" "));
    ours(workshop, "/", &mkdir, "making directories").await?;
    workshop.upload("/flakefarm/tree", tree.tar.clone()).await?;
    let plugin = tar_of(plugin_files.iter().map(|(path, content)| (path.as_str(), content.as_bytes())));
    workshop.upload("/flakefarm/plugin", plugin).await?;
    // Times do not matter to this kind of bytecode.
    let compile = format!(
        "{} -m compileall -q --invalidation-mode unchecked-hash /flakefarm/plugin",
        environment.python
    );
    let ran = workshop.run("/", &compile, &BTreeMap::new()).await?;
    if ran.exit_code != 0 {
        let message = format!("the image has no interpreter `{}` that works", environment.python);
        return Err(refused(
            message,
            &ran.log,
            Some("name the image's interpreter as `python` in flakefarm.toml"),
        ));
    }
    ours(workshop, "/", JOIN, "putting the tree into the image").await
}

/// Runs a script of our own, which works in any image with the usual tools and space left.
async fn ours(workshop: &Workshop, directory: &str, script: &str, doing: &str) -> Result<(), PrepareError> {
    let ran = workshop.run(directory, script, &BTreeMap::new()).await?;
    if ran.exit_code == 0 {
        return Ok(());
    }
    Err(PrepareError::Infra(InfraError {
        stage: InfraStage::Environment,
        message: format!(
            "{doing} failed in the image with exit code {}: {}",
            ran.exit_code,
            ran.log.trim_end()
        ),
    }))
}

/// What set-up depends on besides its image and its inputs.
fn environment_text(environment: &EnvironmentSpec) -> String {
    let EnvironmentSpec { image: _, setup, inputs: _, extra_ca_certificates, setup_variables, python: _ } =
        environment;
    serde_json::to_string(&(setup, extra_ca_certificates, setup_variables)).expect("text serialises")
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
