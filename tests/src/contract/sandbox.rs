//! The laws of a sandbox, whatever its level: what it reports, what it holds back, and that
//! nothing is left of it. Programs are shell or Python, so the image needs both.

use crate::eventually::eventually;
use flakefarm_shared::{AttemptId, InfraError, JobId, Limits, SandboxLevel, SweepId, WorkerId};
use flakefarm_worker::frameworks::pytest;
use flakefarm_worker::sandbox::{
    JobSandbox, Preparation, RunningSandbox, Sandbox, SandboxExit, SandboxRequest, Started,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A sandbox level under test.
#[derive(Debug)]
pub struct Level {
    /// What offers the level.
    pub sandbox: Sandbox,
    /// The sandboxes of one job.
    pub job: JobSandbox,
    /// The level.
    pub level: SandboxLevel,
    /// The worker its sandboxes are labelled with.
    pub worker: WorkerId,
    /// An image with a shell and Python.
    pub image: String,
}

/// A prepared interpreter whose attempts become whatever program the first line of their input names,
/// so that forked attempts can be held to the laws of all others.
const FORK_SERVER: &str = r#"
import json, os, signal, sys, types
for name, source in json.load(sys.stdin):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
import flakefarm_forks

class Server(flakefarm_forks.ForkServer):
    def _settle(self, session):
        pass

    def _adopt(self, session, streams):
        pass

    def _first_line(self, pipe):
        # Each attempt reads its own, which says what is run.
        return ""

    def _become_attempt(self, streams):
        self._control.close()
        os.setsid()
        for fd, target in zip(streams, range(3)):
            os.dup2(fd, target)
        os.closerange(3, 64)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(0, 1)
        argv = json.loads(line)
        try:
            os.execvp(argv[0], argv)
        except OSError as error:
            os.write(2, f"{argv[0]}: {error}".encode())
            os._exit(127)

plugins = types.SimpleNamespace(getplugin=lambda name: None)
Server(flakefarm_forks.Held(), os._exit).serve(types.SimpleNamespace(config=types.SimpleNamespace(pluginmanager=plugins)))
"#;

impl Level {
    /// `level`, as `sandbox` offers it.
    pub fn new(sandbox: Sandbox, level: SandboxLevel, worker: WorkerId, image: String) -> Self {
        Self { job: sandbox.open_job(), sandbox, level, worker, image }
    }

    /// Starts a request at this level, and no other.
    pub async fn begin(&self, request: SandboxRequest) -> Result<RunningSandbox, InfraError> {
        let (request, preparation) = self.prepared(request);
        let Started { running, level, instead } =
            self.job.start(request, self.level, preparation.as_ref()).await?;
        assert_eq!((level, instead), (self.level, None));
        Ok(running)
    }

    /// Says that `next` is to follow.
    pub async fn announce(&self, running: &mut RunningSandbox, next: &SandboxRequest) {
        let (next, preparation) = self.prepared(next.clone());
        self.job.announce(running, &next, self.level, preparation.as_ref()).await;
    }

    fn prepared(&self, mut request: SandboxRequest) -> (SandboxRequest, Option<Preparation>) {
        match self.level {
            SandboxLevel::Forked => {
                let mut input = serde_json::to_vec(&request.argv).expect("plain data serialises");
                input.push(b'\n');
                input.append(&mut request.stdin);
                request.stdin = input;
                (request, Some(fork_server()))
            }
            SandboxLevel::Container | SandboxLevel::Nested | SandboxLevel::Host | SandboxLevel::Process => {
                (request, None)
            }
        }
    }

    /// A request to run `argv` within small limits.
    pub fn request(&self, argv: &[&str]) -> SandboxRequest {
        let limits =
            Limits { memory_bytes: 256 << 20, scratch_bytes: 64 << 20, pids: 64, ..Limits::default() };
        SandboxRequest {
            image: self.image.clone(),
            argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
            stdin: Vec::new(),
            variables: BTreeMap::new(),
            user: flakefarm_worker::conditions::USER,
            limits,
            attempt: AttemptId { job: JobId::new(), index: 0 },
            sweep: SweepId::new(),
            worker: self.worker.clone(),
        }
    }

    /// Starts a shell script.
    pub async fn start(&self, script: &str) -> RunningSandbox {
        self.begin(self.request(&["sh", "-c", script])).await.expect("starts")
    }

    /// Starts a Python program.
    pub async fn start_python(&self, program: &str) -> RunningSandbox {
        self.begin(self.request(&["python3", "-c", program])).await.expect("starts")
    }

    /// Runs a request to its end.
    pub async fn run(&self, request: SandboxRequest) -> (Vec<String>, SandboxExit) {
        let running = self.begin(request).await.expect("starts");
        watch(running).await
    }

    /// Runs a shell script to its end.
    pub async fn shell(&self, script: &str) -> (Vec<String>, SandboxExit) {
        self.run(self.request(&["sh", "-c", script])).await
    }

    /// Runs a Python program to its end.
    pub async fn python(&self, program: &str) -> (Vec<String>, SandboxExit) {
        self.run(self.request(&["python3", "-c", program])).await
    }
}

fn fork_server() -> Preparation {
    // Each imports only those before it.
    let names = ["flakefarm_channel", "flakefarm_descriptors", "flakefarm_quick_fork", "flakefarm_forks"];
    let files = pytest::ADAPTER.files();
    let source = |name: &str| {
        let file = files.iter().find(|(file, _)| file.strip_suffix(".py") == Some(name));
        file.expect("a file of the plugin").1
    };
    let modules = names.map(|name| (name, source(name)));
    Preparation {
        argv: ["python3", "-c", FORK_SERVER].map(str::to_owned).to_vec(),
        input: serde_json::to_string(&modules).expect("plain data serialises"),
        attempts: usize::MAX,
    }
}

/// Every line of a sandbox, and how it ended.
pub async fn watch(mut running: RunningSandbox) -> (Vec<String>, SandboxExit) {
    let mut lines = Vec::new();
    while let Some(line) = running.next_line().await {
        lines.push(String::from_utf8_lossy(&line).into_owned());
    }
    (lines, running.finish().await.expect("ends"))
}

/// Lines come in order, complete, the last one without a newline too.
pub async fn lines_arrive_in_order(level: &Level) {
    let (lines, exit) = level.shell("seq 1 20000; printf end").await;
    let expect: Vec<String> = (1..=20_000).map(|n| n.to_string()).chain(["end".to_owned()]).collect();
    assert!(lines == expect, "{} lines, last {:?}", lines.len(), lines.last());
    assert_eq!(exit.exit_code, 0);
}

/// A line can be read before the program ends.
pub async fn lines_arrive_while_the_program_runs(level: &Level) {
    let mut running = level.start("echo early; sleep 60").await;
    let line = tokio::time::timeout(Duration::from_secs(30), running.next_line()).await;
    assert_eq!(line.expect("in time"), Some(b"early".to_vec()));
    running.kill().await;
    running.finish().await.expect("ends");
}

/// A line is cut after 1 MiB, and the next one is whole.
pub async fn long_lines_are_cut(level: &Level) {
    let (lines, _) = level.python("print('x' * (3 << 20)); print('next')").await;
    assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [1 << 20, 4]);
}

/// Exit codes are the program's own; a signal's end is 128 + n.
pub async fn exit_codes_are_reported(level: &Level) {
    for (script, expect) in
        [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -SEGV $$", 139), ("kill -TERM $$", 143)]
    {
        let (_, exit) = level.shell(script).await;
        assert_eq!((exit.exit_code, exit.oom_killed, exit.timed_out), (expect, false, false), "{script}");
    }
    let (_, exit) = level.run(level.request(&["no-such-program"])).await;
    assert_eq!(exit.exit_code, 127);
    assert!(exit.output.to_text().contains("no-such-program"), "{}", exit.output.to_text());
}

/// Standard error is kept as head and tail with a note of what is missing.
pub async fn standard_error_is_bounded(level: &Level) {
    let program =
        "import sys\nsys.stderr.write('HEAD')\nsys.stderr.write('x' * 20_000_000)\nsys.stderr.write('TAIL')";
    let (_, exit) = level.python(program).await;
    let text = exit.output.to_text();
    assert_eq!(exit.output.total_bytes(), 20_000_008);
    assert!(
        text.starts_with("HEADx") && text.ends_with("xTAIL") && text.len() < 200_000,
        "{} bytes",
        text.len()
    );
    let left_out = exit.output.left_out_bytes();
    assert!(text.contains(&format!("[{left_out} bytes left out]")));
}

/// Standard input is delivered whole, even to a program that writes as much while it reads.
pub async fn standard_input_is_delivered(level: &Level) {
    let mut request =
        level.request(&["sh", "-c", "tee /tmp/copy; echo; md5sum < /tmp/copy; wc -c < /tmp/copy"]);
    request.stdin =
        (0..1 << 20).map(|n: u32| if n % 64 == 63 { b'\n' } else { b'a' + (n % 23) as u8 }).collect();
    let sent = request.stdin.clone();
    let (lines, exit) = level.run(request).await;
    assert_eq!(exit.exit_code, 0);
    let echoed: Vec<&str> = std::str::from_utf8(&sent).expect("ascii").lines().collect();
    assert!(lines[..echoed.len()] == echoed, "the echo differs");
    assert_eq!(lines.last().map(String::as_str), Some("1048576"));
}

/// A program that does not read its input ends as it likes.
pub async fn unread_standard_input_does_no_harm(level: &Level) {
    let mut request = level.request(&["sh", "-c", "echo done; exit 4"]);
    request.stdin = vec![b'x'; 4 << 20];
    let (lines, exit) = level.run(request).await;
    assert_eq!((lines, exit.exit_code), (vec!["done".to_owned()], 4));
}

/// A kill ends every process.
pub async fn kill_ends_it(level: &Level) {
    let mut running = level.start("trap '' TERM INT; sleep 600 & echo up; wait; sleep 600").await;
    assert_eq!(running.next_line().await, Some(b"up".to_vec()));
    let asked = Instant::now();
    running.kill().await;
    assert_eq!(running.next_line().await, None);
    let exit = running.finish().await.expect("ends");
    assert_eq!((exit.exit_code, exit.oom_killed), (137, false));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

/// What is announced follows, at once where attempts share a nest; the end of the one before is not its own.
pub async fn what_is_announced_follows(level: &Level) {
    let script = |script: &str| level.request(&["sh", "-c", script]);
    let mut first = level.begin(script("echo first; exec sleep 60")).await.expect("starts");
    assert_eq!(first.next_line().await.as_deref(), Some(&b"first"[..]));
    let seconds = unique_seconds(level);
    let second = script(&format!("echo second; exec sleep {seconds}"));
    level.announce(&mut first, &second).await;
    first.kill().await;
    assert_eq!(first.finish().await.expect("ends").exit_code, 137);
    match level.level {
        SandboxLevel::Nested | SandboxLevel::Forked | SandboxLevel::Host => {
            eventually("what was announced runs before it is started", Duration::from_secs(60), || async {
                if sleeps(&seconds) { Ok(()) } else { Err("it does not".to_owned()) }
            })
            .await;
        }
        SandboxLevel::Container | SandboxLevel::Process => {}
    }
    let mut second = level.begin(second).await.expect("starts");
    assert_eq!(second.next_line().await.as_deref(), Some(&b"second"[..]));
    second.kill().await;
    assert_eq!(second.finish().await.expect("ends").exit_code, 137);
}

/// Who announces one attempt and starts another gets the other.
pub async fn what_is_announced_may_be_left(level: &Level) {
    let mut first = level.start("echo first").await;
    level.announce(&mut first, &level.request(&["sh", "-c", "echo announced; exec sleep 60"])).await;
    assert_eq!(watch(first).await.0, ["first"]);
    assert_eq!(level.shell("echo other").await.0, ["other"]);
}

/// Nobody kills it: the attempt's own limit does, soon after.
pub async fn the_last_resort_deadline_ends_it(level: &Level) {
    let mut request = level.request(&["sleep", "600"]);
    request.limits.attempt_timeout_ms = 500;
    let (_, exit) = level.run(request).await;
    assert_eq!((exit.exit_code, exit.timed_out), (137, true));
}

/// The memory limit is told apart from any other end, for the program and for its children.
pub async fn out_of_memory_is_flagged(level: &Level) {
    let bomb = "b = []\nwhile True: b.append(bytearray(16 << 20))";
    let (_, exit) = level.python(bomb).await;
    assert_eq!((exit.exit_code, exit.oom_killed), (137, true));
    let child =
        format!("import subprocess, sys; subprocess.run([sys.executable, '-c', {bomb:?}]); sys.exit(5)");
    let (_, exit) = level.python(&child).await;
    assert_eq!((exit.exit_code, exit.oom_killed), (5, true));
}

/// A fork bomb hits its limit and goes down with its sandbox.
pub async fn fork_bombs_are_contained(level: &Level) {
    let program = "import os, time\ncount = 0\ntry:\n  while count < 1000:\n    if os.fork() == 0: time.sleep(600)\n    count += 1\nexcept OSError: pass\nprint(count)";
    let (lines, exit) = level.python(program).await;
    let count: u32 = lines[0].parse().expect("a number");
    assert!((10..=64).contains(&count), "{count} processes");
    assert_eq!(exit.exit_code, 0);
}

/// Only loopback is there, and it works, by name, too.
pub async fn the_network_is_loopback_only(level: &Level) {
    let program = "import os, socket\nprint(*sorted(os.listdir('/sys/class/net')))\ns = socket.create_server(('localhost', 0))\nprint(socket.gethostbyname(socket.gethostname()))\nsocket.create_connection(s.getsockname(), 5)\nfor host in ('1.1.1.1', '172.17.0.1'):\n  try: socket.create_connection((host, 53), 5); print('reached')\n  except OSError as e: print(type(e).__name__, e.errno)";
    let (lines, exit) = level.python(program).await;
    assert_eq!(lines, ["lo", "127.0.0.1", "OSError 101", "OSError 101"], "{}", exit.output.to_text());
}

/// What a test, or a program that it starts, asks of a network that is not there is counted where the test can
/// be told to have asked, and nobody else's is.
pub async fn what_found_no_route_is_counted(level: &Level) {
    let program = "import socket, subprocess, sys
def count():
    names, values = [line.split() for line in open('/proc/self/net/snmp') if line.startswith('Ip:')][:2]
    return int(values[names.index('OutNoRoutes')])
print(count())
child = \"import socket; socket.create_connection(('192.0.2.1', 443), 5)\"
subprocess.run([sys.executable, '-c', child], stderr=subprocess.DEVNULL)
print(count())
try: socket.getaddrinfo('example.com', 443)
except OSError: pass
print(count() > 1)
service = socket.create_server(('localhost', 0))
socket.create_connection(service.getsockname(), 5)
print(count() > 1)";
    for _ in 0..2 {
        let (lines, exit) = level.python(program).await;
        assert_eq!(lines, ["0", "1", "True", "True"], "{}", exit.output.to_text());
    }
}

/// The user has a name, a group and a home, by every way to ask for them.
pub async fn the_user_has_a_name(level: &Level) {
    let program = "import getpass, grp, os, pwd
entry = pwd.getpwuid(os.getuid())
print(bool(getpass.getuser()), bool(entry.pw_name), bool(grp.getgrgid(os.getgid()).gr_name))
print(bool(os.environ['USER']), os.environ['USER'] == os.environ['LOGNAME'])
print(os.path.isdir(os.path.expanduser('~')), os.access(os.environ['HOME'], os.W_OK))";
    let (lines, exit) = level.python(program).await;
    assert_eq!(lines, ["True True True", "True True", "True True"], "{}", exit.output.to_text());
}

/// The image is read-only; work, scratch and home can be written to, and run from.
pub async fn only_scratch_is_writable(level: &Level) {
    let script =
        "for d in / /usr /etc /var /opt /flakefarm; do touch $d/x 2> /dev/null && echo \"wrote $d\"; done
        for d in /work /tmp /run /dev/shm \"$HOME\"; do touch $d/x || echo \"no $d\"; done
        printf '#!/bin/sh\\necho ran\\n' > /tmp/run.sh; chmod +x /tmp/run.sh; /tmp/run.sh; pwd";
    let (lines, exit) = level.shell(script).await;
    assert_eq!(lines, ["ran", "/work"], "{}", exit.output.to_text());
}

/// Scratch space has an end.
pub async fn scratch_is_limited(level: &Level) {
    let (lines, _) = level.shell("head -c 100000000 /dev/zero > /tmp/big 2> /dev/null || echo full").await;
    assert_eq!(lines, ["full"]);
}

/// Attempts cannot see one another's files or processes, one after the other or at once.
pub async fn attempts_share_nothing(level: &Level) {
    let mut first = level
        .start("for d in /work /tmp /run /dev/shm; do echo mine > $d/mark; done; echo ready; sleep 600")
        .await;
    assert_eq!(first.next_line().await, Some(b"ready".to_vec()));
    let look = "cat /work/mark /tmp/mark /run/mark /dev/shm/mark 2> /dev/null; grep -l 600 /proc/[0-9]*/cmdline | grep -v self | wc -l";
    let (lines, _) =
        level.run(level.request(&["sh", "-c", "eval \"$1\"", "sh", &look.replace("600", "60[0]")])).await;
    assert_eq!(lines, ["0"]);
    first.kill().await;
    first.finish().await.expect("ends");
    let (lines, _) =
        level.shell("cat /work/mark /tmp/mark /run/mark /dev/shm/mark 2> /dev/null; echo none").await;
    assert_eq!(lines, ["none"]);
}

/// An ordinary user without any capability, who cannot get one.
pub async fn privileges_are_dropped(level: &Level) {
    let (lines, _) = level.shell("id -u; id -g; grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '; ulimit -c").await;
    let none = "0000000000000000";
    let expect = [
        "1000".to_owned(),
        "1000".to_owned(),
        format!("CapPrm: {none}"),
        format!("CapEff: {none}"),
        format!("CapBnd: {none}"),
        "NoNewPrivs: 1".to_owned(),
        "Seccomp: 2".to_owned(),
        "0".to_owned(),
    ];
    assert_eq!(lines, expect);
}

/// Variables reach the program; the image's own stay unless overridden.
pub async fn variables_are_set(level: &Level) {
    let mut request = level.request(&[
        "sh",
        "-c",
        "echo \"$GREETING\"; echo \"${HOME##*/}\"; test -n \"$PATH\" && echo path",
    ]);
    request.variables.insert("GREETING".to_owned(), "two words = three".to_owned());
    let (lines, _) = level.run(request).await;
    assert_eq!(lines, ["two words = three", "home", "path"]);
}

/// A read that was given up loses nothing.
pub async fn giving_up_a_read_loses_nothing(level: &Level) {
    let mut running = level
        .start("for n in $(seq 1 200); do echo line $n; done; sleep 0.3; seq 201 400 | sed 's/^/line /'")
        .await;
    let mut lines = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_micros(50), running.next_line()).await {
            Ok(Some(line)) => lines.push(String::from_utf8_lossy(&line).into_owned()),
            Ok(None) => break,
            Err(_) => {}
        }
    }
    running.finish().await.expect("ends");
    assert_eq!(lines, (1..=400).map(|n| format!("line {n}")).collect::<Vec<_>>());
}

/// Starting is given up at every possible moment; what was made is gone after closing.
pub async fn giving_up_a_start_leaves_nothing(level: &Level) {
    let seconds = unique_seconds(level);
    for patience_ms in [0, 1, 3, 10, 30, 60, 100, 150, 250] {
        let start = level.begin(level.request(&["sleep", &seconds]));
        let _ = tokio::time::timeout(Duration::from_millis(patience_ms), start).await;
    }
    eventually("nothing sleeps any more", Duration::from_secs(20), || async {
        match running_with(&seconds) {
            found if found.is_empty() => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
}

/// Some ten minutes that nobody else sleeps.
fn unique_seconds(level: &Level) -> String {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    format!("600.{}{}", began.subsec_nanos(), level.level as u8)
}

/// Whether a program sleeps for so long; a shell that only names it does not.
fn sleeps(seconds: &str) -> bool {
    running_with(seconds).iter().any(|line| line.trim_end() == format!("sleep {seconds}"))
}

/// Processes of this machine, those in its containers included, with an argument.
fn running_with(argument: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("a kernel that tells of processes");
    processes
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.split(' ').any(|word| word == argument))
        .collect()
}

/// A program that cannot be started for want of its image is an error, not an exit.
pub async fn a_missing_image_is_an_infrastructure_error(level: &Level) {
    let mut request = level.request(&["true"]);
    request.image = "flakefarm/no-such-image:0".to_owned();
    let error = level.begin(request).await.expect_err("no image");
    assert!(error.to_string().contains("No such image"), "{error}");
}

/// A dropped sandbox goes without anybody asking. `left` lists what is there.
pub async fn a_dropped_sandbox_is_removed<F, Fut>(level: &Level, left: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Vec<String>>,
{
    let mut running = level.start("echo up; sleep 600").await;
    running.next_line().await.expect("a line");
    assert_eq!(left().await.len(), 1);
    drop(running);
    eventually("the dropped sandbox is gone", Duration::from_secs(30), || async {
        let left = left().await;
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    })
    .await;
}
