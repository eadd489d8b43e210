//! The settings of a project: every key of `flakefarm.toml`, in the order in which they are shown.

use crate::settings::{Kind, Setting};

/// The file that configures a project, at its root.
pub const FILE_NAME: &str = "flakefarm.toml";

/// Environment variable that names the image to start from, over the file and the default.
pub const IMAGE_VARIABLE: &str = "FLAKEFARM_IMAGE";

/// Environment variable with the path of a PEM file that set-up trusts, over the file.
pub const CERTIFICATES_VARIABLE: &str = "FLAKEFARM_EXTRA_CA_CERTIFICATES";

/// The smallest and largest number of something there must be at least one of.
const COUNT: Kind = Kind::Whole { least: 1, most: u32::MAX as u64 };

/// A number that is not below zero; `hint` says of what.
const fn amount(hint: &'static str) -> Kind {
    Kind::Number { least: 0.0, most: 1e9, hint }
}

/// All of them. The farm's address and token are not taken from the file: it comes with the source
/// tree, which must not choose where a token is sent. Nor does it choose which program makes proposals on this
/// machine, what that may see, or where the key of a model is sent.
pub static KEYS: &[Setting] = &[
    Setting::new("project.name", Kind::Text),
    Setting::new("environment.image", Kind::Text).variable(IMAGE_VARIABLE),
    Setting::new("environment.dockerfile", Kind::Text),
    Setting::new("environment.python", Kind::Text).default("python3"),
    Setting::new("environment.setup", Kind::Texts),
    Setting::new("environment.inputs", Kind::Texts),
    Setting::new("environment.extra_ca_certificates", Kind::Text).variable(CERTIFICATES_VARIABLE),
    Setting::new("environment.pass_env", Kind::Texts),
    Setting::new("environment.variables", Kind::Table),
    Setting::new("tests.framework", Kind::Word(&["pytest", "unittest"])).variable("FLAKEFARM_FRAMEWORK"),
    Setting::new("tests.paths", Kind::Texts),
    Setting::new("tests.arguments", Kind::Texts),
    Setting::new("tests.variables", Kind::Table),
    Setting::new("limits.test_timeout", Kind::Duration).default("60s"),
    Setting::new("limits.attempt_timeout", Kind::Duration).default("30m"),
    Setting::new("limits.memory", Kind::Size).default("2GiB"),
    Setting::new(
        "limits.cpus",
        Kind::Number { least: 0.01, most: 1_024.0, hint: "how many CPUs one attempt may use: `cpus = 1.0`" },
    )
    .default("1.0"),
    Setting::new("limits.pids", Kind::Whole { least: 16, most: 4_000_000 }).default("512"),
    Setting::new("limits.scratch", Kind::Size).default("512MiB"),
    Setting::new("limits.network", Kind::Truth).default("false"),
    Setting::new("sweep.runs", COUNT).variable("FLAKEFARM_RUNS"),
    Setting::new("sweep.max_flake_rate", Kind::Share).variable("FLAKEFARM_MAX_FLAKE_RATE").default("5%"),
    Setting::new("sweep.confidence", Kind::Share).variable("FLAKEFARM_CONFIDENCE").default("95%"),
    Setting::new("sweep.guarantee", Kind::Word(&["test", "suite"]))
        .variable("FLAKEFARM_GUARANTEE")
        .default("test"),
    Setting::new("sweep.budget", Kind::Text).variable("FLAKEFARM_BUDGET"),
    Setting::new("sweep.seed", Kind::Whole { least: 0, most: u64::MAX }).variable("FLAKEFARM_SEED"),
    Setting::new("sweep.scope", Kind::Word(&["test", "file", "suite", "auto"])).variable("FLAKEFARM_SCOPE"),
    Setting::new("sweep.panel", Kind::Word(&["quick", "full", "none"]))
        .variable("FLAKEFARM_PANEL")
        .default("quick"),
    Setting::new("sweep.workers", Kind::Whole { least: 1, most: 1_024 }).variable("FLAKEFARM_WORKERS"),
    Setting::new("sweep.sandbox", Kind::Text).variable("FLAKEFARM_SANDBOX").default("container"),
    Setting::new("sweep.runtime", Kind::Text).variable("FLAKEFARM_RUNTIME").default("auto"),
    Setting::new("repair.attempts", Kind::Whole { least: 1, most: 100 })
        .variable("FLAKEFARM_REPAIR_ATTEMPTS")
        .default("3"),
    Setting::new("repair.threshold", Kind::Share).variable("FLAKEFARM_REPAIR_THRESHOLD").default("0.7"),
    Setting::new("repair.look_budget", Kind::Text).variable("FLAKEFARM_REPAIR_LOOK_BUDGET"),
    Setting::new("repair.mend_budget", Kind::Text).variable("FLAKEFARM_REPAIR_MEND_BUDGET"),
    Setting::new("repair.provider", Kind::Word(&["none", "command", "http"]))
        .variable("FLAKEFARM_REPAIR_PROVIDER")
        .default("none"),
    Setting::new("repair.timeout", Kind::Duration).variable("FLAKEFARM_REPAIR_TIMEOUT").default("5m"),
    Setting::new("repair.model", Kind::Text).variable("FLAKEFARM_REPAIR_MODEL"),
    Setting::new(
        "repair.temperature",
        Kind::Number { least: 0.0, most: 2.0, hint: "of the first request: `temperature = 0.4`" },
    )
    .default("0.4"),
    Setting::new(
        "repair.temperature_step",
        Kind::Number { least: 0.0, most: 1.0, hint: "how much each retry adds: `temperature_step = 0.1`" },
    )
    .default("0.1"),
    Setting::new("repair.answer_tokens", Kind::Whole { least: 64, most: 1_000_000 }).default("8192"),
    Setting::new("repair.token_limit", COUNT).variable("FLAKEFARM_REPAIR_TOKEN_LIMIT").default("500000"),
    Setting::new("repair.price_input", amount("money for a million tokens: `price_input = 3.0`"))
        .variable("FLAKEFARM_REPAIR_PRICE_INPUT")
        .default("0"),
    Setting::new("repair.price_output", amount("money for a million tokens: `price_output = 15.0`"))
        .variable("FLAKEFARM_REPAIR_PRICE_OUTPUT")
        .default("0"),
    Setting::new("repair.money_limit", amount("money of one repair: `money_limit = 0.5`"))
        .variable("FLAKEFARM_REPAIR_MONEY_LIMIT"),
    Setting::new("repair.command", Kind::Texts).variable("FLAKEFARM_REPAIR_COMMAND").not_in_file(),
    Setting::new("repair.command_network", Kind::Truth)
        .variable("FLAKEFARM_REPAIR_COMMAND_NETWORK")
        .not_in_file(),
    Setting::new("repair.pass_env", Kind::Texts).variable("FLAKEFARM_REPAIR_PASS_ENV").not_in_file(),
    Setting::new("repair.url", Kind::Text).variable("FLAKEFARM_REPAIR_URL").not_in_file(),
    Setting::new("repair.key", Kind::Text).variable("FLAKEFARM_REPAIR_KEY").secret().not_in_file(),
    Setting::new("farm.url", Kind::Text).variable("FLAKEFARM_FARM").not_in_file(),
    Setting::new("farm.token", Kind::Text).variable("FLAKEFARM_TOKEN").secret().not_in_file(),
];
