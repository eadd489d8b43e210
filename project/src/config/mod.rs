//! What a project is and how to run it: `flakefarm.toml` if there is one, over what can be detected
//! from the source tree. The environment and files are read here and nowhere below.

mod detect;
mod error;
mod file;
mod template;
mod units;

pub use error::ConfigError;
pub use template::init_text;

use detect::Detection;
use file::FileConfig;
use flakefarm_shared::project::{Framework, Network};
use flakefarm_shared::{EnvironmentSpec, ImageSource, Limits, ProjectSpec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file that configures a project, at its root.
pub const FILE_NAME: &str = "flakefarm.toml";

/// Environment variable that names the image to start from, over the file and the default.
pub const IMAGE_VARIABLE: &str = "FLAKEFARM_IMAGE";

/// Environment variable with the path of a PEM file that set-up trusts, over the file.
pub const CERTIFICATES_VARIABLE: &str = "FLAKEFARM_EXTRA_CA_CERTIFICATES";

/// A project ready to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedProject {
    /// How to run it.
    pub spec: ProjectSpec,
    /// What the user should know: unknown keys, things ignored.
    pub warnings: Vec<String>,
    /// Where it comes from.
    pub source: ProjectSource,
    /// Defaults for sweeps, as far as the file sets them.
    pub sweep: SweepDefaults,
}

/// Where a project's description comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectSource {
    /// From a file, completed by detection.
    Configured {
        /// The file.
        path: PathBuf,
    },
    /// From the source tree alone.
    Detected {
        /// What gave it away: `pytest settings in pyproject.toml`.
        why: String,
    },
}

/// The `[sweep]` section, passed through.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SweepDefaults {
    /// Fixed number of runs per test.
    pub runs: Option<u32>,
    /// Largest failure rate that a healthy verdict may miss, between 0 and 1.
    pub max_flake_rate: Option<f64>,
    /// Confidence of verdicts, between 0 and 1.
    pub confidence: Option<f64>,
    /// Of what the confidence speaks: `test` or `suite`.
    pub guarantee: Option<String>,
    /// What a sweep may cost: `10m`, `container:2h`, `attempts:500`.
    pub budget: Option<String>,
    /// Seed of every random choice.
    pub seed: Option<u64>,
    /// `test`, `file`, `suite` or `auto`.
    pub scope: Option<String>,
    /// `quick`, `full` or `none`.
    pub panel: Option<String>,
    /// Attempts at once, in embedded mode.
    pub workers: Option<u16>,
}

impl LoadedProject {
    /// Loads the project at `root`; `explicit` names another file than `flakefarm.toml` there.
    pub fn load(root: &Path, explicit: Option<&Path>) -> Result<Self, ConfigError> {
        load_with(root, explicit, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }
}

fn load_with(
    root: &Path,
    explicit: Option<&Path>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<LoadedProject, ConfigError> {
    if !root.is_dir() {
        return Err(ConfigError::NoDirectory { root: root.to_owned() });
    }
    let implicit = root.join(FILE_NAME);
    let path = match explicit {
        Some(path) => Some(path.to_owned()),
        None => implicit.is_file().then_some(implicit),
    };
    let detection = detect::detect(root);
    let (file, mut warnings, source) = match path {
        Some(path) => {
            let text = read_text(&path)?;
            let (file, warnings) = file::parse(&text, &path)?;
            (file, warnings, ProjectSource::Configured { path })
        }
        None => match &detection.why {
            Some(why) => {
                let source = ProjectSource::Detected { why: why.clone() };
                (FileConfig::default(), Vec::new(), source)
            }
            None => return Err(ConfigError::NoTests { root: root.to_owned() }),
        },
    };
    warnings.extend(detection.warnings.iter().cloned());
    let certificates = match environment(CERTIFICATES_VARIABLE) {
        Some(path) => Some(read_certificates(Path::new(&path))?),
        None => match &file.extra_ca_certificates {
            Some(path) => Some(read_certificates(&root.join(path))?),
            None => None,
        },
    };
    let sweep = file.sweep.clone();
    let spec = merge(file, detection, certificates, environment, &mut warnings);
    Ok(LoadedProject { spec, warnings, source, sweep })
}

fn merge(
    file: FileConfig,
    detection: Detection,
    extra_ca_certificates: Option<String>,
    environment: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> ProjectSpec {
    let python = file.python.unwrap_or_else(|| "python3".to_owned());
    let image = match (environment(IMAGE_VARIABLE), file.image) {
        (Some(image), configured) => {
            if configured.is_some() {
                warnings.push(format!(
                    "{IMAGE_VARIABLE} is set: the image or Dockerfile of {FILE_NAME} is not used"
                ));
            }
            ImageSource::Reference(image)
        }
        (None, Some(configured)) => configured,
        (None, None) => ImageSource::Reference(detection.image.clone()),
    };
    let built_by_project = matches!(image, ImageSource::Dockerfile(_));
    let setup = file.setup.unwrap_or_else(|| detection.setup(&python, built_by_project));
    let inputs = file.inputs.unwrap_or(detection.inputs);
    let mut setup_variables: BTreeMap<String, String> = detection.setup_variables;
    for name in file.pass_env {
        if let Some(value) = environment(&name) {
            setup_variables.insert(name, value);
        }
    }
    setup_variables.extend(file.setup_variables);
    let default = Limits::default();
    let limits = Limits {
        test_timeout_ms: file.limits.test_timeout_ms.unwrap_or(default.test_timeout_ms),
        attempt_timeout_ms: file.limits.attempt_timeout_ms.unwrap_or(default.attempt_timeout_ms),
        memory_bytes: file.limits.memory_bytes.unwrap_or(default.memory_bytes),
        cpu_millis: file.limits.cpu_millis.unwrap_or(default.cpu_millis),
        pids: file.limits.pids.unwrap_or(default.pids),
        scratch_bytes: file.limits.scratch_bytes.unwrap_or(default.scratch_bytes),
        network: match file.limits.network {
            Some(true) => Network::Bridge,
            Some(false) => Network::None,
            None => default.network,
        },
    };
    ProjectSpec {
        name: file.name.unwrap_or(detection.name),
        framework: Framework::Pytest,
        environment: EnvironmentSpec { image, setup, inputs, extra_ca_certificates, setup_variables, python },
        test_paths: file.test_paths.unwrap_or_default(),
        arguments: file.arguments.unwrap_or_default(),
        variables: file.variables,
        limits,
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn read_certificates(path: &Path) -> Result<String, ConfigError> {
    let text = read_text(path)?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        Ok(text)
    } else {
        Err(ConfigError::NotCertificates { path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests;
