//! What people are told about the worlds that tests run in: what each finds and changes, how to have it by
//! hand, where it does not reach. `docs/conditions.md` is this list.

mod families;
mod pytest;

use families::{clock, locale, network, time_zone};
use flakefarm_shared::world::{HashSeed, World, catalogue::VARIABLES};
use std::fmt::Write as _;

/// What is to be known of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// What it is, as in `fails under ...`.
    pub name: String,
    /// What it finds, in a sentence.
    pub finds: &'static str,
    /// What is changed in the sandbox.
    pub changes: String,
    /// What it cannot reach; empty where there is nothing to say.
    pub limits: &'static str,
    /// How to have it without flakefarm.
    pub by_hand: ByHand,
}

/// How to have a world without flakefarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByHand {
    /// Words put before the command, and arguments added to it.
    Command {
        /// `TZ=UTC`, `umask 077;`.
        before: String,
        /// `-n 2`.
        after: String,
    },
    /// A program for `python3 -c` in the place of `-m pytest`; without a single quote.
    Script(String),
    /// Something else, in a sentence.
    Advice(String),
}

impl ByHand {
    fn before(words: impl Into<String>) -> Self {
        ByHand::Command { before: words.into(), after: String::new() }
    }

    fn after(words: impl Into<String>) -> Self {
        ByHand::Command { before: String::new(), after: words.into() }
    }

    /// `command` in that world; none where no command does it.
    pub fn command(&self, command: &str) -> Option<String> {
        match self {
            // An option of the interpreter, which pytest takes, too.
            ByHand::Command { before, after } if after.starts_with("-W") && !command.contains("pytest") => {
                let command = command.replacen(" -m ", &format!(" {after} -m "), 1);
                Some(format!("{before} {command}").trim().to_owned())
            }
            ByHand::Command { before, after } => {
                let after = if after.is_empty() || after.starts_with(';') {
                    after.clone()
                } else {
                    format!(" {after}")
                };
                Some(format!("{before} {command}{after}").trim().to_owned())
            }
            ByHand::Script(script) => {
                let words = format!("-c '{script}'");
                match command.contains("-m pytest") {
                    true => Some(command.replacen("-m pytest", &words, 1)),
                    // The script is pytest's.
                    false if command.contains(" -m ") => None,
                    false => Some(format!("python3 {words}")),
                }
            }
            ByHand::Advice(_) => None,
        }
    }
}

/// What is to be known of it.
pub fn about(world: World) -> About {
    match world {
        World::Plain => About {
            name: "the plain run".to_owned(),
            finds: "What others are compared with.",
            changes: "Nothing.".to_owned(),
            limits: "",
            by_hand: ByHand::before(""),
        },
        World::Twice => About {
            name: "running twice in one process".to_owned(),
            finds: "Tests that are not idempotent: they leave something behind that they themselves cannot bear.",
            changes: "Each test runs, runs again within the same session, where only what it had set up itself \
                      was torn down, and once more after its fixtures of all scopes were. It fails if one of \
                      these runs does."
                .to_owned(),
            limits: "Modules are not imported again, which is the point.",
            by_hand: ByHand::Script(pytest::REPEATS.to_owned()),
        },
        World::HashSeed(seed) => hash_seed(seed),
        World::RandomSeed { seed } => About {
            name: format!("random seed {seed}"),
            finds: "Tests that draw random numbers, or count on a seed that others consume.",
            changes: format!(
                "`random`, and `numpy.random` where it is loaded, are seeded before each test, by {seed} and \
                 the test's id."
            ),
            limits: "Not what draws from the operating system: `secrets`, `uuid4`, generators of its own.",
            by_hand: ByHand::Script(pytest::seeding(seed)),
        },
        World::TimeZone(zone) => time_zone(zone),
        World::Clock(start) => clock(start),
        World::Locale(choice) => locale(choice),
        World::CpuQuota { millis } => About {
            name: format!("{:.0} % of a CPU", f64::from(millis) / 10.0),
            finds: "Tests with time limits too tight for a slow machine.",
            changes: format!(
                "The sandbox gets {:.0} % of one CPU; time limits grow with it.",
                f64::from(millis) / 10.0
            ),
            limits: "Slows everything alike: a race between threads of one process may not show.",
            by_hand: ByHand::Advice(format!("`docker run --cpus {:.2}`", f64::from(millis) / 1_000.0)),
        },
        World::CpuContention { hogs } => About {
            name: format!("{hogs} busy processes beside it"),
            finds: "Tests that wait a fixed time for something, and races.",
            changes: format!(
                "{hogs} processes in the sandbox compute without end while the tests run, within its usual CPU \
                 limit; time limits grow."
            ),
            limits: "How much each gets is up to the machine: not the same twice.",
            by_hand: ByHand::Command {
                before: format!("for i in $(seq {hogs}); do (while :; do :; done) & done;"),
                after: "; kill $(jobs -p)".to_owned(),
            },
        },
        World::MemoryPressure { percent } => About {
            name: format!("{percent} % of the memory"),
            finds: "Tests that need more memory than they should.",
            changes: format!("The memory limit of the sandbox is {percent} % of the usual one, at least 128 MiB."),
            limits: "",
            by_hand: ByHand::Advice(format!("`docker run --memory` with {percent} % of the usual limit")),
        },
        World::SlowDisk { millis } => About {
            name: "a slow disk".to_owned(),
            finds: "Tests that race with writing or reading a file.",
            changes: format!(
                "While a test runs, opening, listing, renaming and removing files takes {millis} ms longer."
            ),
            limits: "Calls that Python makes; not those of C libraries or other programs.",
            by_hand: ByHand::Advice(
                "an audit hook (`sys.addaudithook`) that sleeps on `open`, `os.listdir`, `os.rename`, `os.remove`"
                    .to_owned(),
            ),
        },
        World::NetworkOff | World::NetworkOn | World::NetworkSlow { .. } | World::NetworkLossy { .. } => {
            network(world)
        }
        World::Parallel { workers } => About {
            name: format!("{workers} parallel workers"),
            finds: "Tests that share a file, a port or a database with another that runs at the same time.",
            changes: format!("pytest-xdist spreads the suite over {workers} processes in the one sandbox."),
            limits: "Only where the environment has pytest-xdist.",
            by_hand: ByHand::after(format!("-n {workers}")),
        },
        World::Variables => About {
            name: "another machine's environment variables".to_owned(),
            finds: "Tests that read variables of the process they did not set.",
            changes: "`CI`, `COLUMNS`, `LINES`, `FORCE_COLOR`, `TERM`, `USER`, `EDITOR`, `TMPDIR` and proxies \
                      are set to other values."
                .to_owned(),
            limits: "",
            by_hand: ByHand::before(variables_by_hand()),
        },
        World::Home => About {
            name: "no home directory".to_owned(),
            finds: "Tests that read or write below the home directory.",
            changes: "`HOME` names a directory that does not exist and cannot be made.".to_owned(),
            limits: "",
            by_hand: ByHand::before("HOME=/nonexistent"),
        },
        World::Umask => About {
            name: "umask 077".to_owned(),
            finds: "Tests that compare permissions of files they make.",
            changes: "The umask is 077.".to_owned(),
            limits: "",
            by_hand: ByHand::before("umask 077;"),
        },
        World::User { id } => About {
            name: "another user".to_owned(),
            finds: "Tests that take it for granted who runs them.",
            changes: format!("User and group are {id}, and so is the user's name (`flakefarm-{id}`)."),
            limits: "",
            by_hand: ByHand::Advice(format!("`docker run --user {id}:{id}`")),
        },
        World::DirectoryOrder { seed } => About {
            name: "another order of directory entries".to_owned(),
            finds: "Tests that take the order in which a directory lists its files for granted.",
            changes: format!(
                "`os.listdir` and `os.scandir`, and what builds on them (`glob`, `pathlib`, `os.walk`), list in \
                 an order that depends on the names and on {seed}."
            ),
            limits: "Calls that Python makes; not those of other programs.",
            by_hand: ByHand::Advice("run on another file system (`disorderfs --shuffle-dirents=yes`)".to_owned()),
        },
        World::WarningsAsErrors => About {
            name: "warnings as errors".to_owned(),
            finds: "Tests that will fail once something deprecated is gone.",
            changes: "A warning that is raised while a test's own body runs is an error.".to_owned(),
            limits: "Not warnings of import, set-up and tear-down.",
            by_hand: ByHand::after("-W error"),
        },
        World::GarbageCollection => About {
            name: "frequent garbage collection".to_owned(),
            finds: "Tests that depend on when an unreachable object goes: finalisers, weak references.",
            changes: "The cyclic collector runs after every ten allocations, and before and after each test."
                .to_owned(),
            limits: "",
            by_hand: ByHand::Script(pytest::COLLECTING.to_owned()),
        },
    }
}

/// The list as a page: what `docs/conditions.md` says between its marks.
pub fn document() -> String {
    let mut page = String::from(
        "| condition | finds | changes | by hand | a failure here alone |\n|---|---|---|---|---|\n",
    );
    for world in World::catalogue() {
        let told = about(*world);
        let by_hand = match &told.by_hand {
            ByHand::Command { .. } | ByHand::Script(_) => {
                format!("`{}`", told.by_hand.command("pytest").expect("a command").replace('|', "\\|"))
            }
            ByHand::Advice(advice) => advice.clone(),
        };
        let limits = if told.limits.is_empty() { String::new() } else { format!(" *{}*", told.limits) };
        let says = if world.role().witnesses_flakiness() { "flaky" } else { "fragile" };
        writeln!(
            page,
            "| `{world}` | {} | {}{limits} | {by_hand} | {says} ({}) |",
            told.finds,
            told.changes,
            world.role().word()
        )
        .expect("text takes all");
    }
    page
}

fn hash_seed(seed: HashSeed) -> About {
    let (name, changes, by_hand) = match seed {
        HashSeed::Fixed(seed) => (
            format!("hash seed {seed}"),
            format!("`PYTHONHASHSEED={seed}`: the order of sets is the same in every run."),
            format!("PYTHONHASHSEED={seed}"),
        ),
        HashSeed::Random => (
            "random hash seeds".to_owned(),
            "`PYTHONHASHSEED=random`, over what the project sets.".to_owned(),
            "PYTHONHASHSEED=random".to_owned(),
        ),
    };
    About {
        name,
        finds: "Tests that take the order of a set, or the hash of a string, for granted.",
        changes,
        limits: "",
        by_hand: ByHand::before(by_hand),
    }
}

fn variables_by_hand() -> String {
    let words: Vec<String> = VARIABLES.iter().map(|(name, value)| format!("{name}='{value}'")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::world::Role;

    /// `FLAKEFARM_WRITE_DOCUMENTS=1 cargo nextest run -p flakefarm-coordinator conditions` writes the page anew.
    #[test]
    fn the_page_of_conditions_is_this_list() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conditions.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (start, end) = ("<!-- list: begin -->\n", "<!-- list: end -->\n");
        let head = page.split_once(start).unwrap().0;
        let tail = page.split_once(end).unwrap().1;
        let expect = format!("{head}{start}{}{end}{tail}", document());
        if std::env::var_os("FLAKEFARM_WRITE_DOCUMENTS").is_some() {
            std::fs::write(path, &expect).unwrap();
        }
        assert!(
            page == expect || std::fs::read_to_string(path).unwrap() == expect,
            "write docs/conditions.md anew"
        );
    }

    #[test]
    fn commands_are_those_of_the_framework_that_they_wrap() {
        let by_hand = |world: World, command: &str| about(world).by_hand.command(command);
        let unittest = "python3 -m unittest a.B.c";
        assert_eq!(by_hand(World::Twice, unittest), None, "the script is pytest's");
        assert!(
            by_hand(World::Twice, "python3 -m pytest a.py").is_some_and(|script| script.contains("-c '"))
        );
        let strict = by_hand(World::WarningsAsErrors, unittest);
        assert_eq!(strict.as_deref(), Some("python3 -W error -m unittest a.B.c"));
        assert_eq!(by_hand(World::Umask, unittest).as_deref(), Some("umask 077; python3 -m unittest a.B.c"));
    }

    #[test]
    fn every_world_is_told() {
        for world in World::catalogue() {
            let told = about(*world);
            assert!(
                !told.name.is_empty() && told.finds.ends_with('.') && told.changes.ends_with('.'),
                "{world}"
            );
            assert_ne!(world.role(), Role::Baseline, "{world}");
            assert!(world.slowdown() >= 1);
        }
    }
}
