//! What attempts on this machine run in: the project's tree and the plugin in a directory, and either
//! the machine's own interpreter or, if there are set-up steps, a virtual environment in which these
//! were run. Set-up steps run as the user who runs flakefarm, with nothing between them and the machine.

use super::reads::{self, Sees};
use super::set_up::{LIMIT, NO_VERSION, WITHOUT_REPOSITORY};
use super::tree::{self, Tree};
use super::workshop::mask_credentials;
use super::{PrepareError, PreparedImage, UNPACKED_LIMIT, key, refused, set_up};
use crate::sandbox::{BoundedOutput, Place, interpreter};
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::{Digest, EnvironmentSpec, InfraError, InfraStage, SweepContext};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::Command;

/// Changes when the same inputs make another directory.
const RECIPE: &str = "2";
/// Where a virtual environment has the tree that it was set up in.
const SOURCES: &str = "sources";
const LOG_HALF: usize = 64 << 10;
const LOG_LINES: usize = 40;
/// Places kept, by when they were used last.
const PLACES_KEPT: usize = 20;
/// Where machines keep what they trust.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// Whom attempts are on a host whose root runs flakefarm; see the nest.
const NOBODY: u32 = 65_534;

/// Prepares places on this machine, one at a time. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct LocalPlaces {
    blobs: Blobs,
    cache: PathBuf,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl LocalPlaces {
    /// Places below `cache`, with snapshots out of `blobs`.
    pub fn new(cache: PathBuf, blobs: Blobs) -> Self {
        Self { blobs, cache, turn: Arc::default() }
    }

    /// See [`super::Environments::prepare`]. The image's id is the directory.
    pub(super) async fn prepare(
        &self,
        context: &SweepContext,
        snapshot: &Digest,
        plugin_files: &[(String, &str)],
        progress: impl Fn(String) + Send + Sync,
    ) -> Result<PreparedImage, PrepareError> {
        let _turn = self.turn.lock().await;
        let archive = self.blobs.get(snapshot).await?;
        let environment = &context.project.environment;
        let tree = Tree::unpack(&archive, UNPACKED_LIMIT).map_err(|error| {
            refused(format!("snapshot {} cannot be unpacked: {error}", snapshot.short()), "", None)
        })?;
        let system = interpreter(&environment.python).map_err(|why| no_interpreter(environment, &why))?;
        let (place, left) = if environment.setup.is_empty() {
            (system, None)
        } else {
            self.virtual_environment(&context.project.name, environment, &system, &tree, snapshot, &progress)
                .await?
        };
        let description = serde_json::to_string(&(&place.path, &place.needs)).expect("plain data serialises");
        let certificates = environment.extra_ca_certificates.as_deref();
        let mut parts = vec![RECIPE, &description, snapshot.as_str(), certificates.unwrap_or_default()];
        parts.extend(plugin_files.iter().flat_map(|(path, content)| [path.as_str(), content]));
        let directory = self.cache.join(format!("place-{}", key(&parts)));
        if directory.is_dir() {
            touch(&directory);
        } else {
            progress("unpacking the snapshot".to_owned());
            let sources = Sources { tree: &tree, left: left.as_deref(), certificates };
            furnish(&directory, &sources, plugin_files, &place)
                .map_err(|error| failed(&directory, &error))?;
            self.forget_old_places();
        }
        Ok(PreparedImage { image_id: directory.display().to_string() })
    }

    /// The virtual environment, and the tree as set-up left it if it may have read the sources.
    async fn virtual_environment(
        &self,
        project: &str,
        environment: &EnvironmentSpec,
        system: &Place,
        tree: &Tree,
        snapshot: &Digest,
        progress: &(impl Fn(String) + Send + Sync),
    ) -> Result<(Place, Option<PathBuf>), PrepareError> {
        let globs = tree::globs(&environment.inputs).map_err(|error| {
            let hint = Some("correct `inputs` in flakefarm.toml");
            refused(format!("environment input is no glob: {error}"), "", hint)
        })?;
        let steps: Vec<usize> = (0..environment.setup.len()).collect();
        let steps = set_up::text(environment, &steps);
        let division = reads::divide(&environment.setup, &environment.setup_variables, tree);
        let inputs = tree.inputs(&globs).map_err(|error| failed(&self.cache, &error))?;
        let needs = system.needs.join(":");
        let mut parts = vec![RECIPE, &needs, steps.as_str(), inputs.as_str()];
        let read = match (&division.sees, division.own_from) {
            (Sees::Files(files), None) => Digest::of(&tree.only(files.iter().map(String::as_str))),
            // What is installed is the sources, there or copied.
            (Sees::Files(_) | Sees::Everything, _) => snapshot.clone(),
        };
        parts.extend([project, read.as_str()]);
        let directory = self.cache.join(format!("venv-{}", key(&parts)));
        let ready = directory.join("flakefarm-ready");
        let bin = directory.join("bin");
        if !ready.is_file() {
            let made = self.set_up(environment, tree, &directory, progress).await;
            if let Err(error) = made {
                // The next try starts from nothing; what cannot be removed is in its way and says so.
                let _ = std::fs::remove_dir_all(&directory);
                return Err(error);
            }
            std::fs::write(&ready, []).map_err(|error| failed(&directory, &error))?;
        }
        let mut place = Place { path: vec![bin.display().to_string()], needs: system.needs.clone() };
        place.path.extend(system.path.iter().cloned());
        place.needs.push(directory.display().to_string());
        Ok((place, division.own_from.map(|_| directory.join(SOURCES))))
    }

    /// Runs the set-up steps in a copy of the tree, with the new virtual environment's programs first.
    async fn set_up(
        &self,
        environment: &EnvironmentSpec,
        tree: &Tree,
        directory: &Path,
        progress: &(impl Fn(String) + Send + Sync),
    ) -> Result<(), PrepareError> {
        let io = |error: io::Error| failed(directory, &error);
        std::fs::create_dir_all(&self.cache).map_err(io)?;
        progress("making a virtual environment".to_owned());
        let mut venv = Command::new(&environment.python);
        venv.args(["-m", "venv"]).arg(directory);
        run(venv, "python -m venv", Some("install the venv module, or an interpreter that has it")).await?;
        let work = directory.join(SOURCES);
        std::fs::create_dir(&work).map_err(io)?;
        tar::Archive::new(tree.tar.as_slice()).unpack(&work).map_err(io)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", directory.join("bin").display());
        let count = environment.setup.len();
        for (index, step) in environment.setup.iter().enumerate() {
            let shown = format!("set-up step {} of {count}: {}", index + 1, mask_credentials(step));
            progress(shown.clone());
            let mut command = Command::new("/bin/sh");
            command.args(["-ec", step]).current_dir(&work);
            command.env("PATH", &path).env("VIRTUAL_ENV", directory);
            command
                .envs(WITHOUT_REPOSITORY.map(|name| (name, NO_VERSION)))
                .envs(&environment.setup_variables);
            let hint = "run the command by hand, or correct `setup` in flakefarm.toml";
            run(command, &shown, Some(hint)).await?;
        }
        Ok(())
    }

    /// Never fails: what is in use by another process stays or is made again.
    fn forget_old_places(&self) {
        let found = std::fs::read_dir(&self.cache).into_iter().flatten().flatten();
        let mut places: Vec<(i64, PathBuf)> = found
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("place-"))
            .filter_map(|entry| Some((entry.metadata().ok()?.mtime(), entry.path())))
            .collect();
        places.sort();
        let excess = places.len().saturating_sub(PLACES_KEPT);
        for (_, place) in places.into_iter().take(excess) {
            if let Err(error) = std::fs::remove_dir_all(&place) {
                tracing::debug!("{} stays: {error}", place.display());
            }
        }
    }
}

/// What a place's tree is made of.
struct Sources<'a> {
    tree: &'a Tree,
    /// Where set-up left the tree.
    left: Option<&'a Path>,
    /// Authorities to trust beside the machine's.
    certificates: Option<&'a str>,
}

/// Made aside and renamed, so that it is there whole or not at all.
fn furnish(
    directory: &Path,
    sources: &Sources<'_>,
    plugin_files: &[(String, &str)],
    place: &Place,
) -> io::Result<()> {
    let parent = directory.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    let aside = tempfile::Builder::new().prefix("making-").tempdir_in(parent)?;
    let (tree, plugin) = (aside.path().join("tree"), aside.path().join("plugin"));
    std::fs::create_dir(&plugin)?;
    match sources.left {
        Some(left) => copy(left, &tree)?,
        None => {
            std::fs::create_dir(&tree)?;
            tar::Archive::new(sources.tree.tar.as_slice()).unpack(&tree)?;
        }
    }
    for (path, content) in plugin_files {
        let path = plugin.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(&plugin))?;
        std::fs::write(path, content)?;
    }
    if let Some(own) = sources.certificates {
        let system = SYSTEM_CERTIFICATES.iter().find_map(|path| std::fs::read_to_string(path).ok());
        let name = Path::new(set_up::CERTIFICATES).file_name().expect("a path of a file");
        std::fs::write(plugin.join(name), system.unwrap_or_default() + own)?;
    }
    place.write(aside.path())?;
    let owner = (std::fs::metadata(aside.path())?.uid() == 0).then_some(NOBODY);
    open_to_attempts(aside.path(), owner)?;
    let made = aside.keep();
    match std::fs::rename(&made, directory) {
        Err(_) if directory.is_dir() => std::fs::remove_dir_all(&made),
        renamed => renamed,
    }
}

/// A tree without bytecode, which goes by times that all sources share.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
        if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&source)?, &target)?;
        } else if kind.is_dir() && entry.file_name() != "__pycache__" {
            copy(&source, &target)?;
        } else if kind.is_file() {
            std::fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Everyone may read it, and whoever attempts are may own it.
fn open_to_attempts(path: &Path, owner: Option<u32>) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    if let Some(owner) = owner {
        std::os::unix::fs::lchown(path, Some(owner), Some(owner))?;
    }
    if found.is_symlink() {
        return Ok(());
    }
    let mode = found.permissions().mode();
    let searchable = if found.is_dir() || mode & 0o100 != 0 { 0o111 } else { 0 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o444 | searchable))?;
    if found.is_dir() {
        for entry in std::fs::read_dir(path)? {
            open_to_attempts(&entry?.path(), owner)?;
        }
    }
    Ok(())
}

async fn run(mut command: Command, shown: &str, hint: Option<&str>) -> Result<(), PrepareError> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = match tokio::time::timeout(LIMIT, command.output()).await {
        Ok(ended) => ended.map_err(|error| refused(format!("{shown}: {error}"), "", hint))?,
        Err(_) => {
            let minutes = LIMIT.as_secs() / 60;
            return Err(refused(format!("{shown} was not done after {minutes} minutes"), "", hint));
        }
    };
    if ended.status.success() {
        return Ok(());
    }
    let mut log = BoundedOutput::new(LOG_HALF);
    log.push(&ended.stdout);
    log.push(&ended.stderr);
    let log = mask_credentials(&log.last_lines(LOG_LINES));
    Err(refused(format!("{shown} failed: {}", ended.status), &log, hint))
}

/// The use of a place is its time.
fn touch(directory: &Path) {
    let touched =
        std::fs::File::open(directory).and_then(|file| file.set_modified(std::time::SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!("failed to note the use of {}: {error}", directory.display());
    }
}

fn no_interpreter(environment: &EnvironmentSpec, why: &str) -> PrepareError {
    let hint = "name this machine's interpreter as `python` in flakefarm.toml";
    refused(format!("this machine has no interpreter `{}` that works", environment.python), why, Some(hint))
}

fn failed(directory: &Path, error: &io::Error) -> PrepareError {
    let message = format!("failed to prepare {}: {error}", directory.display());
    PrepareError::Infra(InfraError { stage: InfraStage::Environment, message })
}
