//! This machine: its kernel, engine, disk and ports.

use super::{Finding, Findings};
use crate::args::values::parsed;
use crate::embedded;
use crate::exit::Complaint;
use crate::stores::state_dir_here;
use flakefarm_project::settings::{Settings, size_about};
use flakefarm_shared::{SandboxLevel, WIRE_VERSION, WorkerId};
use flakefarm_worker::sandbox::{Engine, EngineFacts, LocalSandbox, RuntimeChoice, Trial};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;

/// Less than this is soon used up by images and snapshots.
const LITTLE_DISK: u64 = 5 << 30;
/// And with less nothing can be worked with.
const NO_DISK: u64 = 256 << 20;
/// Files that a busy process may want to have open.
const FILES: u64 = 4_096;

pub(super) async fn look(findings: &mut Findings, settings: &Settings) -> Result<(), Complaint> {
    findings.say(
        "flakefarm",
        Finding::Well(format!("version {}, messages of version {WIRE_VERSION}", env!("CARGO_PKG_VERSION"))),
    )?;
    findings.say("kernel", Finding::Well(kernel()))?;
    findings.say("control groups", control_groups())?;
    let without_engine = without_engine().await;
    let choice: RuntimeChoice = settings
        .parsed("worker.runtime", parsed)
        .map_err(|error| Complaint::of_setting(&error))?
        .unwrap_or_default();
    match embedded::connect_engine(WorkerId(format!("doctor-{}", std::process::id()))).await {
        Ok(engine) => {
            let looked = Box::pin(look_at_engine(findings, &engine, &choice)).await;
            engine.close().await;
            looked?;
        }
        Err(complaint) => findings.say("container engine", Finding::Wrong(with_remedy(complaint)))?,
    }
    findings.say("without an engine", without_engine)?;
    for (what, path) in places(settings) {
        findings.say(&format!("disk of {what}"), disk(&path))?;
    }
    findings.say("open files", open_files())?;
    for (whose, key) in [("coordinator", "coordinator.listen"), ("worker's health", "worker.health_listen")] {
        if let Some(address) = settings.text(key) {
            findings.say(&format!("port of the {whose}"), port(&address).await)?;
        }
    }
    Ok(())
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
    let memory = kib.map_or(String::new(), |kib| format!(", {} of memory", size_about(kib << 10)));
    format!("{} on {} cores{memory}", release.trim(), cores)
}

/// Which version, by what is mounted.
fn control_groups() -> Finding {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok();
    control_groups_of(controllers.as_deref(), Path::new("/sys/fs/cgroup/memory").is_dir())
}

/// `controllers` as version 2 lists them at its root; `has_v1`: version 1's memory controller is mounted.
fn control_groups_of(controllers: Option<&str>, has_v1: bool) -> Finding {
    let needed = ["cpu", "memory", "pids"];
    match controllers {
        Some(controllers) => {
            let has: Vec<&str> = controllers.split_ascii_whitespace().collect();
            let lacking: Vec<&str> = needed.into_iter().filter(|needed| !has.contains(needed)).collect();
            if lacking.is_empty() {
                return Finding::Well(format!("version 2 ({})", has.join(", ")));
            }
            Finding::Note(
                format!("version 2, without {}: such limits are not kept", lacking.join(", ")),
                "delegate them: systemctl edit user@.service, [Service] Delegate=cpu memory pids".to_owned(),
            )
        }
        None if has_v1 => Finding::Note(
            "version 1: rootless engines cannot limit memory or processes".to_owned(),
            "boot with systemd.unified_cgroup_hierarchy=1; engines of root work as they are".to_owned(),
        ),
        None => Finding::Note(
            "none are mounted: whether limits are kept is the engine's business".to_owned(),
            "mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
        ),
    }
}

async fn look_at_engine(
    findings: &mut Findings,
    engine: &Engine,
    choice: &RuntimeChoice,
) -> Result<(), Complaint> {
    let facts = engine.check().await?;
    findings.say("container engine", Finding::Well(engine_line(&facts)))?;
    if let Err(error) = engine.check_runtime(choice).await {
        findings.say("runtime", Finding::Wrong(embedded::unavailable(&error)))?;
    } else {
        findings.say("runtime", runtime(&facts, choice, &tried(engine, &facts, choice).await))?;
    }
    findings.say("limits", limits(&facts))
}

/// A runtime with which a container was started, or why it could not be.
type Tried = (String, Result<(), String>);

/// Starts a container with the runtime that attempts get, and where that fails with what takes its place.
async fn tried(engine: &Engine, facts: &EngineFacts, choice: &RuntimeChoice) -> Vec<Tried> {
    let chosen = facts.runtime(choice);
    let trial = match Trial::begin(engine).await {
        Ok(trial) => trial,
        Err(error) => return vec![(chosen, Err(error.message))],
    };
    let mut tried = Vec::new();
    let instead = (*choice == RuntimeChoice::Auto).then(|| facts.default_runtime.clone());
    for runtime in std::iter::once(chosen).chain(instead.filter(|default| *default != facts.runtime(choice)))
    {
        // Podman is not asked for one.
        let asked = Some(runtime.as_str()).filter(|_| !facts.is_podman);
        let started = trial.of(asked).await.map_err(|error| error.message);
        let works = started.is_ok();
        tried.push((runtime, started));
        if works {
            break;
        }
    }
    trial.end().await;
    tried
}

/// What is usually wrong where no engine answers.
fn with_remedy(mut complaint: Complaint) -> Complaint {
    if complaint.message.contains("ermission denied") {
        complaint.hint =
            Some("you may not use its socket: sudo usermod -aG docker $USER, then log in again".to_owned());
        return complaint;
    }
    let installed = |name: &str| on_path(name).is_some();
    if std::env::var_os("DOCKER_HOST").is_some() {
        return complaint;
    }
    complaint.hint = Some(if installed("docker") {
        "it is installed and not running: sudo systemctl start docker".to_owned()
    } else if installed("podman") {
        "Podman is installed and its socket is not: systemctl --user start podman.socket".to_owned()
    } else {
        "install one (apt install docker.io, or podman), or sweep with --sandbox host".to_owned()
    });
    complaint
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Root's programs are not on everybody's path.
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn engine_line(facts: &EngineFacts) -> String {
    let kind = if facts.is_podman { "Podman" } else { "Docker" };
    let rootless = if facts.rootless { ", rootless" } else { "" };
    format!("{kind} {}, API {}{rootless}", facts.version, facts.api_version)
}

/// Which runtime attempts get, whether it starts anything, and whether there is a better one.
fn runtime(facts: &EngineFacts, choice: &RuntimeChoice, tried: &[Tried]) -> Finding {
    const MEND: &str = "try it by hand (docker run --runtime NAME ...); crun wants control groups of one version \
                        alone, runsc and kata what their manuals say";
    let chosen = facts.runtime(choice);
    let registered = if facts.is_podman {
        format!("{chosen}, which starts containers here")
    } else {
        format!("{chosen}, which starts containers here (registered: {})", facts.runtimes.join(", "))
    };
    match tried {
        [(failed, Err(why)), (instead, Ok(()))] => {
            return Finding::Note(
                format!("{instead}: {failed} is registered and cannot start a container here: {why}"),
                format!("{MEND}; or take {failed} out of the engine's runtimes"),
            );
        }
        [.., (failed, Err(why))] => {
            return Finding::Wrong(
                Complaint::farm(format!("{failed} cannot start a container here: {why}")).hint(MEND),
            );
        }
        [.., (_, Ok(()))] | [] => {}
    }
    let wanted = chosen != "crun" && *choice == RuntimeChoice::Auto && !mixes_control_groups();
    let crun = on_path("crun").filter(|_| wanted);
    match crun {
        Some(path) if !facts.is_podman => Finding::Note(
            format!("{registered}; crun is installed, which starts containers in half the time"),
            format!(
                "in /etc/docker/daemon.json: {{\"runtimes\": {{\"crun\": {{\"path\": \"{}\"}}}}}}, then \
                 systemctl reload docker",
                path.display()
            ),
        ),
        Some(_) | None => Finding::Well(registered),
    }
}

/// Whether both versions of control groups are mounted, where crun starts nothing.
fn mixes_control_groups() -> bool {
    let root = Path::new("/sys/fs/cgroup");
    !root.join("cgroup.controllers").exists() && root.join("unified").is_dir()
}

/// Whether the engine keeps limits.
fn limits(facts: &EngineFacts) -> Finding {
    match (facts.cgroups.as_str(), facts.rootless) {
        ("1", true) => Finding::Note(
            "the engine is rootless over control groups of version 1: limits of memory and processes are not kept"
                .to_owned(),
            "run the engine as root, or boot with systemd.unified_cgroup_hierarchy=1".to_owned(),
        ),
        ("", _) => Finding::Well("the engine does not say by which control groups".to_owned()),
        (version, _) => Finding::Well(format!("kept by control groups of version {version}")),
    }
}

/// Whether attempts can be isolated by the kernel alone.
async fn without_engine() -> Finding {
    let checked = match LocalSandbox::new(SandboxLevel::Host) {
        Ok(sandbox) => sandbox.check().await,
        Err(error) => Err(error.to_string()),
    };
    match checked {
        Ok(()) => Finding::Well("attempts can be isolated by the kernel alone (--sandbox host)".to_owned()),
        Err(why) => Finding::Note(
            format!("--sandbox host does not work here: {why}"),
            "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns"
                .to_owned(),
        ),
    }
}

/// Directories that are written to.
fn places(settings: &Settings) -> Vec<(&'static str, PathBuf)> {
    let mut places = Vec::new();
    if let Ok(state) = state_dir_here() {
        places.push(("the state", state));
    }
    if let Some(spool) = settings.text("worker.spool") {
        places.push(("the spool", spool.into()));
    }
    let blobs = settings.text("stores.blobs");
    if let Some(path) = blobs.as_deref().and_then(|address| address.strip_prefix("file://")) {
        places.push(("the blobs", path.into()));
    }
    places
}

fn disk(path: &Path) -> Finding {
    let shown = path.display();
    // What is not there yet is made in the nearest directory that is.
    let Some(there) = path.ancestors().find(|dir| dir.exists()) else {
        return Finding::Wrong(Complaint::farm(format!("{shown} cannot be made")));
    };
    if let Err(error) = tempfile::tempfile_in(there) {
        return Finding::Wrong(
            Complaint::farm(format!("{} cannot be written to: {error}", there.display()))
                .hint(format!("sudo chown $USER {}", there.display())),
        );
    }
    let Ok(found) = rustix::fs::statvfs(there) else {
        return Finding::Note(format!("{shown}: how much is free is not known"), "df -h says".to_owned());
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let fact = format!("{shown}, {} free", size_about(free));
    if found.f_files > 0 && found.f_favail < 10_000 {
        return Finding::Note(
            format!("{fact}, but few inodes"),
            "flakefarm gc, docker system prune".to_owned(),
        );
    }
    let room = "make room: flakefarm gc, docker system prune";
    if free < NO_DISK {
        Finding::Wrong(Complaint::farm(fact).hint(room))
    } else if free < LITTLE_DISK {
        Finding::Note(fact, room.to_owned())
    } else {
        Finding::Well(fact)
    }
}

fn open_files() -> Finding {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    match hard {
        Some(hard) if hard < FILES => Finding::Note(
            format!("at most {hard}, which a busy coordinator or worker may need more than"),
            "ulimit -n 65536, or LimitNOFILE= of the unit".to_owned(),
        ),
        Some(hard) => Finding::Well(format!("at most {hard}")),
        None => Finding::Well("without a limit".to_owned()),
    }
}

async fn port(address: &str) -> Finding {
    match TcpListener::bind(address).await {
        Ok(_) => Finding::Well(format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::Note(
            format!("{address} is taken: by a flakefarm that runs already?"),
            format!("flakefarm probe healthz --at {}", reachable(address)),
        ),
        Err(error) => Finding::Wrong(
            Complaint::farm(format!("{address} cannot be listened on: {error}"))
                .hint("an address of this machine, such as 127.0.0.1:7878; ports below 1024 are root's"),
        ),
    }
}

fn reachable(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(parsed) if parsed.ip().is_unspecified() => format!("127.0.0.1:{}", parsed.port()),
        Ok(_) | Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(finding: Finding) -> (&'static str, String) {
        match finding {
            Finding::Well(fact) => ("ok", fact),
            Finding::Note(fact, _) => ("note", fact),
            Finding::Wrong(complaint) => ("wrong", complaint.message),
        }
    }

    #[test]
    fn control_groups_are_told_apart() {
        let whole = control_groups_of(Some("cpuset cpu io memory pids\n"), false);
        assert_eq!(words(whole), ("ok", "version 2 (cpuset, cpu, io, memory, pids)".to_owned()));
        let (word, fact) = words(control_groups_of(Some("memory pids\n"), false));
        assert_eq!((word, fact.as_str()), ("note", "version 2, without cpu: such limits are not kept"));
        assert_eq!(words(control_groups_of(None, true)).0, "note");
    }

    #[test]
    fn the_runtime_that_attempts_get_is_named() {
        let facts = EngineFacts {
            id: String::new(),
            version: "24".to_owned(),
            kernel: String::new(),
            api_version: "1.41".to_owned(),
            runtimes: vec!["crun".to_owned(), "runc".to_owned()],
            default_runtime: "runc".to_owned(),
            is_podman: false,
            cpus: 2,
            data_root: String::new(),
            cgroups: "2".to_owned(),
            rootless: false,
        };
        let of = |choice, tried: &[Tried]| words(runtime(&facts, &choice, tried));
        let well = |runtime: &str| (runtime.to_owned(), Ok(()));
        let ill = |runtime: &str| (runtime.to_owned(), Err("OCI runtime create failed".to_owned()));
        let said =
            |runtime: &str| format!("{runtime}, which starts containers here (registered: crun, runc)");
        assert_eq!(of(RuntimeChoice::Auto, &[well("crun")]), ("ok", said("crun")));
        assert_eq!(of(RuntimeChoice::Default, &[well("runc")]), ("ok", said("runc")));
        let (word, fact) = of(RuntimeChoice::Auto, &[ill("crun"), well("runc")]);
        assert_eq!(word, "note");
        assert!(fact.starts_with("runc: crun is registered and cannot start a container"), "{fact}");
        for tried in [vec![ill("crun"), ill("runc")], vec![ill("runc")]] {
            let (word, fact) = of(RuntimeChoice::Auto, &tried);
            assert!(word == "wrong" && fact.contains("OCI runtime create failed"), "{fact}");
        }
    }
}
