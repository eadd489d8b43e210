//! From a source tree to a project: `flakefarm.toml` if there is one, over what can be detected. The
//! environment and files are read here and nowhere below.

use super::detect::{self, Detection};
use super::error::ConfigError;
use super::keys::{CERTIFICATES_VARIABLE, FILE_NAME, IMAGE_VARIABLE, KEYS};
use super::loaded::{GivenOption, GivenValue, LoadedProject, ProjectSource};
use crate::settings::{Layer, Layers, Settings};
use flakefarm_shared::project::{Framework, Network};
use flakefarm_shared::{EnvironmentSpec, ImageSource, Limits, ProjectSpec};
use std::path::Path;

impl LoadedProject {
    /// Loads the project at `root`; `explicit` names another file than `flakefarm.toml` there, and
    /// `options` are those of the command line.
    pub fn load(root: &Path, explicit: Option<&Path>, options: &[GivenOption]) -> Result<Self, ConfigError> {
        load_with(root, explicit, options, &variable)
    }
}

/// Settings of a command that has no project: of the environment and of `options`.
pub fn without_project(options: &[GivenOption]) -> Result<Settings, ConfigError> {
    let mut layers = Layers::new(KEYS);
    layers.environment(&variable)?;
    add_options(&mut layers, options)?;
    Ok(layers.settle())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn add_options(layers: &mut Layers, options: &[GivenOption]) -> Result<(), ConfigError> {
    for given in options {
        match &given.value {
            GivenValue::Text(text) => layers.option(given.key, given.option, text)?,
            GivenValue::InFile(path) => layers.option_file(given.key, given.option, path)?,
        }
    }
    Ok(())
}

fn load_with(
    root: &Path,
    explicit: Option<&Path>,
    options: &[GivenOption],
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
    let mut layers = Layers::new(KEYS);
    let source = match path {
        Some(path) => {
            layers.file(&read_text(&path)?, &path)?;
            ProjectSource::Configured { path }
        }
        None => match &detection.why {
            Some(why) => ProjectSource::Detected { why: why.clone() },
            None => return Err(ConfigError::NoTests { root: root.to_owned() }),
        },
    };
    layers.environment(environment)?;
    add_options(&mut layers, options)?;
    let mut warnings = detection.warnings.clone();
    warnings.extend(choose_image(&mut layers, &detection)?);
    add_detected(&mut layers, detection);
    let mut settings = layers.settle();
    warnings.splice(0..0, std::mem::take(&mut settings.warnings));
    let spec = spec(&settings, root, environment)?;
    Ok(LoadedProject { spec, warnings, source, settings })
}

/// Where the environment starts from is said by one of two keys; the other does not count. The result
/// is a warning if the file's choice is not used.
fn choose_image(layers: &mut Layers, detection: &Detection) -> Result<Option<String>, ConfigError> {
    let (image, dockerfile) = ("environment.image", "environment.dockerfile");
    let warning = match (layers.layer_of(image), layers.layer_of(dockerfile)) {
        (Some(Layer::File), Some(Layer::File)) => {
            let place = layers.clone_settled().origin(dockerfile).unwrap_or_default().to_owned();
            return Err(ConfigError::Setting(crate::settings::SettingError::Value {
                place,
                key: dockerfile.to_owned(),
                message: format!("and `{image}` exclude each other"),
                hint: "keep one of them: the image to start from, or the Dockerfile that builds it"
                    .to_owned(),
            }));
        }
        (Some(Layer::Environment), in_file) => {
            let replaced = in_file.is_some() || layers.is_set_by(Layer::File, image);
            layers.forget(dockerfile);
            replaced.then(|| {
                format!("{IMAGE_VARIABLE} is set: the image or Dockerfile of {FILE_NAME} is not used")
            })
        }
        (None, None) => {
            layers.detected(image, detection.image.as_str(), "detected: required Python");
            None
        }
        _ => None,
    };
    Ok(warning)
}

/// What the tree says about itself, where nothing above says otherwise.
fn add_detected(layers: &mut Layers, detection: Detection) {
    let so_far = layers.clone_settled();
    let python = so_far.text("environment.python").unwrap_or_default();
    let built_by_project = so_far.text("environment.dockerfile").is_some();
    layers.detected("tests.framework", detection.framework.word(), "detected");
    let framework = framework_of(&layers.clone_settled());
    let setup = detection.setup(&python, framework, built_by_project);
    layers.detected("environment.setup", setup, "detected");
    layers.detected("environment.inputs", detection.inputs, "detected");
    layers.detected("project.name", detection.name, "detected");
    let variables: std::collections::HashMap<String, String> =
        detection.setup_variables.into_iter().collect();
    layers.detected_table("environment.variables", variables, "detected");
}

fn spec(
    settings: &Settings,
    root: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<ProjectSpec, ConfigError> {
    let image = match settings.text("environment.dockerfile") {
        Some(dockerfile) => ImageSource::Dockerfile(dockerfile),
        None => ImageSource::Reference(settings.text("environment.image").unwrap_or_default()),
    };
    let certificates = "environment.extra_ca_certificates";
    let extra_ca_certificates = match settings.text(certificates) {
        // A path in the file is one in the project; one in the environment is this machine's.
        Some(path) if settings.origin(certificates) == Some(CERTIFICATES_VARIABLE) => {
            Some(read_certificates(Path::new(&path))?)
        }
        Some(path) => Some(read_certificates(&root.join(path))?),
        None => None,
    };
    // What the file says of a variable goes before this machine's, and that before a default of ours.
    let mut setup_variables = settings.table("environment.variables");
    for name in settings.texts("environment.pass_env").unwrap_or_default() {
        let said =
            settings.origin_within("environment.variables", &name).is_some_and(|from| from != "detected");
        if let Some(value) = environment(&name).filter(|_| !said) {
            setup_variables.insert(name, value);
        }
    }
    Ok(ProjectSpec {
        name: settings.text("project.name").unwrap_or_default(),
        framework: framework_of(settings),
        environment: EnvironmentSpec {
            image,
            setup: settings.texts("environment.setup").unwrap_or_default(),
            inputs: settings.texts("environment.inputs").unwrap_or_default(),
            extra_ca_certificates,
            setup_variables,
            python: settings.text("environment.python").unwrap_or_default(),
        },
        test_paths: settings.texts("tests.paths").unwrap_or_default(),
        arguments: settings.texts("tests.arguments").unwrap_or_default(),
        variables: settings.table("tests.variables"),
        limits: limits(settings),
    })
}

/// The framework: one of the words that the setting may hold.
fn framework_of(settings: &Settings) -> Framework {
    let word = settings.text("tests.framework").unwrap_or_default();
    Framework::ALL.into_iter().find(|framework| framework.word() == word).unwrap_or(Framework::Pytest)
}

fn limits(settings: &Settings) -> Limits {
    let default = Limits::default();
    let millis = |key| settings.duration(key).and_then(|time| u64::try_from(time.as_millis()).ok());
    Limits {
        test_timeout_ms: millis("limits.test_timeout").unwrap_or(default.test_timeout_ms),
        attempt_timeout_ms: millis("limits.attempt_timeout").unwrap_or(default.attempt_timeout_ms),
        memory_bytes: settings.size("limits.memory").unwrap_or(default.memory_bytes),
        cpu_millis: settings
            .number("limits.cpus")
            .map_or(default.cpu_millis, |cpus| (cpus * 1_000.0).round() as u64),
        pids: settings.whole("limits.pids").unwrap_or(default.pids),
        scratch_bytes: settings.size("limits.scratch").unwrap_or(default.scratch_bytes),
        network: match settings.truth("limits.network") {
            Some(true) => Network::Bridge,
            Some(false) => Network::None,
            None => default.network,
        },
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| crate::settings::SettingError::Read { path: path.to_owned(), source };
    Ok(std::fs::read_to_string(path).map_err(unreadable)?)
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
