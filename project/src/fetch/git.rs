//! git as it is run for a stranger's sake: in a process group of its own, in an empty environment, with
//! bounds on memory, bytes and time that hold whatever it is told by the other side.

use super::FetchLimits;
use super::credentials::Credentials;
use super::error::FetchError;
use super::remote::PROTOCOLS;
use super::words::{self, COMPLAINTS};
use crate::untrusted::{bytes_below, end};
use base64::Engine as _;
use rustix::process::Signal;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Memory of one process of git, as its address space, in KiB.
const MEMORY_KIB: u64 = 3 << 20;
/// Between two looks at how it goes.
const PAUSE: Duration = Duration::from_millis(50);
/// Most that is read of an answer: refs, a commit.
const ANSWER: u64 = 1 << 20;
/// Most that is read of the list of a tree.
const LONG_ANSWER: u64 = 256 << 20;
/// What is left of a disk for others.
const ROOM: u64 = 256 << 20;
/// For a remote to answer at all.
const CONNECT: u32 = 15;
/// Variables of the coordinator's own that git may see: how the web is reached from here.
const PASSED: [&str; 11] = [
    "PATH",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "GIT_SSL_CAINFO",
];

/// git in a directory of its own.
pub(super) struct Git<'a> {
    scratch: &'a Path,
    address: String,
    environment: Vec<(&'static str, OsString)>,
    limits: FetchLimits,
    deadline: Instant,
    stop: &'a AtomicBool,
    /// What no message may hold.
    secrets: Vec<String>,
}

/// Why it ended otherwise than well.
#[derive(Debug)]
pub(super) enum Stopped {
    /// By itself; its last words.
    Failed(String),
    /// It took more bytes than it may: so many.
    TooLarge(u64),
    /// The disk has only so many bytes left.
    NoRoom(u64),
    /// It took longer than it may.
    TooSlow,
    /// It could not be started.
    Start(io::Error),
    /// Nobody wants it any more.
    Wanted,
}

impl<'a> Git<'a> {
    pub(super) fn new(
        scratch: &'a Path,
        address: &str,
        credentials: Option<&Credentials>,
        limits: FetchLimits,
        stop: &'a AtomicBool,
    ) -> Result<Self, FetchError> {
        let home = scratch.join("home");
        for directory in [&home, &scratch.join("repository")] {
            std::fs::create_dir(directory).map_err(FetchError::Scratch)?;
        }
        let quoted = |path: PathBuf| path.display().to_string();
        let (key, hosts) = (scratch.join("key"), scratch.join("hosts"));
        let mut ssh = format!(
            "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none -o ConnectTimeout={CONNECT} \
             -o StrictHostKeyChecking=yes -o UserKnownHostsFile={} -o GlobalKnownHostsFile=/dev/null \
             -o PermitLocalCommand=no -o ForwardAgent=no",
            quoted(hosts.clone()),
        );
        let mut settings: Vec<(String, String)> = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.attributesFile", "/dev/null"),
            ("core.excludesFile", "/dev/null"),
            ("core.bigFileThreshold", "16m"),
            ("core.packedGitWindowSize", "32m"),
            ("core.packedGitLimit", "256m"),
            ("core.protectHFS", "true"),
            ("core.protectNTFS", "true"),
            ("core.autocrlf", "false"),
            ("credential.helper", ""),
            ("fetch.unpackLimit", "1"),
            ("fetch.recurseSubmodules", "false"),
            ("submodule.recurse", "false"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("pack.threads", "1"),
            ("protocol.version", "2"),
            ("http.followRedirects", "false"),
            ("http.lowSpeedLimit", "1000"),
            ("http.lowSpeedTime", "30"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let mut secrets = Vec::new();
        match credentials {
            Some(Credentials::Password { user, password }) => {
                let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                settings.push(("http.extraHeader".to_owned(), format!("Authorization: Basic {basic}")));
                secrets = vec![basic, password.clone()];
            }
            Some(Credentials::Key { key: text, hosts: known }) => {
                write_private(&key, text)?;
                write_private(&hosts, known)?;
                ssh.push_str(&format!(" -o IdentityFile={}", quoted(key)));
            }
            None => {}
        }
        let mut environment: Vec<(&'static str, OsString)> =
            PASSED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
        environment.extend([
            ("HOME", home.into_os_string()),
            ("LC_ALL", "C".into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
            ("GIT_ATTR_NOSYSTEM", "1".into()),
            ("GIT_TERMINAL_PROMPT", "0".into()),
            ("GIT_ASKPASS", "false".into()),
            ("SSH_ASKPASS", "false".into()),
            ("GIT_SSH_COMMAND", ssh.into()),
            ("GIT_ALLOW_PROTOCOL", PROTOCOLS.join(":").into()),
            ("GIT_PROTOCOL_FROM_USER", "0".into()),
            ("GIT_NO_REPLACE_OBJECTS", "1".into()),
            ("GIT_OPTIONAL_LOCKS", "0".into()),
            ("GIT_LFS_SKIP_SMUDGE", "1".into()),
            ("GIT_DIR", scratch.join("repository").into_os_string()),
        ]);
        let deadline = Instant::now() + limits.time;
        let git = Self { scratch, address: address.to_owned(), environment, limits, deadline, stop, secrets };
        git.configure(&settings)?;
        Ok(git)
    }

    /// The repository's own configuration: what is secret stands in a file that only we read, and in no
    /// argument.
    fn configure(&self, settings: &[(String, String)]) -> Result<(), FetchError> {
        let mut text = String::new();
        for (key, value) in settings {
            let (section, name) = key.split_once('.').expect("a key has a section");
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            text.push_str(&format!("[{section}]\n\t{name} = \"{value}\"\n"));
        }
        write_private(&self.scratch.join("settings"), &text)
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Where files are written; made by this.
    pub(super) fn work_tree(&self) -> io::Result<PathBuf> {
        let files = self.scratch.join("files");
        std::fs::create_dir(&files)?;
        Ok(files)
    }

    /// Runs git with a short answer.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, Stopped> {
        self.bounded(arguments, ANSWER)
    }

    /// The same with a long answer.
    pub(super) fn long(&self, arguments: &[&str]) -> Result<Vec<u8>, Stopped> {
        self.bounded(arguments, LONG_ANSWER)
    }

    fn bounded(&self, arguments: &[&str], answer: u64) -> Result<Vec<u8>, Stopped> {
        // Beyond what is looked at from outside: what one look misses, the next must not find too late.
        let blocks = self.limits.bytes.div_ceil(512).saturating_mul(2);
        let script = format!("ulimit -c 0; ulimit -v {MEMORY_KIB}; ulimit -f {blocks}; exec git \"$@\"");
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg("git").args(arguments);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "include.path");
        command.env("GIT_CONFIG_VALUE_0", self.scratch.join("settings"));
        let files = self.scratch.join("files");
        if files.is_dir() {
            command.env("GIT_WORK_TREE", &files).env("GIT_INDEX_FILE", self.scratch.join("index"));
            command.current_dir(&files);
        } else {
            command.current_dir(self.scratch);
        }
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Stopped::Start)?;
        let output = reading(child.stdout.take(), answer);
        let complaints = reading(child.stderr.take(), u64::MAX);
        let ended = self.watch(&mut child);
        if ended.is_err() {
            end(&mut child);
        }
        let (output, complaints) = (read(output), read(complaints));
        // A file that would grow beyond its bound ends git with words of its own.
        let text = String::from_utf8_lossy(&complaints);
        let bounded = text.contains("File too large") || text.contains("signal 25");
        let full = text.contains("No space left on device");
        let complaints = words::said(&complaints, &self.secrets);
        let status = ended?;
        let fetched = self.fetched();
        if bounded || status.signal() == Some(Signal::XFSZ.as_raw()) || fetched > self.limits.bytes {
            return Err(Stopped::TooLarge(fetched));
        }
        if full {
            return Err(Stopped::NoRoom(self.room()));
        }
        if status.code() == Some(127) || status.code() == Some(126) {
            return Err(Stopped::Start(io::Error::new(io::ErrorKind::NotFound, complaints)));
        }
        if output.len() as u64 > answer {
            return Err(Stopped::Failed("it answers with more than is read".to_owned()));
        }
        if status.success() {
            return Ok(output);
        }
        Err(Stopped::Failed(complaints))
    }

    /// Bytes that were fetched.
    fn fetched(&self) -> u64 {
        bytes_below(&self.scratch.join("repository"))
    }

    /// Bytes that are left of the disk.
    fn room(&self) -> u64 {
        rustix::fs::statvfs(self.scratch).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn watch(&self, child: &mut Child) -> Result<std::process::ExitStatus, Stopped> {
        let mut looks = 0_u32;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(Stopped::Start(error)),
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(Stopped::Wanted);
            }
            if Instant::now() >= self.deadline {
                return Err(Stopped::TooSlow);
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(4) {
                let (fetched, room) = (self.fetched(), self.room());
                if fetched > self.limits.bytes {
                    return Err(Stopped::TooLarge(fetched));
                }
                if room < ROOM {
                    return Err(Stopped::NoRoom(room));
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Reads a pipe to its end, keeping one byte more than `most`; of complaints the last ones.
fn reading(pipe: Option<impl Read + Send + 'static>, most: u64) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut kept, mut piece) = (Vec::new(), [0_u8; 16 << 10]);
        let Some(mut pipe) = pipe else { return kept };
        while let Ok(read) = pipe.read(&mut piece)
            && read > 0
        {
            if most == u64::MAX {
                kept.extend_from_slice(&piece[..read]);
                let beyond = kept.len().saturating_sub(COMPLAINTS);
                kept.drain(..beyond);
            } else if kept.len() as u64 <= most {
                kept.extend_from_slice(&piece[..read]);
            }
        }
        kept
    })
}

fn read(reading: JoinHandle<Vec<u8>>) -> Vec<u8> {
    reading.join().unwrap_or_default()
}

fn write_private(path: &Path, text: &str) -> Result<(), FetchError> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes())).map_err(FetchError::Scratch)
}
