//! The causes that diagnosis tells apart, and which condition speaks for which.

use flakefarm_shared::World;
use serde::{Deserialize, Serialize};

/// Why a test is flaky.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseCategory {
    /// Another test that ran before makes it fail.
    OrderVictim,
    /// It passes only thanks to another test that ran before.
    OrderBrittle,
    /// Its second run in one process fails.
    NotIdempotent,
    /// It draws random numbers.
    Randomness,
    /// It depends on the order of sets, or on hashes.
    HashOrder,
    /// It depends on the local time zone.
    TimeZone,
    /// It depends on the date or the time of day.
    Clock,
    /// It needs the network, or a quick and reliable one.
    Network,
    /// It depends on how fast the machine is: waits too short, races, time windows.
    Timing,
    /// It runs into others when tests run side by side.
    Concurrency,
    /// It needs more memory than it may have.
    Memory,
    /// It depends on directories, their order or their permissions.
    FileSystem,
    /// It depends on language or encoding.
    Locale,
    /// It depends on environment variables or the user.
    Environment,
    /// It warns, and fails where warnings are errors.
    Warnings,
    /// It depends on when garbage is collected.
    GarbageCollection,
    /// It fails on some workers only.
    Infrastructure,
    /// Nothing that was tried explains it.
    Unknown,
}

impl CauseCategory {
    /// The stable word used in reports.
    pub fn word(self) -> &'static str {
        match self {
            CauseCategory::OrderVictim => "order_victim",
            CauseCategory::OrderBrittle => "order_brittle",
            CauseCategory::NotIdempotent => "not_idempotent",
            CauseCategory::Randomness => "randomness",
            CauseCategory::HashOrder => "hash_order",
            CauseCategory::TimeZone => "time_zone",
            CauseCategory::Clock => "clock",
            CauseCategory::Network => "network",
            CauseCategory::Timing => "timing",
            CauseCategory::Concurrency => "concurrency",
            CauseCategory::Memory => "memory",
            CauseCategory::FileSystem => "file_system",
            CauseCategory::Locale => "locale",
            CauseCategory::Environment => "environment",
            CauseCategory::Warnings => "warnings",
            CauseCategory::GarbageCollection => "garbage_collection",
            CauseCategory::Infrastructure => "infrastructure",
            CauseCategory::Unknown => "unknown",
        }
    }

    /// What a difference under `world` speaks for.
    pub fn of(world: World) -> Self {
        match world {
            World::Plain => CauseCategory::Unknown,
            World::Twice => CauseCategory::NotIdempotent,
            World::HashSeed(_) => CauseCategory::HashOrder,
            World::RandomSeed { .. } => CauseCategory::Randomness,
            World::TimeZone(_) => CauseCategory::TimeZone,
            World::Clock(_) => CauseCategory::Clock,
            World::Locale(_) => CauseCategory::Locale,
            // Right answers that come too late: what is slow is only how it was seen.
            World::CpuQuota { .. } | World::CpuContention { .. } | World::SlowDisk { .. } => {
                CauseCategory::Timing
            }
            World::MemoryPressure { .. } => CauseCategory::Memory,
            World::NetworkOff | World::NetworkOn | World::NetworkSlow { .. } | World::NetworkLossy { .. } => {
                CauseCategory::Network
            }
            World::Parallel { .. } => CauseCategory::Concurrency,
            World::DirectoryOrder { .. } | World::Home | World::Umask => CauseCategory::FileSystem,
            World::Variables | World::User { .. } => CauseCategory::Environment,
            World::WarningsAsErrors => CauseCategory::Warnings,
            World::GarbageCollection => CauseCategory::GarbageCollection,
        }
    }
}
