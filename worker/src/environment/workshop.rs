//! A container in which an image is made: files go in, commands run, the result is committed.
//!
//! Variables are given to commands, never to the container, so that no image remembers them.

use crate::sandbox::{
    BoundedOutput, CONTAINER_LABELS, ContainerGuard, Engine, Measures, Role, Wall, hardened, infra, label,
};
use bollard::body_full;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ContainerConfig, ContainerCreateBody, ExecConfig};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, StartContainerOptions, UploadToContainerOptionsBuilder,
};
use flakefarm_shared::{InfraError, InfraStage};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::time::Duration;

const LOG_HALF: usize = 64 << 10;
const LOG_LINES: usize = 40;

/// Whether commands in a workshop may reach the network.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach<'a> {
    /// The engine's network of this name.
    Network(&'a str),
    Nothing,
}

/// What a workshop may take of its machine. Of CPU time it has what attempts leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Memory, swap included.
    pub(super) memory_bytes: u64,
    /// Processes and threads.
    pub(super) pids: u32,
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) exit_code: i64,
    /// Its last lines, without credentials.
    pub(super) log: String,
}

#[derive(Debug)]
pub(super) struct Workshop {
    engine: Engine,
    guard: ContainerGuard,
}

impl Workshop {
    /// Starts an idle container of `image` that is left alone for `lifetime`.
    pub(super) async fn open(
        engine: &Engine,
        image: &str,
        reach: Reach<'_>,
        room: Room,
        lifetime: Duration,
    ) -> Result<Self, InfraError> {
        let mut guard = engine.guard();
        let network = match reach {
            Reach::Network(name) => Some(name),
            Reach::Nothing => None,
        };
        let Room { memory_bytes, pids } = room;
        let measures = Measures { memory_bytes, cpu_millis: None, pids, network };
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            // Waits for a line that nobody writes: needs no program but the shell.
            entrypoint: Some(vec!["/bin/sh".to_owned()]),
            cmd: Some(vec!["-c".to_owned(), "read _".to_owned()]),
            open_stdin: Some(true),
            labels: Some(engine.labels(&Role::Setup, lifetime)),
            ..hardened(&measures, Wall::Setup)
        };
        let docker = engine.docker();
        let failed = |what: &'static str| move |error: Error| infra(InfraStage::Environment, what, &error);
        engine.create(&mut guard, body).await.map_err(failed("failed to create a set-up container"))?;
        docker
            .start_container(guard.name(), None::<StartContainerOptions>)
            .await
            .map_err(failed("failed to start a set-up container"))?;
        Ok(Self { engine: engine.clone(), guard })
    }

    /// Whether memory file systems of this engine's containers belong to root (see `sandbox::podman`).
    pub(super) async fn gives_memory_no_owner(&self) -> bool {
        self.engine.check().await.is_ok_and(|facts| facts.is_podman)
    }

    /// Unpacks an uncompressed tar archive into an existing directory.
    pub(super) async fn upload(&self, directory: &str, tar: Vec<u8>) -> Result<(), InfraError> {
        let options = UploadToContainerOptionsBuilder::default().path(directory).build();
        self.engine
            .docker()
            .upload_to_container(self.guard.name(), Some(options), body_full(tar.into()))
            .await
            .map_err(|error| infra(InfraStage::Environment, "failed to upload to a set-up container", &error))
    }

    /// Runs a shell script as root in `directory`. Its two outputs are one, or their order were lost.
    pub(super) async fn run(
        &self,
        directory: &str,
        script: &str,
        variables: &BTreeMap<String, String>,
    ) -> Result<Ran, InfraError> {
        let docker = self.engine.docker();
        let failed = |error: Error| {
            infra(InfraStage::Environment, "failed to run a command in a set-up container", &error)
        };
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(vec![
                "/bin/sh".to_owned(),
                "-ec".to_owned(),
                format!(
                    "exec 2>&1
{script}"
                ),
            ]),
            env: Some(variables.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            user: Some("0:0".to_owned()),
            working_dir: Some(directory.to_owned()),
            ..ExecConfig::default()
        };
        let exec = docker.create_exec(self.guard.name(), config).await.map_err(failed)?.id;
        let mut log = BoundedOutput::new(LOG_HALF);
        match docker.start_exec(&exec, None::<StartExecOptions>).await.map_err(failed)? {
            StartExecResults::Attached { mut output, .. } => {
                while let Some(item) = output.next().await {
                    match item.map_err(failed)? {
                        LogOutput::StdOut { message } | LogOutput::StdErr { message } => log.push(&message),
                        LogOutput::StdIn { .. } | LogOutput::Console { .. } => {}
                    }
                }
            }
            StartExecResults::Detached => {}
        }
        let ended = docker.inspect_exec(&exec).await.map_err(failed)?;
        match ended.exit_code {
            Some(exit_code) if !ended.running.unwrap_or(false) => {
                if exit_code != 0 {
                    self.still_open().await?;
                }
                Ok(Ran { exit_code, log: mask_credentials(&log.last_lines(LOG_LINES)) })
            }
            Some(_) | None => Err(lost()),
        }
    }

    /// A command that failed because its container was taken away has said nothing.
    async fn still_open(&self) -> Result<(), InfraError> {
        let found = self.engine.docker().inspect_container(self.guard.name(), None).await;
        let container =
            found.map_err(|error| infra(InfraStage::Environment, "lost a set-up container", &error))?;
        if container.state.and_then(|state| state.running).unwrap_or(false) { Ok(()) } else { Err(lost()) }
    }

    /// Commits the container as `repository:tag`, without entry point, and removes it.
    /// Returns the image's id.
    pub(super) async fn commit(
        self,
        repository: &str,
        tag: &str,
        labels: &[(&str, &str)],
    ) -> Result<String, InfraError> {
        // An image's labels pass to its containers: ours must not mark those that users start.
        let cleared = CONTAINER_LABELS.iter().map(|key| format!("LABEL {}=\"\"", label(key)));
        let ours = labels.iter().map(|(key, value)| format!("LABEL {}=\"{value}\"", label(key)));
        let changes: Vec<String> = ["CMD [\"/bin/sh\"]".to_owned(), "WORKDIR /work".to_owned()]
            .into_iter()
            .chain(cleared)
            .chain(ours)
            .collect();
        let options = CommitContainerOptionsBuilder::default()
            .container(self.guard.name())
            .repo(repository)
            .tag(tag)
            .pause(true)
            .changes(&changes.join("\n"))
            .build();
        // Empty, not absent: what is absent, or reset by a change, is taken from the container.
        let config = ContainerConfig { entrypoint: Some(Vec::new()), ..ContainerConfig::default() };
        let committed = self.engine.docker().commit_container(options, config).await;
        self.guard.remove().await;
        let image = committed
            .map_err(|error| infra(InfraStage::Environment, "failed to commit a set-up container", &error))?;
        Ok(image.id)
    }

    /// Removes the container without keeping anything.
    pub(super) async fn discard(self) {
        self.guard.remove().await;
    }
}

fn lost() -> InfraError {
    InfraError {
        stage: InfraStage::Environment,
        message: "a set-up container was stopped by somebody else".to_owned(),
    }
}

/// `scheme://user:secret@host` without what stands before the `@`.
pub(super) fn mask_credentials(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        masked.push_str(before);
        let authority = after.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(after.len());
        match after[..authority].rfind('@') {
            Some(at) => {
                masked.push_str("***");
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    masked.push_str(rest);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        assert_eq!(mask_credentials(text), expect);
    }

    #[test]
    fn credentials_in_addresses_are_masked() {
        check("no address", "no address");
        check("see https://host/a@b", "see https://host/a@b");
        check("at https://u:p@host/x and http://t@h2", "at https://***@host/x and http://***@h2");
    }
}
