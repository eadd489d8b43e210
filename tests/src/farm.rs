//! A farm for one test: a coordinator and workers as processes, over the services of `make test`.

#![expect(clippy::unwrap_used, reason = "only tests use it: they may fail by panicking")]

use crate::eventually::wait_for;
use crate::harness::{Process, command, service};
use crate::ports;
use reqwest::Url;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A farm of its own: queue prefix, schema, blob directory.
pub struct Farm {
    name: String,
    /// Of logs, blobs and the administrator's token.
    pub dir: tempfile::TempDir,
    /// Of the coordinator.
    pub url: String,
    /// The administrator's.
    pub token: String,
    lease: String,
    database: String,
    stores: Vec<(&'static str, String)>,
    /// None while it is down.
    pub coordinator: Option<Process>,
    /// In the order they were started.
    pub workers: Vec<Process>,
}

impl Farm {
    /// A coordinator on the services of `make test`; no worker yet.
    ///
    /// # Panics
    /// When a service does not answer.
    pub fn start() -> Self {
        Self::start_through(|_, address| address)
    }

    /// The same with every store's address passed through `detour`, which is told what it is
    /// (`FLAKEFARM_DATABASE`, `FLAKEFARM_QUEUE` or `FLAKEFARM_SAMPLES`).
    ///
    /// # Panics
    /// When a service does not answer.
    pub fn start_through(detour: impl FnMut(&str, Url) -> Url) -> Self {
        Self::start_with("30s", detour)
    }

    /// The same with a coordinator of this lease.
    ///
    /// # Panics
    /// When a service does not answer.
    pub fn start_with(lease: &str, mut detour: impl FnMut(&str, Url) -> Url) -> Self {
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
        let own_database = database.to_string();
        let mut queue = url(&service("FLAKEFARM_TEST_AMQP_URL"));
        queue.query_pairs_mut().append_pair("prefix", &name);
        let samples = url(&service("FLAKEFARM_TEST_REDIS_URL"));
        let servers =
            [("FLAKEFARM_DATABASE", database), ("FLAKEFARM_QUEUE", queue), ("FLAKEFARM_SAMPLES", samples)];
        let mut stores: Vec<_> = servers
            .into_iter()
            .map(|(variable, address)| (variable, detour(variable, address).to_string()))
            .collect();
        stores.push(("FLAKEFARM_BLOBS", format!("file://{}", dir.path().join("blobs").display())));
        let port = ports::reserve();
        let mut farm = Self {
            url: format!("http://127.0.0.1:{port}"),
            token: String::new(),
            lease: lease.to_owned(),
            database: own_database,
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

    fn role_with(&self, arguments: &[&str], variables: &[(&str, String)]) -> Process {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{}.log", arguments[0])))
            .unwrap();
        let mut role = command(self.dir.path());
        role.args(arguments).envs(self.stores.iter().cloned()).envs(variables.iter().cloned());
        Process(role.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// Starts the coordinator and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_coordinator(&mut self) {
        self.start_coordinator_with(&[]);
    }

    /// The same with further variables in its environment.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn start_coordinator_with(&mut self, variables: &[(&str, String)]) {
        let listen = self.url.trim_start_matches("http://").to_owned();
        self.coordinator = Some(self.coordinator_at(&listen, variables));
    }

    /// Another coordinator over the same stores, at a port of its own.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn another_coordinator(&self, port: u16) -> Process {
        self.coordinator_at(&format!("127.0.0.1:{port}"), &[])
    }

    fn coordinator_at(&self, listen: &str, variables: &[(&str, String)]) -> Process {
        let token = self.dir.path().join("admin-token").display().to_string();
        let arguments =
            ["coordinator", "--listen", listen, "--admin-token-file", &token, "--lease", &self.lease];
        let coordinator = self.role_with(&arguments, variables);
        wait_for("the coordinator listens", Duration::from_secs(60), || {
            std::net::TcpStream::connect(listen).map_err(|error| format!("{error}: {}", self.logs()))
        });
        coordinator
    }

    /// Where the stores are, as variables of the environment.
    pub fn stores(&self) -> Vec<(&'static str, String)> {
        self.stores.clone()
    }

    /// What the farm's queues and database are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The one number that a statement on the farm's database gives; none while it is away.
    pub fn query(&self, statement: &'static str) -> Option<i64> {
        tokio::runtime::Runtime::new().ok()?.block_on(async {
            use sqlx::Connection as _;
            let mut connection = sqlx::PgConnection::connect(&self.database).await.ok()?;
            let number = sqlx::query_scalar(statement).fetch_one(&mut connection).await.ok();
            connection.close().await.ok();
            number
        })
    }

    /// Starts a worker with one slot.
    pub fn start_worker(&mut self, name: &str) {
        self.start_worker_with(name, &[]);
    }

    /// The same with further variables in its environment.
    pub fn start_worker_with(&mut self, name: &str, variables: &[(&str, String)]) {
        // Sandboxes are known by their worker's name, and tests share the container engine.
        let name = format!("{name}-{}", self.name);
        let worker = self.role_with(&["worker", "--slots", "1", "--id", &name], variables);
        self.workers.push(worker);
    }

    /// A sweep of `project` on this farm, reporting as JSON.
    pub fn sweep(&self, project: &Path, arguments: &[&str]) -> Command {
        let mut sweep = command(self.dir.path());
        sweep
            .args(["sweep", "--farm", &self.url, "--token", &self.token, "--format", "json"])
            .args(arguments)
            .arg(project);
        sweep
    }

    /// What coordinator and workers have logged.
    pub fn logs(&self) -> String {
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

fn url(text: &str) -> Url {
    Url::parse(text).expect("a service's address is a URL")
}
