//! All worlds, and what a failure in each says of a test. What people are told about them is the report's
//! affair.

use super::{ClockStart, HashSeed, LocaleChoice, World, Zone};
use serde::{Deserialize, Serialize};

/// What a failure in a world alone says of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The plain run itself.
    Baseline,
    /// Differs from the plain run only in what ran before: a test that fails here is flaky.
    Order,
    /// Fixes what a plain run draws at random: a test that fails here is flaky.
    Chance,
    /// Differs as healthy machines differ: a test that fails only here is fragile.
    Surroundings,
    /// Harder than a healthy machine: a test that fails only here is fragile.
    Stress,
}

impl Role {
    /// The word used in documents.
    pub fn word(self) -> &'static str {
        match self {
            Role::Baseline => "baseline",
            Role::Order => "order",
            Role::Chance => "chance",
            Role::Surroundings => "surroundings",
            Role::Stress => "stress",
        }
    }

    /// Whether a test that passes in the plain run and fails in such a world is flaky, not fragile.
    pub fn witnesses_flakiness(self) -> bool {
        match self {
            Role::Baseline | Role::Order | Role::Chance => true,
            Role::Surroundings | Role::Stress => false,
        }
    }
}

const CATALOGUE: [World; 42] = [
    World::Twice,
    World::HashSeed(HashSeed::Fixed(0)),
    World::HashSeed(HashSeed::Random),
    World::RandomSeed { seed: 1 },
    World::TimeZone(Zone::Behind),
    World::TimeZone(Zone::Ahead),
    World::TimeZone(Zone::HalfHour),
    World::Clock(ClockStart::Days(400)),
    World::Clock(ClockStart::MonthEnd),
    World::Clock(ClockStart::YearEnd),
    World::Clock(ClockStart::LeapDay),
    World::Clock(ClockStart::DaylightSaving),
    World::Clock(ClockStart::InMonth { month: 1 }),
    World::Clock(ClockStart::InMonth { month: 2 }),
    World::Clock(ClockStart::InMonth { month: 3 }),
    World::Clock(ClockStart::InMonth { month: 4 }),
    World::Clock(ClockStart::InMonth { month: 5 }),
    World::Clock(ClockStart::InMonth { month: 6 }),
    World::Clock(ClockStart::InMonth { month: 7 }),
    World::Clock(ClockStart::InMonth { month: 8 }),
    World::Clock(ClockStart::InMonth { month: 9 }),
    World::Clock(ClockStart::InMonth { month: 10 }),
    World::Clock(ClockStart::InMonth { month: 11 }),
    World::Clock(ClockStart::InMonth { month: 12 }),
    World::Locale(LocaleChoice::Ascii),
    World::Locale(LocaleChoice::German),
    World::CpuQuota { millis: 200 },
    World::CpuContention { hogs: 8 },
    World::MemoryPressure { percent: 25 },
    World::SlowDisk { millis: 20 },
    World::NetworkOff,
    World::NetworkOn,
    World::NetworkSlow { millis: 300 },
    World::NetworkLossy { percent: 20 },
    World::Parallel { workers: 2 },
    World::Variables,
    World::Home,
    World::Umask,
    World::User { id: 12_345 },
    World::DirectoryOrder { seed: 1 },
    World::WarningsAsErrors,
    World::GarbageCollection,
];

impl World {
    /// Every kind of world but the plain one, with the numbers that panels use.
    pub fn catalogue() -> &'static [World] {
        &CATALOGUE
    }

    /// What a failure in this world alone says of a test.
    pub fn role(self) -> Role {
        match self {
            World::Plain => Role::Baseline,
            World::Twice => Role::Order,
            World::HashSeed(_) => Role::Chance,
            World::RandomSeed { .. }
            | World::TimeZone(_)
            | World::Clock(_)
            | World::Locale(_)
            | World::NetworkOff
            | World::NetworkOn
            | World::Parallel { .. }
            | World::Variables
            | World::Home
            | World::Umask
            | World::User { .. }
            | World::DirectoryOrder { .. } => Role::Surroundings,
            World::CpuQuota { .. }
            | World::CpuContention { .. }
            | World::MemoryPressure { .. }
            | World::SlowDisk { .. }
            | World::NetworkSlow { .. }
            | World::NetworkLossy { .. }
            | World::WarningsAsErrors
            | World::GarbageCollection => Role::Stress,
        }
    }
}

impl Zone {
    /// Its name in the time zone database, and a rule that needs no database.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Zone::Behind => ("Pacific/Pago_Pago", "<-11>11"),
            Zone::Ahead => ("Pacific/Kiritimati", "<+14>-14"),
            Zone::HalfHour => ("Asia/Kolkata", "<+0530>-5:30"),
        }
    }

    /// Seconds ahead of UTC, all year round.
    pub fn offset_seconds(self) -> i32 {
        match self {
            Zone::Behind => -11 * 3_600,
            Zone::Ahead => 14 * 3_600,
            Zone::HalfHour => 11 * 1_800,
        }
    }
}

/// Variables and the values they have in [`World::Variables`].
pub const VARIABLES: [(&str, &str); 10] = [
    ("CI", "true"),
    ("COLUMNS", "37"),
    ("LINES", "11"),
    ("FORCE_COLOR", "1"),
    ("TERM", "xterm-256color"),
    ("USER", "somebody-else"),
    ("EDITOR", "/bin/ed"),
    ("TMPDIR", "/tmp/another place"),
    ("http_proxy", "http://127.0.0.1:9"),
    ("https_proxy", "http://127.0.0.1:9"),
];
