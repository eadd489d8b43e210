//! How a worker gives an attempt its world: what changes in the sandbox around it, and what the
//! plugin is asked to change from within. What a world means is told by
//! [`flakefarm_shared::world::catalogue`].

use crate::environment::{BUNDLE_VARIABLES, CERTIFICATES};
pub use crate::user::USER;
use flakefarm_shared::project::Network;
use flakefarm_shared::world::Yearly;
use flakefarm_shared::world::catalogue::VARIABLES;
use flakefarm_shared::{ClockStart, HashSeed, Limits, LocaleChoice, ProjectSpec, SandboxLevel, World};
use serde::Serialize;
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
        #[serde(skip_serializing_if = "Option::is_none")]
        yearly: Option<YearlyStart>,
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

/// A day and an hour of each year, as the plugin reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct YearlyStart {
    month: u8,
    /// Of the month; with a weekday, which of these in the month.
    day: u8,
    /// Days after Monday.
    #[serde(skip_serializing_if = "Option::is_none")]
    weekday: Option<u8>,
    hour: u8,
    minute: u8,
}

impl YearlyStart {
    fn of(yearly: Yearly) -> Self {
        match yearly {
            Yearly::Day { month, day, at: (hour, minute) } => {
                Self { month, day, weekday: None, hour, minute }
            }
            Yearly::Weekday { month, nth, weekday, at: (hour, minute) } => {
                Self { month, day: nth, weekday: Some(weekday), hour, minute }
            }
        }
    }
}

impl Within {
    /// What `world` asks of the plugin.
    pub(crate) fn of(world: World) -> Self {
        let at = |at| Within::Clock { days: None, at: Some(at), yearly: None };
        match world {
            World::Twice => Within::Twice,
            World::RandomSeed { seed } => Within::RandomSeed { seed },
            World::TimeZone(zone) => {
                let (name, rule) = zone.names();
                Within::TimeZone { name, rule, offset: zone.offset_seconds() }
            }
            World::Clock(ClockStart::Days(days)) => {
                Within::Clock { days: Some(days), at: None, yearly: None }
            }
            World::Clock(ClockStart::YearEnd) => at("year_end"),
            World::Clock(ClockStart::DaylightSaving) => at("daylight_saving"),
            World::Clock(
                start @ (ClockStart::MonthEnd | ClockStart::LeapDay | ClockStart::InMonth { .. }),
            ) => Within::Clock { days: None, at: None, yearly: start.yearly().map(YearlyStart::of) },
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use time::OffsetDateTime;

    const PLUGIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/frameworks/python/plugin");

    #[test]
    fn the_plugin_and_the_report_agree_on_where_a_clock_starts() {
        let clocks = World::catalogue().iter().filter_map(|world| match world {
            World::Clock(start) => Some(*start),
            _ => None,
        });
        // Before, in and after February of leap and other years, and at a year's end.
        for now in [1_700_000_000, 1_709_164_800, 1_709_251_200, 1_795_910_400, 1_798_761_599] {
            for start in clocks.clone() {
                let asked = serde_json::to_string(&Within::of(World::Clock(start))).unwrap();
                let program = "import json, sys; sys.path.insert(0, sys.argv[1]); import flakefarm_clock as c; \
                    print(int(sys.argv[3]) + c.seconds_until(json.loads(sys.argv[2]), int(sys.argv[3])))";
                let mut python = Command::new("python3");
                python.args(["-c", program, PLUGIN, &asked, &now.to_string()]);
                let said = String::from_utf8(python.output().unwrap().stdout).unwrap();
                let instant = start.instant(OffsetDateTime::from_unix_timestamp(now).unwrap());
                assert_eq!(said.trim(), instant.unix_timestamp().to_string(), "{start:?} at {now}");
            }
        }
    }

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
