//! Layers over a small table.

use super::*;
use std::path::Path;
use std::time::Duration;

static KNOWN: &[Setting] = &[
    Setting::new("stores.database", Kind::Text).variable("X_DATABASE").secret(),
    Setting::new("coordinator.lease", Kind::Duration).variable("X_LEASE").default("10m"),
];

fn layers(file: &str, directory: &Path, variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
    let mut layers = Layers::new(KNOWN);
    layers.file(file, &directory.join("farm.toml"))?;
    layers.environment(&|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })?;
    Ok(layers.settle())
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("db"), "postgres://u:open-sesame@h/d\n").expect("a file");
    let settings = layers("[stores]\ndatabase_file = \"db\"\n", directory.path(), &[]).expect("settings");
    assert_eq!(settings.text("stores.database").as_deref(), Some("postgres://u:open-sesame@h/d"));
    assert!(settings.origin("stores.database").expect("an origin").ends_with("farm.toml:2"));
    assert!(!print(&settings).contains("sesame"), "{}", print(&settings));

    let path = directory.path().join("db").display().to_string();
    let settings = layers("", directory.path(), &[("X_DATABASE_FILE", &path)]).expect("settings");
    assert_eq!(settings.text("stores.database").as_deref(), Some("postgres://u:open-sesame@h/d"));
    assert_eq!(settings.origin("stores.database"), Some("X_DATABASE_FILE"));

    let error = layers("", directory.path(), &[("X_DATABASE_FILE", "/absent")]).expect_err("no file");
    assert_eq!(error.to_string(), "failed to read `/absent`");
    std::fs::write(directory.path().join("db"), "\n").expect("a file");
    assert!(layers("", directory.path(), &[("X_DATABASE_FILE", &path)]).is_err(), "an empty secret is none");
}

#[test]
fn what_is_unknown_is_named_with_its_line_and_a_suggestion() {
    let settings =
        layers("[coordinator]\n\nleese = \"1m\"\n[store]\n", Path::new("/"), &[]).expect("settings");
    assert_eq!(
        settings.warnings,
        [
            "/farm.toml:4: unknown key `store` is ignored; did you mean `stores`?",
            "/farm.toml:3: unknown key `coordinator.leese` is ignored; did you mean `lease`?"
        ]
    );
    assert_eq!(settings.duration("coordinator.lease"), Some(Duration::from_secs(600)));
}
