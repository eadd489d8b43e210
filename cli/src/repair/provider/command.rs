//! A program that proposes. It gets the request as JSON on standard input and a copy of the tree to work in, and
//! answers with JSON edits, a unified diff, or by changing the copy. It is treated as one that hangs, floods and
//! lies: in a process group and, where the kernel lets us, in namespaces of its own: without a network, with
//! the project and our state read-only, and dead with all its children when its time is over; in an environment
//! with nothing but what it was given. What it did to the project, should it have found a way, is seen.

use super::{Circumstances, Reply, Request, Tree, answer};
use crate::exit::Complaint;
use flakefarm_project::settings::Settings;
use flakefarm_project::snapshot;
use flakefarm_project::untrusted::{bytes_below, end};
use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Bytes of its answer.
const ANSWER_BYTES: usize = 4 << 20;
/// What is kept of what it complains of, and told.
const COMPLAINTS: usize = 64 << 10;
const TOLD: usize = 300;
/// What its copy may grow by, in bytes; and its largest file, in blocks of 512 bytes or 1 KiB, as shells count.
const COPY_BYTES: u64 = 256 << 20;
const FILE_BLOCKS: u64 = 256 << 10;
/// Between two looks at how it goes.
const PAUSE: Duration = Duration::from_millis(20);
/// For what is still in a pipe once the program has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// It has no idea.
const NO_IDEA: i32 = 3;
/// Variables of ours that it may see beside those that are named.
const PASSED: [&str; 5] = ["PATH", "LANG", "LC_ALL", "TERM", "TZ"];
/// Namespaces: of users, mounts and processes.
const UNSHARE: [&str; 7] =
    ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// Makes two directories read-only, as far as that can be had, and becomes the program.
const SCRIPT: &str = "for d in \"$1\" \"$2\"; do mount --bind \"$d\" \"$d\" && mount -o remount,bind,ro \"$d\"; done 2>/dev/null
shift 2; cd \"$1\" || exit 127; shift; ulimit -f \"$1\"; shift; exec \"$@\"";
/// The same without.
const PLAIN_SCRIPT: &str = "shift 2; cd \"$1\" || exit 127; shift; ulimit -f \"$1\"; shift; exec \"$@\"";

/// A program, and what it gets.
#[derive(Clone)]
pub(crate) struct Program {
    words: Vec<String>,
    environment: Vec<(String, OsString)>,
    network: bool,
    timeout: Duration,
}

/// How it ended.
enum Ran {
    ByItself { status: ExitStatus, answer: Vec<u8>, complaints: String },
    TooSlow,
    TooLarge,
    Flooded,
    Stopped,
}

impl Program {
    pub(super) fn of(settings: &Settings, timeout: Duration) -> Result<Self, Complaint> {
        let words = settings.texts("repair.command").filter(|words| !words.is_empty()).ok_or_else(|| {
            Complaint::usage("a command provider needs a program").hint(
                "--provider-command 'PROGRAM ARGUMENTS', or FLAKEFARM_REPAIR_COMMAND; flakefarm.toml cannot name it: \
                 it comes with the source tree, which chooses nothing that runs outside a sandbox",
            )
        })?;
        let named = settings.texts("repair.pass_env").unwrap_or_default();
        let names = PASSED.iter().map(|name| (*name).to_owned()).chain(named);
        let environment = names.filter_map(|name| Some((name.clone(), std::env::var_os(&name)?))).collect();
        let network = settings.truth("repair.command_network").unwrap_or(false);
        Ok(Self { words, environment, network, timeout })
    }

    pub(super) async fn warning(&self) -> Option<String> {
        let network = self.network;
        let can = tokio::task::spawn_blocking(move || can_unshare(network)).await.unwrap_or(false);
        (!can).then(|| {
            "warning: this machine gives a provider's program no namespaces of its own: it runs as you, with the \
             network, on a copy of the tree"
                .to_owned()
        })
    }

    pub(super) async fn ask(
        &self,
        request: &Request,
        circumstances: Circumstances<'_>,
    ) -> Result<Reply, Complaint> {
        let scratch = tempfile::tempdir()?;
        let (copy, home) = (scratch.path().join("tree"), scratch.path().join("home"));
        let text = serde_json::to_vec_pretty(request)?;
        std::fs::create_dir(&home)?;
        let request_file = scratch.path().join("request.json");
        std::fs::write(&request_file, &text)?;
        let (program, archive) = (self.clone(), circumstances.tree.archive.clone());
        let (root, state) = (circumstances.root.to_owned(), circumstances.state.to_owned());
        let (stop, work) = (circumstances.stop.clone(), copy.clone());
        let ran = tokio::task::spawn_blocking(move || -> std::io::Result<Ran> {
            std::fs::create_dir(&work)?;
            snapshot::unpack(&archive, &work)?;
            program.run(&Place { copy: work, home, request: request_file, root, state }, text, &stop)
        });
        let ran = ran.await?.map_err(|error| {
            Complaint::usage(format!("failed to run the provider `{}`: {error}", self.words[0]))
                .hint("is it installed, and --provider-command right?")
        })?;
        self.see_that_the_project_is_as_it_was(&circumstances).await?;
        let (status, said, complaints) = match ran {
            Ran::ByItself { status, answer, complaints } => (status, answer, complaints),
            Ran::TooSlow => {
                let limit = humantime::format_duration(self.timeout);
                return Ok(Reply::Refused(format!("the program did not end in {limit} (repair.timeout)")));
            }
            Ran::TooLarge => {
                return Ok(Reply::Refused(format!("the program wrote more than {} MiB", COPY_BYTES >> 20)));
            }
            Ran::Flooded => {
                return Ok(Reply::Refused(format!("the program said more than {} MiB", ANSWER_BYTES >> 20)));
            }
            Ran::Stopped => return Ok(Reply::Over("it was interrupted".to_owned())),
        };
        match status.code() {
            Some(0) => {}
            Some(NO_IDEA) => return Ok(Reply::NoIdea),
            Some(code @ (126 | 127)) => {
                return Err(Complaint::usage(format!(
                    "the provider `{}` could not be started: exit code {code}",
                    self.words[0]
                ))
                .log(complaints)
                .hint("is it installed, and --provider-command right?"));
            }
            code => {
                let how = match (code, status.signal()) {
                    (Some(code), _) => format!("with exit code {code}"),
                    (None, Some(signal)) => format!("by signal {signal}"),
                    (None, None) => "oddly".to_owned(),
                };
                let last = complaints.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
                return Ok(Reply::Refused(format!("the program ended {how}: {}", answer::short(last, TOLD))));
            }
        }
        let Ok(said) = String::from_utf8(said) else {
            return Ok(Reply::Refused("the answer is no UTF-8".to_owned()));
        };
        let of_text = answer::read(circumstances.tree, &said).await?;
        if let Ok(proposal) = of_text {
            return Ok(Reply::Proposal(proposal));
        }
        Ok(match (self.of_copy(circumstances.tree, copy).await?, of_text) {
            (Some(Ok(proposal)), _) => Reply::Proposal(proposal),
            (Some(Err(why)), _) => Reply::Refused(why),
            (None, Err(_)) if said.trim().is_empty() => Reply::NoIdea,
            (None, Err(why)) => Reply::Refused(why),
            (None, Ok(proposal)) => Reply::Proposal(proposal),
        })
    }

    /// What its copy proposes; nothing if it is as it was.
    async fn of_copy(
        &self,
        tree: &Tree,
        copy: PathBuf,
    ) -> Result<Option<Result<answer::Proposal, String>>, Complaint> {
        let packed = match tokio::task::spawn_blocking(move || snapshot::archive(&copy)).await? {
            Ok(packed) => packed,
            Err(error) => return Ok(Some(Err(flakefarm_shared::chain(&error)))),
        };
        let left_out =
            packed.warnings.iter().find(|warning| !tree.archive.warnings.contains(*warning)).cloned();
        if let Some(warning) = left_out {
            return Ok(Some(Err(warning)));
        }
        let other = Tree::of(&packed)?;
        let same = other.files == tree.files;
        let proposal = answer::changed(tree, &other, "a changed tree");
        Ok(if same && proposal.as_ref().is_err_and(|why| why.contains("changes nothing")) {
            None
        } else {
            Some(proposal)
        })
    }

    /// It may not have been able to keep to its copy.
    async fn see_that_the_project_is_as_it_was(
        &self,
        circumstances: &Circumstances<'_>,
    ) -> Result<(), Complaint> {
        let root = circumstances.root.to_owned();
        let now = tokio::task::spawn_blocking(move || snapshot::archive(&root)).await?;
        match now {
            Ok(now) if now.bytes == circumstances.original.bytes => Ok(()),
            _ => Err(Complaint::usage(format!(
                "the project has changed while the provider `{}` ran: nothing that it proposes is taken",
                self.words[0]
            ))
            .hint("git status shows what changed; if it was not you, it was the program")),
        }
    }

    fn run(&self, place: &Place, request: Vec<u8>, stop: &CancellationToken) -> std::io::Result<Ran> {
        let mut command = if can_unshare(self.network) {
            let mut command = Command::new("unshare");
            command.args(UNSHARE);
            if !self.network {
                command.arg("--net");
            }
            command.args(["--", "sh", "-c", SCRIPT, "sh"]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", PLAIN_SCRIPT, "sh"]);
            command
        };
        command.args([&place.root, &place.state, &place.copy]).arg(FILE_BLOCKS.to_string()).args(&self.words);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("HOME", &place.home).env("TMPDIR", &place.home);
        command.env("FLAKEFARM_REQUEST", &place.request).current_dir(&place.copy).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let answer = Reader::of(child.stdout.take(), ANSWER_BYTES);
        let complaints = Reader::of(child.stderr.take(), COMPLAINTS);
        let mut stdin = child.stdin.take();
        // One that does not read its input must not hold us: the thread ends with the pipe.
        std::thread::spawn(move || {
            if let Some(pipe) = &mut stdin {
                let _unread = pipe.write_all(&request);
            }
        });
        let ended = self.watch(&mut child, place, &answer, stop);
        end(&mut child);
        let (answer, complaints) = (answer.drained(), complaints.drained());
        Ok(match ended? {
            Err(other) => other,
            Ok(_) if answer.len() > ANSWER_BYTES => Ran::Flooded,
            Ok(status) => {
                let complaints = String::from_utf8_lossy(&complaints).into_owned();
                Ran::ByItself { status, answer, complaints }
            }
        })
    }

    fn watch(
        &self,
        child: &mut Child,
        place: &Place,
        answer: &Reader,
        stop: &CancellationToken,
    ) -> std::io::Result<Result<ExitStatus, Ran>> {
        let deadline = Instant::now() + self.timeout;
        let at_first = bytes_below(&place.copy);
        let mut looks = 0_u32;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Ok(status));
            }
            if stop.is_cancelled() {
                return Ok(Err(Ran::Stopped));
            }
            if Instant::now() >= deadline {
                return Ok(Err(Ran::TooSlow));
            }
            if answer.is_full() {
                return Ok(Err(Ran::Flooded));
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(25)
                && bytes_below(&place.copy) + bytes_below(&place.home) > at_first + COPY_BYTES
            {
                return Ok(Err(Ran::TooLarge));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// What comes out of a pipe: one byte more than is wanted is kept, the rest is read and lost.
struct Reader {
    thread: JoinHandle<()>,
    kept: Arc<Mutex<Vec<u8>>>,
    most: usize,
}

impl Reader {
    fn of(pipe: Option<impl Read + Send + 'static>, most: usize) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        let thread = std::thread::spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut piece = [0_u8; 16 << 10];
            while let Ok(read) = pipe.read(&mut piece)
                && read > 0
            {
                let mut kept = keep.lock().expect("no holder panics");
                let room = (most + 1).saturating_sub(kept.len());
                kept.extend_from_slice(&piece[..read.min(room)]);
            }
        });
        Self { thread, kept, most }
    }

    fn is_full(&self) -> bool {
        self.kept.lock().expect("no holder panics").len() > self.most
    }

    /// All of it. The program has ended; a child that left its group may hold on to the pipe, and is not waited for.
    fn drained(self) -> Vec<u8> {
        let patience = Instant::now() + LAST_WORDS;
        while !self.thread.is_finished() && Instant::now() < patience {
            std::thread::sleep(PAUSE);
        }
        std::mem::take(&mut *self.kept.lock().expect("no holder panics"))
    }
}

/// Where it runs.
struct Place {
    copy: PathBuf,
    home: PathBuf,
    request: PathBuf,
    root: PathBuf,
    state: PathBuf,
}

/// Whether this machine makes such namespaces for us.
fn can_unshare(network: bool) -> bool {
    let mut command = Command::new("unshare");
    command.args(UNSHARE);
    if !network {
        command.arg("--net");
    }
    command.args(["--", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repair::ledger::Ledger;
    use crate::repair::provider::Material;

    const TEXT: &str = "import shop\n\ndef test_a():\n    assert shop.old() == 1\n";

    struct Ground {
        directory: tempfile::TempDir,
        root: PathBuf,
        tree: Tree,
    }

    fn ground() -> Ground {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("project");
        std::fs::create_dir_all(root.join("tests")).unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        std::fs::write(root.join("tests/test_a.py"), TEXT).unwrap();
        std::fs::write(root.join("shop.py"), "def new():\n    return 1\n").unwrap();
        let tree = Tree::of(&snapshot::archive(&root).unwrap()).unwrap();
        Ground { directory, root, tree }
    }

    impl Ground {
        /// What a shell script proposes that is told where the project is.
        async fn ask(&self, script: &str, timeout: Duration) -> Result<Reply, Complaint> {
            let script = script.replace("PROJECT", &self.root.display().to_string());
            let environment = [("PATH", std::env::var_os("PATH").unwrap()), ("GIVEN", "given".into())];
            let program = Program {
                words: ["sh", "-c", &script].map(str::to_owned).to_vec(),
                environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                network: false,
                timeout,
            };
            let material = Material {
                project: "p".to_owned(),
                tests: Vec::new(),
                changes: Vec::new(),
                diff: String::new(),
                files: Vec::new(),
            };
            let circumstances = Circumstances {
                tree: &self.tree,
                original: &self.tree.archive,
                root: &self.root,
                state: &self.directory.path().join("state"),
                seed: 1,
                ledger: &mut Ledger::default(),
                stop: &CancellationToken::new(),
            };
            program.ask(&Request::new(&material, 2, &[], &[]), circumstances).await
        }
    }

    const PATIENCE: Duration = Duration::from_secs(300);

    #[tokio::test]
    async fn a_program_may_answer_in_three_ways() {
        let ground = ground();
        let diff = "--- a/tests/test_a.py\n+++ b/tests/test_a.py\n@@ -3,2 +3,2 @@\n def test_a():\n-    assert shop.old() == 1\n+    assert shop.new() == 1\n";
        let json = r#"{"edits":[{"path":"tests/test_a.py","find":"old","replace":"new"}]}"#;
        for script in [
            format!("printf '%s' '{json}'"),
            format!("cat > /dev/null; printf '%s' '{diff}'"),
            // What it reads, sees and may do.
            "set -e; grep -q '\"round\": 2'; grep -q repair-request \"$FLAKEFARM_REQUEST\"; test \"$GIVEN\" = given
             test -z \"$CARGO_MANIFEST_DIR\"; test -z \"$(ls \"$HOME\")\"; sed -i s/old/new/ tests/test_a.py; echo done"
                .to_owned(),
        ] {
            match ground.ask(&script, PATIENCE).await.unwrap() {
                Reply::Proposal(proposal) => assert_eq!(proposal.files[0].text, TEXT.replace("old", "new")),
                Reply::Refused(why) | Reply::Over(why) => panic!("{script}\n{why}"),
                Reply::NoIdea => panic!("{script}\nno idea"),
            }
        }
        for script in ["exit 3", "exit 0", "cat"].map(|script| format!("{script} > /dev/null")) {
            assert!(matches!(ground.ask(&script, PATIENCE).await.unwrap(), Reply::NoIdea), "{script}");
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_floods_or_lies_is_refused_and_the_project_stays() {
        let ground = ground();
        let check = async |script: &str, timeout: Duration, expect: &str| {
            match ground.ask(script, timeout).await.unwrap() {
                Reply::Refused(why) => assert!(why.contains(expect), "{script}\n{why}"),
                Reply::Proposal(proposal) => panic!("{script}\n{proposal:?}"),
                Reply::NoIdea | Reply::Over(_) => panic!("{script}"),
            }
            assert_eq!(std::fs::read_to_string(ground.root.join("tests/test_a.py")).unwrap(), TEXT);
            assert_eq!(std::fs::read_dir(&ground.root).unwrap().count(), 2);
        };
        // With children that would hold on to its output.
        check("sleep 1000 & sleep 1000", Duration::from_secs(1), "did not end in 1s").await;
        check("yes", PATIENCE, "said more than 4 MiB").await;
        check("yes >&2 | head -c 10; false", Duration::from_secs(1), "did not end").await;
        check("echo why not >&2; exit 1", PATIENCE, "exit code 1: why not").await;
        check("kill -9 $$; exit 9", PATIENCE, "the program ended").await;
        check("printf '\\377\\376'", PATIENCE, "no UTF-8").await;
        check("echo nothing of use", PATIENCE, "neither").await;
        check("ln -s /etc/passwd tests/test_b.py", PATIENCE, "link").await;
        check("rm tests/test_a.py; ln -s ../shop.py tests/test_a.py", PATIENCE, "link").await;
        check("rm tests/test_a.py", PATIENCE, "removes no file").await;
        check("printf '\\377' > tests/test_a.py", PATIENCE, "no text").await;
        check("printf 'a\\0b' > tests/test_a.py", PATIENCE, "NUL").await;
        check("head -c 2000000 /dev/zero | tr '\\0' x > tests/test_b.py", PATIENCE, "larger than 1 MiB")
            .await;
    }

    #[tokio::test]
    async fn a_program_reaches_neither_the_project_nor_the_network() {
        let ground = ground();
        if !can_unshare(false) {
            // Then what it does to the project is seen at least.
            let complaint = ground.ask("touch PROJECT/tests/test_b.py", PATIENCE).await.err().unwrap();
            assert!(complaint.message.contains("has changed while"), "{complaint}");
            return;
        }
        let script = "touch PROJECT/x 2> /dev/null && exit 1; test \"$(grep -c : /proc/net/dev)\" = 1 || exit 2; exit 3";
        assert!(matches!(ground.ask(script, PATIENCE).await.unwrap(), Reply::NoIdea));
        // One that got through all the same, or somebody else at the same time.
        std::fs::write(ground.root.join("new.py"), "").unwrap();
        let complaint = ground.ask("exit 3", PATIENCE).await.err().unwrap();
        assert!(complaint.message.contains("has changed while"), "{complaint}");
    }
}
