//! A farm as its operator sees it: metrics, health, status, doctor, traces and logs, while it sweeps.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_shared::metrics::{CATALOGUE, Owner};
use flakefarm_tests::contract::blobs::Place;
use flakefarm_tests::eventually::wait_for;
use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{MIXED, command, project, report, repository, said};
use futures::TryStreamExt;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(300);

/// What a collector was sent: paths and bodies.
type Sent = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector that takes everything; it ends with the test's process.
fn collector() -> (String, Sent) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let sent = Sent::default();
    let taken = sent.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let taken = taken.clone();
            std::thread::spawn(move || take(&stream, &taken));
        }
    });
    (address, sent)
}

/// Takes requests of one connection until it is closed.
fn take(stream: &TcpStream, taken: &Sent) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        taken.lock().unwrap().push((path, body));
        (&*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

/// One request, as it is: what was answered, or nothing if the other side hung up.
fn ask(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be answered, or be closed, before all of it was sent.
    let _early = stream.write_all(request);
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: &str, path: &str) -> String {
    ask(address, format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
}

/// Samples by name and labels, as a scrape gives them.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| line.starts_with("flakefarm_") || line.starts_with("process_"));
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series.to_owned(), value.trim().parse().ok()?))
    };
    lines.filter_map(sample).collect()
}

/// What a metric has come to, over all of its series that have this in their labels.
fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &str) -> f64 {
    let of = |series: &&String| series.split('{').next() == Some(name) && series.contains(labels);
    samples.keys().filter(of).map(|series| samples[series]).sum()
}

/// Names of metrics in the files that operators take.
fn names_in(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            names_in(&path, names);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let named = words.filter(|word| word.starts_with("flakefarm_") || word.starts_with("process_"));
            names.extend(named.map(str::to_owned));
        }
    }
}

#[test]
fn a_farm_that_sweeps_is_seen_from_every_side() {
    let (collector, sent) = collector();
    // What is large is in a bucket.
    let bucket = Place::bucket();
    let mut collected = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_BSP_SCHEDULE_DELAY", "500".to_owned()),
        ("FLAKEFARM_LOG_FORMAT", "json".to_owned()),
        ("FLAKEFARM_BLOBS", bucket.address()),
    ];
    let of_bucket: Vec<(String, String)> =
        bucket.settings().into_iter().map(|(key, value)| (key.to_ascii_uppercase(), value)).collect();
    collected.extend(of_bucket.iter().map(|(key, value)| (key.as_str(), value.clone())));
    let mut farm = Farm::start();
    farm.coordinator = None;
    farm.start_coordinator_with(&collected);
    let mut of_worker = collected.clone();
    of_worker.push(("FLAKEFARM_HEALTH_LISTEN", "127.0.0.1:0".to_owned()));
    farm.start_worker_with("seen", &of_worker);
    let health = wait_for("the worker's health is served", PATIENCE, || {
        let logs = farm.logs();
        let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let address = lines.filter_map(|line| Some(line["health.address"].as_str()?.to_owned())).next();
        address.ok_or(logs)
    });
    assert!(get(&health, "/healthz").starts_with("HTTP/1.1 200"), "{}", get(&health, "/healthz"));
    wait_for("the worker is ready", PATIENCE, || match get(&health, "/readyz") {
        ready if ready.starts_with("HTTP/1.1 200") => Ok(()),
        not => Err(not),
    });

    let tests = project(MIXED);
    let output =
        farm.sweep(tests.path(), &["--runs", "8", "--seed", "3", "--panel", "none"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), farm.logs());
    assert!(farm.dir.path().join("spool").is_dir(), "what a role keeps is in its state directory");
    let stored: Vec<_> = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(async { bucket.open().entries().try_collect().await.unwrap() });
    assert!(stored.len() >= 3, "a snapshot, a listing, a report: {stored:?}");
    let sweep: Uuid = report(&output)["sweep"]["id"].as_str().unwrap().parse().unwrap();

    every_metric_exists_and_moves(&farm, &health);
    status_and_doctor_say_it(&farm);
    hostile_requests_end(&health);
    the_worker_drains(&mut farm, &health);

    // What is left is sent when a process ends.
    let coordinator = farm.coordinator.as_mut().unwrap();
    coordinator.signal("TERM");
    assert!(coordinator.0.wait().unwrap().success(), "{}", farm.logs());
    let sent = sent.lock().unwrap();
    let bodies =
        |path: &str| sent.iter().filter(|(of, _)| of == path).map(|(_, body)| body).collect::<Vec<_>>();
    let has = |body: &[u8], what: &[u8]| body.windows(what.len()).any(|window| window == what);
    let traces = bodies("/v1/traces");
    let of = |service: &str, what: &[u8]| {
        traces
            .iter()
            .any(|body| has(body, service.as_bytes()) && has(body, sweep.as_bytes()) && has(body, what))
    };
    assert!(of("flakefarm-coordinator", b"cicd.pipeline.run.id"), "the sweep has a span");
    assert!(
        of("flakefarm-worker", b"flakefarm.attempt"),
        "jobs have spans that link to it, attempts are events"
    );
    let logs = bodies("/v1/logs");
    assert!(
        logs.iter().any(|body| has(body, b"sweep ended") && has(body, sweep.as_bytes())),
        "lines have ids"
    );
    // On standard error, too, and each says who wrote it.
    let written = farm.logs();
    let lines: Vec<Value> = written.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(
        lines.iter().any(|line| line["message"] == "job starts" && line["sweep.id"] == sweep.to_string())
    );
    let nobodys = |line: &&Value| line["worker.id"].is_null() && line["coordinator.id"].is_null();
    let early: Vec<&Value> = lines.iter().filter(nobodys).collect();
    assert!(early.len() <= 4, "lines before a process has a name: {early:?}");
}

/// All that the catalogue, the alerts and the dashboard name exists, and what a sweep does is counted.
fn every_metric_exists_and_moves(farm: &Farm, health: &str) {
    let address = farm.url.trim_start_matches("http://");
    let (coordinator, worker) = (get(address, "/metrics"), get(health, "/metrics"));
    for metric in CATALOGUE {
        let line = format!("# TYPE {} {}\n", metric.name, metric.kind.word());
        let owners = match metric.owner {
            Owner::Both => vec![&coordinator, &worker],
            Owner::Coordinator => vec![&coordinator],
            Owner::Worker => vec![&worker],
        };
        for text in owners {
            assert!(text.contains(&line), "{}", metric.name);
        }
    }
    let mut named = BTreeSet::new();
    names_in(&repository().join("deploy/kubernetes"), &mut named);
    for name in named {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let known = |name: &str| CATALOGUE.iter().any(|metric| metric.name == name);
        assert!(known(&name) || base.is_some_and(known), "{name} is in deploy/kubernetes and is nobody's");
    }
    let (of_coordinator, of_worker) = (samples(&coordinator), samples(&worker));
    for (samples, name, labels) in [
        (&of_coordinator, "flakefarm_publications_total", "result=\"confirmed\""),
        (&of_coordinator, "flakefarm_jobs_ended_total", "end=\"done\""),
        (&of_coordinator, "flakefarm_worker_messages_total", "kind=\"beat\""),
        (&of_coordinator, "flakefarm_worker_messages_total", "kind=\"ended\""),
        (&of_coordinator, "flakefarm_sweeps_ended_total", "state=\"answered\""),
        (&of_coordinator, "flakefarm_farm_slots", ""),
        (&of_coordinator, "flakefarm_lease_held", "lease=\"work\""),
        (&of_coordinator, "flakefarm_up", "store=\"database\""),
        (&of_coordinator, "flakefarm_up", "store=\"queue\""),
        (&of_coordinator, "flakefarm_database_bytes", ""),
        (&of_coordinator, "flakefarm_http_request_seconds_count", "route=\"/v1/sweeps\",status=\"2xx\""),
        (&of_coordinator, "flakefarm_store_request_seconds_count", "store=\"database\""),
        (&of_coordinator, "flakefarm_store_request_seconds_count", "operation=\"publish\""),
        (&of_coordinator, "flakefarm_store_request_seconds_count", "store=\"blobs\""),
        (&of_coordinator, "process_resident_memory_bytes", ""),
        (&of_coordinator, "flakefarm_build_info", "role=\"coordinator\""),
        (&of_worker, "flakefarm_slots", ""),
        (&of_worker, "flakefarm_attempts_total", "outcome=\"completed\""),
        (&of_worker, "flakefarm_samples_total", "result=\"new\""),
        (&of_worker, "flakefarm_phase_seconds_count", "phase=\"environment\""),
        (&of_worker, "flakefarm_phase_seconds_count", "phase=\"sandbox_start\""),
        (&of_worker, "flakefarm_phase_seconds_count", "phase=\"run\""),
        (&of_worker, "flakefarm_phase_seconds_count", "phase=\"report\""),
        (&of_worker, "flakefarm_store_request_seconds_count", "operation=\"append\""),
        (&of_worker, "flakefarm_worker_jobs_total", "end=\"done\""),
        (&of_worker, "flakefarm_beats_total", "result=\"sent\""),
        (&of_worker, "process_open_fds", ""),
    ] {
        assert!(sum(samples, name, labels) > 0.0, "{name}{{{labels}}} has not moved:\n{samples:#?}");
    }
    for text in [&coordinator, &worker] {
        assert!(!text.contains("test_mixed") && !text.contains("mixed.py"), "no test is a label");
    }
}

fn status_and_doctor_say_it(farm: &Farm) {
    let run = |arguments: &[&str]| {
        let mut command = command(farm.dir.path());
        command.args(arguments).args(["--farm", &farm.url, "--token", &farm.token]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let status: Value = serde_json::from_str(&run(&["status", "--format", "json"])).unwrap();
    assert_eq!(status["workers"].as_array().unwrap().len(), 1, "{status:#}");
    assert_eq!((status["running"].as_u64(), status["queues"].as_array().unwrap().len()), (Some(0), 2));
    assert!(status["stores"].as_array().unwrap().iter().all(|store| store["error"].is_null()), "{status:#}");
    assert_eq!(status["schema"], status["schema_known"]);
    let shown = run(&["status"]);
    for section in ["stores", "queues", "workers", "sweeps", "errors", "trust", "loops"] {
        assert!(shown.lines().any(|line| line.starts_with(section)), "{section} in\n{shown}");
    }
    let doctor = run(&["doctor"]);
    assert!(doctor.contains("ok    workers: 1 with 1 slots"), "{doctor}");
    assert!(doctor.contains("ok    clock: within 5 s of the farm's"), "{doctor}");
}

/// Neither nonsense nor silence nor length keeps others from being answered.
fn hostile_requests_end(health: &str) {
    let silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(health).unwrap()).collect();
    for (request, status) in [
        (b"\x16\x03\x01\x02\x00\n\n".as_slice(), "400"),
        (b"DELETE / HTTP/1.1\r\n\r\n", "405"),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", "405"),
    ] {
        let answer = ask(health, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    let long = ask(health, &[b"GET /healthz HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 1 << 20]].concat());
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431"), "{long}");
    assert!(get(health, "/healthz").starts_with("HTTP/1.1 200"));
    drop(silent);
}

/// Told to drain, a worker answers at once, takes no more jobs and ends by itself.
fn the_worker_drains(farm: &mut Farm, health: &str) {
    assert!(get(health, "/drain").contains("\"draining\":false"));
    let output = command(farm.dir.path()).args(["probe", "drain", "--at", health]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let mut worker = farm.workers.remove(0);
    // As the kubelet does once the hook before it has ended: told a second way, it is not told twice.
    worker.signal("TERM");
    let ended = worker.0.wait().unwrap();
    assert!(ended.success(), "{ended}: {}", farm.logs());
    let output = command(farm.dir.path()).args(["probe", "healthz", "--at", health]).output().unwrap();
    assert_eq!(output.status.code(), Some(70), "{}", said(&output));
}
