//! The world an attempt runs in: what is changed around the tests on purpose, and how well the
//! attempt is isolated. What runs, and in which order, is said by scope, selection and order.
//!
//! A world is data: workers bring it about, and the coordinator tells what it is and how to have it by hand.

pub mod catalogue;
mod clock;
mod level;
mod word;

pub use catalogue::Role;
pub use clock::{Yearly, month_name};
pub use level::{SandboxLevel, UnknownLevel};
pub use word::UnknownWorld;

use serde::{Deserialize, Serialize};

/// How the world of an attempt differs from the plain run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// Not at all.
    #[default]
    Plain,
    /// Each test runs again in one process: with the fixtures that others share as they are, and once more
    /// after all were torn down.
    Twice,
    /// Hashes of strings are salted with this.
    HashSeed(HashSeed),
    /// Generators of random numbers are seeded before each test, by this and the test's id.
    RandomSeed {
        /// The seed.
        seed: u32,
    },
    /// The local time zone.
    TimeZone(Zone),
    /// The wall clock starts elsewhere, and advances.
    Clock(ClockStart),
    /// Language and encoding of the process.
    Locale(LocaleChoice),
    /// Less CPU time.
    CpuQuota {
        /// CPUs, in thousandths.
        millis: u32,
    },
    /// Other processes in the sandbox want the CPU, too.
    CpuContention {
        /// Busy processes.
        hogs: u16,
    },
    /// Less memory.
    MemoryPressure {
        /// Share of the usual limit, in per cent.
        percent: u8,
    },
    /// Opening, listing and changing files takes longer.
    SlowDisk {
        /// Delay of each such operation, in milliseconds.
        millis: u32,
    },
    /// Loopback only.
    NetworkOff,
    /// The engine's default network.
    NetworkOn,
    /// Looking up names and connecting takes longer.
    NetworkSlow {
        /// Delay of each such operation, in milliseconds.
        millis: u32,
    },
    /// Connections are refused at random.
    NetworkLossy {
        /// Share of them, in per cent.
        percent: u8,
    },
    /// The suite is spread over processes by pytest-xdist.
    Parallel {
        /// Processes.
        workers: u16,
    },
    /// Environment variables as other machines set them.
    Variables,
    /// The home directory does not exist.
    Home,
    /// New files can be read by their owner only.
    Umask,
    /// Another user.
    User {
        /// Its id, and its group's.
        id: u32,
    },
    /// Directories list their entries in another order.
    DirectoryOrder {
        /// Where the order comes from.
        seed: u32,
    },
    /// A warning while a test runs is an error.
    WarningsAsErrors,
    /// Garbage is collected very often.
    GarbageCollection,
}

/// What hashes of strings are salted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashSeed {
    /// This seed; 0 switches salting off.
    Fixed(u32),
    /// Another one in each attempt, whatever the project asks for.
    Random,
}

/// A time zone, by what makes it awkward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Zone {
    /// Eleven hours behind UTC.
    Behind,
    /// Fourteen hours ahead of UTC.
    Ahead,
    /// Five and a half hours ahead of UTC.
    HalfHour,
}

/// Where a shifted clock starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockStart {
    /// So many days from now.
    Days(i32),
    /// The next 31 January, at noon UTC: the month that follows is shorter.
    MonthEnd,
    /// The next 31 December, half a minute before midnight UTC.
    YearEnd,
    /// The next 29 February, at noon UTC.
    LeapDay,
    /// In Central Europe, half a minute before clocks go forward.
    DaylightSaving,
    /// In this month, when it comes next; each has a weekday or day and an hour of its own.
    InMonth {
        /// From 1.
        month: u8,
    },
}

/// Language and encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocaleChoice {
    /// The C locale with ASCII as its encoding.
    Ascii,
    /// German, in UTF-8, if the image has it.
    German,
}

impl World {
    /// Whether nothing is changed on purpose.
    pub fn is_plain(&self) -> bool {
        *self == World::Plain
    }

    /// What worlds that differ in a number only have in common: `clock`, `parallel`.
    pub fn family(self) -> String {
        let word = self.to_string();
        word.split_once(':').map_or(word.as_str(), |(family, _)| family).to_owned()
    }

    /// Clean runs that a pass in this world stands for, where a test is to be healthy over all the worlds it
    /// ran in: 0 where a machine is made worse than healthy ones are, or tests share it.
    pub fn clean_runs(self) -> u32 {
        match (self, self.role()) {
            // All three are runs of the test, the later ones after all that the first left behind.
            (World::Twice, _) => 3,
            // Machines that test are busy now and then, and whatever else slows a test hides no failure.
            (World::CpuContention { .. }, _) => 1,
            (World::Parallel { .. } | World::NetworkOn | World::WarningsAsErrors, _) => 0,
            (_, Role::Baseline | Role::Order | Role::Chance | Role::Surroundings) => 1,
            (_, Role::Stress) => 0,
        }
    }

    /// How many times longer a healthy test may take in this world: time limits grow with it.
    pub fn slowdown(self) -> u32 {
        match self {
            World::CpuQuota { millis } => (1_000 / millis.max(1)).clamp(1, 20),
            World::CpuContention { hogs } => u32::from(hogs).clamp(1, 20) + 1,
            World::GarbageCollection => 10,
            World::SlowDisk { .. } | World::NetworkSlow { .. } => 5,
            World::Twice => 3,
            World::Plain
            | World::HashSeed(_)
            | World::RandomSeed { .. }
            | World::TimeZone(_)
            | World::Clock(_)
            | World::Locale(_)
            | World::MemoryPressure { .. }
            | World::NetworkOff
            | World::NetworkOn
            | World::NetworkLossy { .. }
            | World::Parallel { .. }
            | World::Variables
            | World::Home
            | World::Umask
            | World::User { .. }
            | World::DirectoryOrder { .. }
            | World::WarningsAsErrors => 1,
        }
    }
}
