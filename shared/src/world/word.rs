//! Worlds as words: `time-zone:ahead`, `clock:leap-day`, `cpu-quota:200`. The same word is used on
//! the command line, in reports and in logs, and reads back to the same world.

use super::clock;
use super::{ClockStart, HashSeed, LocaleChoice, World, Zone};
use std::fmt;
use std::str::FromStr;

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            World::Plain => f.write_str("plain"),
            World::Twice => f.write_str("twice"),
            World::HashSeed(HashSeed::Fixed(seed)) => write!(f, "hash-seed:{seed}"),
            World::HashSeed(HashSeed::Random) => f.write_str("hash-seed:random"),
            World::RandomSeed { seed } => write!(f, "random-seed:{seed}"),
            World::TimeZone(Zone::Behind) => f.write_str("time-zone:behind"),
            World::TimeZone(Zone::Ahead) => f.write_str("time-zone:ahead"),
            World::TimeZone(Zone::HalfHour) => f.write_str("time-zone:half-hour"),
            World::Clock(ClockStart::Days(days)) => write!(f, "clock:{days:+}d"),
            World::Clock(ClockStart::MonthEnd) => f.write_str("clock:month-end"),
            World::Clock(ClockStart::YearEnd) => f.write_str("clock:year-end"),
            World::Clock(ClockStart::LeapDay) => f.write_str("clock:leap-day"),
            World::Clock(ClockStart::DaylightSaving) => f.write_str("clock:daylight-saving"),
            World::Clock(ClockStart::InMonth { month }) => {
                write!(f, "clock:{}", clock::NAMES[(usize::from(month) + 11) % 12])
            }
            World::Locale(LocaleChoice::Ascii) => f.write_str("locale:ascii"),
            World::Locale(LocaleChoice::German) => f.write_str("locale:german"),
            World::CpuQuota { millis } => write!(f, "cpu-quota:{millis}"),
            World::CpuContention { hogs } => write!(f, "cpu-contention:{hogs}"),
            World::MemoryPressure { percent } => write!(f, "memory-pressure:{percent}"),
            World::SlowDisk { millis } => write!(f, "slow-disk:{millis}"),
            World::NetworkOff => f.write_str("network-off"),
            World::NetworkOn => f.write_str("network-on"),
            World::NetworkSlow { millis } => write!(f, "network-slow:{millis}"),
            World::NetworkLossy { percent } => write!(f, "network-lossy:{percent}"),
            World::Parallel { workers } => write!(f, "parallel:{workers}"),
            World::Variables => f.write_str("variables"),
            World::Home => f.write_str("home"),
            World::Umask => f.write_str("umask"),
            World::User { id } => write!(f, "user:{id}"),
            World::DirectoryOrder { seed } => write!(f, "directory-order:{seed}"),
            World::WarningsAsErrors => f.write_str("warnings-as-errors"),
            World::GarbageCollection => f.write_str("garbage-collection"),
        }
    }
}

/// Not a world.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a condition: choose one of {}", known())]
pub struct UnknownWorld {
    /// What was given.
    pub given: String,
}

fn known() -> String {
    let words: Vec<String> = World::catalogue().iter().map(|world| format!("`{world}`")).collect();
    format!("`plain`, {}", words.join(", "))
}

impl FromStr for World {
    type Err = UnknownWorld;

    /// Reads a word back. Numbers may differ from those of the catalogue, and a kind without its
    /// number is the catalogue's world of that kind.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownWorld { given: text.to_owned() };
        if text == "plain" {
            return Ok(World::Plain);
        }
        let (kind, value) = text.split_once(':').map_or((text, None), |(kind, value)| (kind, Some(value)));
        let of_kind = |world: &&World| world.to_string().split(':').next() == Some(kind);
        let Some(value) = value else {
            return World::catalogue().iter().find(of_kind).copied().ok_or_else(unknown);
        };
        if let Some(world) = World::catalogue().iter().find(|world| world.to_string() == text) {
            return Ok(*world);
        }
        let number = || value.parse::<u32>().map_err(|_| unknown());
        let count = || value.parse::<u16>().ok().filter(|n| (1..=64).contains(n)).ok_or_else(unknown);
        let percent = || value.parse::<u8>().ok().filter(|n| (1..=100).contains(n)).ok_or_else(unknown);
        let millis = || value.parse::<u32>().ok().filter(|n| (1..=60_000).contains(n)).ok_or_else(unknown);
        Ok(match kind {
            "hash-seed" => World::HashSeed(HashSeed::Fixed(number()?)),
            "random-seed" => World::RandomSeed { seed: number()? },
            "clock" => {
                let days = value.strip_suffix('d').and_then(|days| days.parse::<i32>().ok());
                let days = days.filter(|days| days.unsigned_abs() <= 36_500).ok_or_else(unknown)?;
                World::Clock(ClockStart::Days(days))
            }
            "cpu-quota" => World::CpuQuota { millis: millis()? },
            "cpu-contention" => World::CpuContention { hogs: count()? },
            "memory-pressure" => World::MemoryPressure { percent: percent()? },
            "slow-disk" => World::SlowDisk { millis: millis()? },
            "network-slow" => World::NetworkSlow { millis: millis()? },
            "network-lossy" => World::NetworkLossy { percent: percent()? },
            "parallel" => World::Parallel { workers: count()? },
            "user" => World::User { id: number()? },
            "directory-order" => World::DirectoryOrder { seed: number()? },
            _ => return Err(unknown()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_word_reads_back_and_names_one_world() {
        let words: BTreeSet<String> = World::catalogue().iter().map(World::to_string).collect();
        assert_eq!(words.len(), World::catalogue().len());
        for world in World::catalogue() {
            assert_eq!(world.to_string().parse::<World>().as_ref(), Ok(world));
        }
        assert_eq!("plain".parse(), Ok(World::Plain));
        assert_eq!("clock:-3d".parse(), Ok(World::Clock(ClockStart::Days(-3))));
        assert_eq!("cpu-quota:50".parse(), Ok(World::CpuQuota { millis: 50 }));
        assert_eq!("cpu-contention".parse(), Ok(World::CpuContention { hogs: 8 }));
    }

    #[test]
    fn what_is_no_world_is_refused_with_those_there_are() {
        for text in
            ["", "tz", "clock:3", "clock:99999d", "cpu-quota:0", "network-lossy:101", "user:-1", "twice:2"]
        {
            let error = text.parse::<World>().unwrap_err().to_string();
            assert!(
                error.contains("`time-zone:ahead`") && error.starts_with(&format!("`{text}`")),
                "{error}"
            );
        }
    }
}
