//! The container level against the laws of `contract::sandbox`, on the engine at DOCKER_HOST, and
//! the environments made there. Each test is a worker of its own and asserts that nothing carrying
//! its name is left. The image is `FLAKEFARM_TEST_IMAGE`, by default `flakefarm-base:bookworm`.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use flakefarm_shared::WorkerId;
use flakefarm_tests::contract::sandbox::{self as laws, Level};
use flakefarm_worker::sandbox::{DockerSandbox, Engine, EngineUnavailable, Sandbox};
use futures::FutureExt as _;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};
use uuid::Uuid;

#[path = "sandbox_contract/environments.rs"]
mod environments;

macro_rules! containers {
    ($($law:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $law() {
            on_docker(laws::$law).await;
        })*
    };
}

containers! {
    lines_arrive_in_order;
    lines_arrive_while_the_program_runs;
    long_lines_are_cut;
    exit_codes_are_reported;
    standard_error_is_bounded;
    standard_input_is_delivered;
    unread_standard_input_does_no_harm;
    kill_ends_it;
    the_last_resort_deadline_ends_it;
    out_of_memory_is_flagged;
    fork_bombs_are_contained;
    the_network_is_loopback_only;
    only_scratch_is_writable;
    scratch_is_limited;
    attempts_share_nothing;
    privileges_are_dropped;
    variables_are_set;
    giving_up_a_read_loses_nothing;
    giving_up_a_start_leaves_nothing;
    a_missing_image_is_an_infrastructure_error;
}

fn image() -> String {
    std::env::var("FLAKEFARM_TEST_IMAGE").unwrap_or_else(|_| "flakefarm-base:bookworm".to_owned())
}

fn docker() -> Docker {
    Docker::connect_with_defaults().unwrap()
}

async fn engine(worker: &WorkerId) -> Engine {
    let engine = Engine::connect(worker.clone()).unwrap();
    if let Err(error) = engine.check().await {
        panic!("{error}; hint: {}", error.hint());
    }
    engine
}

fn new_worker() -> WorkerId {
    WorkerId(format!("test-{}", Uuid::now_v7().simple()))
}

/// Names of the worker's containers, running or not.
async fn left(worker: &WorkerId) -> Vec<String> {
    containers_with(vec![format!("dev.flakefarm.worker={worker}")]).await
}

/// Names of those that hold attempts.
async fn attempts(worker: &WorkerId) -> Vec<String> {
    let labels = [format!("dev.flakefarm.worker={worker}"), "dev.flakefarm.role=attempt".to_owned()];
    containers_with(labels.to_vec()).await
}

async fn containers_with(labels: Vec<String>) -> Vec<String> {
    let filters = HashMap::from([("label", labels)]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = docker().list_containers(Some(options)).await.unwrap();
    found.into_iter().map(|container| container.names.unwrap_or_default().join(" ")).collect()
}

async fn on_docker(law: impl AsyncFnOnce(&Level)) {
    let worker = new_worker();
    let sandbox = Sandbox::Docker(DockerSandbox::new(engine(&worker).await));
    let level = Level { sandbox, worker: worker.clone(), image: image() };
    let result = AssertUnwindSafe(law(&level)).catch_unwind().await;
    level.sandbox.close().await;
    let left = left(&worker).await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
    assert_eq!(left, [""; 0], "containers are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_container_is_removed() {
    on_docker(async |level: &Level| {
        laws::a_dropped_sandbox_is_removed(level, || attempts(&level.worker)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_removes_what_was_dropped_just_before() {
    on_docker(async |level: &Level| {
        let running = level.start("sleep 600").await;
        drop(running);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_removed_under_us_is_an_infrastructure_error() {
    on_docker(async |level: &Level| {
        let mut running = level.start("echo up; sleep 600").await;
        running.next_line().await.unwrap();
        let name = attempts(&level.worker).await.remove(0);
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        docker().remove_container(name.trim_start_matches('/'), Some(options)).await.unwrap();
        assert_eq!(running.next_line().await, None);
        let error = running.finish().await.unwrap_err();
        assert!(error.to_string().contains("removed by somebody else"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reaping_removes_orphans_and_spares_what_is_known() {
    on_docker(async |level: &Level| {
        let mut known = level.start("echo up; sleep 600").await;
        known.next_line().await.unwrap();
        // A worker of the same name that died: its container is there, its process is not.
        let dead = Sandbox::Docker(DockerSandbox::new(engine(&level.worker).await));
        let orphan = dead.start(level.request(&["sleep", "600"])).await.unwrap();
        std::mem::forget(orphan);
        assert_eq!(attempts(&level.worker).await.len(), 2);
        // The attempt, and the lender of its hosts file.
        assert_eq!(level.sandbox.reap().await.unwrap(), 2);
        assert_eq!(level.sandbox.reap().await.unwrap(), 0);
        assert_eq!(attempts(&level.worker).await.len(), 1);
        known.kill().await;
        known.finish().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_engine_is_named_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix://{}", directory.path().join("absent.sock").display());
    let error = match Engine::connect_to(&address, new_worker()) {
        Ok(engine) => engine.check().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, EngineUnavailable::Silent { .. }));
    assert_eq!(error.to_string(), format!("no container engine answers at `{address}`"));
    assert_eq!(error.hint(), "start it, or point DOCKER_HOST at one");
}

/// Not a law: `cargo test -p flakefarm-tests --test sandbox_contract -- --ignored --nocapture rate`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn rate_of_empty_attempts_at_two_at_once() {
    on_docker(async |level: &Level| {
        const EACH: u32 = 30;
        let begun = Instant::now();
        let lane = async || {
            let mut slowest = Duration::ZERO;
            for _ in 0..EACH {
                let one = Instant::now();
                let (_, exit) = level.run(level.request(&["/bin/true"])).await;
                assert_eq!(exit.exit_code, 0);
                slowest = slowest.max(one.elapsed());
            }
            slowest
        };
        let slowest = tokio::join!(lane(), lane());
        let rate = f64::from(2 * EACH) / begun.elapsed().as_secs_f64();
        println!("{rate:.1} attempts/s at 2 at once, slowest {:?}", slowest.0.max(slowest.1));
    })
    .await;
}
