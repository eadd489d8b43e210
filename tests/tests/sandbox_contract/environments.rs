//! Environments on the real engine: what is run once, what is run again, and what is refused.

use super::{docker, engine, image, left, new_worker};
use bollard::query_parameters::RemoveImageOptions;
use flakefarm_project::snapshot;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::project::Framework;
use flakefarm_shared::{
    EnvironmentSpec, ImageSource, InfraStage, Limits, ProjectSpec, Refusal, SandboxLevel, SweepContext,
    WIRE_VERSION, WorkerId, World,
};
use flakefarm_tests::contract::sandbox::Level;
use flakefarm_worker::ceilings::SetupCeiling;
use flakefarm_worker::environment::{Environments, LocalPlaces, PrepareError};
use flakefarm_worker::sandbox::{DockerSandbox, Sandbox};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use tempfile::TempDir;
use uuid::Uuid;

const PLUGIN: &[(&str, &str)] = &[("probe/__init__.py", "WORD = 'plugin'\n")];

/// A project in a directory, its environment, and a worker that prepares it.
pub(super) struct Bench {
    worker: WorkerId,
    pub(super) level: Level,
    environments: Environments,
    blobs: Blobs,
    project: TempDir,
    _blob_directory: TempDir,
    /// Makes this test's images its own.
    mark: String,
    made: Mutex<HashSet<String>>,
}

impl Bench {
    pub(super) async fn new(files: &[(&str, &str)]) -> Self {
        let worker = new_worker();
        let engine = engine(&worker).await;
        let blob_directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&format!("file://{}", blob_directory.path().display())).unwrap();
        let bench = Self {
            level: Level::new(
                Sandbox::Docker(DockerSandbox::new(engine.clone())),
                SandboxLevel::Container,
                worker.clone(),
                image(),
            ),
            environments: Environments::new(engine, blobs.clone()),
            worker,
            blobs,
            project: tempfile::tempdir().unwrap(),
            _blob_directory: blob_directory,
            mark: Uuid::now_v7().simple().to_string(),
            made: Mutex::default(),
        };
        for (path, content) in files {
            bench.write(path, content);
        }
        bench
    }

    fn write(&self, path: impl AsRef<Path>, content: &str) {
        let path = self.project.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(super) fn project(&self, environment: EnvironmentSpec) -> ProjectSpec {
        ProjectSpec {
            name: "probe".to_owned(),
            framework: Framework::Pytest,
            environment,
            test_paths: Vec::new(),
            arguments: Vec::new(),
            variables: BTreeMap::new(),
            limits: Limits::default(),
        }
    }

    pub(super) fn environment(&self, setup: &[&str]) -> EnvironmentSpec {
        EnvironmentSpec {
            image: ImageSource::Reference(image()),
            setup: setup.iter().map(|step| (*step).to_owned()).collect(),
            inputs: vec!["requirements*.txt".to_owned()],
            extra_ca_certificates: None,
            setup_variables: BTreeMap::from([("MARK".to_owned(), self.mark.clone())]),
            python: "python3".to_owned(),
        }
    }

    async fn prepare(&self, environment: EnvironmentSpec) -> Result<(String, Vec<String>), PrepareError> {
        self.prepare_with(environment, PLUGIN).await
    }

    pub(super) async fn prepare_with(
        &self,
        environment: EnvironmentSpec,
        plugin: &[(&str, &'static str)],
    ) -> Result<(String, Vec<String>), PrepareError> {
        let archive = snapshot::archive(self.project.path()).unwrap();
        let context = SweepContext {
            v: WIRE_VERSION,
            project: self.project(environment),
            snapshot: self.blobs.put(archive.bytes).await.unwrap(),
            revision: None,
            under: World::Plain,
            typed: flakefarm_shared::Typed::default(),
        };
        let said = Mutex::new(Vec::new());
        let plugin: Vec<(String, &str)> =
            plugin.iter().map(|(path, content)| ((*path).to_owned(), *content)).collect();
        let prepared = self
            .environments
            .prepare(&context, &context.snapshot, &plugin, |step| said.lock().unwrap().push(step))
            .await?;
        self.made.lock().unwrap().insert(prepared.image_id.clone());
        Ok((prepared.image_id, said.into_inner().unwrap()))
    }

    async fn image(&self, setup: &[&str]) -> String {
        self.prepare(self.environment(setup)).await.unwrap().0
    }

    async fn refusal(&self, environment: EnvironmentSpec) -> Refusal {
        match self.prepare(environment).await.unwrap_err() {
            PrepareError::Refused(refusal) => refusal,
            PrepareError::Infra(error) => panic!("an infrastructure error: {error}"),
        }
    }

    async fn shell(&self, image: &str, script: &str) -> Vec<String> {
        let mut request = self.level.request(&["sh", "-c", script]);
        request.image = image.to_owned();
        self.level.run(request).await.0
    }

    /// Nothing is left running, and the images of this test go, those they were made from included.
    pub(super) async fn end(self) {
        self.level.sandbox.close().await;
        assert_eq!(left(&self.worker).await, [""; 0], "containers are left");
        let docker = docker();
        let mut tags = Vec::new();
        for id in self.made.into_inner().unwrap() {
            for layer in docker.image_history(&id).await.unwrap() {
                tags.extend(layer.tags.into_iter().filter(|tag| tag.starts_with("flakefarm/")));
            }
        }
        for tag in tags {
            // Another layer of the same image may have taken it along.
            let _ = docker.remove_image(&tag, None::<RemoveImageOptions>, None).await;
        }
    }
}

/// What is installed already needs no index.
const DEPENDENCIES: &str = "python3 -m pip install --no-index -r requirements.txt";

#[tokio::test(flavor = "multi_thread")]
async fn dependencies_are_installed_once_and_what_may_read_the_sources_runs_for_each_snapshot() {
    let bench = Bench::new(&[("a.py", "1"), ("old/gone.py", "x"), ("requirements.txt", "pip")]).await;
    let stamp = "date +%s%N > /opt/stamp; cp a.py built.so; test \"$MARK\" != ''";
    let setup = [DEPENDENCIES, stamp];
    let dependencies = format!("set-up step 1 of 2: {DEPENDENCIES}");
    let own = format!("set-up step 2 of 2: {stamp}");
    let (first, said) = bench.prepare(bench.environment(&setup)).await.unwrap();
    assert_eq!(said, [dependencies.clone(), own.clone()]);
    let (again, said) = bench.prepare(bench.environment(&setup)).await.unwrap();
    assert_eq!((&again, said.len()), (&first, 0), "{said:?}");

    std::fs::remove_dir_all(bench.project.path().join("old")).unwrap();
    bench.write("a.py", "2");
    let (second, said) = bench.prepare(bench.environment(&setup)).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(said, [own], "dependencies are kept");
    let look = "cat /opt/stamp; ls -A; ls -A old 2> /dev/null; cat built.so; echo; id -u; stat -c %u a.py; env | grep -c MARK; ls -A /flakefarm";
    let (before, after) = (bench.shell(&first, look).await, bench.shell(&second, look).await);
    assert_ne!(before[0], after[0], "what read the sources ran again");
    let ends = ["1000", "1000", "0", "plugin", "tree"];
    let tree = ["a.py", "built.so", "old", "requirements.txt", "gone.py", "1"];
    assert_eq!(before[1..], [tree.as_slice(), &ends].concat());
    assert_eq!(after[1..], [["a.py", "built.so", "requirements.txt", "2"].as_slice(), &ends].concat());

    bench.write("requirements.txt", "pip>1");
    let (_, said) = bench.prepare(bench.environment(&setup)).await.unwrap();
    assert_eq!(said[0], dependencies, "they changed");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_costs_no_set_up_where_set_up_installs_dependencies_alone() {
    let bench = Bench::new(&[("a.py", "1"), ("requirements.txt", "pip")]).await;
    let setup = [DEPENDENCIES];
    let first = bench.image(&setup).await;
    bench.write("a.py", "2");
    bench.write("old/new.py", "");
    let (second, said) = bench.prepare(bench.environment(&setup)).await.unwrap();
    assert_eq!(said, ["making the image of this snapshot"]);
    assert_eq!(bench.shell(&first, "cat a.py; ls -A").await, ["1a.py", "requirements.txt"]);
    assert_eq!(bench.shell(&second, "cat a.py; ls -A").await, ["2a.py", "old", "requirements.txt"]);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_this_machine_too_attempts_get_the_tree_as_set_up_left_it_on_this_snapshot() {
    let cache = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&[("in.txt", "1"), ("known.txt", "0")]).await;
    bench.environments = Environments::Local(LocalPlaces::new(cache.path().to_owned(), bench.blobs.clone()));
    for content in ["1", "2"] {
        bench.write("in.txt", content);
        let place = bench.image(&["cp in.txt made.txt; cp in.txt known.txt"]).await;
        for name in ["made.txt", "known.txt"] {
            let found = std::fs::read_to_string(Path::new(&place).join("tree").join(name)).unwrap();
            assert_eq!(found, content, "{name}");
        }
    }
    bench.made.lock().unwrap().clear();
    bench.end().await;
}

/// A project that installs itself, and what it needs.
const PROJECT: &[(&str, &str)] = &[
    (
        "setup.py",
        "from setuptools import setup\nsetup(name='own', version='1', py_modules=['own'], install_requires=['pip'])\n",
    ),
    ("own.py", "WORD = 1\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_layer_of_dependencies_has_nothing_of_the_project() {
    let bench = Bench::new(PROJECT).await;
    let install = "python3 -m pip install --no-index --no-build-isolation .";
    let setup = [install, "test -f own.py; python3 -m pip list > listed; ls -A > before"];
    let (first, _) = bench.prepare(bench.environment(&setup)).await.unwrap();
    let look = "cd /; python3 -c 'import own; print(own.WORD, own.__file__.startswith(\"/usr\"))'";
    assert_eq!(bench.shell(&first, look).await, ["1 True"]);
    bench.write("own.py", "WORD = 2\n");
    let (second, said) = bench.prepare(bench.environment(&setup)).await.unwrap();
    assert_eq!(said.len(), 2, "the project's own steps: {said:?}");
    assert_eq!(bench.shell(&second, look).await, ["2 True"]);
    // The project goes by another name now, and nothing is left of the first.
    bench.write("own.py", "WORD = 3\n");
    let history = docker().image_history(&second).await.unwrap();
    let layer = history.iter().flat_map(|layer| &layer.tags).find(|tag| tag.starts_with("flakefarm/env:"));
    let (layer, listing) =
        (layer.expect("a layer of dependencies"), "cd /; pip list; ls -A /work /flakefarm");
    let listed = bench.shell(layer, listing).await;
    assert!(!listed.iter().any(|line| line.starts_with("own ") || line.contains("own.py")), "{listed:?}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_in_place_runs_again_only_for_other_names_or_metadata() {
    let pyproject = "[build-system]\nrequires = ['setuptools']\n[project]\nname = 'own'\nversion = '1'\n\
        dependencies = ['pip']\n[tool.setuptools]\npackages = ['own']\n";
    let bench = Bench::new(&[("pyproject.toml", pyproject), ("own/__init__.py", "WORD = 1\n")]).await;
    let setup = ["python3 -m pip install --no-index --no-build-isolation -e ."];
    let look = "cd /; python3 -c 'import own, importlib.metadata as m; print(own.WORD, own.__file__, m.version(\"own\"))'";
    let first = bench.image(&setup).await;
    assert_eq!(bench.shell(&first, look).await, ["1 /work/own/__init__.py 1"]);
    bench.write("own/__init__.py", "WORD = 2\n");
    let (second, said) = bench.prepare(bench.environment(&setup)).await.unwrap();
    assert_eq!(said, ["making the image of this snapshot"]);
    assert_eq!(bench.shell(&second, look).await, ["2 /work/own/__init__.py 1"]);
    bench.write("own/more.py", "");
    let (_, said) = bench.prepare(bench.environment(&setup)).await.unwrap();
    assert_eq!(said[0], "set-up step 1 of 1: python3 -m pip install --no-index --no-build-isolation -e .");
    assert_eq!(said.len(), 2, "dependencies are kept: {said:?}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_at_once_share_one_build() {
    let bench = Bench::new(&[("a.py", "1")]).await;
    let setup = ["date +%s%N > /opt/stamp; sleep 1"];
    let prepare = || bench.prepare(bench.environment(&setup));
    let (a, b, c) = tokio::join!(prepare(), prepare(), prepare());
    let results = [a.unwrap(), b.unwrap(), c.unwrap()];
    assert!(results.iter().all(|(id, _)| *id == results[0].0));
    let steps = results.iter().flat_map(|(_, said)| said).filter(|step| step.starts_with("set-up step"));
    assert_eq!(steps.count(), 1);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_is_named_with_its_last_lines() {
    let bench = Bench::new(&[("a.py", "1")]).await;
    let setup = ["true", "seq 1 100; echo get https://user:secret@host/ >&2; exit 7", "true"];
    let refusal = bench.refusal(bench.environment(&setup)).await;
    assert!(
        refusal.message.starts_with("set-up step 2 of 3 failed with exit code 7: seq 1 100"),
        "{}",
        refusal.message
    );
    assert_eq!(refusal.log.lines().count(), 40);
    assert!(refusal.log.ends_with("100\nget https://***@host/"), "{}", refusal.log);
    assert!(!format!("{refusal:?}").contains("secret"));
    assert!(refusal.hint.is_some());
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_or_interpreter_is_refused() {
    let bench = Bench::new(&[("a.py", "1")]).await;
    let mut environment = bench.environment(&[]);
    environment.image = ImageSource::Reference("localhost:1/no-such-image:1".to_owned());
    let refusal = bench.refusal(environment).await;
    assert_eq!(refusal.message, "image `localhost:1/no-such-image:1` is not here and could not be pulled");
    let mut environment = bench.environment(&[]);
    environment.python = "python9".to_owned();
    let refusal = bench.refusal(environment).await;
    assert_eq!(refusal.message, "the image has no interpreter `python9` that works");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_is_built_and_its_failure_is_told() {
    let from = format!("FROM {}\n", image());
    let bench = Bench::new(&[
        ("docker/Dockerfile", &format!("{from}COPY a.py /opt/copied.py\nRUN echo hi > /opt/hi\n")),
        ("a.py", "1"),
    ])
    .await;
    let mut environment = bench.environment(&[]);
    environment.image = ImageSource::Dockerfile("docker/Dockerfile".to_owned());
    let (image, _) = bench.prepare(environment.clone()).await.unwrap();
    assert_eq!(bench.shell(&image, "cat /opt/hi; ls /opt/copied.py").await, ["hi", "/opt/copied.py"]);
    bench.write("docker/Dockerfile", &format!("{from}RUN echo trouble; exit 9\n"));
    let refusal = bench.refusal(environment).await;
    assert_eq!(refusal.message, "`docker/Dockerfile` could not be built");
    assert!(refusal.log.contains("trouble") && refusal.log.contains("code: 9"), "{}", refusal.log);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_find_plugin_and_localhost_and_images_mark_nobodys_containers() {
    let bench = Bench::new(&[("a.py", "1")]).await;
    let image = bench.image(&[]).await;
    let program = "PYTHONPATH=/flakefarm/plugin python3 -c \"import probe, socket; print(probe.WORD, probe.__cached__ is not None, socket.gethostbyname('localhost'), socket.gethostbyname(socket.gethostname()))\"; ls /flakefarm/plugin/probe/__pycache__ | wc -l";
    assert_eq!(bench.shell(&image, program).await, ["plugin True 127.0.0.1 127.0.0.1", "1"]);
    let config = docker().inspect_image(&image).await.unwrap().config.unwrap();
    let labels = config.labels.unwrap();
    for key in ["worker", "expires", "instance", "role"] {
        assert_eq!(labels.get(&format!("dev.flakefarm.{key}")).map(String::as_str), Some(""), "{key}");
    }
    assert!(config.entrypoint.unwrap_or_default().is_empty());
    assert_eq!(config.cmd.unwrap_or_default(), ["/bin/sh"]);
    assert!(
        !config
            .env
            .unwrap_or_default()
            .iter()
            .any(|variable| variable.contains("MARK") || variable.contains("SCM"))
    );
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn extra_certificates_are_trusted_during_set_up_and_kept_for_attempts_with_a_network() {
    let bench = Bench::new(&[("a.py", "1")]).await;
    let pem = "-----BEGIN CERTIFICATE-----\nprobe\n-----END CERTIFICATE-----\n";
    let mut environment =
        bench.environment(&["grep -q probe \"$PIP_CERT\"; cp \"$SSL_CERT_FILE\" /opt/bundle"]);
    environment.extra_ca_certificates = Some(pem.to_owned());
    let (image, _) = bench.prepare(environment).await.unwrap();
    let look = "grep -c probe /opt/bundle; ls /usr/local/share/ca-certificates; ls -d /flakefarm/setup; echo \"[$PIP_CERT]\"";
    assert_eq!(bench.shell(&image, look).await, ["1", "[]"]);
    // Attempts that may reach the network are pointed at what they need for it.
    let trusted = "grep -c probe /flakefarm/plugin/certificates.pem; ls -A /flakefarm";
    assert_eq!(bench.shell(&image, trusted).await, ["1", "plugin", "tree"]);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_a_preparation_leaves_no_container() {
    let bench = Bench::new(&[("a.py", "1")]).await;
    let patience = std::time::Duration::from_secs(2);
    let given_up = tokio::time::timeout(patience, bench.prepare(bench.environment(&["sleep 600"]))).await;
    assert!(given_up.is_err());
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_snapshot_is_an_infrastructure_error() {
    let bench = Bench::new(&[]).await;
    let absent = flakefarm_shared::Digest::of(b"absent");
    let project = bench.project(bench.environment(&[]));
    let context = SweepContext {
        v: WIRE_VERSION,
        project,
        snapshot: absent,
        revision: None,
        under: World::Plain,
        typed: flakefarm_shared::Typed::default(),
    };
    match bench.environments.prepare(&context, &context.snapshot, &[], |_| {}).await.unwrap_err() {
        PrepareError::Infra(error) => assert_eq!(error.stage, InfraStage::Blobs),
        PrepareError::Refused(refusal) => panic!("refused: {}", refusal.message),
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn set_up_is_held_to_what_the_operator_allows() {
    let mut bench = Bench::new(&[("a.py", "1")]).await;
    let setup = SetupCeiling { memory: 128 << 20, pids: 40, network: "none".to_owned() };
    bench.environments = bench.environments.clone().with_setup(setup);
    let hog = "python3 -c 'b = []\nwhile True: b.append(bytearray(16 << 20))'";
    let refusal = bench.refusal(bench.environment(&[hog])).await;
    assert!(
        refusal.message.starts_with("set-up step 1 of 1 failed with exit code 137"),
        "{}",
        refusal.message
    );
    let bomb = "python3 -c 'import os, time\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(5); os._exit(0)\nexcept OSError: print(\"bounded\", flush=True); os._exit(9)'";
    let refusal = bench.refusal(bench.environment(&[bomb])).await;
    assert!(refusal.log.contains("bounded"), "{refusal:?}");
    let tries = "ls /sys/class/net > /opt/seen; id -u >> /opt/seen; mknod /opt/disk b 254 0 2>> /dev/null || echo none >> /opt/seen; \
                 chown 1:1 /opt/seen; chown 0:0 /opt/seen; \
                 python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)' 2> /dev/null || echo raw >> /opt/seen";
    let image = bench.image(&[tries]).await;
    assert_eq!(bench.shell(&image, "cat /opt/seen").await, ["lo", "0", "none", "raw"]);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_attempts_are_named_in_the_image() {
    let bench = Bench::new(&[("a.py", "1")]).await;
    let image = bench.image(&[]).await;
    for (user, name) in [(1_000, "flakefarm"), (12_345, "flakefarm-12345")] {
        let mut request = bench.level.request(&[
            "python3",
            "-c",
            "import getpass, grp, os, pwd; entry = pwd.getpwuid(os.getuid()); print(getpass.getuser(), entry.pw_name, \
             entry.pw_dir == os.environ['HOME'], grp.getgrgid(os.getgid()).gr_name, os.environ['USER'])",
        ]);
        request.image.clone_from(&image);
        request.user = user;
        let (lines, exit) = bench.level.run(request).await;
        assert_eq!(lines, [format!("{name} {name} True {name} {name}")], "{}", exit.output.to_text());
    }
    bench.end().await;
}
