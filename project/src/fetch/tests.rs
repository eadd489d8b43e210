use super::*;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A repository that a real `git daemon` serves on the loopback.
struct Served {
    directory: tempfile::TempDir,
    url: String,
    daemon: Child,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It answers each connection in a process of its own.
        let group = rustix::process::Pid::from_raw(i32::try_from(self.daemon.id()).unwrap()).unwrap();
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        self.daemon.wait().unwrap();
    }
}

/// A daemon on a port that is free: another is tried if somebody was faster.
fn daemon(base: &Path) -> (Child, u16) {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut daemon = Command::new("git");
        daemon.args(["daemon", "--export-all", "--listen=127.0.0.1", &format!("--port={port}")]);
        daemon
            .arg(format!("--base-path={}", base.display()))
            .arg(base)
            .process_group(0)
            .stderr(Stdio::null());
        let mut daemon = daemon.spawn().unwrap();
        while daemon.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return (daemon, port);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Answers each connection as `answer` does, until the process ends.
fn listen(answer: impl FnMut(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

impl Served {
    fn start(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().to_owned();
        let (daemon, port) = daemon(&base);
        let served = Self { directory, daemon, url: format!("git://127.0.0.1:{port}/work/.git") };
        std::fs::create_dir(served.work()).unwrap();
        served.shell("git init -q -b main .");
        served.shell(script);
        served
    }

    fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    fn shell(&self, script: &str) {
        let mut shell = Command::new("sh");
        shell.arg("-ec").arg(script).current_dir(self.work()).stdout(Stdio::null()).stderr(Stdio::null());
        shell.envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@example.org")]);
        shell.envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@example.org")]);
        assert!(shell.status().unwrap().success(), "{script}");
    }

    fn at(&self, revision: &str) -> Remote {
        Remote { url: self.url.clone(), revision: revision.to_owned(), directory: String::new() }
    }
}

fn fetched(remote: &Remote) -> Result<Fetched, FetchError> {
    fetch(remote, None, FetchLimits::default(), &AtomicBool::new(false))
}

fn content(fetched: &Fetched, path: &str) -> Option<String> {
    let files = snapshot::files(&fetched.archive).unwrap();
    files.get(Path::new(path)).map(|text| String::from_utf8_lossy(text).into_owned())
}

#[test]
fn branches_tags_commits_and_directories_are_fetched_and_what_is_left_out_is_said() {
    let served = Served::start(
        "echo one > a.py && mkdir -p sub/deep && echo '[project]' > sub/flakefarm.toml && echo s > sub/s.py
         git add . && git commit -qm 1 && git tag v1 && echo two > a.py && git commit -qam 2
         git checkout -qb side && echo side > a.py && git commit -qam 3 && git checkout -q main",
    );
    for (revision, text) in [("main", "two\n"), ("HEAD", "two\n"), ("side", "side\n"), ("v1", "one\n")] {
        let found = fetched(&served.at(revision)).unwrap();
        assert_eq!(content(&found, "a.py").as_deref(), Some(text), "{revision}");
        assert_eq!(found.archive.revision.as_deref(), Some(found.commit.as_str()));
        assert_eq!((found.commit.len(), &found.configuration, found.archive.warnings.len()), (40, &None, 0));
        if revision == "v1" {
            let again = fetched(&served.at(&found.commit)).unwrap();
            assert_eq!(again.archive.bytes, found.archive.bytes);
        }
        let asked = ask(&served.at(revision), None, FetchLimits::default(), &AtomicBool::new(false)).unwrap();
        assert!(revision == "v1" || asked == found.commit, "a tag may name an object of its own");
    }
    let within = |directory: &str| Remote { directory: directory.to_owned(), ..served.at("main") };
    let found = fetched(&within("sub/")).unwrap();
    assert_eq!(content(&found, "s.py").as_deref(), Some("s\n"));
    assert_eq!((content(&found, "a.py"), found.configuration.as_deref()), (None, Some(&b"[project]\n"[..])));
    assert!(matches!(fetched(&within("none")), Err(FetchError::NoDirectory { .. })));
    assert!(matches!(fetched(&within("a.py")), Err(FetchError::NoDirectory { .. })));
    assert!(matches!(fetched(&served.at("nowhere")), Err(FetchError::Unknown { .. })));
    assert!(matches!(fetched(&served.at(&"0".repeat(39)).clone()), Err(FetchError::Unknown { .. })));
    assert!(fetched(&served.at(&"1".repeat(40))).is_err());

    // The branch is another one altogether, and what it names lies elsewhere.
    served.shell(
        "git checkout -q --orphan other && echo three > a.py
         printf '[submodule \"x\"]\\n\\tpath = x\\n\\turl = file:///etc\\n' > .gitmodules
         printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%064d\\nsize 12345\\n' 7 > big.bin
         echo '*.bin filter=lfs diff=lfs merge=lfs -text' > .gitattributes
         ln -s /etc/passwd link && git add .
         git update-index --add --cacheinfo 160000,1111111111111111111111111111111111111111,x
         git commit -qm new && git branch -M other main",
    );
    let found = fetched(&served.at("main")).unwrap();
    assert_eq!(content(&found, "a.py").as_deref(), Some("three\n"));
    let said = found.archive.warnings.join("\n");
    assert!(said.contains("left out the submodule `x`") && said.contains("`big.bin`"), "{said}");
    assert!(said.contains("Git LFS") && said.contains("`link`"), "{said}");
}

#[test]
fn who_is_not_there_is_silent_or_says_too_much_is_left_in_time() {
    let limits = FetchLimits { bytes: 1 << 20, time: Duration::from_secs(2) };
    let asked = |port: u16| {
        let url = format!("git://127.0.0.1:{port}/x");
        let remote = Remote { url, revision: "main".to_owned(), directory: String::new() };
        let began = Instant::now();
        let found = fetch(&remote, None, limits, &AtomicBool::new(false)).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(30), "{found}");
        found
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(matches!(asked(closed), FetchError::Unreachable { .. }));
    let mut held = Vec::new();
    assert!(matches!(asked(listen(move |stream| held.push(stream))), FetchError::TooSlow { .. }));
    // Refs without end.
    let endless = listen(|mut stream| {
        std::thread::spawn(move || {
            let line = format!("{} refs/heads/{}\n", "1".repeat(40), "x".repeat(900));
            let packet = format!("{:04x}{line}", line.len() + 4).repeat(100);
            while io_write(&mut stream, packet.as_bytes()) {}
        });
    });
    let refused = asked(endless);
    assert!(matches!(refused, FetchError::TooSlow { .. } | FetchError::Unreachable { .. }), "{refused}");

    let served = Served::start("head -c 3000000 /dev/urandom > big && git add . && git commit -qm 1");
    let refused = fetch(&served.at("main"), None, limits, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(refused, FetchError::TooLarge { limit_bytes: 1_048_576, .. }), "{refused}");
    assert!(!refused.may_pass());
    let stopped = fetch(&served.at("main"), None, limits, &AtomicBool::new(true)).unwrap_err();
    assert!(matches!(stopped, FetchError::Stopped), "{stopped}");
}

fn io_write(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    std::io::Write::write_all(stream, bytes).is_ok()
}
