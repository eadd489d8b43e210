//! A farm on which faults are tried: scripted workers, servers behind relays, a Redis of its own, and an
//! oracle that knows what must have come of it.

#![expect(clippy::unwrap_used, reason = "only tests use it: they may fail by panicking")]

use crate::broker::Starved;
use crate::farm::Farm;
use crate::harness::{Process, project, report, said};
use crate::ports;
use crate::relay::Relay;
use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Tests of the scripted project.
const TESTS: u32 = 4;
/// Of an attempt, in milliseconds.
const PACE: u64 = 100;
/// For anything that is waited for: a loaded machine is no failure.
const PATIENCE: Duration = Duration::from_secs(150);

/// What can go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Server {
    /// RabbitMQ.
    Queue,
    /// Redis.
    Samples,
    /// PostgreSQL.
    Database,
}

impl Server {
    fn variable(self) -> &'static str {
        match self {
            Server::Queue => "FLAKEFARM_QUEUE",
            Server::Samples => "FLAKEFARM_SAMPLES",
            Server::Database => "FLAKEFARM_DATABASE",
        }
    }
}

/// Waits until `met`.
///
/// # Panics
/// When that takes too long.
pub fn wait_for(what: &str, mut met: impl FnMut() -> bool) {
    let began = Instant::now();
    while !met() {
        assert!(began.elapsed() < PATIENCE, "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running sweep's client.
pub struct Sweep {
    child: Option<Child>,
    runs: u32,
    _project: tempfile::TempDir,
}

/// See the module.
pub struct FaultFarm {
    farm: Farm,
    relays: HashMap<String, Relay>,
    redis: Process,
    redis_port: u16,
    workers: BTreeMap<String, Process>,
    second: Option<Process>,
    /// By how much the coordinators' clocks are wrong: a file that libfaketime reads; none if they are right.
    clock: Option<PathBuf>,
    dir: PathBuf,
}

/// A Redis that keeps nothing, and its port.
fn own_redis() -> (Process, u16) {
    let port = ports::reserve();
    let redis = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed by deploy/dev/services");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("Redis to listen", || std::net::TcpStream::connect(address).is_ok());
    (Process(redis), port)
}

/// The library that gives a process another time than the machine's. It is in a directory named after the
/// machine's architecture.
fn faketime() -> PathBuf {
    let directories = std::fs::read_dir("/usr/lib").expect("a directory of libraries").flatten();
    let library = |directory: std::fs::DirEntry| directory.path().join("faketime/libfaketimeMT.so.1");
    let found = directories.map(library).find(|path| path.exists());
    found.expect("libfaketime is installed by deploy/dev/test")
}

impl FaultFarm {
    /// With a coordinator of this lease and no worker.
    ///
    /// # Panics
    /// When a server cannot be started or does not answer.
    pub fn start(lease: &str) -> Self {
        let (redis, redis_port) = own_redis();
        let mut relays = HashMap::new();
        let farm = Farm::start_with(lease, |variable, mut address| {
            if variable == Server::Samples.variable() {
                address.set_port(Some(redis_port)).unwrap();
                address.set_host(Some("127.0.0.1")).unwrap();
            }
            let server = (address.host_str().unwrap(), address.port().unwrap());
            let (relay, here) = Relay::tcp(server.to_socket_addrs().unwrap().next().unwrap());
            relays.insert(variable.to_owned(), relay);
            address.set_host(Some(&here.ip().to_string())).unwrap();
            address.set_port(Some(here.port())).unwrap();
            address
        });
        let dir = farm.dir.path().to_owned();
        Self { farm, relays, redis, redis_port, workers: BTreeMap::new(), second: None, clock: None, dir }
    }

    /// A sweep with `runs` runs of each test, one test an attempt.
    ///
    /// # Panics
    /// When the client cannot be started.
    pub fn sweep(&self, runs: u32) -> Sweep {
        self.sweep_by("test", runs)
    }

    /// A sweep with `runs` attempts of `scope`.
    ///
    /// # Panics
    /// When the client cannot be started.
    pub fn sweep_by(&self, scope: &str, runs: u32) -> Sweep {
        let project = project(&[("flakefarm.toml", ""), ("test_a.py", "def test_a(): pass\n")]);
        let times = runs.to_string();
        let arguments = ["--scope", scope, "--panel", "none", "--seed", "3", "--runs", &times];
        let mut sweep = self.farm.sweep(project.path(), &arguments);
        let child = sweep.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Sweep { child: Some(child), runs, _project: project }
    }

    /// Starts a scripted worker of two slots, perhaps with a point at which it ends.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_worker(&mut self, name: &str, fault: Option<(&str, u32)>) {
        if self.workers.contains_key(name) {
            return;
        }
        let mut worker = self.worker(name);
        if let Some((point, time)) = fault {
            worker.env("FLAKEFARM_FAULT", format!("{point}:{time}"));
            worker.env("FLAKEFARM_FAULT_FELT", self.dir.join(format!("felt.{point}")));
        }
        self.workers.insert(name.to_owned(), Process(worker.spawn().expect("cargo build --workspace")));
    }

    /// Starts a scripted worker on which so many of a hundred runs fail.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_failing_worker(&mut self, name: &str, percent: u32) {
        let mut worker = self.worker(name);
        worker.arg(percent.to_string());
        self.workers.insert(name.to_owned(), Process(worker.spawn().expect("cargo build --workspace")));
    }

    fn worker(&self, name: &str) -> Command {
        let mut program = std::env::current_exe().unwrap();
        program.pop();
        if program.ends_with("deps") {
            program.pop();
        }
        let log =
            std::fs::File::options().create(true).append(true).open(self.dir.join("worker.log")).unwrap();
        let mut worker = Command::new(program.join("scripted_worker"));
        worker
            .args([name, "2", &TESTS.to_string(), &PACE.to_string()])
            .arg(&self.dir)
            .envs(self.farm.stores())
            .stdout(Stdio::null())
            .stderr(log);
        worker
    }

    /// Kills the coordinator and starts another, perhaps with a point at which it ends.
    pub fn restart_coordinator(&mut self, fault: Option<(&str, u32)>) {
        self.farm.coordinator = None;
        let mut variables = Vec::new();
        if let Some((point, time)) = fault {
            variables.push(("FLAKEFARM_FAULT", format!("{point}:{time}")));
            let felt = self.dir.join(format!("felt.{point}"));
            variables.push(("FLAKEFARM_FAULT_FELT", felt.display().to_string()));
        }
        if let Some(clock) = &self.clock {
            variables.push(("LD_PRELOAD", faketime().display().to_string()));
            variables.push(("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()));
            variables.push(("FAKETIME_NO_CACHE", "1".to_owned()));
            // The steady clock goes on, as it does when a machine's time is set.
            variables.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()));
        }
        self.farm.start_coordinator_with(&variables);
    }

    /// Has coordinators that start from now on go by a clock that can be set.
    ///
    /// # Panics
    /// When it cannot be written down.
    pub fn with_clock(&mut self) {
        let clock = self.dir.join("clock");
        std::fs::write(&clock, "+0").unwrap();
        self.clock = Some(clock);
    }

    /// Sets the coordinator's clock by so many seconds, and waits until it has gone by that.
    ///
    /// # Panics
    /// When no coordinator has a clock of its own.
    pub fn set_clock(&mut self, seconds: i64) {
        let clock = self.clock.as_ref().expect("coordinators with a clock");
        let written = clock.with_extension("new");
        std::fs::write(&written, format!("{seconds:+}")).unwrap();
        std::fs::rename(written, clock).unwrap();
        wait_for("the coordinator to go by its new time", || {
            let query = "SELECT COUNT(*) FROM workers
                         WHERE ABS(seen_at - (EXTRACT(EPOCH FROM now()) * 1000000)::BIGINT) > 1800000000";
            self.farm.query(query).is_some_and(|workers| workers > 0) || self.all_settled()
        });
    }

    /// Has the broker run short of memory for so long: it reads nothing from those who publish.
    ///
    /// # Panics
    /// When it cannot be told, or takes what is published all the same.
    pub fn starve_queue(&self, time: Duration) {
        runtime().block_on(async {
            let _starved = Starved::begin().await;
            tokio::time::sleep(time).await;
        });
    }

    /// Has Redis refuse to store anything for so long, as one does whose memory is full.
    ///
    /// # Panics
    /// When it refused nothing.
    pub fn fill_samples(&mut self, time: Duration) {
        let refused = || {
            let said = self.redis_cli(&["info", "errorstats"]);
            said.lines().any(|line| line.starts_with("errorstat_OOM"))
        };
        assert_eq!(self.redis_cli(&["config", "set", "maxmemory", "1"]).trim(), "OK");
        let began = Instant::now();
        wait_for("Redis to refuse a sample", || began.elapsed() >= time && refused() || self.all_settled());
        assert_eq!(self.redis_cli(&["config", "set", "maxmemory", "0"]).trim(), "OK");
    }

    /// Ends every connection to the database, as a server does that is restarted.
    ///
    /// # Panics
    /// When there was none.
    pub fn end_database_connections(&self) {
        let query = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let ended = self.farm.query(query);
        assert!(ended.is_some_and(|ended| ended > 0), "{ended:?} connections ended");
    }

    fn redis_cli(&self, arguments: &[&str]) -> String {
        let port = self.redis_port.to_string();
        let said = Command::new("redis-cli").args(["-p", &port]).args(arguments).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    }

    /// Waits until the coordinator has ended at its point.
    ///
    /// # Panics
    /// When it does not.
    pub fn felt_end_of_coordinator(&mut self, point: &str) {
        let felt = self.dir.join(format!("felt.{point}"));
        wait_for(&format!("the coordinator to end at {point}"), || {
            // A worker that has ended at its own point meanwhile leaves nothing to do for the coordinator.
            if self.workers.values_mut().any(|worker| worker.0.try_wait().unwrap().is_some()) {
                self.start_worker("heir", None);
            }
            let coordinator = &mut self.farm.coordinator;
            felt.exists()
                && coordinator.as_mut().is_none_or(|process| process.0.try_wait().unwrap().is_some())
        });
    }

    /// Waits until a worker has ended at its point.
    ///
    /// # Panics
    /// When it does not.
    pub fn felt_end_of_worker(&mut self, point: &str) {
        let felt = self.dir.join(format!("felt.{point}"));
        wait_for(&format!("a worker to end at {point}"), || felt.exists());
    }

    /// A second coordinator over the same database.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn start_second_coordinator(&mut self) {
        self.second = Some(self.farm.another_coordinator(ports::reserve()));
    }

    /// Cuts a server off, or has it fall silent, for so long, and until somebody has felt it.
    pub fn cut(&self, server: Server, silent: bool, time: Duration) {
        let relay = &self.relays[server.variable()];
        if silent {
            relay.freeze()
        } else {
            relay.cut()
        };
        let began = Instant::now();
        wait_for(&format!("{server:?} to be missed"), || began.elapsed() >= time && relay.was_felt());
        relay.mend();
    }

    /// What coordinator and workers have logged.
    pub fn logs(&self) -> String {
        self.farm.logs()
    }

    /// Attempts that have started, one line each: worker, job and index.
    pub fn starts(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the coordinator knows of the sweep.
    pub fn wait_for_submission(&self) {
        wait_for("the sweep to be submitted", || {
            self.farm.query("SELECT COUNT(*) FROM sweeps").is_some_and(|sweeps| sweeps > 0)
        });
    }

    /// Waits until the coordinator has heard of so many workers.
    pub fn wait_for_workers(&self, number: i64) {
        wait_for("workers", || {
            self.farm.query("SELECT COUNT(*) FROM workers").is_some_and(|workers| workers >= number)
        });
    }

    /// Waits for so many more attempts to start, or for all to have started.
    pub fn wait_for_attempts(&mut self, more: usize) {
        let before = self.starts().len();
        wait_for("attempts to start", || self.starts().len() >= before + more || self.all_settled());
    }

    /// Waits for another attempt to start.
    ///
    /// # Panics
    /// When none starts in time though some are left.
    pub fn flows_again(&mut self, within: Duration) {
        let (before, began) = (self.starts().len(), Instant::now());
        wait_for("work to flow", || self.starts().len() > before || self.all_settled());
        assert!(
            began.elapsed() <= within,
            "work flows only after {:?}: {}",
            began.elapsed(),
            self.farm.logs()
        );
    }

    fn all_settled(&self) -> bool {
        let open = self.farm.query("SELECT COUNT(*) FROM jobs WHERE state <> 'settled'");
        let ended = self.farm.query("SELECT COUNT(*) FROM sweeps WHERE state <> 'running'");
        open == Some(0) && ended.is_some_and(|ended| ended > 0)
    }

    /// SIGTERM; waits for its end, which is to come within an attempt or so.
    ///
    /// # Panics
    /// When it stays.
    pub fn drain(&mut self, name: &str) {
        let mut worker = self.workers.remove(name).unwrap();
        worker.signal("TERM");
        wait_for("the worker to leave", || worker.0.try_wait().unwrap().is_some());
        assert!(worker.0.wait().unwrap().success(), "it left in order: {}", self.farm.logs());
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it was gone already.
    pub fn kill(&mut self, name: &str) {
        let worker = self.workers.remove(name).unwrap();
        worker.signal("KILL");
    }

    /// SIGSTOP.
    pub fn stop_process(&self, name: &str) {
        self.workers[name].signal("STOP");
    }

    /// SIGCONT.
    pub fn continue_process(&self, name: &str) {
        self.workers[name].signal("CONT");
    }

    /// Deletes the broker's queue of bulk and interactive jobs.
    ///
    /// # Panics
    /// When the broker does not.
    pub fn delete_queue(&self) {
        let prefix = self.farm.name().to_owned();
        runtime().block_on(async {
            let broker = crate::harness::service("FLAKEFARM_TEST_AMQP_URL");
            let connection = lapin::Connection::connect(&broker, Default::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            for class in ["interactive", "bulk"] {
                let queue = format!("{prefix}.ff.jobs.{class}");
                channel.queue_delete(queue.into(), Default::default()).await.unwrap();
            }
            connection.close(200, "done".into()).await.ok();
        });
    }

    /// Has Redis forget everything.
    ///
    /// # Panics
    /// When there was nothing to forget.
    pub fn flush_samples(&self) {
        wait_for("samples", || self.redis_cli(&["dbsize"]).trim() != "0" || self.all_settled());
        assert_eq!(self.redis_cli(&["flushall"]).trim(), "OK");
    }

    /// Waits for the report: every test healthy, every planned attempt counted once; gives their number.
    ///
    /// # Panics
    /// When it is not so.
    pub fn whole(&mut self, sweep: &mut Sweep, seed: u64) -> u64 {
        let output = sweep.child.take().unwrap().wait_with_output().unwrap();
        let context = || format!("schedule {seed}: {}\n{}", said(&output), self.farm.logs());
        assert_eq!(output.status.code(), Some(0), "{}", context());
        let report = report(&output);
        let tests = report["tests"].as_array().unwrap();
        assert_eq!(tests.len(), TESTS as usize, "{}", context());
        for test in tests {
            assert_eq!(
                test["attempts"],
                sweep.runs,
                "counted neither twice nor too seldom: {test:#}\n{}",
                context()
            );
            assert_eq!(test["failures"], 0, "{test:#}\n{}", context());
        }
        report["sweep"]["attempts"].as_u64().unwrap_or_default()
    }

    /// Workers that take no more jobs since they were set aside, and say so.
    ///
    /// # Panics
    /// When the database does not answer.
    pub fn set_aside(&self) -> i64 {
        let query = "SELECT COUNT(*) FROM workers WHERE draining = 1 AND trouble LIKE 'set aside: %'";
        self.farm.query(query).unwrap()
    }

    /// No message, lease, parked message or spooled file is left.
    ///
    /// # Panics
    /// When something is.
    pub fn nothing_is_left(&mut self, seed: u64) {
        for name in self.workers.keys().cloned().collect::<Vec<_>>() {
            let mut worker = self.workers.remove(&name).unwrap();
            if worker.0.try_wait().unwrap().is_none() {
                worker.signal("TERM");
            }
            worker.0.wait().unwrap();
        }
        for (what, query) in [
            ("open jobs", "SELECT COUNT(*) FROM jobs WHERE state <> 'settled'"),
            ("dead jobs", "SELECT COUNT(*) FROM jobs WHERE ending = 'dead'"),
            ("parked messages", "SELECT COUNT(*) FROM parked"),
        ] {
            assert_eq!(self.farm.query(query), Some(0), "schedule {seed}: {what}: {}", self.farm.logs());
        }
        let spooled: Vec<_> =
            files(&self.dir.join("spool")).into_iter().filter(|name| name.ends_with(".zst")).collect();
        assert_eq!(spooled, Vec::<String>::new(), "schedule {seed}: spooled");
        let prefix = self.farm.name().to_owned();
        let waiting = || {
            runtime().block_on(async {
                let broker = crate::harness::service("FLAKEFARM_TEST_AMQP_URL");
                let connection = lapin::Connection::connect(&broker, Default::default()).await.unwrap();
                let channel = connection.create_channel().await.unwrap();
                let mut waiting = 0;
                for queue in ["results", "dead"] {
                    let options = lapin::options::QueueDeclareOptions::durable().passive();
                    let queue = format!("{prefix}.ff.{queue}");
                    waiting += channel
                        .queue_declare(queue.into(), options, Default::default())
                        .await
                        .unwrap()
                        .message_count();
                }
                connection.close(200, "done".into()).await.ok();
                waiting
            })
        };
        wait_for("results to be read", || waiting() == 0);
    }

    /// Attempts that were made more than once.
    pub fn repeated(&self) -> Vec<String> {
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for line in self.starts() {
            let attempt = line.split_once(' ').unwrap().1.to_owned();
            *seen.entry(attempt).or_default() += 1;
        }
        seen.into_iter()
            .filter(|(_, times)| *times > 1)
            .map(|(attempt, times)| format!("{attempt} {times}x"))
            .collect()
    }

    /// Publications beyond the first, for whatever reason.
    ///
    /// # Panics
    /// When the database does not answer.
    pub fn published_again(&self) -> i64 {
        let query = "SELECT COALESCE(SUM(publications - 1), 0)::BIGINT FROM jobs WHERE publications > 0";
        self.farm.query(query).unwrap()
    }

    /// Publications beyond the first of jobs that nobody had in hand.
    pub fn copies(&self) -> i64 {
        self.farm.query("SELECT COALESCE(SUM(publications - 1), 0)::BIGINT FROM jobs WHERE publications > 0 AND lost_leases = 0").unwrap()
    }
}

impl Drop for FaultFarm {
    fn drop(&mut self) {
        // Before the servers: whoever waits for them need not wait longer.
        self.workers.clear();
        self.second = None;
        let _already_gone = self.redis.0.kill();
    }
}

fn files(dir: &std::path::Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| {
            if entry.path().is_dir() {
                files(&entry.path())
            } else {
                vec![entry.path().display().to_string()]
            }
        })
        .collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}
