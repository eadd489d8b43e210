//! Every sandbox level against the laws of `contract::sandbox` and, where it claims to isolate, of
//! `contract::hostile`, on the engine at DOCKER_HOST; and the environments made there. Each test is a worker of its own and asserts that nothing carrying
//! its name is left. The image is `FLAKEFARM_TEST_IMAGE`, by default `flakefarm-base:bookworm`.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use flakefarm_project::config::LoadedProject;
use flakefarm_project::snapshot;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::{SandboxLevel, SweepContext, WIRE_VERSION, WorkerId};
use flakefarm_tests::contract::hostile;
use flakefarm_tests::contract::sandbox::{self as laws, Level};
use flakefarm_worker::environment::{Environments, LocalPlaces};
use flakefarm_worker::sandbox::{DockerSandbox, Engine, EngineUnavailable, LocalSandbox, Sandbox};
use futures::FutureExt as _;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};
use uuid::Uuid;

#[path = "sandbox_contract/environments.rs"]
mod environments;
#[path = "sandbox_contract/forks.rs"]
mod forks;
#[path = "sandbox_contract/pool.rs"]
mod pool;

/// Tests of laws at one level, by a function that holds it to them.
macro_rules! laws_at {
    ($module:ident, $level:expr, $($source:ident: $($law:ident)*;)*) => {
        mod $module {
            use super::*;
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $law() {
                    at($level, async |level: &Level| $source::$law(level).await).await;
                }
            )*)*
        }
    };
}

/// What every level owes.
macro_rules! reporting_at {
    ($module:ident, $level:expr) => {
        laws_at! { $module, $level, laws:
            lines_arrive_in_order
            lines_arrive_while_the_program_runs
            long_lines_are_cut
            exit_codes_are_reported
            standard_error_is_bounded
            standard_input_is_delivered
            unread_standard_input_does_no_harm
            kill_ends_it
            what_is_announced_follows
            what_is_announced_may_be_left
            the_last_resort_deadline_ends_it
            variables_are_set
            giving_up_a_read_loses_nothing
            giving_up_a_start_leaves_nothing
            a_missing_image_is_an_infrastructure_error
        ; }
    };
}

/// What every level owes that claims to isolate.
macro_rules! isolation_at {
    ($module:ident, $level:expr) => {
        laws_at! { $module, $level,
        laws:
            out_of_memory_is_flagged
            fork_bombs_are_contained
            the_network_is_loopback_only
            only_scratch_is_writable
            scratch_is_limited
            attempts_share_nothing
            privileges_are_dropped
            what_found_no_route_is_counted
        ; hostile:
            what_outlives_its_test_ends_with_it
            signals_reach_nobody_else
            the_kernel_grants_nothing
            links_lead_nowhere_new
            no_engine_can_be_reached
            shared_memory_and_queues_are_its_own
            abstract_sockets_are_its_own
            a_memory_hog_is_charged_alone
            a_full_disk_is_its_own
            memory_left_in_files_is_charged_alone
            a_flood_is_held_back
            the_metadata_address_is_out_of_reach
        ; }
    };
}

reporting_at!(container_reports, SandboxLevel::Container);
reporting_at!(nested_reports, SandboxLevel::Nested);
reporting_at!(forked_reports, SandboxLevel::Forked);
reporting_at!(host_reports, SandboxLevel::Host);
reporting_at!(process_reports, SandboxLevel::Process);
isolation_at!(container_isolates, SandboxLevel::Container);
isolation_at!(nested_isolates, SandboxLevel::Nested);
isolation_at!(forked_isolates, SandboxLevel::Forked);
isolation_at!(host_isolates, SandboxLevel::Host);

// A container's user is named in the image that environments make, not in the bare one here.
laws_at! { nested_user, SandboxLevel::Nested, laws: the_user_has_a_name ; }
laws_at! { forked_user, SandboxLevel::Forked, laws: the_user_has_a_name ; }
laws_at! { host_user, SandboxLevel::Host, laws: the_user_has_a_name ; }

/// Holds a level to a law, and asserts that nothing is left of it.
async fn at(level: SandboxLevel, law: impl AsyncFnOnce(&Level)) {
    match level {
        SandboxLevel::Container | SandboxLevel::Nested | SandboxLevel::Forked => on_docker(level, law).await,
        SandboxLevel::Host | SandboxLevel::Process => on_this_machine(level, law).await,
    }
}

/// Without an engine; the place that attempts run in is prepared as a sweep does it.
async fn on_this_machine(level: SandboxLevel, law: impl AsyncFnOnce(&Level)) {
    let project = tempfile::tempdir().unwrap();
    std::fs::write(project.path().join("test_a.py"), "def test_a(): pass\n").unwrap();
    let state = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&format!("file://{}", state.path().join("blobs").display())).unwrap();
    let archive = snapshot::archive(project.path()).unwrap();
    let mut spec = LoadedProject::load(project.path(), None, &[]).unwrap().spec;
    spec.environment.setup = Vec::new();
    let snapshot = blobs.put(archive.bytes).await.unwrap();
    let context = SweepContext {
        v: WIRE_VERSION,
        project: spec,
        snapshot,
        revision: None,
        under: flakefarm_shared::World::Plain,
        typed: flakefarm_shared::Typed::default(),
    };
    let environments = Environments::Local(LocalPlaces::new(state.path().join("places"), blobs));
    let image = environments.prepare(&context, &context.snapshot, &[], |_| {}).await.unwrap().image_id;
    let local = LocalSandbox::new(level).unwrap();
    if let Err(why) = local.check().await {
        panic!("{why}; hint: user namespaces must be allowed (sysctl user.max_user_namespaces)");
    }
    let level = Level::new(Sandbox::Local(local), level, new_worker(), image);
    law(&level).await;
    level.job.close().await;
    level.sandbox.close().await;
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

async fn on_docker(level: SandboxLevel, law: impl AsyncFnOnce(&Level)) {
    let worker = new_worker();
    let sandbox = Sandbox::Docker(DockerSandbox::new(engine(&worker).await));
    let level = Level::new(sandbox, level, worker.clone(), image());
    let result = AssertUnwindSafe(law(&level)).catch_unwind().await;
    level.job.close().await;
    level.sandbox.close().await;
    let left = left(&worker).await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
    assert_eq!(left, [""; 0], "containers are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_container_is_removed() {
    on_docker(SandboxLevel::Container, async |level: &Level| {
        laws::a_dropped_sandbox_is_removed(level, || attempts(&level.worker)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_removes_what_was_dropped_just_before() {
    on_docker(SandboxLevel::Container, async |level: &Level| {
        let running = level.start("sleep 600").await;
        drop(running);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_removed_under_us_is_an_infrastructure_error() {
    on_docker(SandboxLevel::Container, async |level: &Level| {
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
    on_docker(SandboxLevel::Container, async |level: &Level| {
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
    Box::pin(on_docker(SandboxLevel::Container, async |level: &Level| {
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
    }))
    .await;
}
