//! How a worker gives an attempt its world: what changes in the sandbox around it, and what the
//! plugin is asked to change from within. What a world means is told by
//! [`flakefarm_shared::world::catalogue`].

use flakefarm_shared::project::Network;
use flakefarm_shared::world::catalogue::VARIABLES;
use flakefarm_shared::{ClockStart, HashSeed, Limits, LocaleChoice, ProjectSpec, SandboxLevel, World};
use serde::Serialize;
use std::collections::BTreeMap;

/// The user of attempts, and their group.
pub const USER: u32 = 1_000;
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
        World::HashSeed(HashSeed::Fixed(seed)) => set("PYTHONHASHSEED", &seed.to_string()),
        World::HashSeed(HashSeed::Random) => set("PYTHONHASHSEED", "random"),
        World::Locale(LocaleChoice::Ascii) => {
            set("LC_ALL", "C");
            set("PYTHONUTF8", "0");
            set("PYTHONCOERCECLOCALE", "0");
        }
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

/// What the plugin is asked to change, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Within {
    /// Nothing, or nothing beside the sandbox.
    Plain,
    Twice,
    RandomSeed {
        seed: u32,
    },
    TimeZone {
        name: &'static str,
        rule: &'static str,
        offset: i32,
    },
    Clock {
        #[serde(skip_serializing_if = "Option::is_none")]
        days: Option<i32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<&'static str>,
    },
    Locale {
        choice: LocaleChoice,
    },
    CpuContention {
        hogs: u16,
    },
    SlowDisk {
        millis: u32,
    },
    NetworkSlow {
        millis: u32,
    },
    NetworkLossy {
        percent: u8,
    },
    Parallel {
        workers: u16,
    },
    Variables,
    Home,
    Umask,
    DirectoryOrder {
        seed: u32,
    },
    WarningsAsErrors,
    GarbageCollection,
}

impl Within {
    /// What `world` asks of the plugin.
    pub(crate) fn of(world: World) -> Self {
        let at = |at| Within::Clock { days: None, at: Some(at) };
        match world {
            World::Twice => Within::Twice,
            World::RandomSeed { seed } => Within::RandomSeed { seed },
            World::TimeZone(zone) => {
                let (name, rule) = zone.names();
                Within::TimeZone { name, rule, offset: zone.offset_seconds() }
            }
            World::Clock(ClockStart::Days(days)) => Within::Clock { days: Some(days), at: None },
            World::Clock(ClockStart::MonthEnd) => at("month_end"),
            World::Clock(ClockStart::YearEnd) => at("year_end"),
            World::Clock(ClockStart::LeapDay) => at("leap_day"),
            World::Clock(ClockStart::DaylightSaving) => at("daylight_saving"),
            World::Locale(choice) => Within::Locale { choice },
            World::CpuContention { hogs } => Within::CpuContention { hogs },
            World::SlowDisk { millis } => Within::SlowDisk { millis },
            World::NetworkSlow { millis } => Within::NetworkSlow { millis },
            World::NetworkLossy { percent } => Within::NetworkLossy { percent },
            World::Parallel { workers } => Within::Parallel { workers },
            World::Variables => Within::Variables,
            World::Home => Within::Home,
            World::Umask => Within::Umask,
            World::DirectoryOrder { seed } => Within::DirectoryOrder { seed },
            World::WarningsAsErrors => Within::WarningsAsErrors,
            World::GarbageCollection => Within::GarbageCollection,
            World::Plain
            | World::HashSeed(_)
            | World::CpuQuota { .. }
            | World::MemoryPressure { .. }
            | World::NetworkOff
            | World::NetworkOn
            | World::User { .. } => Within::Plain,
        }
    }

    pub(crate) fn is_plain(&self) -> bool {
        *self == Within::Plain
    }
}
