//! The commented `flakefarm.toml` that `flakefarm init` writes: what was detected, and every key.

use super::loaded::{LoadedProject, ProjectSource};
use crate::settings::{duration_text, size_text};
use flakefarm_shared::ImageSource;
use flakefarm_shared::project::Network;
use std::collections::BTreeMap;

const TEMPLATE: &str = r#"# How flakefarm runs this project's tests. @why@
# Every key may be left out; a key that is commented out shows its default or an example.

[project]
# The name in reports and history.
name = @name@

[environment]
# The image tests run in: a reference, or a Dockerfile below this directory (not both).
@image@
# The interpreter, as found in the image.
python = @python@
# Shell commands run once as root, with the network, in the project's tree.
setup = @setup@
# Globs of the files that set-up depends on: when they change, set-up runs again.
inputs = @inputs@
# Environment variables of this machine that set-up may see, if they are set.
# pass_env = ["PIP_INDEX_URL", "HTTPS_PROXY"]
# PEM file with further certificate authorities that set-up trusts.
# extra_ca_certificates = "certificates.pem"

# Environment variables of set-up only.
[environment.variables]
@setup_variables@
[tests]
# What runs them: pytest, or unittest (the standard library's runner).
framework = @framework@
# Where tests are collected; empty: the framework's own default.
paths = @paths@
# Further arguments to the framework.
arguments = @arguments@

# Environment variables of the tests.
[tests.variables]
@variables@
# Limits of one attempt.
[limits]
test_timeout = @test_timeout@
attempt_timeout = @attempt_timeout@
memory = @memory@
cpus = @cpus@
pids = @pids@
# Size of the work tree and of /tmp, each; counted as memory.
scratch = @scratch@
# Whether tests may reach more than loopback.
network = @network@

# Defaults of sweeps; options on the command line come first.
[sweep]
# runs = 20                # a fixed number of runs per test instead of an adaptive one
# max_flake_rate = 0.05    # a healthy test flakes less often than this ...
# confidence = 0.95        # ... with this confidence
# guarantee = "test"       # the confidence is about each test, or the suite (far fewer runs)
# budget = "10m"           # on the clock; or "container:2h", "attempts:500"
# seed = 1                 # of every random choice
# scope = "auto"           # one attempt runs a test, file, suite, or what fits (auto)
# panel = "quick"          # conditions tried before repetition: quick (about ten), full, none
# workers = 2              # attempts at once
# sandbox = "container"    # how attempts are isolated: nested, forked, host, process, auto
# runtime = "auto"         # container runtime: default, or one that the engine knows

# Defaults of repairs.
[repair]
# attempts = 3             # experiments that proposals for one test may take
# threshold = 0.7          # what is proved is written by itself only if it is at least as sure to be what was meant
# look_budget = "10m"      # what finding out why tests fail may cost, in all
# mend_budget = "30m"      # what proving proposals may cost, in all
# provider = "none"        # who proposes beside the rules: none, command, http (see docs/repair.md)
# timeout = "5m"           # of one answer of a provider
# model = "name"           # what an http provider is asked for
# temperature = 0.4        # of the first request
# temperature_step = 0.1   # what each retry adds to it
# answer_tokens = 8192     # longest answer
# token_limit = 500000     # tokens of one repair
# price_input = 3.0        # money for a million tokens that are sent
# price_output = 15.0      # money for a million tokens that are answered
# money_limit = 0.5        # money of one repair
"#;

/// The text of a `flakefarm.toml` that says what `project` is. Reading it back gives the same
/// project.
pub fn init_text(project: &LoadedProject) -> String {
    let spec = &project.spec;
    let environment = &spec.environment;
    let why = match &project.source {
        ProjectSource::Configured { path } => format!("Written from {}.", path.display()),
        ProjectSource::Detected { why } => format!("Detected: {why}."),
    };
    let image = match &environment.image {
        ImageSource::Reference(image) => format!("image = {}\n# dockerfile = \"Dockerfile\"", quoted(image)),
        ImageSource::Dockerfile(path) => {
            format!("# image = \"python:3.12-slim\"\ndockerfile = {}", quoted(path))
        }
    };
    let limits = &spec.limits;
    let network = match limits.network {
        Network::None => "false",
        Network::Bridge => "true",
    };
    let values = [
        ("@why@", why.replace(['\n', '\r'], " ")),
        ("@name@", quoted(&spec.name)),
        ("@image@", image),
        ("@python@", quoted(&environment.python)),
        ("@setup@", list(&environment.setup)),
        ("@inputs@", list(&environment.inputs)),
        ("@setup_variables@", table(&environment.setup_variables)),
        ("@framework@", quoted(spec.framework.word())),
        ("@paths@", list(&spec.test_paths)),
        ("@arguments@", list(&spec.arguments)),
        ("@variables@", table(&spec.variables)),
        ("@test_timeout@", quoted(&duration_text(limits.test_timeout_ms))),
        ("@attempt_timeout@", quoted(&duration_text(limits.attempt_timeout_ms))),
        ("@memory@", quoted(&size_text(limits.memory_bytes))),
        ("@cpus@", format!("{:?}", limits.cpu_millis as f64 / 1_000.0)),
        ("@pids@", limits.pids.to_string()),
        ("@scratch@", quoted(&size_text(limits.scratch_bytes))),
        ("@network@", network.to_owned()),
    ];
    // Each placeholder once, from left to right, so that a value is never searched for others.
    let mut text = String::new();
    let mut rest = TEMPLATE;
    for (placeholder, value) in values {
        let (before, after) =
            rest.split_once(placeholder).expect("the template has every placeholder, in order");
        text.push_str(before);
        text.push_str(&value);
        rest = after;
    }
    text.push_str(rest);
    text
}

fn quoted(text: &str) -> String {
    // A JSON string is a TOML basic string, but for DEL.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn list(texts: &[String]) -> String {
    let one_line = format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "));
    if one_line.len() <= 80 {
        return one_line;
    }
    let lines: String = texts.iter().map(|text| format!("    {},\n", quoted(text))).collect();
    format!("[\n{lines}]")
}

fn table(variables: &BTreeMap<String, String>) -> String {
    variables.iter().map(|(name, value)| format!("{} = {}\n", quoted(name), quoted(value))).collect()
}
