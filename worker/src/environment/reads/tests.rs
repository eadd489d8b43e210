//! What steps read, as users write them.

use super::*;
use flakefarm_project::snapshot;

const STATIC: &str = "[build-system]\nrequires=['setuptools>=61']\nbuild-backend='setuptools.build_meta'\n\
    [project]\nname='x'\nversion='1'\ndependencies=['attrs']\noptional-dependencies={test=['pytest']}\n";

fn tree(files: &[(&str, &str)]) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    Tree::unpack(&snapshot::archive(dir.path()).unwrap().bytes, 1 << 20).unwrap()
}

fn division(steps: &[&str], files: &[(&str, &str)]) -> Division {
    let steps: Vec<String> = steps.iter().map(|step| (*step).to_owned()).collect();
    divide(&steps, &BTreeMap::new(), &tree(files))
}

fn files(names: &[&str]) -> Sees {
    Sees::Files(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn steps_that_install_dependencies_alone_are_shared_by_all_snapshots() {
    let requirements = [
        ("requirements.txt", "-r more/a.txt\nattrs==1 # x\n--hash=y\n"),
        ("more/a.txt", "six\n-c ../c.txt\n"),
        ("c.txt", ""),
    ];
    let tree =
        [requirements[1], requirements[2], ("requirements.txt", "-r more/a.txt\nattrs==1 # x\n\\\n\n")];
    for (step, read) in [
        ("python3 -m pip install pytest==9.2.0 'requests[socks]>=2; python_version > \"3\"'", files(&[])),
        ("pip install --upgrade -q pip wheel && pip3.11 install six", files(&[])),
        ("/usr/bin/python3 -m pip install --no-binary :all: --index-url=https://i.example x", files(&[])),
        ("pip install git+https://git.example/x.git@v1", files(&[])),
        ("pip install -r requirements.txt", files(&["c.txt", "more/a.txt", "requirements.txt"])),
        ("pip install -rmore/a.txt", files(&["c.txt", "more/a.txt"])),
        ("uv pip install --system -r c.txt", files(&["c.txt"])),
        ("python3 -c 'import pytest' || python3 -m pip install pytest", files(&[])),
        (
            "set -eux; apt-get update && apt-get install -y --no-install-recommends git; rm -rf /var/lib/apt/lists/*",
            files(&[]),
        ),
        ("DEBIAN_FRONTEND=noninteractive apt-get install -y git # for the tests", files(&[])),
        ("true\necho done", files(&[])),
        ("pip install --group dev", files(&["pyproject.toml"])),
    ] {
        let found = division(&[step], &tree);
        assert_eq!((found.shared, found.sees, found.own_from), (vec![0], read, None), "{step}");
    }
    // A file that is not understood, or not there, may say anything.
    assert_eq!(division(&["pip install -r requirements.txt"], &requirements).own_from, Some(0));
    assert_eq!(division(&["pip install -r absent.txt"], &tree).own_from, Some(0));
}

#[test]
fn what_is_not_understood_belongs_to_one_snapshot() {
    for step in [
        "python3 gen.py",
        "make",
        "python3 setup.py build_ext --inplace",
        "python3 -c 'import pkg'",
        "python3 -c 'print(open(\"x\").read())'",
        "pip install $PACKAGES",
        "pip install `cat list`",
        "pip install < list",
        "pip install --target vendor x",
        "pip install --find-links wheels x",
        "pip install --some-new-option x",
        "pip download x",
        "PIP_CONSTRAINT=c.txt pip install x",
        "cd sub && pip install x",
        "apt-get install ./local.deb",
        "rm -rf build",
        "true & pip install x",
        "pip install -r odd.txt",
        "pip install 'x @ file:///work/x'",
        "pip install 'unfinished",
    ] {
        let found =
            division(&["pip install a", step, "pip install b"], &[("pkg/a.py", ""), ("odd.txt", "--odd")]);
        assert_eq!((found.shared, found.own_from, found.own), (vec![0], Some(1), Own::Sources), "{step}");
    }
    let steps = ["pip install x".to_owned()];
    for (name, value, own_from) in [
        ("PIP_CONSTRAINT", "constraints.txt", Some(0)),
        ("PIP_FIND_LINKS", "/opt/wheels https://w.example/", None),
        ("PIP_FIND_LINKS", "./wheels", Some(0)),
        ("PIP_FIND_LINKS", "file:///work/wheels", Some(0)),
        ("PIP_INDEX_URL", "https://i.example", None),
    ] {
        let variables = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(divide(&steps, &variables, &tree(&[("a.py", "")])).own_from, own_from, "{name}={value}");
    }
}

#[test]
fn the_project_is_installed_again_for_each_snapshot_and_its_dependencies_are_not() {
    let setup_py = [("setup.py", "from setuptools import setup; setup()"), ("x.py", "")];
    for step in [
        "pip install .",
        "pip install -e '.[test]'",
        "pip install -e .[test] pytest",
        "pip install ./libs/a",
        "pip install dist/x.whl",
        "pip install -r requirements.txt",
        "poetry install --with dev",
        "uv sync",
    ] {
        let tree = [setup_py[0], setup_py[1], ("requirements.txt", "six\n-e .\n")];
        let found = division(&["pip install a", step, "pip install b"], &tree);
        assert_eq!(
            (found.shared, found.sees, found.own_from, found.own),
            (vec![0, 1, 2], Sees::Everything, Some(1), Own::Sources),
            "{step}"
        );
    }
}

#[test]
fn an_installation_in_place_that_computes_nothing_reads_names_and_metadata_only() {
    let own = |pyproject: &str, more: &[(&str, &str)]| {
        let files: Vec<_> = [("pyproject.toml", pyproject), ("src/x/__init__.py", "")]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        division(&["pip install -e '.[test]'", "pip install pytest"], &files).own
    };
    let base = own(STATIC, &[("README.md", "a")]);
    assert!(matches!(base, Own::Layout(_)));
    assert_eq!(own(STATIC, &[("README.md", "b")]), base, "nothing says that this is part of the metadata");
    assert_ne!(own(STATIC, &[("README.md", "b"), ("y.py", "")]), base, "another file is there");
    assert_ne!(own(&STATIC.replace("'1'", "'2'"), &[("README.md", "a")]), base);
    let readme = format!("{STATIC}readme='README.md'\n");
    assert_ne!(own(&readme, &[("README.md", "a")]), own(&readme, &[("README.md", "b")]));
    for (pyproject, more) in [
        (STATIC.to_owned(), ("setup.py", "")),
        (STATIC.to_owned(), ("setup.cfg", "")),
        (STATIC.replace("version='1'", "dynamic=['version']"), ("a", "")),
        (format!("{STATIC}[tool.setuptools_scm]\n"), ("a", "")),
        (format!("{STATIC}[[tool.setuptools.ext-modules]]\nname='a'\n"), ("a", "")),
        (format!("{STATIC}[tool.hatch.build.hooks.custom]\n"), ("a", "")),
        (STATIC.replace("'setuptools>=61'", "'setuptools>=61', 'Cython'"), ("a", "")),
        (STATIC.replace("setuptools.build_meta", "mesonpy"), ("a", "")),
        (STATIC.replace("[project]", "backend-path=['.']\n[project]"), ("a", "")),
        ("no toml".to_owned(), ("a", "")),
    ] {
        assert_eq!(own(&pyproject, &[more]), Own::Sources, "{pyproject} {more:?}");
    }
    let copied = division(&["pip install ."], &[("pyproject.toml", STATIC)]);
    assert_eq!(copied.own, Own::Sources, "a copy of the sources");
    let below = division(&["pip install -e ./sub"], &[("pyproject.toml", STATIC)]);
    assert_eq!(below.own, Own::Sources, "another project");
}

#[test]
fn a_project_without_dependencies_needs_no_layer_for_them() {
    let bare = STATIC.replace("['attrs']", "[]");
    let tree = [("pyproject.toml", bare.as_str()), ("x.py", "")];
    let found = division(&["pip install pytest", "pip install .", "pip install six"], &tree);
    assert_eq!((found.shared, found.sees, found.own_from), (vec![0, 2], files(&[]), Some(1)));
    let found = division(&["pip install '.[test]'"], &tree);
    assert_eq!((found.shared, found.sees), (vec![0], Sees::Everything), "an extra may need something");
    let found = division(&["pip install . attrs"], &tree);
    assert_eq!((found.shared, found.sees), (vec![0], Sees::Everything));
}
