//! Where attempts without a network find the name `localhost`, and a server of names that they cannot reach.
//!
//! A container whose network is disabled gets an empty /etc/hosts and an empty /etc/resolv.conf, whatever its image
//! brings; network `none` would fill them, at twice the price of a container. So one container per worker with network
//! `none` is started once, ends at once, and lends both files, read-only, to every attempt.

use super::engine::{ContainerGuard, Engine, Role, infra};
use super::hardening::{HOSTNAME, Measures, Wall, hardened};
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, Mount, MountType};
use bollard::query_parameters::StartContainerOptions;
use flakefarm_shared::{InfraError, InfraStage};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// An address for documentation (RFC 5737). Asking it is seen in the network namespace's count of packets without a
/// route; without a server, names are asked of loopback, which refuses unseen.
const RESOLVER: &str = "192.0.2.53";
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const RENEWAL: Duration = Duration::from_secs(12 * 3600);

/// The lender of the files, made at its first use.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    lender: Mutex<Option<Lender>>,
}

#[derive(Debug)]
struct Lender {
    guard: ContainerGuard,
    hosts: String,
    /// None where the engine does not say where it is.
    resolver: Option<String>,
    made: Instant,
}

impl Hosts {
    /// The mounts of both files. `image` may be any that has a shell.
    pub(super) async fn mounts(&self, engine: &Engine, image: &str) -> Result<Vec<Mount>, InfraError> {
        // Held while the lender is made, so that there is one.
        let mut lender = self.lender.lock().await;
        let found = match lender.take() {
            Some(found) if found.made.elapsed() < RENEWAL => lender.insert(found),
            outdated => {
                if let Some(outdated) = outdated {
                    outdated.guard.remove().await;
                }
                lender.insert(make(engine, image).await?)
            }
        };
        let mount = |target: &str, source: String| Mount {
            target: Some(target.to_owned()),
            source: Some(source),
            typ: Some(MountType::BIND),
            read_only: Some(true),
            ..Mount::default()
        };
        let hosts = mount("/etc/hosts", found.hosts.clone());
        let resolver = found.resolver.clone().map(|path| mount("/etc/resolv.conf", path));
        Ok(std::iter::once(hosts).chain(resolver).collect())
    }

    /// Gives the lender up; the next attempt makes a new one.
    pub(super) async fn forget(&self) {
        if let Some(lender) = self.lender.lock().await.take() {
            lender.guard.remove().await;
        }
    }
}

async fn make(engine: &Engine, image: &str) -> Result<Lender, InfraError> {
    let docker = engine.docker();
    let failed =
        |error: Error| infra(InfraStage::Sandbox, "failed to make a hosts file for sandboxes", &error);
    let mut guard = engine.guard();
    // The shell is the image's: it may be anything.
    let measures = Measures { memory_bytes: 32 << 20, cpu_millis: None, pids: 16, network: Some("none") };
    let mut closed = hardened(&measures, Wall::Nothing);
    if let Some(host) = &mut closed.host_config {
        host.extra_hosts = Some(vec![format!("{HOSTNAME}:127.0.0.1")]);
        host.dns = Some(vec![RESOLVER.to_owned()]);
    }
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/bin/sh".to_owned()]),
        cmd: Some(vec!["-c".to_owned(), "exit 0".to_owned()]),
        labels: Some(engine.labels(&Role::Hosts, LIFETIME)),
        ..closed
    };
    engine.create(&mut guard, body).await.map_err(failed)?;
    docker.start_container(guard.name(), None::<StartContainerOptions>).await.map_err(failed)?;
    let made = docker.inspect_container(guard.name(), None).await.map_err(failed)?;
    match made.hosts_path.filter(|path| !path.is_empty()) {
        Some(hosts) => {
            let resolver = made.resolv_conf_path.filter(|path| !path.is_empty());
            Ok(Lender { guard, hosts, resolver, made: Instant::now() })
        }
        None => {
            guard.remove().await;
            let message = "the engine does not say where it keeps a container's hosts file".to_owned();
            Err(InfraError { stage: InfraStage::Sandbox, message })
        }
    }
}
