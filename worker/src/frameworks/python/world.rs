//! What a world is to an interpreter: variables that it reads when it starts, and what the plugin is asked to
//! change from within. All worlds: [`flakefarm_shared::world::catalogue`].

use flakefarm_shared::world::Yearly;
use flakefarm_shared::{ClockStart, HashSeed, LocaleChoice, World};
use serde::Serialize;

/// Variables that an interpreter reads when it starts.
pub fn variables(world: World) -> Vec<(&'static str, String)> {
    match world {
        World::HashSeed(HashSeed::Fixed(seed)) => vec![("PYTHONHASHSEED", seed.to_string())],
        World::HashSeed(HashSeed::Random) => vec![("PYTHONHASHSEED", "random".to_owned())],
        World::Locale(LocaleChoice::Ascii) => {
            vec![("PYTHONUTF8", "0".to_owned()), ("PYTHONCOERCECLOCALE", "0".to_owned())]
        }
        _ => Vec::new(),
    }
}

/// What the plugin is asked to change, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum PluginWorld {
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

impl PluginWorld {
    /// What `world` asks of the plugin.
    pub(crate) fn of(world: World) -> Self {
        let at = |at| PluginWorld::Clock { days: None, at: Some(at), yearly: None };
        match world {
            World::Twice => PluginWorld::Twice,
            World::RandomSeed { seed } => PluginWorld::RandomSeed { seed },
            World::TimeZone(zone) => {
                let (name, rule) = zone.names();
                PluginWorld::TimeZone { name, rule, offset: zone.offset_seconds() }
            }
            World::Clock(ClockStart::Days(days)) => {
                PluginWorld::Clock { days: Some(days), at: None, yearly: None }
            }
            World::Clock(ClockStart::YearEnd) => at("year_end"),
            World::Clock(ClockStart::DaylightSaving) => at("daylight_saving"),
            World::Clock(
                start @ (ClockStart::MonthEnd | ClockStart::LeapDay | ClockStart::InMonth { .. }),
            ) => PluginWorld::Clock { days: None, at: None, yearly: start.yearly().map(YearlyStart::of) },
            World::Locale(choice) => PluginWorld::Locale { choice },
            World::CpuContention { hogs } => PluginWorld::CpuContention { hogs },
            World::SlowDisk { millis } => PluginWorld::SlowDisk { millis },
            World::NetworkSlow { millis } => PluginWorld::NetworkSlow { millis },
            World::NetworkLossy { percent } => PluginWorld::NetworkLossy { percent },
            World::Parallel { workers } => PluginWorld::Parallel { workers },
            World::Variables => PluginWorld::Variables,
            World::Home => PluginWorld::Home,
            World::Umask => PluginWorld::Umask,
            World::DirectoryOrder { seed } => PluginWorld::DirectoryOrder { seed },
            World::WarningsAsErrors => PluginWorld::WarningsAsErrors,
            World::GarbageCollection => PluginWorld::GarbageCollection,
            World::Plain
            | World::HashSeed(_)
            | World::CpuQuota { .. }
            | World::MemoryPressure { .. }
            | World::NetworkOff
            | World::NetworkOn
            | World::User { .. } => PluginWorld::Plain,
        }
    }

    pub(crate) fn is_plain(&self) -> bool {
        *self == PluginWorld::Plain
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
        let clocks: Vec<ClockStart> = World::catalogue()
            .iter()
            .filter_map(|world| match world {
                World::Clock(start) => Some(*start),
                _ => None,
            })
            .collect();
        // Before, in and after February of leap and other years, and at a year's end.
        let moments = [1_700_000_000, 1_709_164_800, 1_709_251_200, 1_795_910_400, 1_798_761_599];
        let asked: Vec<PluginWorld> =
            clocks.iter().map(|start| PluginWorld::of(World::Clock(*start))).collect();
        let program = "import json, sys; sys.path.insert(0, sys.argv[1]); import flakefarm_clock as c; \
            [print(now + c.seconds_until(asked, now)) for now in json.loads(sys.argv[3]) \
             for asked in json.loads(sys.argv[2])]";
        let mut python = Command::new("python3");
        python.args(["-c", program, PLUGIN, &serde_json::to_string(&asked).unwrap()]);
        python.arg(serde_json::to_string(&moments).unwrap());
        let said = String::from_utf8(python.output().unwrap().stdout).unwrap();
        let mut said = said.lines();
        for now in moments {
            for start in &clocks {
                let instant = start.instant(OffsetDateTime::from_unix_timestamp(now).unwrap());
                let expect = instant.unix_timestamp().to_string();
                assert_eq!(said.next(), Some(expect.as_str()), "{start:?} at {now}");
            }
        }
        assert_eq!(said.next(), None);
    }
}
