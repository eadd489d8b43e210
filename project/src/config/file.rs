//! Reads `flakefarm.toml`. Unknown keys warn and suggest; a wrong type or value is an error that
//! names its line. Only reading: nothing is merged or looked up here.

use super::units::{parse_duration, parse_size};
use super::{ConfigError, SweepDefaults};
use flakefarm_shared::ImageSource;
use std::collections::BTreeMap;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What the file says; absent is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FileConfig {
    pub(super) name: Option<String>,
    pub(super) image: Option<ImageSource>,
    pub(super) python: Option<String>,
    pub(super) setup: Option<Vec<String>>,
    pub(super) inputs: Option<Vec<String>>,
    pub(super) extra_ca_certificates: Option<String>,
    pub(super) pass_env: Vec<String>,
    pub(super) setup_variables: BTreeMap<String, String>,
    pub(super) test_paths: Option<Vec<String>>,
    pub(super) arguments: Option<Vec<String>>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) limits: FileLimits,
    pub(super) sweep: SweepDefaults,
}

/// The `[limits]` section.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FileLimits {
    pub(super) test_timeout_ms: Option<u64>,
    pub(super) attempt_timeout_ms: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) cpu_millis: Option<u64>,
    pub(super) pids: Option<u32>,
    pub(super) scratch_bytes: Option<u64>,
    pub(super) network: Option<bool>,
}

const SECTIONS: &[&str] = &["project", "environment", "tests", "limits", "sweep"];
const PROJECT: &[&str] = &["name"];
const ENVIRONMENT: &[&str] =
    &["image", "dockerfile", "python", "setup", "inputs", "extra_ca_certificates", "pass_env", "variables"];
const TESTS: &[&str] = &["paths", "arguments", "variables"];
const LIMITS: &[&str] = &["test_timeout", "attempt_timeout", "memory", "cpus", "pids", "scratch", "network"];
const SWEEP: &[&str] =
    &["runs", "max_flake_rate", "confidence", "guarantee", "budget", "seed", "scope", "panel", "workers"];
const GUARANTEES: &[&str] = &["test", "suite"];
const PANELS: &[&str] = &["quick", "full", "none"];
const SCOPES: &[&str] = &["test", "file", "suite", "auto"];

/// Reads the file's text; `path` is for messages. Returns the warnings beside it.
pub(super) fn parse(text: &str, path: &Path) -> Result<(FileConfig, Vec<String>), ConfigError> {
    let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut source = Source { text, path, warnings: Vec::new() };
    let top = Section { name: "", table: Some(document.get_ref()) };
    source.warn_of_unknown(&top, SECTIONS);
    let config = source.read(&top)?;
    Ok((config, source.warnings))
}

struct Source<'a> {
    text: &'a str,
    path: &'a Path,
    warnings: Vec<String>,
}

#[derive(Clone, Copy)]
struct Section<'a> {
    name: &'a str,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'a> {
    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

impl Source<'_> {
    fn read<'a>(&mut self, top: &Section<'a>) -> Result<FileConfig, ConfigError> {
        let project = self.section(top, "project", PROJECT)?;
        let environment = self.section(top, "environment", ENVIRONMENT)?;
        let tests = self.section(top, "tests", TESTS)?;
        let limits = self.section(top, "limits", LIMITS)?;
        let sweep = self.section(top, "sweep", SWEEP)?;
        Ok(FileConfig {
            name: self.text(&project, "name")?,
            image: self.image(&environment)?,
            python: self.text(&environment, "python")?,
            setup: self.texts(&environment, "setup")?,
            inputs: self.texts(&environment, "inputs")?,
            extra_ca_certificates: self.text(&environment, "extra_ca_certificates")?,
            pass_env: self.texts(&environment, "pass_env")?.unwrap_or_default(),
            setup_variables: self.variables(&environment, "environment.variables")?,
            test_paths: self.texts(&tests, "paths")?,
            arguments: self.texts(&tests, "arguments")?,
            variables: self.variables(&tests, "tests.variables")?,
            limits: FileLimits {
                test_timeout_ms: self.duration(&limits, "test_timeout")?,
                attempt_timeout_ms: self.duration(&limits, "attempt_timeout")?,
                memory_bytes: self.size(&limits, "memory")?,
                cpu_millis: self.cpus(&limits)?,
                pids: self.whole(&limits, "pids", 16, 4_000_000)?,
                scratch_bytes: self.size(&limits, "scratch")?,
                network: self.truth(&limits, "network")?,
            },
            sweep: SweepDefaults {
                runs: self.whole(&sweep, "runs", 1, u64::from(u32::MAX))?,
                max_flake_rate: self.share(&sweep, "max_flake_rate")?,
                confidence: self.share(&sweep, "confidence")?,
                guarantee: self.one_of(&sweep, "guarantee", GUARANTEES)?,
                budget: self.text(&sweep, "budget")?,
                seed: self.whole(&sweep, "seed", 0, u64::MAX)?,
                scope: self.one_of(&sweep, "scope", SCOPES)?,
                panel: self.one_of(&sweep, "panel", PANELS)?,
                workers: self.whole(&sweep, "workers", 1, 1_024)?,
            },
        })
    }

    fn section<'a>(
        &mut self,
        parent: &Section<'a>,
        name: &'a str,
        known: &[&str],
    ) -> Result<Section<'a>, ConfigError> {
        let table = match parent.get(name) {
            None => None,
            Some(value) => match value.get_ref() {
                DeValue::Table(table) => Some(table),
                _ => {
                    return Err(self.wrong(
                        parent,
                        name,
                        value,
                        "must be a section",
                        format!("write `[{name}]`"),
                    ));
                }
            },
        };
        let section = Section { name, table };
        self.warn_of_unknown(&section, known);
        Ok(section)
    }

    fn warn_of_unknown(&mut self, section: &Section<'_>, known: &[&str]) {
        let Some(table) = section.table else { return };
        for name in table.keys().filter(|name| !known.contains(&name.get_ref().as_ref())) {
            let line = line_of(self.text, name.span().start);
            let place = format!("{}:{line}", self.path.display());
            let advice = match nearest(name.get_ref(), known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.warnings
                .push(format!("{place}: unknown key `{}` is ignored; {advice}", section.key(name.get_ref())));
        }
    }

    fn image(&self, section: &Section<'_>) -> Result<Option<ImageSource>, ConfigError> {
        let image = self.text(section, "image")?;
        let dockerfile = self.text(section, "dockerfile")?;
        match (image, dockerfile, section.get("dockerfile")) {
            (Some(_), Some(_), Some(value)) => Err(self.wrong(
                section,
                "dockerfile",
                value,
                "and `environment.image` exclude each other",
                "keep one of them: the image to start from, or the Dockerfile that builds it".to_owned(),
            )),
            (Some(image), None, _) | (Some(image), Some(_), None) => Ok(Some(ImageSource::Reference(image))),
            (None, Some(dockerfile), _) => Ok(Some(ImageSource::Dockerfile(dockerfile))),
            (None, None, _) => Ok(None),
        }
    }

    fn text(&self, section: &Section<'_>, key: &str) -> Result<Option<String>, ConfigError> {
        let Some(value) = section.get(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => Ok(Some(text.to_string())),
            DeValue::String(_) => {
                Err(self.wrong(section, key, value, "is empty", "leave the key out".to_owned()))
            }
            other => {
                Err(self.wrong_type(section, key, value, other, "a string", &format!("{key} = \"...\"")))
            }
        }
    }

    fn texts(&self, section: &Section<'_>, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(value) = section.get(key) else { return Ok(None) };
        let example = format!("{key} = [\"...\", \"...\"]");
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.wrong_type(section, key, value, value.get_ref(), "a list of strings", &example));
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push(text.to_string()),
                other => {
                    return Err(self.wrong_type(section, key, item, other, "a list of strings", &example));
                }
            }
        }
        Ok(Some(texts))
    }

    fn variables(&self, section: &Section<'_>, name: &str) -> Result<BTreeMap<String, String>, ConfigError> {
        let Some(value) = section.get("variables") else { return Ok(BTreeMap::new()) };
        let example = format!("[{name}]` and below it `NAME = \"value\"");
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong_type(section, "variables", value, value.get_ref(), "a section", &example));
        };
        let mut variables = BTreeMap::new();
        for (key, value) in table.iter() {
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.as_str().to_owned(),
                other => {
                    let inner = Section { name, table: Some(table) };
                    return Err(self.wrong_type(
                        &inner,
                        key.get_ref(),
                        value,
                        other,
                        "a string",
                        "NAME = \"value\"",
                    ));
                }
            };
            variables.insert(key.get_ref().to_string(), text);
        }
        Ok(variables)
    }

    fn duration(&self, section: &Section<'_>, key: &str) -> Result<Option<u64>, ConfigError> {
        let Some(value) = section.get(key) else { return Ok(None) };
        let hint = format!("write a number with its unit: `{key} = \"90s\"` (ms, s, m, h)");
        let parsed = value.get_ref().as_str().and_then(parse_duration).map(|d| d.as_millis());
        match parsed.and_then(|millis| u64::try_from(millis).ok()) {
            Some(0) => Err(self.wrong(section, key, value, "must be longer than nothing", hint)),
            Some(millis) => Ok(Some(millis)),
            None => Err(self.wrong(section, key, value, "is not a duration", hint)),
        }
    }

    fn size(&self, section: &Section<'_>, key: &str) -> Result<Option<u64>, ConfigError> {
        let Some(value) = section.get(key) else { return Ok(None) };
        let hint = format!("write a number with its unit: `{key} = \"512MiB\"` (KiB, MiB, GiB)");
        match value.get_ref().as_str().and_then(parse_size) {
            Some(bytes) if bytes < 16 << 20 => {
                Err(self.wrong(section, key, value, "must be at least 16MiB", hint))
            }
            Some(bytes) => Ok(Some(bytes)),
            None => Err(self.wrong(section, key, value, "is not a size", hint)),
        }
    }

    fn cpus(&self, section: &Section<'_>) -> Result<Option<u64>, ConfigError> {
        let Some((value, cpus)) = self.number(section, "cpus")? else { return Ok(None) };
        if (0.01..=1_024.0).contains(&cpus) {
            Ok(Some((cpus * 1_000.0).round() as u64))
        } else {
            let hint = "write how many CPUs one attempt may use: `cpus = 1.0`".to_owned();
            Err(self.wrong(section, "cpus", value, "must be between 0.01 and 1024", hint))
        }
    }

    fn share(&self, section: &Section<'_>, key: &str) -> Result<Option<f64>, ConfigError> {
        let Some((value, share)) = self.number(section, key)? else { return Ok(None) };
        if share > 0.0 && share < 1.0 {
            Ok(Some(share))
        } else {
            let hint = format!("write a fraction: `{key} = 0.05` is 5 %");
            Err(self.wrong(section, key, value, "must lie between 0 and 1", hint))
        }
    }

    fn number<'a>(
        &self,
        section: &Section<'a>,
        key: &str,
    ) -> Result<Option<(&'a Spanned<DeValue<'a>>, f64)>, ConfigError> {
        let Some(value) = section.get(key) else { return Ok(None) };
        let parsed = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => None,
        };
        match parsed {
            Some(number) => Ok(Some((value, number))),
            None => Err(self.wrong_type(
                section,
                key,
                value,
                value.get_ref(),
                "a number",
                &format!("{key} = 0.5"),
            )),
        }
    }

    fn whole<T: TryFrom<u64>>(
        &self,
        section: &Section<'_>,
        key: &str,
        least: u64,
        most: u64,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = section.get(key) else { return Ok(None) };
        let DeValue::Integer(number) = value.get_ref() else {
            let example = format!("{key} = {}", least.max(1));
            return Err(self.wrong_type(section, key, value, value.get_ref(), "a whole number", &example));
        };
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let fitting = parsed
            .filter(|number| (least..=most).contains(number))
            .and_then(|number| T::try_from(number).ok());
        match fitting {
            Some(number) => Ok(Some(number)),
            None => {
                let hint = format!("choose a whole number from {least} to {most}");
                Err(self.wrong(section, key, value, "is out of range", hint))
            }
        }
    }

    fn truth(&self, section: &Section<'_>, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = section.get(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(truth) => Ok(Some(*truth)),
            other => {
                Err(self.wrong_type(section, key, value, other, "true or false", &format!("{key} = false")))
            }
        }
    }

    fn one_of(
        &self,
        section: &Section<'_>,
        key: &str,
        words: &[&str],
    ) -> Result<Option<String>, ConfigError> {
        let Some(word) = self.text(section, key)? else { return Ok(None) };
        match section.get(key) {
            Some(value) if !words.contains(&word.as_str()) => {
                let hint = match nearest(&word, words) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("choose one of {}", words.join(", ")),
                };
                Err(self.wrong(section, key, value, &format!("cannot be \"{word}\""), hint))
            }
            Some(_) | None => Ok(Some(word)),
        }
    }

    fn wrong_type(
        &self,
        section: &Section<'_>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        found: &DeValue<'_>,
        wanted: &str,
        example: &str,
    ) -> ConfigError {
        let message = format!("must be {wanted}, not {} {}", article(found.type_str()), found.type_str());
        self.wrong(section, key, value, &message, format!("write `{example}`"))
    }

    fn wrong(
        &self,
        section: &Section<'_>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        message: &str,
        hint: String,
    ) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            line: line_of(self.text, value.span().start),
            key: section.key(key),
            message: message.to_owned(),
            hint,
        }
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// The known word that `word` most likely is a misspelling of.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let alike = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (distance(&alike, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
