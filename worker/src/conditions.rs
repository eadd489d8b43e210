//! How a worker gives an attempt its world, as far as the sandbox around it changes. What the interpreter or the
//! plugin does is in [`crate::frameworks::python`]; what a world means is told by
//! [`flakefarm_shared::world::catalogue`].

use crate::environment::{BUNDLE_VARIABLES, CERTIFICATES};
use crate::frameworks::python;
pub use crate::user::USER;
use flakefarm_shared::project::Network;
use flakefarm_shared::world::catalogue::VARIABLES;
use flakefarm_shared::{Limits, LocaleChoice, ProjectSpec, SandboxLevel, World};
use std::collections::BTreeMap;

/// Memory below which not even an interpreter starts.
const LEAST_MEMORY: u64 = 128 << 20;

/// A sandbox as a world has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Limits of the attempt.
    pub limits: Limits,
    /// Environment variables, over those of the image. They are read when the interpreter starts.
    pub variables: BTreeMap<String, String>,
    /// User and group.
    pub user: u32,
}

/// The sandbox of an attempt of `project` in `world`.
pub fn surroundings(project: &ProjectSpec, world: World) -> Surroundings {
    let mut limits = project.limits.clone();
    let mut variables = project.variables.clone();
    let mut user = USER;
    let mut set = |name: &str, value: &str| {
        variables.insert(name.to_owned(), value.to_owned());
    };
    let slowdown = u64::from(world.slowdown());
    limits.test_timeout_ms = limits.test_timeout_ms.saturating_mul(slowdown);
    limits.attempt_timeout_ms = limits.attempt_timeout_ms.saturating_mul(slowdown);
    match world {
        World::Locale(LocaleChoice::Ascii) => set("LC_ALL", "C"),
        World::Locale(LocaleChoice::German) => set("LC_ALL", "de_DE.UTF-8"),
        World::Variables => VARIABLES.iter().for_each(|(name, value)| set(name, value)),
        World::CpuQuota { millis } => limits.cpu_millis = u64::from(millis),
        World::MemoryPressure { percent } => {
            limits.memory_bytes = (limits.memory_bytes / 100 * u64::from(percent)).max(LEAST_MEMORY);
        }
        World::NetworkOff => limits.network = Network::None,
        World::NetworkOn => limits.network = Network::Bridge,
        World::User { id } => user = id,
        World::Plain
        | World::Twice
        | World::HashSeed(_)
        | World::RandomSeed { .. }
        | World::TimeZone(_)
        | World::Clock(_)
        | World::CpuContention { .. }
        | World::SlowDisk { .. }
        | World::NetworkSlow { .. }
        | World::NetworkLossy { .. }
        | World::Parallel { .. }
        | World::Home
        | World::Umask
        | World::DirectoryOrder { .. }
        | World::WarningsAsErrors
        | World::GarbageCollection => {}
    }
    python::variables(world).iter().for_each(|(name, value)| set(name, value));
    if limits.network == Network::Bridge && project.environment.extra_ca_certificates.is_some() {
        for name in BUNDLE_VARIABLES {
            variables.entry(name.to_owned()).or_insert_with(|| CERTIFICATES.to_owned());
        }
    }
    Surroundings { limits, variables, user }
}

/// Why a world cannot be given at `level`: on this machine an attempt has the machine's CPUs and user,
/// and a plain process its memory and network, too. None if it can.
pub fn not_given(level: SandboxLevel, world: World) -> Option<String> {
    let missing = match (level, world) {
        (SandboxLevel::Host | SandboxLevel::Process, World::User { .. } | World::CpuQuota { .. })
        | (SandboxLevel::Process, World::MemoryPressure { .. } | World::NetworkOff | World::NetworkOn) => {
            true
        }
        (SandboxLevel::Container | SandboxLevel::Nested | SandboxLevel::Forked, _)
        | (SandboxLevel::Host | SandboxLevel::Process, _) => false,
    };
    missing.then(|| format!("the sandbox level `{level}` cannot give it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_with_a_network_are_told_what_to_trust_and_others_are_not() {
        let mut project: ProjectSpec = serde_json::from_str(
            r#"{"name":"x","framework":"pytest","environment":{"image":{"reference":"i"},"setup":[],"inputs":[],
            "extra_ca_certificates":"pem","setup_variables":{},"python":"python3"},"test_paths":[],"arguments":[],
            "variables":{"PIP_CERT":"/own"},"limits":{"test_timeout_ms":1,"attempt_timeout_ms":1,"memory_bytes":1,
            "cpu_millis":1,"pids":1,"scratch_bytes":1,"network":"none"}}"#,
        )
        .unwrap();
        assert_eq!(surroundings(&project, World::Plain).variables.len(), 1);
        let with_network = surroundings(&project, World::NetworkOn).variables;
        assert_eq!(with_network["SSL_CERT_FILE"], CERTIFICATES);
        assert_eq!(with_network["PIP_CERT"], "/own", "the project's own word counts");
        project.limits.network = Network::Bridge;
        assert_eq!(surroundings(&project, World::Plain).variables["REQUESTS_CA_BUNDLE"], CERTIFICATES);
        project.environment.extra_ca_certificates = None;
        assert_eq!(surroundings(&project, World::NetworkOn).variables.len(), 1);
    }
}
