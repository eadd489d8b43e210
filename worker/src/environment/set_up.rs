//! What is done in a workshop: running set-up's steps, taking away what is not to stay, and putting the
//! tree and the plugin where attempts look for them.

use super::reads::{Division, Sees};
use super::tree::{Tree, tar_of};
use super::workshop::{self, Workshop};
use super::{PrepareError, refused};
use crate::frameworks::python;
use crate::user::{ANOTHER_USER, USER, user_name};
use flakefarm_shared::{EnvironmentSpec, InfraError, InfraStage};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Longest time of a set-up.
pub(super) const LIMIT: Duration = Duration::from_secs(30 * 60);
/// Longest life of a workshop.
pub(super) const LIFETIME: Duration = Duration::from_secs(40 * 60);
/// Where attempts that may reach the network find what to trust, if the project names authorities of
/// its own.
pub(crate) const CERTIFICATES: &str = "/flakefarm/plugin/certificates.pem";

/// Where an image has its tree from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sources {
    /// From the snapshot; artefacts that set-up left are put beside.
    Fresh,
    /// As set-up left it, on this very snapshot.
    SetUp,
}

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
/// Variables that programs find certificate authorities by.
pub(crate) const BUNDLE_VARIABLES: [&str; 6] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
];

/// Variables by which tools are told a version that they would ask a repository for.
pub(super) const WITHOUT_REPOSITORY: [&str; 1] = ["SETUPTOOLS_SCM_PRETEND_VERSION"];
/// The version that they are told.
pub(super) const NO_VERSION: &str = "0.0.0";

/// Takes out what was installed from the tree, so that its dependencies are left.
const TAKE_OUT: &str = r#"
import json, subprocess, sys

def own(url):
    return url.startswith("file:")

names = set()
try:
    from importlib.metadata import distributions
    for found in distributions():
        if own(json.loads(found.read_text("direct_url.json") or "{}").get("url", "")):
            names.add(found.metadata["Name"])
except ImportError:
    pass
try:
    import pkg_resources
    names.update(d.project_name for d in pkg_resources.working_set if (d.location or "").startswith("/work"))
except Exception:
    pass
if names:
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "-y", *sorted(names)], cwd="/", check=True)
"#;

/// Remembers what the image had where the tree comes.
const REMEMBER: &str = "cp -a /work /flakefarm/setup/before";

/// Leaves nothing of the tree.
const CLEAR: &str = "find /work -mindepth 1 -delete\ncp -a /flakefarm/setup/before/. /work/";

/// Leaves only what set-up made: the sources come fresh with each work image.
const LEAVE_ARTEFACTS: &str = r#"
xargs -0 rm -f -- < /flakefarm/setup/files
find . -name __pycache__ -type d -prune -exec rm -rf {} +
xargs -0 rmdir -- < /flakefarm/setup/directories 2> /dev/null || true
"#;

/// Bytecode goes by times that all sources share.
const NO_BYTECODE: &str = "find . -name __pycache__ -type d -prune -exec rm -rf {} +";

/// What set-up needed and attempts must not see.
const PACK_UP: &str = r#"
if [ -f /usr/local/share/ca-certificates/flakefarm-extra.crt ]; then
  rm -f /usr/local/share/ca-certificates/flakefarm-extra.crt
  if command -v update-ca-certificates > /dev/null; then update-ca-certificates --fresh > /dev/null 2>&1 || true; fi
fi
rm -rf /flakefarm/setup
"#;

/// Names the users of attempts (`id:name` each, as arguments), unless the image does.
const NAME_USERS: &str = r#"
is_named() { while IFS=: read -r _ _ known _; do [ "$known" != "$1" ] || return 0; done < "$2"; return 1; }
touch /etc/passwd /etc/group
for file in /etc/passwd /etc/group; do
  # A last line without an end would swallow the one that is added.
  if [ -s "$file" ] && [ "$(tail -c 1 "$file" | wc -l)" = 0 ]; then echo >> "$file"; fi
done
for user in "$@"; do
  id=${user%%:*} name=${user#*:}
  is_named "$id" /etc/passwd || echo "$name:x:$id:$id::/tmp/home:/bin/sh" >> /etc/passwd
  is_named "$id" /etc/group || echo "$name:x:$id:" >> /etc/group
done
"#;
/// Joins sources and artefacts; sources win.
const JOIN: &str = r#"
for found in /work/* /work/.[!.]* /work/..?*; do
  if [ -e "$found" ] || [ -L "$found" ]; then cp -an "$found" /flakefarm/tree/; fi
done
"#;

/// Takes the tree as it is.
const MOVE: &str = r#"
for found in /work/* /work/.[!.]* /work/..?*; do
  if [ -e "$found" ] || [ -L "$found" ]; then mv "$found" /flakefarm/tree/; fi
done
"#;

/// Attempts own the tree, and may read all the rest.
const HAND_OVER: &str = "chown -R 1000:1000 /flakefarm/tree\nchmod -R a+rX /flakefarm";

/// A memory file system that has no owner is written to by its mode, and runc 1.1 gives it the mode of the directory
/// that it covers.
const OPEN: &str = "chmod 1777 /work\n";

/// The authorities that the image trusts, and those of the project.
const CERTIFY: &str = r#"
for system in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  if [ -f "$system" ]; then cat "$system"; break; fi
done > /flakefarm/plugin/certificates.pem
cat /flakefarm/extra.crt >> /flakefarm/plugin/certificates.pem
rm /flakefarm/extra.crt
"#;

/// What some steps are and run with, as part of a key.
pub(super) fn text(environment: &EnvironmentSpec, steps: &[usize]) -> String {
    let EnvironmentSpec { image: _, setup, inputs: _, extra_ca_certificates, setup_variables, python: _ } =
        environment;
    let steps: Vec<&String> = steps.iter().map(|place| &setup[*place]).collect();
    serde_json::to_string(&(steps, extra_ca_certificates, setup_variables)).expect("text serialises")
}

/// Leaves what the shared steps of `division` install, and nothing of the tree.
pub(super) async fn dependencies(
    workshop: &Workshop,
    environment: &EnvironmentSpec,
    division: &Division,
    tree: &Tree,
    progress: &(impl Fn(String) + Send + Sync),
) -> Result<(), PrepareError> {
    let variables = begin(workshop, environment).await?;
    ours(workshop, "/", REMEMBER, "making directories").await?;
    let seen = match &division.sees {
        Sees::Files(files) => tree.only(files.iter().map(String::as_str)),
        Sees::Everything => tree.tar.clone(),
    };
    workshop.upload("/work", seen).await?;
    run_steps(workshop, environment, &division.shared, &variables, progress).await?;
    if division.sees == Sees::Everything {
        progress("keeping the dependencies for other snapshots".to_owned());
        workshop.upload("/flakefarm/setup", tar_of([("take_out.py", TAKE_OUT.as_bytes())])).await?;
        let take_out = format!("{} /flakefarm/setup/take_out.py", environment.python);
        ours(workshop, "/", &take_out, "taking the project out of its dependencies' layer").await?;
    }
    ours(workshop, "/work", CLEAR, "tidying up after set-up").await?;
    ours(workshop, "/", PACK_UP, "tidying up after set-up").await
}

/// Runs steps that leave the sources where they are, and takes these away.
pub(super) async fn in_place(
    workshop: &Workshop,
    environment: &EnvironmentSpec,
    steps: &[usize],
    tree: &Tree,
    progress: &(impl Fn(String) + Send + Sync),
) -> Result<(), PrepareError> {
    let variables = begin(workshop, environment).await?;
    workshop.upload("/work", tree.tar.clone()).await?;
    run_steps(workshop, environment, steps, &variables, progress).await?;
    let lists = [("files", tree.files.as_slice()), ("directories", tree.directories.as_slice())];
    workshop.upload("/flakefarm/setup", tar_of(lists)).await?;
    ours(workshop, "/work", LEAVE_ARTEFACTS, "tidying up after set-up").await?;
    ours(workshop, "/", PACK_UP, "tidying up after set-up").await
}

/// Runs steps that read the sources, and leaves the tree as they do.
pub(super) async fn of_snapshot(
    workshop: &Workshop,
    environment: &EnvironmentSpec,
    steps: &[usize],
    tree: &Tree,
    progress: &(impl Fn(String) + Send + Sync),
) -> Result<(), PrepareError> {
    let variables = begin(workshop, environment).await?;
    workshop.upload("/work", tree.tar.clone()).await?;
    run_steps(workshop, environment, steps, &variables, progress).await?;
    ours(workshop, "/work", NO_BYTECODE, "tidying up after set-up").await?;
    ours(workshop, "/", PACK_UP, "tidying up after set-up").await
}

/// Makes the directories of a set-up, and returns the variables of its steps.
async fn begin(
    workshop: &Workshop,
    environment: &EnvironmentSpec,
) -> Result<BTreeMap<String, String>, PrepareError> {
    ours(workshop, "/", "mkdir -p /work /flakefarm/setup", "making directories").await?;
    // Without .git, packages that take their version from it could not be installed.
    let mut variables: BTreeMap<String, String> =
        WITHOUT_REPOSITORY.map(|name| (name.to_owned(), NO_VERSION.to_owned())).into();
    if let Some(pem) = &environment.extra_ca_certificates {
        workshop.upload("/flakefarm/setup", tar_of([("extra.crt", pem.as_bytes())])).await?;
        ours(workshop, "/", TRUST, "trusting certificates").await?;
        variables.extend(BUNDLE_VARIABLES.map(|key| (key.to_owned(), BUNDLE.to_owned())));
    }
    variables.extend(environment.setup_variables.clone());
    Ok(variables)
}

async fn run_steps(
    workshop: &Workshop,
    environment: &EnvironmentSpec,
    steps: &[usize],
    variables: &BTreeMap<String, String>,
    progress: &(impl Fn(String) + Send + Sync),
) -> Result<(), PrepareError> {
    let deadline = Instant::now() + LIMIT;
    let count = environment.setup.len();
    for place in steps {
        let command = &environment.setup[*place];
        let step = format!("set-up step {} of {count}", place + 1);
        let shown = workshop::mask_credentials(command);
        progress(format!("{step}: {shown}"));
        let ran = match tokio::time::timeout_at(deadline, workshop.run("/work", command, variables)).await {
            Ok(ran) => ran?,
            Err(_) => {
                let minutes = LIMIT.as_secs() / 60;
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
    Ok(())
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
pub(super) async fn furnish(
    workshop: &Workshop,
    environment: &EnvironmentSpec,
    tree: &Tree,
    plugin_files: &[(String, &str)],
    sources: Sources,
) -> Result<(), PrepareError> {
    let mut directories: Vec<String> = plugin_files
        .iter()
        .filter_map(|(path, _)| path.rsplit_once('/'))
        .map(|(directory, _)| format!("/flakefarm/plugin/{directory}"))
        .collect();
    directories.dedup();
    let mkdir = format!("mkdir -p /work /flakefarm/tree /flakefarm/plugin {}", directories.join(" "));
    ours(workshop, "/", &mkdir, "making directories").await?;
    let users = [USER, ANOTHER_USER].map(|id| format!("{id}:{}", user_name(id))).join(" ");
    ours(workshop, "/", &format!("set -- {users}\n{NAME_USERS}"), "naming the users of attempts").await?;
    let arrange = match sources {
        Sources::Fresh => {
            workshop.upload("/flakefarm/tree", tree.tar.clone()).await?;
            JOIN
        }
        Sources::SetUp => MOVE,
    };
    let plugin = tar_of(plugin_files.iter().map(|(path, content)| (path.as_str(), content.as_bytes())));
    workshop.upload("/flakefarm/plugin", plugin).await?;
    let compile = python::compiles_plugin(&environment.python);
    let ran = workshop.run("/", &compile, &BTreeMap::new()).await?;
    if ran.exit_code != 0 {
        let message = format!("the image has no interpreter `{}` that works", environment.python);
        return Err(refused(
            message,
            &ran.log,
            Some("name the image's interpreter as `python` in flakefarm.toml"),
        ));
    }
    if let Some(pem) = &environment.extra_ca_certificates {
        workshop.upload("/flakefarm", tar_of([("extra.crt", pem.as_bytes())])).await?;
        ours(workshop, "/", CERTIFY, "collecting certificates").await?;
    }
    let open = if workshop.gives_memory_no_owner().await { OPEN } else { "" };
    let arrange = format!("{arrange}{open}{HAND_OVER}");
    ours(workshop, "/", &arrange, "putting the tree into the image").await
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
