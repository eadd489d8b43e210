//! Containers kept ready: they obey the same laws, each serves one attempt, and none outlives its
//! owner, however that ends.

use super::{at, containers_with, engine, new_worker};
use flakefarm_shared::{SandboxLevel, WorkerId};
use flakefarm_tests::contract::sandbox::{self as laws, Level};
use flakefarm_tests::eventually::eventually;
use flakefarm_tests::harness::{Process, command, project};
use flakefarm_worker::sandbox::{DockerSandbox, Sandbox, ToCome};
use std::num::NonZeroU16;
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn docker(level: &Level) -> &DockerSandbox {
    match &level.sandbox {
        Sandbox::Docker(docker) => docker,
        other => panic!("{other:?} keeps nothing ready"),
    }
}

/// Keeps two containers of the laws' shape ready, and waits for them.
async fn warm(level: &Level) {
    let request = level.request(&["true"]);
    docker(level).keep_ready(&request.image, &request.limits, NonZeroU16::new(2).unwrap(), ToCome::Many);
    ready(level, 2).await;
}

async fn ready(level: &Level, count: usize) {
    eventually("so many containers are ready", PATIENCE, || async {
        let ready = docker(level).ready();
        if ready == count { Ok(()) } else { Err(format!("{ready} of {count}")) }
    })
    .await;
}

async fn kept(worker: &WorkerId) -> Vec<String> {
    let labels = [format!("dev.flakefarm.worker={worker}"), "dev.flakefarm.role=ready".to_owned()];
    containers_with(labels.to_vec()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_container_serves_one_attempt_and_is_replaced() {
    at(SandboxLevel::Container, async |level: &Level| {
        warm(level).await;
        let before = kept(&level.worker).await;
        let (lines, exit) = level.run(level.request(&["sh", "-c", "echo it\\'s \"$HOME\"; exit 4"])).await;
        assert_eq!((lines, exit.exit_code), (vec!["it's /tmp/home".to_owned()], 4));
        ready(level, 2).await;
        eventually("the one that served is gone", PATIENCE, || async {
            let now = kept(&level.worker).await;
            let served: Vec<_> = before.iter().filter(|name| !now.contains(name)).collect();
            if served.len() == 1 { Ok(()) } else { Err(format!("{before:?}, then {now:?}")) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_in_ready_containers_obey_the_laws() {
    at(SandboxLevel::Container, async |level: &Level| {
        warm(level).await;
        laws::privileges_are_dropped(level).await;
        ready(level, 2).await;
        laws::variables_are_set(level).await;
        ready(level, 2).await;
        laws::standard_input_is_delivered(level).await;
        ready(level, 2).await;
        laws::exit_codes_are_reported(level).await;
        ready(level, 2).await;
        laws::attempts_share_nothing(level).await;
        ready(level, 2).await;
        laws::out_of_memory_is_flagged(level).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_shape_gets_a_container_of_its_own() {
    at(SandboxLevel::Container, async |level: &Level| {
        warm(level).await;
        let mut request = level.request(&["sh", "-c", "ulimit -u > /dev/null; echo own"]);
        request.limits.memory_bytes *= 2;
        let (lines, _) = level.run(request).await;
        assert_eq!(lines, ["own"]);
        assert_eq!(docker(level).ready(), 2);
    })
    .await;
}

/// Killed, a process can remove nothing: what it kept ready ends by itself and is found by its label.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_kept_ready_ends_and_is_removed_by_label() {
    let project = project(&[
        ("flakefarm.toml", "[environment]\nsetup = [\"python3 -c 'import pytest'\"]\n"),
        ("test_slow.py", "import time\ndef test_slow(): time.sleep(600)\n"),
    ]);
    let state = tempfile::tempdir().unwrap();
    let child = command(state.path())
        .args(["sweep", "--interactive", "--runs", "1", "--sandbox", "container"])
        .arg(project.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let worker = WorkerId(format!("embedded-{}", child.id()));
    let process = Process(child);
    eventually("something is kept ready", PATIENCE * 2, || async {
        if kept(&worker).await.is_empty() { Err("nothing".to_owned()) } else { Ok(()) }
    })
    .await;
    process.signal("KILL");
    drop(process);
    // Any worker's next start removes it, whatever that worker is called.
    let engine = engine(&new_worker()).await;
    engine.reap().await.unwrap();
    let left = containers_with(vec![format!("dev.flakefarm.worker={worker}")]).await;
    assert_eq!(left, [""; 0]);
    engine.close().await;
}
