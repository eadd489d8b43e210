//! What an operator lets submissions have on a worker: limits come from whoever submits, and a farm is not
//! theirs. Ceilings are per project and class; what is over one is refused with a hint, before anything
//! runs, and never lowered in silence: a test must not fail because of a limit that its project did not set.

use flakefarm_shared::project::Network;
use flakefarm_shared::{Class, Limits, ProjectSpec, Refusal, World};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::collections::BTreeMap;
use std::time::Duration;

/// Memory of set-up steps, unless the operator says otherwise: installing and compiling want more than a test.
const SETUP_MEMORY: u64 = 4 << 30;
/// Processes of set-up steps, the same.
const SETUP_PIDS: u32 = 2_048;
/// The engine's network for what may reach one, the same.
const BRIDGE: &str = "bridge";

/// What a worker's operator allows. Without a word of theirs, everything.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ceilings {
    /// Of every job.
    pub all: Ceiling,
    /// Of interactive jobs, where it says something.
    pub interactive: Ceiling,
    /// Of bulk jobs, the same.
    pub bulk: Ceiling,
    /// Of jobs of a project, by its name: before all others.
    pub project: BTreeMap<String, Ceiling>,
    /// Of set-up steps.
    pub setup: SetupCeiling,
    /// The engine's network that attempts with a network are in; `bridge` if empty.
    pub network_name: String,
}

/// The most that attempts may ask for; what is absent is not limited.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ceiling {
    /// Memory in bytes (`"4GiB"`).
    #[serde(deserialize_with = "size")]
    pub memory: Option<u64>,
    /// Size of the work tree and of /tmp, each (`"1GiB"`).
    #[serde(deserialize_with = "size")]
    pub scratch: Option<u64>,
    /// CPUs (`1.5`).
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Time of one test (`"5m"`).
    #[serde(deserialize_with = "duration")]
    pub test_timeout: Option<Duration>,
    /// Time of one attempt (`"30m"`).
    #[serde(deserialize_with = "duration")]
    pub attempt_timeout: Option<Duration>,
    /// `"none"`: no attempt may reach the network.
    pub network: Option<Network>,
}

/// What set-up steps have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetupCeiling {
    /// Memory in bytes (`"4GiB"`).
    #[serde(deserialize_with = "needed_size")]
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
    /// The engine's network that they are in (`"bridge"`, or one that the operator has made, which leads to a
    /// package index and nowhere else); `"none"` for none.
    pub network: String,
}

impl Default for SetupCeiling {
    fn default() -> Self {
        Self { memory: SETUP_MEMORY, pids: SETUP_PIDS, network: BRIDGE.to_owned() }
    }
}

impl SetupCeiling {
    /// The engine's network, if set-up may reach any.
    pub fn network(&self) -> Option<&str> {
        (self.network != "none").then_some(self.network.as_str())
    }
}

impl Ceilings {
    /// Out of the text of a file in TOML.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The engine's network that attempts with a network are in.
    pub fn network_name(&self) -> &str {
        if self.network_name.is_empty() { BRIDGE } else { &self.network_name }
    }

    /// What holds for jobs of a project and class: each field of whoever says something, the project first.
    pub fn of(&self, project: &str, class: Class) -> Ceiling {
        let of_class = match class {
            Class::Interactive => &self.interactive,
            Class::Bulk => &self.bulk,
        };
        let said: Vec<&Ceiling> =
            self.project.get(project).into_iter().chain([of_class, &self.all]).collect();
        Ceiling {
            memory: said.iter().find_map(|ceiling| ceiling.memory),
            scratch: said.iter().find_map(|ceiling| ceiling.scratch),
            cpus: said.iter().find_map(|ceiling| ceiling.cpus),
            pids: said.iter().find_map(|ceiling| ceiling.pids),
            test_timeout: said.iter().find_map(|ceiling| ceiling.test_timeout),
            attempt_timeout: said.iter().find_map(|ceiling| ceiling.attempt_timeout),
            network: said.iter().find_map(|ceiling| ceiling.network),
        }
    }
}

impl Ceiling {
    /// Refuses what is over it.
    pub fn check(&self, project: &ProjectSpec) -> Result<(), Refusal> {
        let over = self.over(&project.limits);
        if over.is_empty() {
            return Ok(());
        }
        Err(Refusal {
            message: format!(
                "project `{}` asks for more than this farm gives it: {}",
                project.name,
                over.join("; ")
            ),
            log: String::new(),
            hint: Some("ask for less under [limits] in flakefarm.toml, or ask who runs the farm".to_owned()),
        })
    }

    /// What is asked for beyond it, in words.
    fn over(&self, limits: &Limits) -> Vec<String> {
        let Limits {
            test_timeout_ms,
            attempt_timeout_ms,
            memory_bytes,
            cpu_millis,
            pids,
            scratch_bytes,
            network,
        } = limits;
        let bytes = |name: &str, asked: u64, most: Option<u64>| {
            let most = most.filter(|most| asked > *most)?;
            Some(format!("{name} {} (at most {})", mebibytes(asked), mebibytes(most)))
        };
        let time = |name: &str, asked_ms: u64, most: Option<Duration>| {
            let (asked, most) = (Duration::from_millis(asked_ms), most?);
            (asked > most).then(|| format!("{name} {} s (at most {})", asked.as_secs(), most.as_secs()))
        };
        let cpus = self
            .cpus
            .filter(|most| *cpu_millis as f64 > most * 1_000.0)
            .map(|most| format!("cpus {} (at most {most})", *cpu_millis as f64 / 1_000.0));
        let processes =
            self.pids.filter(|most| pids > most).map(|most| format!("pids {pids} (at most {most})"));
        let connected = (self.network == Some(Network::None) && *network == Network::Bridge)
            .then(|| "a network (none is given)".to_owned());
        [
            bytes("memory", *memory_bytes, self.memory),
            bytes("scratch", *scratch_bytes, self.scratch),
            cpus,
            processes,
            time("test_timeout", *test_timeout_ms, self.test_timeout),
            time("attempt_timeout", *attempt_timeout_ms, self.attempt_timeout),
            connected,
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Why a world is not given under it; `None` if it is.
    pub fn not_given(&self, world: World) -> Option<String> {
        (self.network == Some(Network::None) && world == World::NetworkOn)
            .then(|| "this farm gives attempts no network".to_owned())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    needed_size(deserializer).map(Some)
}

fn needed_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    flakefarm_project::settings::parse_size(&text)
        .ok_or_else(|| D::Error::custom(format!("`{text}` is no size: write `512MiB` or `2GiB`")))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    flakefarm_project::settings::parse_duration(&text)
        .map(Some)
        .ok_or_else(|| D::Error::custom(format!("`{text}` is no duration: write `30s` or `5m`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
        network_name = \"egress\"
        [all]
        memory = \"4GiB\"
        network = \"none\"
        test_timeout = \"5m\"
        [interactive]
        memory = \"1GiB\"
        cpus = 1.5
        [project.big]
        memory = \"16GiB\"
        [setup]
        memory = \"2GiB\"
        network = \"index-only\"
    ";

    fn over(limits: &Limits, project: &str, class: Class) -> Vec<String> {
        Ceilings::parse(TEXT).unwrap().of(project, class).over(limits)
    }

    #[test]
    fn whoever_is_nearer_to_the_job_says_what_holds() {
        let limits = Limits { memory_bytes: 3 << 30, cpu_millis: 2_000, ..Limits::default() };
        assert_eq!(over(&limits, "small", Class::Bulk), [""; 0]);
        assert_eq!(
            over(&limits, "small", Class::Interactive),
            ["memory 3072 MiB (at most 1024 MiB)", "cpus 2 (at most 1.5)"]
        );
        assert_eq!(over(&limits, "big", Class::Interactive), ["cpus 2 (at most 1.5)"]);
    }

    #[test]
    fn time_and_network_have_ceilings_too() {
        let limits = Limits { network: Network::Bridge, test_timeout_ms: 301_000, ..Limits::default() };
        assert_eq!(
            over(&limits, "small", Class::Bulk),
            ["test_timeout 301 s (at most 300)", "a network (none is given)"]
        );
        let ceiling = Ceilings::parse(TEXT).unwrap().of("small", Class::Bulk);
        assert!(
            ceiling.not_given(World::NetworkOn).is_some() && ceiling.not_given(World::NetworkOff).is_none()
        );
    }

    #[test]
    fn without_a_word_everything_is_given_and_set_up_is_limited_all_the_same() {
        let ceilings = Ceilings::default();
        let limits = Limits { memory_bytes: u64::MAX, network: Network::Bridge, ..Limits::default() };
        assert_eq!(ceilings.of("any", Class::Bulk).over(&limits), [""; 0]);
        assert_eq!((ceilings.setup.memory, ceilings.setup.network()), (4 << 30, Some("bridge")));
        assert_eq!(ceilings.network_name(), "bridge");
    }

    #[test]
    fn a_word_that_is_not_known_is_named() {
        let error = Ceilings::parse("[all]\nmemroy = \"1GiB\"").unwrap_err().to_string();
        assert!(error.contains("memroy") && error.contains("line 2"), "{error}");
        let error = Ceilings::parse("[all]\nmemory = \"much\"").unwrap_err().to_string();
        assert!(error.contains("`much` is no size"), "{error}");
    }

    #[test]
    fn set_up_may_be_kept_off_the_network() {
        let ceilings = Ceilings::parse("[setup]\nnetwork = \"none\"").unwrap();
        assert_eq!((ceilings.setup.network(), ceilings.setup.pids), (None, 2_048));
    }
}
