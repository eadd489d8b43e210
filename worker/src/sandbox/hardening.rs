//! How every container of ours is closed, whatever it is for: one place, so that no kind is forgotten when
//! a rule is added. Kinds differ in what [`Wall`] names, and in nothing else.

use super::seccomp;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, ResourcesUlimits};
use flakefarm_shared::Limits;
use flakefarm_shared::project::Network;
use std::collections::HashMap;

/// What every container calls itself.
pub(super) const HOSTNAME: &str = "flakefarm";
/// Memory of /dev/shm in an attempt's own container, for semaphores of multiprocessing.
const SHM_BYTES: u64 = 64 << 20;
/// What installing packages takes of root's capabilities: owning, reading and writing what others own,
/// becoming another user (and telling that, which `su` insists on). No devices, no raw sockets.
const CAPABILITIES_OF_SETUP: [&str; 10] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETFCAP",
    "SETGID",
    "SETUID",
    "SYS_CHROOT",
];
/// Of an attempt's CPU time beside others that want it, too: a quarter of what a container has that says nothing,
/// so that the engine, the worker and a coordinator on the same machine do not wait behind tests. Where nobody
/// else wants it, an attempt has all that its limit allows.
const SHARES_OF_ATTEMPT: i64 = 256;
/// The same of set-up.
const SHARES_OF_SETUP: i64 = 64;

/// What a container holds back, and from whom.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one per container, and gone before it runs")]
pub(crate) enum Wall<'a> {
    /// One attempt, directly: nothing is opened, and it can write to memory of its own.
    Attempt {
        /// User and group.
        user: u32,
        /// Of /work and of /tmp, each, in bytes.
        scratch_bytes: u64,
        /// The files of names that a container without a network lacks.
        names: Vec<Mount>,
    },
    /// A nest, which makes namespaces and closes them again for each attempt. It differs from an attempt in
    /// two things: the system calls that this takes are open (and what would hide /proc or refuse mounts is
    /// not there), and it writes nowhere but to the volume that its own program is in.
    Nest {
        /// Which system calls.
        profile: &'a str,
        /// The volume.
        program: Mount,
    },
    /// Set-up steps, which change the image as its root: the root is writable, and root has what installing
    /// packages takes.
    Setup,
    /// A program of ours that does nothing and ends.
    Nothing,
}

/// The measures of a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measures<'a> {
    /// Memory in bytes, swap included.
    pub(crate) memory_bytes: u64,
    /// CPUs in thousandths; `None` for as many as there are.
    pub(crate) cpu_millis: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: u32,
    /// The engine's network that it is in; `None` for a loopback of its own.
    pub(crate) network: Option<&'a str>,
}

impl<'a> Measures<'a> {
    /// Those of an attempt, which is in this network of the engine if it may reach one. An engine refuses more
    /// CPUs than its machine has.
    pub(crate) fn of_attempt(limits: &Limits, cpus: u64, network: &'a str) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            cpu_millis: Some(if cpus == 0 { limits.cpu_millis } else { limits.cpu_millis.min(cpus * 1_000) }),
            pids: limits.pids,
            network: match limits.network {
                Network::None => None,
                Network::Bridge => Some(network),
            },
        }
    }

    /// With so much beside for what is ours in the container.
    pub(crate) fn and(self, bytes: u64, pids: u32) -> Self {
        Self {
            memory_bytes: self.memory_bytes.saturating_add(bytes),
            pids: self.pids.saturating_add(pids),
            ..self
        }
    }
}

/// The container, closed; what it runs and is labelled with is the caller's to add.
pub(crate) fn hardened(measures: &Measures<'_>, wall: Wall<'_>) -> ContainerCreateBody {
    let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut host = HostConfig {
        memory: Some(bytes(measures.memory_bytes)),
        memory_swap: Some(bytes(measures.memory_bytes)),
        nano_cpus: measures.cpu_millis.map(|millis| bytes(millis.saturating_mul(1_000_000))),
        cpu_shares: Some(SHARES_OF_ATTEMPT),
        pids_limit: Some(i64::from(measures.pids)),
        ulimits: Some(vec![ResourcesUlimits { name: Some("core".to_owned()), soft: Some(0), hard: Some(0) }]),
        cap_drop: Some(vec!["ALL".to_owned()]),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        network_mode: measures.network.map(str::to_owned),
        ..HostConfig::default()
    };
    let mut body = ContainerCreateBody {
        hostname: Some(HOSTNAME.to_owned()),
        // An empty network namespace with loopback, without the price of network `none`.
        network_disabled: Some(measures.network.is_none()),
        ..ContainerCreateBody::default()
    };
    let no_new_privileges = "no-new-privileges".to_owned();
    match wall {
        Wall::Attempt { user, scratch_bytes, names } => {
            host.security_opt = Some(vec![no_new_privileges, format!("seccomp={}", seccomp::profile())]);
            host.readonly_rootfs = Some(true);
            host.oom_score_adj = Some(500);
            host.tmpfs = Some(scratch(user, scratch_bytes));
            host.mounts = (!names.is_empty()).then_some(names);
            // An IPC namespace of its own without a /dev/shm that the engine mounts outside first.
            host.ipc_mode = Some("none".to_owned());
            body.user = Some(format!("{user}:{user}"));
            body.working_dir = Some("/work".to_owned());
        }
        Wall::Nest { profile, program } => {
            host.security_opt = Some(vec![
                no_new_privileges,
                // Docker's AppArmor profile, where there is one, refuses every mount.
                "apparmor=unconfined".to_owned(),
                format!("seccomp={profile}"),
            ]);
            host.readonly_rootfs = Some(true);
            // A fresh /proc can be mounted only while this one is whole. Attempts get theirs masked again.
            host.masked_paths = Some(Vec::new());
            host.readonly_paths = Some(Vec::new());
            host.mounts = Some(vec![program]);
            host.ipc_mode = Some("private".to_owned());
            host.shm_size = Some(1 << 20);
            body.user = Some("1000:1000".to_owned());
            body.working_dir = Some("/".to_owned());
        }
        Wall::Setup => {
            // The engine's own profile of system calls: what builds a project may be anything. Steps may use
            // sudo, which gives up where new privileges are refused; root has none to gain.
            host.cap_add = Some(CAPABILITIES_OF_SETUP.map(str::to_owned).to_vec());
            host.cpu_shares = Some(SHARES_OF_SETUP);
            host.oom_score_adj = Some(500);
            host.init = Some(true);
            body.user = Some("0:0".to_owned());
        }
        Wall::Nothing => {
            host.security_opt = Some(vec![no_new_privileges, format!("seccomp={}", seccomp::profile())]);
            host.readonly_rootfs = Some(true);
            body.user = Some("65534:65534".to_owned());
        }
    }
    body.host_config = Some(host);
    body
}

/// What an attempt in a container of its own can write to.
fn scratch(user: u32, size: u64) -> HashMap<String, String> {
    let writable =
        |size: u64, mode: &str| format!("rw,exec,nosuid,nodev,size={size},mode={mode},uid={user},gid={user}");
    HashMap::from([
        ("/work".to_owned(), writable(size, "0755")),
        ("/tmp".to_owned(), writable(size, "1777")),
        ("/run".to_owned(), writable(16 << 20, "0755")),
        ("/dev/shm".to_owned(), format!("rw,noexec,nosuid,nodev,size={SHM_BYTES},mode=1777")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURES: Measures<'static> =
        Measures { memory_bytes: 1 << 30, cpu_millis: Some(1_000), pids: 64, network: None };

    fn walls() -> [Wall<'static>; 4] {
        [
            Wall::Attempt { user: 1_000, scratch_bytes: 1 << 20, names: Vec::new() },
            Wall::Nest { profile: "{}", program: Mount::default() },
            Wall::Setup,
            Wall::Nothing,
        ]
    }

    #[test]
    fn whatever_a_container_is_for_it_is_bounded_and_has_no_capability_that_it_does_not_name() {
        for wall in walls() {
            let shown = format!("{wall:?}");
            let body = hardened(&MEASURES, wall);
            let host = body.host_config.unwrap();
            assert_eq!((host.memory, host.memory_swap), (Some(1 << 30), Some(1 << 30)), "{shown}");
            assert_eq!((host.nano_cpus, host.pids_limit), (Some(1_000_000_000), Some(64)), "{shown}");
            assert!(host.cpu_shares.is_some_and(|shares| shares < 1_024), "{shown}");
            assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]), "{shown}");
            assert_eq!(body.network_disabled, Some(true), "{shown}");
            assert_ne!(host.privileged, Some(true), "{shown}");
            let options = host.security_opt.unwrap_or_default();
            assert!(!options.iter().any(|option| option == "seccomp=unconfined"), "{shown}");
            assert!(host.binds.is_none(), "{shown}");
        }
    }

    #[test]
    fn only_set_up_is_root_and_writes_to_its_image() {
        for wall in walls() {
            let is_setup = matches!(wall, Wall::Setup);
            let body = hardened(&MEASURES, wall);
            let host = body.host_config.unwrap();
            assert_eq!(body.user.as_deref() == Some("0:0"), is_setup);
            assert_eq!(host.readonly_rootfs != Some(true), is_setup);
            assert_eq!(host.cap_add.is_some(), is_setup);
        }
    }

    #[test]
    fn more_cpus_than_there_are_is_all_of_them() {
        let limits = Limits { cpu_millis: 64_000, ..Limits::default() };
        assert_eq!(Measures::of_attempt(&limits, 2, "bridge").cpu_millis, Some(2_000));
        assert_eq!(
            Measures::of_attempt(&limits, 0, "bridge").cpu_millis,
            Some(64_000),
            "an engine that does not say"
        );
    }
}
