//! Sources of schedules from real servers of git: OpenSSH's, and git's own behind a server of the web, with
//! and without TLS. What opens them is read from a file, and stands in no message, log or argument.

#![expect(clippy::unwrap_used, reason = "tests may fail by panicking")]

use flakefarm_project::fetch::{Credentials, FetchError, FetchLimits, Fetched, Remote, fetch};
use flakefarm_project::snapshot;
use flakefarm_tests::eventually::wait_for;
use flakefarm_tests::farm::Farm;
use flakefarm_tests::harness::{Process, command, git, repository, said};
use flakefarm_tests::ports;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const PASSWORD: &str = "open-sesame-7f3a";

fn shell(directory: &Path, script: &str) {
    let output = Command::new("sh").arg("-ec").arg(script).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", said(&output));
}

/// A repository of a project that asks for little.
fn repository_in(directory: &Path) -> PathBuf {
    let root = directory.join("shop");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("test_it.py"), "def test_it(): pass\n").unwrap();
    std::fs::write(root.join("flakefarm.toml"), "[project]\nname = \"shop\"\n").unwrap();
    git(&root, "git init -q -b main . && git add . && git commit -qm one");
    root
}

/// OpenSSH's server, for one key of whoever runs the test.
struct Sshd {
    directory: PathBuf,
    user: String,
    port: u16,
    _server: Process,
}

impl Sshd {
    fn start(directory: &Path) -> Self {
        let directory = directory.join("ssh");
        std::fs::create_dir(&directory).unwrap();
        // deploy/dev/test installs it.
        let program = Path::new("/usr/sbin/sshd");
        assert!(program.exists(), "{} is missing: apt-get install openssh-server", program.display());
        for key in ["host", "user", "other"] {
            shell(&directory, &format!("ssh-keygen -q -t ed25519 -N '' -C {key} -f {key}"));
        }
        shell(&directory, "ssh-keygen -q -t ed25519 -N secret -C closed -f closed && cp user.pub authorized");
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap().trim().to_owned();
        if user == "root" {
            // Where it shuts away what has not said who it is.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let settings = format!(
            "HostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             SetEnv PATH={1}\n",
            directory.display(),
            std::env::var("PATH").unwrap(),
        );
        std::fs::write(directory.join("settings"), settings).unwrap();
        // Another port is tried if somebody was faster.
        loop {
            let port = ports::reserve();
            let log = std::fs::File::create(directory.join("log")).unwrap();
            let mut server = Command::new(program);
            server.args(["-D", "-e", "-o", "ListenAddress=127.0.0.1", "-p", &port.to_string(), "-f"]);
            server.arg(directory.join("settings")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            let mut server = Process(server.spawn().unwrap());
            while server.0.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { directory, user, port, _server: server };
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let log = std::fs::read_to_string(directory.join("log")).unwrap();
            assert!(log.contains("Address already in use"), "sshd does not start: {log}");
        }
    }

    fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, repository.display())
    }

    /// A file of a private key, with a line for the server that says it has another.
    fn credentials(&self, key: &str, host: Option<&str>) -> String {
        let read = |name: &str| std::fs::read_to_string(self.directory.join(name)).unwrap();
        let line = host.map(|host| format!("[127.0.0.1]:{} {}", self.port, read(&format!("{host}.pub"))));
        format!("{}{}", read(key), line.unwrap_or_else(|| "elsewhere.example ssh-ed25519 AAAA\n".to_owned()))
    }
}

/// git's own server behind one of the web; with a certificate, it speaks TLS.
fn web(root: &Path, elsewhere: &str, certificate: Option<&Path>) -> (Process, String) {
    let mut server = Command::new("python3");
    server.arg(repository().join("tests/fixtures/git/web.py")).arg(root);
    server.arg(format!("farm:{PASSWORD}")).arg(elsewhere);
    if let Some(directory) = certificate {
        server.arg(directory.join("certificate")).arg(directory.join("key"));
    }
    let mut server = Process(server.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let scheme = if certificate.is_some() { "https" } else { "http" };
    (server, format!("{scheme}://127.0.0.1:{}", port.trim()))
}

/// Looks at the arguments of all processes for as long as it lives.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Watch {
    fn for_secrets(secrets: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut found = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").unwrap().flatten() {
                    let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
                    // The server of the test itself is told whom to let in.
                    let ours = arguments.contains("fixtures/git/web.py");
                    if !ours && secrets.iter().any(|secret| arguments.contains(secret.as_str())) {
                        found.push(arguments);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            found
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        assert_eq!(self.thread.take().unwrap().join().unwrap(), Vec::<String>::new(), "secrets in arguments");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn fetched(url: &str, revision: &str, credentials: Option<&str>) -> Result<Fetched, FetchError> {
    let remote = Remote { url: url.to_owned(), revision: revision.to_owned(), directory: String::new() };
    let credentials = credentials.map(|text| Credentials::parse(text).unwrap());
    let limits = FetchLimits { time: PATIENCE, ..FetchLimits::default() };
    fetch(&remote, credentials.as_ref(), limits, &AtomicBool::new(false))
}

fn test_of(fetched: &Fetched) -> String {
    let files = snapshot::files(&fetched.archive).unwrap();
    String::from_utf8_lossy(&files[Path::new("test_it.py")]).into_owned()
}

/// Commits another test in place of the one there is, as if it had never been.
fn push_by_force(root: &Path, test: &str) {
    git(root, &format!("echo 'def {test}(): pass' > test_it.py && git commit -qa --amend -m anew"));
}

/// A refusal as it is shown; it holds no secret and no path of a file that was made of one.
fn words(refused: Result<Fetched, FetchError>) -> (FetchError, String) {
    let refused = refused.unwrap_err();
    let words = format!("{refused} ({})", refused.hint());
    assert!(!words.contains(PASSWORD) && !words.contains("flakefarm-fetch-"), "{words}");
    (refused, words)
}

#[test]
fn ssh_is_opened_by_a_key_from_a_file_and_says_why_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let root = repository_in(directory.path());
    let sshd = Sshd::start(directory.path());
    let url = sshd.url(&root);
    let key = sshd.credentials("user", Some("host"));
    let watch = Watch::for_secrets(vec![key.lines().nth(2).unwrap().to_owned()]);
    let found = fetched(&url, "main", Some(&key)).unwrap();
    assert_eq!(test_of(&found), "def test_it(): pass\n");
    push_by_force(&root, "test_anew");
    let anew = fetched(&url, "main", Some(&key)).unwrap();
    assert_eq!(test_of(&anew), "def test_anew(): pass\n");
    assert_ne!(anew.commit, found.commit);

    let refused = |url: &str, revision: &str, credentials: Option<&str>| {
        let (refused, words) = words(fetched(url, revision, credentials));
        assert!(!refused.may_pass(), "{words}");
        (refused, words)
    };
    let (error, text) = refused(&url, "main", Some(&sshd.credentials("other", Some("host"))));
    assert!(matches!(error, FetchError::Refused { named: true, .. }), "{text}");
    assert!(text.contains("Permission denied") && text.contains("may it read"), "{text}");
    let (error, text) = refused(&url, "main", Some(&sshd.credentials("user", Some("other"))));
    assert!(matches!(error, FetchError::UnknownHost { .. }), "{text}");
    assert!(text.contains("has changed") && text.contains("ssh-keyscan"), "{text}");
    for unknown in [None, Some(sshd.credentials("user", None))] {
        let (error, text) = refused(&url, "main", unknown.as_deref());
        assert!(matches!(error, FetchError::UnknownHost { .. }), "{text}");
        assert!(text.contains("key is known for"), "{text}");
    }
    let (error, text) = refused(&url, "main", Some(PASSWORD));
    assert!(matches!(error, FetchError::OtherKind { .. }), "{text}");
    let broken = key.replacen('A', "", 1);
    let (error, text) = refused(&url, "main", Some(&broken));
    assert!(matches!(error, FetchError::Refused { .. }), "{text}");
    let (error, text) = refused(&sshd.url(Path::new("/nowhere/at-all")), "main", Some(&key));
    assert!(matches!(error, FetchError::NoRepository { .. }), "{text}");
    let (error, text) = refused(&url, "nowhere", Some(&key));
    assert!(matches!(error, FetchError::Unknown { .. }), "{text}");
    let closed = Credentials::parse(&sshd.credentials("closed", Some("host"))).unwrap_err();
    assert!(closed.to_string().contains("passphrase"), "{closed}");

    // Nobody listens there any more.
    let gone = format!("ssh://{}@127.0.0.1:{}/x", sshd.user, ports::reserve());
    let hosts = key.replace(&format!(":{} ", sshd.port), ":1 ");
    let (error, text) = words(fetched(&gone, "main", Some(&hosts)));
    assert!(matches!(error, FetchError::Unreachable { .. }) && error.may_pass(), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
    watch.end();
}

#[test]
fn the_web_is_opened_by_a_password_from_a_file_and_says_why_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let root = repository_in(directory.path());
    // Whoever is sent on there would tell it the password.
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("http://{}", stranger.local_addr().unwrap());
    let (_server, base) = web(directory.path(), &elsewhere, None);
    let url = format!("{base}/shop/.git");
    let credentials = format!("farm:{PASSWORD}");
    let watch = Watch::for_secrets(vec![PASSWORD.to_owned()]);
    let found = fetched(&url, "main", Some(&credentials)).unwrap();
    assert_eq!(test_of(&found), "def test_it(): pass\n");
    push_by_force(&root, "test_anew");
    assert_eq!(test_of(&fetched(&url, "main", Some(&credentials)).unwrap()), "def test_anew(): pass\n");
    let (error, text) = words(fetched(&url, "main", None));
    assert!(matches!(error, FetchError::Refused { named: false, .. }), "{text}");
    assert!(text.contains("--git-credentials FILE"), "{text}");
    for wrong in [format!("farm:{PASSWORD}x"), PASSWORD.to_owned()] {
        let (error, text) = words(fetched(&url, "main", Some(&wrong)));
        assert!(matches!(error, FetchError::Refused { named: true, .. }), "{text}");
        assert!(text.contains("still valid"), "{text}");
    }
    let (error, text) = words(fetched(&format!("{base}/none/.git"), "main", Some(&credentials)));
    assert!(matches!(error, FetchError::NoRepository { .. }), "{text}");
    let key =
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\nh ssh-ed25519 A\n";
    let (error, text) = words(fetched(&url, "main", Some(key)));
    assert!(matches!(error, FetchError::OtherKind { .. }), "{text}");
    let (_, text) = words(fetched(&format!("{base}/elsewhere/.git"), "main", Some(&credentials)));
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.accept().is_err(), "it was sent on: {text}");
    watch.end();
}

struct Shop {
    farm: Farm,
    root: PathBuf,
}

impl Shop {
    fn flakefarm(&self, arguments: &[&str]) -> Output {
        let mut command = command(self.farm.dir.path());
        command.args(arguments).args(["--farm", &self.farm.url, "--token", &self.farm.token]);
        command.output().unwrap()
    }

    fn add(&self, name: &str, url: &str, credentials: &Path) -> Output {
        let (file, root) = (credentials.display().to_string(), self.root.display().to_string());
        let when = ["--cron", "0 2 * * *", "--git", url, "--branch", "main", "--git-credentials", &file];
        self.flakefarm(&[&["schedule", "add", name][..], &when, &[&root]].concat())
    }

    /// The last firing of a schedule once it is no longer being fetched.
    fn fired(&self, name: &str) -> Value {
        let ran = self.flakefarm(&["schedule", "run", name]);
        // It waits until they are fetched, and says why they are not.
        assert!(matches!(ran.status.code(), Some(0 | 4)), "{}", said(&ran));
        wait_for("the sources are fetched", PATIENCE, || {
            let listed = self.flakefarm(&["schedule", "list", "--format", "json"]);
            let listed: Value = serde_json::from_slice(&listed.stdout).map_err(|error| error.to_string())?;
            let found = listed["schedules"].as_array().unwrap().iter().find(|found| found["name"] == name);
            let firing = found.unwrap()["firings"][0].clone();
            if firing["state"] == "fetching" { Err(firing.to_string()) } else { Ok(firing) }
        })
    }
}

#[test]
fn schedules_fetch_over_ssh_and_tls_as_the_command_said_and_never_show_what_opens_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = repository_in(directory.path());
    let sshd = Sshd::start(directory.path());
    shell(
        directory.path(),
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
         -keyout key -out certificate 2>/dev/null",
    );
    let (_server, base) = web(directory.path(), "http://127.0.0.1:1", Some(directory.path()));
    let https = format!("{base}/shop/.git");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let key = write("credentials.ssh", &sshd.credentials("user", Some("host")));
    let stranger = write("credentials.other", &sshd.credentials("other", Some("host")));
    let password = write("credentials.web", &format!("farm:{PASSWORD}\n"));
    let secret = std::fs::read_to_string(&key).unwrap().lines().nth(2).unwrap().to_owned();
    let watch = Watch::for_secrets(vec![PASSWORD.to_owned(), secret.clone()]);
    let scratch = directory.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();

    let mut shop = Shop { farm: Farm::start(), root };
    let untrusted = shop.add("https", &https, &password);
    let words = said(&untrusted);
    assert!(!untrusted.status.success() && words.contains("GIT_SSL_CAINFO"), "{words}");
    shop.farm.coordinator = None;
    shop.farm.start_coordinator_with(&[
        ("GIT_SSL_CAINFO", directory.path().join("certificate").display().to_string()),
        ("TMPDIR", scratch.display().to_string()),
        ("FLAKEFARM_FETCH_SIZE", "16MiB".to_owned()),
    ]);

    let refused = shop.add("ssh", &sshd.url(&shop.root), &stranger);
    assert!(!refused.status.success() && said(&refused).contains("Permission denied"), "{}", said(&refused));
    let mut revisions = Vec::new();
    for (name, url, credentials) in [("ssh", sshd.url(&shop.root), &key), ("https", https.clone(), &password)]
    {
        let added = shop.add(name, &url, credentials);
        assert!(added.status.success(), "{}", said(&added));
        let firing = shop.fired(name);
        assert_eq!(firing["state"], "fired", "{firing}");
        revisions.push(firing["revision"].as_str().unwrap().to_owned());
        let sweep = firing["sweep"].as_str().unwrap().to_owned();
        assert!(shop.flakefarm(&["cancel", &sweep]).status.code().is_some_and(|code| code != 2));
    }
    assert_eq!(revisions[0], revisions[1]);

    // More than may be fetched has been pushed: refused with its size, and nothing of it stays.
    git(&shop.root, "head -c 40000000 /dev/urandom > big.bin && git add . && git commit -qm big");
    let firing = shop.fired("https");
    let why = firing["why"].as_str().unwrap().to_owned();
    assert_eq!(firing["state"], "failed", "{firing}");
    assert!(why.contains("is larger than 16 MiB at `main`") && why.contains("--fetch-size"), "{why}");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "what was begun is left");
    // The key was taken out over there: said at once, and not tried again and again.
    std::fs::write(sshd.directory.join("authorized"), "").unwrap();
    let firing = shop.fired("ssh");
    assert_eq!((firing["state"].as_str(), firing["tries"].as_u64()), (Some("failed"), Some(1)), "{firing}");
    assert!(firing["why"].as_str().unwrap().contains("Permission denied"), "{firing}");

    let listed = [&["schedule", "list"][..], &["schedule", "list", "--format", "json"]]
        .map(|arguments| said(&shop.flakefarm(arguments)));
    for text in [shop.farm.logs(), listed.concat()] {
        assert!(!text.contains(PASSWORD) && !text.contains(&secret), "{text}");
    }
    watch.end();
}
