//! pytest's prepared interpreters on the real engine: what attempts that are forked find. One request is
//! asked for again and again, so that each way from interpreter to attempt is taken, whatever the timing.

use super::environments::Bench;
use flakefarm_shared::{Detail, Order, Outcome, SandboxLevel, TestId, World};
use flakefarm_tests::contract::sandbox::watch;
use flakefarm_worker::frameworks::pytest;
use flakefarm_worker::frameworks::python::{self, RunRequest};
use flakefarm_worker::frameworks::reader::{Asked, AttemptReader, ExitSeen};
use flakefarm_worker::frameworks::seal::Nonce;
use flakefarm_worker::sandbox::{INTERPRETERS, Preparation, Started};
use std::collections::HashSet;
use std::time::Instant;

/// First each interpreter forks one attempt; then one of them is asked for the same again, and goes on.
const ATTEMPTS: usize = INTERPRETERS + 4;

/// What became of the tests in each attempt; all attempts are asked the same.
async fn attempts(files: &[(&str, &str)]) -> Vec<Vec<(TestId, Outcome)>> {
    let bench = Bench::new(files).await;
    let project = bench.project(bench.environment(&["python3 -c 'import pytest'"]));
    let plugin = pytest::ADAPTER.files();
    let plugin: Vec<_> = plugin.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    let (image, _) = bench.prepare_with(project.environment.clone(), &plugin).await.unwrap();
    let preparation = Preparation {
        argv: python::fork_server(&project),
        input: python::fork_server_request(&project),
        attempts: usize::MAX,
    };
    let asked =
        RunRequest::Run { tests: None, order: Order::Given, detail: Detail::Outcomes, world: World::Plain };
    let job = bench.level.sandbox.open_job();
    let mut outcomes = Vec::new();
    for _ in 0..ATTEMPTS {
        let nonce = Nonce::new();
        let mut request = bench.level.request(&[]);
        request.image.clone_from(&image);
        request.argv = python::argv(&project);
        request.stdin = python::request(&project, &asked, &nonce);
        let Started { running, level, instead } =
            job.start(request, SandboxLevel::Forked, Some(&preparation)).await.unwrap();
        assert_eq!((level, instead), (SandboxLevel::Forked, None));
        let (lines, exit) = watch(running).await;
        let mut reader = AttemptReader::new("pytest", nonce.clone(), Asked::Run(None), Instant::now());
        for line in &lines {
            reader.feed(line.as_bytes(), Instant::now());
        }
        let seen = ExitSeen { exit_code: exit.exit_code, oom: exit.oom_killed, timed_out: None };
        let reading = reader.conclude(seen, &exit.output.to_text());
        assert!(!reading.samples.is_empty(), "nothing ran: {:?}", reading.end);
        outcomes
            .push(reading.samples.into_iter().map(|read| (read.sample.test, read.sample.outcome)).collect());
    }
    job.close().await;
    bench.end().await;
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_for_forks_is_called_once_in_each_attempt_and_leaves_nothing_for_the_next() {
    let registered = "import os\n\
                      BEFORE, CHILD, PARENT = [], [], []\n\
                      os.register_at_fork(before=lambda: BEFORE.append(os.getpid()),\n    \
                          after_in_child=lambda: CHILD.append(os.getpid()),\n    \
                          after_in_parent=lambda: PARENT.append(os.getpid()))\n\
                      def test_called(): assert (len(BEFORE), CHILD, PARENT) == (1, [os.getpid()], [])\n";
    for (attempt, outcomes) in attempts(&[("test_registered.py", registered)]).await.iter().enumerate() {
        assert!(matches!(outcomes[..], [(_, Outcome::Pass)]), "attempt {attempt}: {outcomes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forked_attempts_have_random_numbers_and_names_of_their_own() {
    let told = "import random, tempfile\n\
                FIRST = (random.random(), tempfile.mktemp())\n\
                def test_number(): raise ValueError(str(random.random()))\n\
                def test_name(): raise ValueError(tempfile.mktemp())\n";
    let attempts = attempts(&[("test_told.py", told)]).await;
    let messages: Vec<&str> = attempts
        .iter()
        .flatten()
        .map(|(test, outcome)| match outcome {
            Outcome::Fail(failure) => failure.message.as_str(),
            Outcome::Pass | Outcome::Skip { .. } => panic!("{test}: {outcome:?}"),
        })
        .collect();
    assert_eq!(messages.len(), 2 * ATTEMPTS);
    // Two of seven equal by chance: 21 pairs of 53 bits, and 21 of eight letters out of 37, 6e-12 together.
    let different: HashSet<&str> = messages.iter().copied().collect();
    assert_eq!(different.len(), messages.len(), "{messages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interpreter_keeps_to_join_cells_is_good_for_nothing_else() {
    // conftest.py takes up the capability that the interpreter may, and tries what else that would allow.
    let conftest = "import ctypes, os\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)\n\
        data = (ctypes.c_uint32 * 6)()\n\
        PERMITTED = libc.capget(header, data) == 0 and bool(data[1] >> 21 & 1)\n\
        data[0] = 1 << 21\n\
        RAISED = libc.capset(header, data) == 0\n\
        GRANTED = [name for name, result in (\n    \
            ('mount', libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)),\n    \
            ('umount2', libc.umount2(b'/dev/shm', 2)),\n    \
            ('sethostname', libc.sethostname(b'x', 1)),\n    \
            ('unshare', libc.unshare(0x10000000)),\n    \
            ('pivot_root', libc.syscall(155 if os.uname().machine == 'x86_64' else 41, b'/tmp', b'/tmp')),\n\
        ) if result == 0]\n\
        data[0] = 0\n\
        libc.capset(header, data)\n";
    let test = "from conftest import GRANTED, PERMITTED, RAISED\n\
        def test_tried(): assert PERMITTED and RAISED\n\
        def test_granted(): assert GRANTED == []\n\
        def test_put_down():\n    \
            status = open('/proc/self/status').read()\n    \
            assert 'CapEff:\\t0000000000000000' in status and 'CapPrm:\\t0000000000000000' in status\n";
    for outcomes in attempts(&[("conftest.py", conftest), ("test_granted.py", test)]).await {
        assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Pass)), "{outcomes:?}");
    }
}
