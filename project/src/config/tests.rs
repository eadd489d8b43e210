//! Whole loads: a tree and an environment in, a project out.

use super::*;
use crate::settings::SettingError;
use std::fs;
use tempfile::TempDir;

const PYTEST_STEP: &str = "python3 -c 'import pytest' || python3 -m pip install pytest";

fn tree(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a temporary directory");
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
    root
}

fn load(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<LoadedProject, ConfigError> {
    let root = tree(files);
    load_with(root.path(), None, &[], &|name| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

fn steps(setup: &[&str]) -> Vec<String> {
    setup.iter().map(|step| (*step).to_owned()).collect()
}

#[test]
fn set_up_is_detected_from_what_the_tree_declares() {
    let test = ("tests/test_a.py", "");
    for (files, why, setup) in [
        (vec![test], "test file tests/test_a.py", vec![]),
        (
            vec![test, ("requirements.txt", ""), ("requirements-dev.txt", "")],
            "test file tests/test_a.py",
            vec!["-r requirements.txt", "-r requirements-dev.txt"],
        ),
        (
            vec![test, ("requirements.txt", ""), ("setup.py", "setup(name='x')")],
            "test file tests/test_a.py",
            vec!["-e ."],
        ),
        (
            vec![(
                "pyproject.toml",
                "[project]\nname='x'\n[project.optional-dependencies]\ndev=[]\ntest=[]\n[tool.pytest.ini_options]\n",
            )],
            "pytest settings in pyproject.toml",
            vec!["-e '.[test]'"],
        ),
        (
            vec![
                test,
                (
                    "pyproject.toml",
                    "[project]\nname='x'\n[dependency-groups]\ndev=['a>=1', {include-group='t'}]\nt=['b']\n",
                ),
            ],
            "test file tests/test_a.py",
            vec!["-e .", "'a>=1' 'b'"],
        ),
        (
            vec![(
                "setup.cfg",
                "[metadata]\nname = x\n[options.extras_require]\ntesting =\n    a\n[tool:pytest]\n",
            )],
            "pytest settings in setup.cfg",
            vec!["-e '.[testing]'"],
        ),
        (
            vec![("tox.ini", "[pytest]\n"), ("pyproject.toml", "[tool.black]\n")],
            "pytest settings in tox.ini",
            vec![],
        ),
    ] {
        let loaded = load(&files, &[]).expect("a project");
        assert_eq!(loaded.source, ProjectSource::Detected { why: why.to_owned() });
        let mut expected: Vec<String> =
            setup.iter().map(|what| format!("python3 -m pip install {what}")).collect();
        expected.push(PYTEST_STEP.to_owned());
        assert_eq!(loaded.spec.environment.setup, expected, "{files:?}");
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }
}

#[test]
fn a_tree_without_tests_is_an_error_with_a_hint() {
    let error =
        load(&[("pyproject.toml", "[project]\nname='x'\n"), ("src/x.py", "")], &[]).expect_err("no tests");
    assert!(matches!(error, ConfigError::NoTests { .. }), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn the_file_replaces_what_was_detected_key_by_key() {
    let file = r#"
        [project]
        name = "mine"
        [environment]
        image = "debian:12"
        setup = ["true"]
        pass_env = ["PIP_INDEX_URL", "NOT_SET"]
        extra_ca_certificates = "ca.pem"
        [environment.variables]
        PIP_RETRIES = 9
        [tests]
        paths = ["tests"]
        arguments = ["-k", "not slow"]
        variables = { LANG = "C" }
        [limits]
        test_timeout = "1m30s"
        memory = "512MiB"
        cpus = 0.5
        network = true
        [sweep]
        max_flake_rate = 0.01
        seed = 7
        scope = "file"
    "#;
    let pem = "-----BEGIN CERTIFICATE-----\n";
    let files = [("flakefarm.toml", file), ("ca.pem", pem), ("pyproject.toml", "[project]\nname='x'\n")];
    let loaded = load(&files, &[("PIP_INDEX_URL", "https://index.example")]).expect("a project");
    let environment = &loaded.spec.environment;
    assert_eq!(loaded.spec.name, "mine");
    assert_eq!(environment.image, ImageSource::Reference("debian:12".to_owned()));
    assert_eq!(environment.setup, steps(&["true"]));
    assert_eq!(environment.inputs, steps(&["pyproject.toml"]), "detected");
    assert_eq!(environment.extra_ca_certificates.as_deref(), Some(pem));
    assert_eq!(environment.setup_variables["PIP_INDEX_URL"], "https://index.example");
    assert_eq!(environment.setup_variables["PIP_RETRIES"], "9");
    assert_eq!(environment.setup_variables["PIP_BREAK_SYSTEM_PACKAGES"], "1");
    assert!(!environment.setup_variables.contains_key("NOT_SET"));
    assert_eq!(loaded.spec.arguments, steps(&["-k", "not slow"]));
    assert_eq!(loaded.spec.variables["LANG"], "C");
    let limits = &loaded.spec.limits;
    assert_eq!((limits.test_timeout_ms, limits.memory_bytes, limits.cpu_millis), (90_000, 512 << 20, 500));
    assert_eq!((limits.network, limits.pids), (Network::Bridge, Limits::default().pids));
    let settings = &loaded.settings;
    assert_eq!(settings.number("sweep.max_flake_rate"), Some(0.01));
    assert_eq!(
        (settings.whole::<u64>("sweep.seed"), settings.text("sweep.scope")),
        (Some(7), Some("file".to_owned()))
    );
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_environment_comes_before_the_file() {
    let root = tree(&[("test_a.py", ""), ("ca.pem", "-----BEGIN CERTIFICATE-----")]);
    let pem = root.path().join("ca.pem").display().to_string();
    let loaded = load_with(root.path(), None, &[], &|name| match name {
        IMAGE_VARIABLE => Some("local:1".to_owned()),
        CERTIFICATES_VARIABLE => Some(pem.clone()),
        _ => None,
    })
    .expect("a project");
    assert_eq!(loaded.spec.environment.image, ImageSource::Reference("local:1".to_owned()));
    assert!(loaded.spec.environment.extra_ca_certificates.is_some());
    assert_eq!(loaded.warnings, Vec::<String>::new());

    let loaded = load(&[("flakefarm.toml", "[environment]\nimage = 'a'")], &[(IMAGE_VARIABLE, "b")])
        .expect("a project");
    assert_eq!(loaded.spec.environment.image, ImageSource::Reference("b".to_owned()));
    assert_eq!(loaded.warnings.len(), 1, "it says so");
}

#[test]
fn a_dockerfile_needs_no_set_up_but_pytest() {
    let files = [("flakefarm.toml", "[environment]\ndockerfile = 'Dockerfile'"), ("setup.py", "setup()")];
    let loaded = load(&files, &[]).expect("a project");
    assert_eq!(loaded.spec.environment.image, ImageSource::Dockerfile("Dockerfile".to_owned()));
    assert_eq!(loaded.spec.environment.setup, steps(&[PYTEST_STEP]));
}

#[test]
fn errors_name_file_line_and_key_and_say_what_to_write() {
    for (text, message, hint) in [
        ("[limits]\n\nmemory = 5", ":3: `limits.memory` is not a size", "512MiB"),
        ("[limits]\nmemory = \"1B\"", ":2: `limits.memory` must be at least 16MiB", "512MiB"),
        ("[limits]\ntest_timeout = \"60\"", ":2: `limits.test_timeout` is not a duration", "90s"),
        ("[limits]\ntest_timeout = \"0s\"", ":2: `limits.test_timeout` must be longer than nothing", "90s"),
        ("[limits]\ncpus = \"2\"", ":2: `limits.cpus` must be a number, not a string", "cpus = 0.5"),
        ("[limits]\ncpus = 0", ":2: `limits.cpus` must be between 0.01 and 1024", "cpus = 1.0"),
        ("[limits]\npids = -1", ":2: `limits.pids` is out of range", "16"),
        (
            "[limits]\nnetwork = \"no\"",
            ":2: `limits.network` must be true or false, not a string",
            "network = false",
        ),
        (
            "[environment]\nsetup = \"x\"",
            ":2: `environment.setup` must be a list of strings, not a string",
            "setup = [",
        ),
        (
            "[environment]\nsetup = [\n\"x\",\n1]",
            ":4: `environment.setup` must be a list of strings, not an integer",
            "setup = [",
        ),
        (
            "[environment]\nimage='a'\ndockerfile='b'",
            ":3: `environment.dockerfile` and `environment.image` exclude each other",
            "keep one",
        ),
        ("[tests.variables]\nA = [1]", ":2: `tests.variables.A` must be a string, not an array", "NAME"),
        ("tests = 1", ":1: `tests` must be a section", "[tests]"),
        ("[sweep]\nscope = \"tests\"", ":2: `sweep.scope` cannot be \"tests\"", "\"test\""),
        ("[sweep]\nmax_flake_rate = 5", ":2: `sweep.max_flake_rate` must lie between 0 and 1", "0.05"),
        ("[project]\nname = \"\"", ":2: `project.name` is empty", "leave"),
    ] {
        let error = load(&[("flakefarm.toml", text)], &[]).expect_err(text);
        let shown = error.to_string();
        assert!(shown.ends_with(&format!("flakefarm.toml{message}")), "{shown}\nexpected {message}");
        let given = error.hint().unwrap_or_default();
        assert!(given.contains(hint), "{given}");
    }
    let error = load(&[("flakefarm.toml", "[a]\nb = ")], &[]).expect_err("no TOML");
    assert!(error.to_string().contains("flakefarm.toml:2: "), "{error}");
}

#[test]
fn unknown_keys_warn_and_suggest() {
    let text = "[test]\n[limits]\ntest-timeout = '1s'\n[environment]\ncolour = 1\n";
    let loaded = load(&[("flakefarm.toml", text)], &[]).expect("a project");
    let endings = [
        ":1: unknown key `test` is ignored; did you mean `tests`?",
        ":5: unknown key `environment.colour` is ignored; known here: image, dockerfile",
        ":3: unknown key `limits.test-timeout` is ignored; did you mean `test_timeout`?",
    ];
    assert_eq!(loaded.warnings.len(), endings.len(), "{:?}", loaded.warnings);
    for (warning, ending) in loaded.warnings.iter().zip(endings) {
        assert!(warning.contains(ending), "{warning}");
    }
}

#[test]
fn a_missing_explicit_file_is_an_error() {
    let root = tree(&[("test_a.py", "")]);
    let error = load_with(root.path(), Some(Path::new("/absent.toml")), &[], &|_| None).expect_err("absent");
    assert!(matches!(error, ConfigError::Setting(SettingError::Read { .. })), "{error}");
}

#[test]
fn the_written_file_reads_back_as_the_same_project() {
    let pyproject = "[project]\nname='x \"y\" @image@'\nrequires-python='<3.11'\n[dependency-groups]\ntest=['pytest>=8 ; python_version > \"3.8\"', 'a-rather-long-requirement-name==1.2.3']\n";
    for files in [
        vec![("test_a.py", "")],
        vec![("test_a.py", ""), ("pyproject.toml", pyproject), ("requirements-dev.txt", "")],
        vec![(
            "flakefarm.toml",
            "[environment]\ndockerfile='D'\n[tests.variables]\n'A B'='1'\n[limits]\ncpus=2\nnetwork=true\nscratch='1GB'",
        )],
    ] {
        let before = load(&files, &[]).expect("a project");
        let text = init_text(&before);
        let mut files = files.clone();
        files.retain(|(name, _)| *name != "flakefarm.toml");
        files.push(("flakefarm.toml", &text));
        let after = load(&files, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(after.spec, before.spec, "{text}");
        assert_eq!(after.warnings, Vec::<String>::new());
    }
}

#[test]
fn options_go_before_the_environment_and_that_before_the_file_and_each_says_where_it_is_from() {
    let file = "[sweep]\nruns = 3\nseed = 4\nscope = \"file\"\n[limits]\nmemory = \"1GiB\"\n[tests.variables]\n'A.B' = 'x'\n";
    let root = tree(&[("flakefarm.toml", file), ("test_a.py", "")]);
    let given =
        |key, option, text: &str| GivenOption { key, option, value: GivenValue::Text(text.to_owned()) };
    let options =
        [given("sweep.runs", "--runs", "9"), given("sweep.max_flake_rate", "--max-flake-rate", "1%")];
    let environment = |name: &str| match name {
        "FLAKEFARM_RUNS" => Some("5".to_owned()),
        "FLAKEFARM_SEED" => Some("6".to_owned()),
        "FLAKEFARM_TOKEN" => Some("ff_submit_a_b".to_owned()),
        _ => None,
    };
    let loaded = load_with(root.path(), None, &options, &environment).expect("a project");
    let printed = loaded.settings.print();
    let path = root.path().join("flakefarm.toml");
    for (line, origin) in [
        ("runs = 9", "--runs"),
        ("max_flake_rate = 0.01", "--max-flake-rate"),
        ("seed = 6", "FLAKEFARM_SEED"),
        ("scope = \"file\"", &format!("{}:4", path.display())),
        ("memory = \"1GiB\"", &format!("{}:6", path.display())),
        ("variables.\"A.B\" = \"x\"", &format!("{}:8", path.display())),
        ("pids = 512", "default"),
        ("token = \"(secret)\"", "FLAKEFARM_TOKEN"),
    ] {
        let found = printed
            .lines()
            .find(|printed| printed.starts_with(line))
            .unwrap_or_else(|| panic!("{line} in\n{printed}"));
        assert!(found.ends_with(&format!("# {origin}")), "{found}: {origin}");
    }
    assert!(!printed.contains("ff_submit"), "{printed}");
    // What is printed is a file that says the same.
    let again = printed.lines().take_while(|line| *line != "[farm]").collect::<Vec<_>>().join("\n");
    let again = load(&[("flakefarm.toml", &again), ("test_a.py", "")], &[]).expect("what was printed");
    assert_eq!((again.spec, again.warnings), (loaded.spec, Vec::new()));
}

#[test]
fn a_bad_value_names_the_variable_or_the_option_it_came_from() {
    let root = tree(&[("test_a.py", "")]);
    let error =
        load_with(root.path(), None, &[], &|name| (name == "FLAKEFARM_WORKERS").then(|| "0".to_owned()));
    let error = error.expect_err("no workers");
    assert_eq!(error.to_string(), "FLAKEFARM_WORKERS: `sweep.workers` is out of range");
    assert_eq!(error.hint().as_deref(), Some("choose a whole number from 1 to 1024"));
}

#[test]
fn the_written_file_names_every_key_of_the_file() {
    let text = init_text(&load(&[("test_a.py", "")], &[]).expect("a project"));
    for setting in KEYS.iter().filter(|setting| !setting.key.starts_with("farm.")) {
        let name = setting.key.split_once('.').expect("a section").1;
        assert!(
            text.contains(&format!("{name} =")) || text.contains(&format!(".{name}]")),
            "{name} in\n{text}"
        );
    }
}
