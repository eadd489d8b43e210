//! Worlds that come in kinds: time zones, clocks, locales, networks.

use super::{About, ByHand};
use flakefarm_shared::world::{ClockStart, LocaleChoice, World, Yearly, Zone, month_name};

pub(super) fn time_zone(zone: Zone) -> About {
    let (name, rule) = zone.names();
    let offset = match zone {
        Zone::Behind => "UTC-11",
        Zone::Ahead => "UTC+14",
        Zone::HalfHour => "UTC+5:30",
    };
    About {
        name: format!("time zone {offset}"),
        finds: "Tests that take local time for UTC, or for the author's.",
        changes: format!("`TZ={name}`, or `TZ='{rule}'` where the image has no time zone database."),
        limits: "",
        by_hand: ByHand::before(format!("TZ={name}")),
    }
}

pub(super) fn clock(start: ClockStart) -> About {
    let yearly = || start.yearly().map_or_else(String::new, Yearly::words);
    let (name, finds, when) = match start {
        ClockStart::Days(days) => (
            format!("a clock {} days {}", days.unsigned_abs(), if days < 0 { "behind" } else { "ahead" }),
            "Tests with a date written into them that passes.",
            format!("{} days from now", days),
        ),
        ClockStart::MonthEnd => (
            "31 January".to_owned(),
            "Tests that add a month to a day that the next month does not have.",
            "the next 31 January, 12:00 UTC".to_owned(),
        ),
        ClockStart::YearEnd => (
            "the turn of the year".to_owned(),
            "Tests that ask for the date twice, and wrong arithmetic on years and months.",
            "the next 31 December, 23:59:30 UTC".to_owned(),
        ),
        ClockStart::LeapDay => (
            "29 February".to_owned(),
            "Tests that add a year to a day that the next year does not have.",
            "the next 29 February, 12:00 UTC".to_owned(),
        ),
        ClockStart::DaylightSaving => (
            "the change to daylight-saving time".to_owned(),
            "Tests that take a day for 24 hours, or make up local times that do not exist.",
            "30 seconds before clocks go forward in Central Europe, with `TZ=Europe/Berlin`".to_owned(),
        ),
        ClockStart::InMonth { month } => (
            format!("a clock in {}", month_name(month)),
            "Tests that fail in a part of the year, on a day of the week or at a time of the day.",
            format!("the next such day: {}", yearly()),
        ),
    };
    About {
        name,
        finds,
        changes: format!("The wall clock starts at {when}, and advances."),
        limits: "The interpreter and the extension modules it loads, on x86-64 and AArch64 Linux; not other programs, \
                 not the times of files.",
        by_hand: ByHand::Advice(format!("`faketime` (package faketime) with {when}")),
    }
}

pub(super) fn locale(choice: LocaleChoice) -> About {
    let (name, changes, by_hand) = match choice {
        LocaleChoice::Ascii => (
            "an ASCII locale",
            "`LC_ALL=C` with Python's own UTF-8 modes off: text files and streams are ASCII by default.",
            "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
        ),
        LocaleChoice::German => (
            "a German locale",
            "`LC_ALL=de_DE.UTF-8`, where the image has it: decimal commas, other names of months.",
            "LC_ALL=de_DE.UTF-8",
        ),
    };
    About {
        name: name.to_owned(),
        finds: "Tests that count on the encoding or on the formats of the author's machine.",
        changes: changes.to_owned(),
        limits: "",
        by_hand: ByHand::before(by_hand),
    }
}

pub(super) fn network(world: World) -> About {
    let (name, finds, changes, limits, by_hand) = match world {
        World::NetworkOn => (
            "a network".to_owned(),
            "Tests that need the network: they fail without and pass with it.",
            "The sandbox is on the engine's default network.".to_owned(),
            "",
            "`docker run --network bridge`",
        ),
        World::NetworkSlow { millis } => (
            "a slow network".to_owned(),
            "Tests that wait too briefly for an answer.",
            format!(
                "While a test runs, looking up a name and connecting take {millis} ms longer, loopback included."
            ),
            "Calls that Python makes; not those of C libraries or other programs.",
            "`tc qdisc add dev lo root netem delay`",
        ),
        World::NetworkLossy { percent } => (
            "a lossy network".to_owned(),
            "Tests that take a connection for granted.",
            format!("While a test runs, {percent} % of connections are refused, loopback included."),
            "Calls that Python makes; not those of C libraries or other programs.",
            "`tc qdisc add dev lo root netem loss`",
        ),
        _ => (
            "no network".to_owned(),
            "Tests that need the network.",
            "The sandbox has no network but loopback.".to_owned(),
            "",
            "`docker run --network none`",
        ),
    };
    About { name, finds, changes, limits, by_hand: ByHand::Advice(by_hand.to_owned()) }
}
