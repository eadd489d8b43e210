//! Whole loads: a tree and an environment in, a project out.

use super::*;
use crate::config::init_text;
use crate::settings::{SettingError, print};
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
            vec!["-e .", "-r requirements.txt"],
        ),
        (
            vec![test, ("requirements.txt", ""), ("setup.py", "setup(name='x', install_requires=R)")],
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

/// Arguments of `pip install`, and warnings.
#[track_caller]
fn check_installs(files: &[(&str, &str)], expect: &[&str], warning: &str) {
    let files: Vec<_> = [("tests/test_a.py", "")].into_iter().chain(files.iter().copied()).collect();
    let loaded = load(&files, &[]).expect("a project");
    let mut steps = loaded.spec.environment.setup.clone();
    assert_eq!(steps.pop().as_deref(), Some(PYTEST_STEP));
    let installs: Vec<&str> =
        steps.iter().map(|step| step.strip_prefix("python3 -m pip install ").unwrap_or(step)).collect();
    assert_eq!(installs, expect, "{files:?}");
    let warnings = loaded.warnings.join("\n");
    assert!(warnings.contains(warning) && warning.is_empty() == warnings.is_empty(), "{warnings}");
}

/// Where `pip install -e .` would fail, what the project needs is installed without it.
#[test]
fn what_setuptools_would_refuse_to_build_is_not_installed() {
    let two = [("shop/__init__.py", ""), ("data/prices.csv", "")];
    let project =
        "[project]\nname='p'\ndependencies=['six']\n[project.optional-dependencies]\ntest=['respx']\n";
    let with = |more: &str| format!("{project}{more}");
    let refused = "which of data, shop the project is made of";
    for (text, expect, warning) in [
        (with(""), "'six' 'respx'", refused),
        (
            with("[build-system]\nrequires=['setuptools']\nbuild-backend='setuptools.build_meta'\n"),
            "'six' 'respx'",
            refused,
        ),
        (
            with("[build-system]\nrequires=['hatchling']\nbuild-backend='hatchling.build'\n"),
            "-e '.[test]'",
            "",
        ),
        (with("[tool.setuptools]\npackages=['shop']\n"), "-e '.[test]'", ""),
        (with("[tool.setuptools.packages.find]\ninclude=['shop*']\n"), "-e '.[test]'", ""),
    ] {
        let files: Vec<(&str, &str)> = two.into_iter().chain([("pyproject.toml", text.as_str())]).collect();
        check_installs(&files, &[expect], warning);
    }
    // One package, whatever lies beside it; modules count only where there is none.
    let one = [
        ("shop/__init__.py", ""),
        ("docs/index.md", ""),
        ("run.py", ""),
        ("_notes/a.py", ""),
        ("a-b/c.py", ""),
    ];
    let files: Vec<(&str, &str)> = one.into_iter().chain([("pyproject.toml", project)]).collect();
    check_installs(&files, &["-e '.[test]'"], "");
    let modules = [("one.py", ""), ("two.py", ""), ("conftest.py", ""), ("pyproject.toml", project)];
    check_installs(&modules, &["'six' 'respx'"], "which of one, two the project");
    let beside = [
        ("src/one/__init__.py", ""),
        ("two/__init__.py", ""),
        ("three/__init__.py", ""),
        ("pyproject.toml", project),
    ];
    check_installs(&beside, &["-e '.[test]'"], "");
}

#[test]
fn what_each_tools_users_write_is_read() {
    let build = "[build-system]\nrequires=['x']\n[project]\nname='p'\n";
    let with = |text: &str| format!("{build}{text}");
    for (files, expect) in [
        (
            vec![("pyproject.toml", "[tool.poetry]\nname='p'\n[tool.poetry.dependencies]\npython='^3.9'\n[tool.poetry.group.dev.dependencies]\npytest='^8'\npytest-mock='*'\n[tool.poetry.group.docs.dependencies]\nsphinx='*'\n[build-system]\nrequires=['poetry-core']".to_owned())],
            vec!["-e .", "'pytest>=8,<9.0' 'pytest-mock'"],
        ),
        (
            vec![("pyproject.toml", "[tool.poetry]\npackage-mode=false\n[tool.poetry.dependencies]\npython='^3.9'\nsix='1.16.0'\n[tool.poetry.dev-dependencies]\npytest='*'\n".to_owned())],
            vec!["'six==1.16.0' 'pytest'"],
        ),
        (
            vec![("pyproject.toml", with("[tool.pdm.dev-dependencies]\ntest=['pytest', 'pytest-mock', '-e file:///${PROJECT_ROOT}/sub#egg=sub']\n"))],
            vec!["-e .", "'pytest' 'pytest-mock' -e './sub'"],
        ),
        (
            vec![("pyproject.toml", with("[tool.uv]\ndev-dependencies=['pytest-mock']\n[dependency-groups]\nunit=['respx']\nlint=['ruff']\nplugins=['pytest-xdist', {include-group='lint'}]\n"))],
            vec!["-e .", "'pytest-xdist' 'ruff' 'respx' 'pytest-mock'"],
        ),
        (
            vec![("pyproject.toml", with("dependencies=['common']\n[tool.uv.sources]\ncommon={workspace=true}\n[tool.uv.workspace]\nmembers=['libs/*']\n")), ("libs/common/pyproject.toml", "[project]\nname='Common'\n".to_owned())],
            vec!["-e './libs/common' -e ."],
        ),
        (
            vec![("pyproject.toml", with("[tool.hatch.envs.default]\ndependencies=['pytest-cov']\nfeatures=['full']\n[tool.hatch.envs.docs]\ndependencies=['mkdocs']\n[tool.hatch.envs.hatch-test]\nextra-dependencies=['respx']\n"))],
            vec!["-e '.[full]'", "'pytest-cov' 'respx'"],
        ),
        (
            vec![("tox.ini", "[testenv]\ndeps =\n    pytest\n    # no\n    pytest-mock  # yes\n    -r{toxinidir}/more.txt\n    py27: mock\n    test,py: six\n    {[base]deps}\nextras = a\n[base]\ndeps = attrs\n".to_owned()), ("setup.py", "setup(name='t', install_requires=[], tests_require=[])".to_owned())],
            vec!["-e '.[a]'", "-r more.txt", "'pytest' 'pytest-mock' 'six' 'attrs'"],
        ),
        (
            vec![("setup.py", "setup(name='t', install_requires=[], tests_require=['pytest-mock'])".to_owned())],
            vec!["-e .", "'pytest-mock'"],
        ),
        (
            vec![("Pipfile", "[packages]\nsix='==1.16'\n[dev-packages]\npytest='*'\npytest-mock={version='>=3', extras=['x']}\n[requires]\npython_version='3.11'\n".to_owned())],
            vec!["'six==1.16' 'pytest' 'pytest-mock[x]>=3'"],
        ),
        (
            vec![("requirements/base.txt", String::new()), ("requirements/testing.txt", String::new()), ("requirements-dev.in", String::new()), ("tests/requirements.txt", String::new()), ("requirements-docs.txt", String::new())],
            vec!["-r requirements-dev.in", "-r requirements/testing.txt", "-r tests/requirements.txt"],
        ),
        (
            vec![("noxfile.py", "@nox.session\ndef tests(session):\n    session.install('.', 'pytest', \"pytest-mock\")\n".to_owned())],
            vec!["'pytest' 'pytest-mock'"],
        ),
        (
            vec![("pyproject.toml", with("[dependency-groups]\ntest=['x @ git+https://g.example/x']\n"))],
            vec!["git --version || apt-get update", "git --version || apt-get install -y --no-install-recommends git", "-e .", "'x @ git+https://g.example/x'"],
        ),
        (
            vec![("setup.cfg", "[metadata]\nname=x\n[options]\ninstall_requires=\n  six\n[options.extras_require]\ndocs =\n  sphinx\ncheck =\n  pytest-checkdocs\ndev =\n  black\n".to_owned())],
            vec!["-e '.[check,dev]'"],
        ),
    ] {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        check_installs(&files, &expect, "");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    check_installs(&[("environment.yml", "")], &[], "environment.yml is not read");
    check_installs(&[("Pipfile", "[")], &[], "Pipfile is not valid TOML");
    check_installs(&[("noxfile.py", "session.install(*DEPS)\nsession.run('pytest')")], &[], "noxfile.py");
    let beyond = "[build-system]\nrequires=[]\n[project]\nname='p'\ndependencies=['common']\n[tool.uv.sources]\ncommon={workspace=true}\n";
    check_installs(
        &[("pyproject.toml", beyond)],
        &["-e ."],
        "`common` is part of a workspace that is not below",
    );
}

#[test]
fn settings_and_fixtures_above_the_directory_are_mentioned_with_what_to_type() {
    let root = tree(&[
        ("pyproject.toml", "[tool.pytest.ini_options]\n"),
        ("conftest.py", ""),
        ("packages/api/tests/test_a.py", ""),
        ("packages/own/pytest.ini", ""),
    ]);
    let warnings =
        |below: &str| load_with(&root.path().join(below), None, &[], &|_| None).expect("a project").warnings;
    let top = fs::canonicalize(root.path()).expect("it is there");
    assert_eq!(
        warnings("packages/api"),
        [format!(
            "../../pyproject.toml has pytest's settings and ../../conftest.py has fixtures, which are not part of \
             what is swept here; if tests need them: flakefarm sweep {} --tests packages/api/",
            top.display()
        )]
    );
    assert_eq!(warnings("packages/own"), Vec::<String>::new(), "pytest looks no further");
    assert_eq!(warnings(""), Vec::<String>::new());
}

#[test]
fn versions_that_a_repository_would_tell_are_told() {
    let loaded = load(&[("test_a.py", ""), ("setup.py", "setup(pbr=True)")], &[]).expect("a project");
    assert_eq!(loaded.spec.environment.setup_variables["PBR_VERSION"], "0.0.0");
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
    let printed = print(&loaded.settings);
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
    for setting in KEYS.iter().filter(|setting| setting.is_in_file()) {
        let name = setting.key.split_once('.').expect("a section").1;
        assert!(
            text.contains(&format!("{name} =")) || text.contains(&format!(".{name}]")),
            "{name} in\n{text}"
        );
    }
}
