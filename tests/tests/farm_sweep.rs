//! The same sweep through a coordinator and workers over RabbitMQ, Redis and PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_tests::harness::{Process, command, flaky_shop, project, report, said, service, with_verdict};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A farm of its own: queue prefix, schema, blob directory.
struct Farm {
    name: String,
    dir: tempfile::TempDir,
    url: String,
    token: String,
    stores: Vec<(&'static str, String)>,
    coordinator: Option<Process>,
    workers: Vec<Process>,
}

impl Farm {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("t{}", uuid::Uuid::now_v7().simple());
        let postgres = service("FLAKEFARM_TEST_PG_URL");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let pool = sqlx::PgPool::connect(&postgres).await.expect("PostgreSQL answers");
            let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
            sqlx::raw_sql(statement).execute(&pool).await.expect("a database can be made");
        });
        let mut database = url(&postgres);
        database.set_path(&name);
        let amqp = service("FLAKEFARM_TEST_AMQP_URL");
        let joint = if amqp.contains('?') { '&' } else { '?' };
        let stores = vec![
            ("FLAKEFARM_DATABASE", database.to_string()),
            ("FLAKEFARM_QUEUE", format!("{amqp}{joint}prefix={name}")),
            ("FLAKEFARM_SAMPLES", service("FLAKEFARM_TEST_REDIS_URL")),
            ("FLAKEFARM_BLOBS", format!("file://{}", dir.path().join("blobs").display())),
        ];
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut farm = Self {
            url: format!("http://127.0.0.1:{port}"),
            token: String::new(),
            name,
            dir,
            stores,
            coordinator: None,
            workers: Vec::new(),
        };
        farm.start_coordinator();
        farm.token = std::fs::read_to_string(farm.dir.path().join("admin-token")).unwrap().trim().to_owned();
        farm
    }

    fn role(&self, arguments: &[&str]) -> Process {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{}.log", arguments[0])))
            .unwrap();
        let mut role = command(self.dir.path());
        role.args(arguments).envs(self.stores.iter().cloned());
        Process(role.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn start_coordinator(&mut self) {
        let token = self.dir.path().join("admin-token").display().to_string();
        let listen = self.url.trim_start_matches("http://").to_owned();
        let arguments = ["coordinator", "--listen", &listen, "--admin-token-file", &token, "--lease", "30s"];
        self.coordinator = Some(self.role(&arguments));
        let began = Instant::now();
        while std::net::TcpStream::connect(&listen).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "the coordinator does not listen: {}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn start_worker(&mut self, name: &str) {
        // Sandboxes are known by their worker's name, and tests share the container engine.
        let name = format!("{name}-{}", self.name);
        let worker = self.role(&["worker", "--slots", "1", "--id", &name]);
        self.workers.push(worker);
    }

    fn sweep(&self, project: &std::path::Path, arguments: &[&str]) -> Command {
        let mut sweep = command(self.dir.path());
        sweep
            .args(["sweep", "--farm", &self.url, "--token", &self.token, "--format", "json"])
            .args(arguments)
            .arg(project);
        sweep
    }

    fn logs(&self) -> String {
        ["coordinator.log", "worker.log"]
            .iter()
            .map(|log| std::fs::read_to_string(self.dir.path().join(log)).unwrap_or_default())
            .collect()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.signal("TERM");
        }
        for worker in &mut self.workers {
            let _ended = worker.0.wait();
        }
        self.coordinator = None;
        let drop_database =
            sqlx::AssertSqlSafe(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            if let Ok(pool) = sqlx::PgPool::connect(&service("FLAKEFARM_TEST_PG_URL")).await {
                let _left_behind = sqlx::raw_sql(drop_database).execute(&pool).await;
            }
        });
    }
}

fn url(text: &str) -> reqwest::Url {
    reqwest::Url::parse(text).expect("a service's address is a URL")
}

const SLOW: &[(&str, &str)] = &[
    ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n"),
    (
        "test_mixed.py",
        "import random, time\n\
         def test_healthy(): time.sleep(0.2)\n\
         def test_flaky(): assert random.random() < 0.5\n\
         def test_broken(): assert 1 == 2\n",
    ),
];

#[test]
fn a_farm_of_two_workers_gives_the_verdicts_of_an_embedded_sweep() {
    let mut farm = Farm::start();
    farm.start_worker("first");
    farm.start_worker("second");
    let arguments = ["--runs", "20", "--seed", "7"];
    let output = farm.sweep(&flaky_shop(), &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), farm.logs());
    let theirs = report(&output);
    let state = tempfile::tempdir().unwrap();
    let output = command(state.path())
        .arg("sweep")
        .args(arguments)
        .args(["--format", "json"])
        .arg(flaky_shop())
        .output()
        .unwrap();
    let ours = report(&output);
    for verdict in ["healthy", "flaky", "broken", "skipped"] {
        assert_eq!(with_verdict(&theirs, verdict), with_verdict(&ours, verdict), "{verdict}");
    }
    assert_eq!(theirs["sweep"]["workers"].as_array().unwrap().len(), 2, "both took part");
}

#[test]
fn killing_a_worker_and_the_coordinator_loses_time_but_no_sample() {
    let mut farm = Farm::start();
    farm.start_worker("doomed");
    let project = project(SLOW);
    let sweep = farm
        .sweep(project.path(), &["--scope", "suite", "--runs", "20", "--seed", "3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !farm.logs().contains("job starts") {
        assert!(began.elapsed() < Duration::from_secs(60), "no job starts: {}", farm.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
    farm.workers.remove(0).signal("KILL");
    farm.coordinator.take().unwrap().signal("KILL");
    farm.start_coordinator();
    farm.start_worker("late");
    let output = sweep.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), farm.logs());
    let report = report(&output);
    assert_eq!(with_verdict(&report, "healthy"), ["test_mixed.py::test_healthy"], "{}", said(&output));
    assert_eq!(with_verdict(&report, "flaky"), ["test_mixed.py::test_flaky"]);
    let tests = report["tests"].as_array().unwrap();
    let healthy = tests.iter().find(|test| test["verdict"] == "healthy").unwrap();
    assert_eq!(healthy["attempts"], 20, "counted neither twice nor too seldom");
}

#[test]
fn a_wrong_token_and_another_version_are_refused() {
    let farm = Farm::start();
    let project = project(SLOW);
    let mut sweep = command(farm.dir.path());
    sweep.args(["sweep", "--farm", &farm.url, "--token", "ff_submit_wrong_wrong"]).arg(project.path());
    let output = sweep.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("token"), "{}", said(&output));

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    let status = runtime.block_on(async {
        let client = reqwest::Client::new();
        let request = client.get(format!("{}/v1/sweeps", farm.url)).header("flakefarm-api", "999");
        request.bearer_auth(&farm.token).send().await.unwrap().status()
    });
    assert_eq!(status.as_u16(), 426);
}
