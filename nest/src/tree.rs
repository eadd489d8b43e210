//! The root that all attempts of one nest share, read-only: built once, in a mount namespace of the
//! nest's own. System directories are bound; places that programs write to are left empty, for each
//! attempt to fill; where an engine keeps its sockets is left out.

use crate::cell::{EMPTY, LAYERS, LAYERS_OF_FORK, USER};
use crate::sys;
use flakefarm_nest::{Bind, Ground, HOME, SetUp, TREE, USER_NAME, WORK};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

/// Where the new root is put together. What lies there is not needed, except by descriptor.
const NEW: &str = "/tmp";
const HOSTS: &str = "127.0.0.1\tlocalhost flakefarm\n::1\tlocalhost ip6-localhost ip6-loopback\n";
/// A server of names that no attempt can reach (an address for documentation, RFC 5737): asking it is seen in the
/// network namespace's count of packets without a route, where a server on loopback would be refused unseen.
const RESOLVER: &str = "nameserver 192.0.2.53\n";
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Made anew, whatever the ground has there.
const EMPTY_PLACES: [&str; 5] = ["tmp", "run", "mnt", "media", "work"];
/// On a host, where people keep their secrets.
const PRIVATE_PLACES: [&str; 4] = ["home", "root", "boot", "lost+found"];

/// Builds the root and moves into it. Returns where the project's tree lies there.
pub(crate) fn build(set_up: &SetUp) -> Result<&'static str, String> {
    sys::no_umask();
    mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")
        .map_err(|error| said("make mounts private", &error))?;
    let binds: &[Bind] = match &set_up.ground {
        Ground::Container => &[],
        Ground::Host { binds } => binds,
    };
    // Before the new root covers them.
    let sources = binds.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    mount("flakefarm", NEW, "tmpfs", libc::MS_NOSUID, "mode=0755,size=4m")
        .map_err(|error| said("mount a root for attempts", &error))?;
    for place in EMPTY_PLACES.into_iter().chain([LAYERS, LAYERS_OF_FORK, EMPTY].map(|path| &path[1..])) {
        make(place)?;
    }
    system_directories(set_up)?;
    devices()?;
    for (bind, source) in binds.iter().zip(&sources) {
        bind_in(bind, source)?;
    }
    let found = Path::new(NEW).join(&TREE[1..]).is_dir();
    name_services()?;
    names()?;
    make_read_only(&set_up.ground)?;
    let new = c_string(NEW)?;
    sys::change_root(&new).map_err(|error| said("change the root", &error))?;
    mount("", "/", "", libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID, "")
        .map_err(|error| said("make the root read-only", &error))?;
    debug_assert_eq!(WORK, "/work");
    Ok(if found { TREE } else { EMPTY })
}

fn system_directories(set_up: &SetUp) -> Result<(), String> {
    let on_host = matches!(set_up.ground, Ground::Host { .. });
    let entries = fs::read_dir("/").map_err(|error| said("list the root", &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| said("list the root", &error))?;
        let kind = entry.file_type().map_err(|error| said("list the root", &error))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let target = format!("{NEW}/{name}");
        if kind.is_symlink() {
            let link = fs::read_link(entry.path()).map_err(|error| said("read a link", &error))?;
            symlink(link, &target).map_err(|error| said("copy a link", &error))?;
            continue;
        }
        if !kind.is_dir() || EMPTY_PLACES.contains(&name.as_str()) || name == "dev" {
            continue;
        }
        make(&name)?;
        if on_host && (PRIVATE_PLACES.contains(&name.as_str()) || name == "flakefarm") {
            continue;
        }
        if name == "sys" && !set_up.shared_network {
            let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            // Without it attempts find /sys empty, which is better than another network's.
            let _ = mount("sysfs", &target, "sysfs", flags, "");
            continue;
        }
        let bound = mount(&format!("/{name}"), &target, "", libc::MS_BIND | libc::MS_REC, "");
        bound.map_err(|error| said(&format!("bind /{name}"), &error))?;
    }
    make("flakefarm")?;
    Ok(())
}

fn devices() -> Result<(), String> {
    make("dev")?;
    for name in ["dev/pts", "dev/shm", "dev/mqueue"] {
        make(name)?;
    }
    for name in DEVICES {
        let (source, target) = (format!("/dev/{name}"), format!("{NEW}/dev/{name}"));
        if Path::new(&source).exists() {
            File::create(&target).map_err(|error| said("make a device", &error))?;
            mount(&source, &target, "", libc::MS_BIND, "")
                .map_err(|error| said(&format!("bind {source}"), &error))?;
        }
    }
    for (name, target) in LINKS {
        symlink(target, format!("{NEW}/dev/{name}")).map_err(|error| said("make a link", &error))?;
    }
    Ok(())
}

fn open(bind: &Bind) -> Result<File, String> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(&bind.source)
        .map_err(|error| said(&format!("open {}", bind.source), &error))
}

fn bind_in(bind: &Bind, source: &File) -> Result<(), String> {
    let failed = |error: io::Error| said(&format!("bind {}", bind.source), &error);
    let target = format!("{NEW}{}", bind.target);
    if source.metadata().map_err(failed)?.is_dir() {
        // It may be below something bound already, which then has it.
        fs::create_dir_all(&target).map_err(failed)?;
    } else {
        let parent = Path::new(&target).parent().unwrap_or(Path::new(NEW));
        fs::create_dir_all(parent).map_err(failed)?;
        if !Path::new(&target).exists() {
            File::create(&target).map_err(failed)?;
        }
    }
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    mount(&source, &target, "", libc::MS_BIND | libc::MS_REC, "").map_err(failed)
}

/// A container without a network has an empty hosts file and no server of names, and a host names what attempts
/// cannot reach. A link is left alone: it leads to a directory that attempts find empty.
fn name_services() -> Result<(), String> {
    for (file, content) in [("hosts", HOSTS), ("resolv.conf", RESOLVER)] {
        let target = format!("{NEW}/etc/{file}");
        if !fs::symlink_metadata(&target).is_ok_and(|found| found.is_file()) {
            continue;
        }
        let ours = format!("{NEW}{EMPTY}.{file}");
        fs::write(&ours, content).map_err(|error| said(&format!("write /etc/{file}"), &error))?;
        mount(&ours, &target, "", libc::MS_BIND, "")
            .map_err(|error| said(&format!("bind /etc/{file}"), &error))?;
    }
    Ok(())
}

/// The user of attempts has a name, a home and a group, whatever the ground calls its number.
fn names() -> Result<(), String> {
    let user = format!("{USER_NAME}:x:{USER}:{USER}::{HOME}:/bin/sh\n");
    let group = format!("{USER_NAME}:x:{USER}:\n");
    for (file, line) in [("passwd", user), ("group", group)] {
        let target = format!("{NEW}/etc/{file}");
        let Ok(known) = fs::read_to_string(&target) else { continue };
        if is_named(&known, USER) {
            continue;
        }
        let ours = format!("{NEW}{EMPTY}.{file}");
        let separator = if known.is_empty() || known.ends_with('\n') { "" } else { "\n" };
        fs::write(&ours, format!("{known}{separator}{line}"))
            .map_err(|error| said(&format!("write /etc/{file}"), &error))?;
        mount(&ours, &target, "", libc::MS_BIND, "")
            .map_err(|error| said(&format!("bind /etc/{file}"), &error))?;
    }
    Ok(())
}

/// Whether a file in the form of /etc/passwd or /etc/group has an entry for this number.
fn is_named(known: &str, number: u32) -> bool {
    known.lines().any(|line| line.split(':').nth(2).and_then(|field| field.parse().ok()) == Some(number))
}

/// Every mount below the new root, except /proc: each attempt covers that with its own.
fn make_read_only(ground: &Ground) -> Result<(), String> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|error| said("list mounts", &error))?;
    for line in table.lines() {
        let Some(point) = line.split(' ').nth(4).map(unescaped) else { continue };
        let below = point.strip_prefix(NEW).and_then(|rest| rest.strip_prefix('/'));
        let Some(below) = below.filter(|below| *below != "proc" && !below.starts_with("proc/")) else {
            continue;
        };
        match remount_read_only(&point) {
            Ok(()) => {}
            // What the nest cannot reach, attempts cannot reach.
            Err(error)
                if matches!(ground, Ground::Host { .. })
                    && matches!(error.raw_os_error(), Some(libc::EACCES | libc::ENOENT)) => {}
            Err(error) => return Err(said(&format!("make /{below} read-only"), &error)),
        }
    }
    Ok(())
}

fn remount_read_only(point: &str) -> io::Result<()> {
    let path = CString::new(point)?;
    let found = sys::mount_flags(&path)?;
    if found & libc::ST_RDONLY != 0 {
        return Ok(());
    }
    let mut flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
    for (has, keep) in [
        (libc::ST_NOSUID, libc::MS_NOSUID),
        (libc::ST_NODEV, libc::MS_NODEV),
        (libc::ST_NOEXEC, libc::MS_NOEXEC),
        (libc::ST_NODIRATIME, libc::MS_NODIRATIME),
    ] {
        if found & has != 0 {
            flags |= keep;
        }
    }
    flags |= match (found & libc::ST_NOATIME != 0, found & libc::ST_RELATIME != 0) {
        (true, _) => libc::MS_NOATIME,
        (false, true) => libc::MS_RELATIME,
        (false, false) => libc::MS_STRICTATIME,
    };
    mount("", point, "", flags, "")
}

/// `\040` and its like, as the kernel writes them.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, code.and_then(|digits| u8::from_str_radix(digits, 8).ok())) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn make(place: &str) -> Result<(), String> {
    fs::create_dir_all(format!("{NEW}/{place}")).map_err(|error| said(&format!("make /{place}"), &error))
}

fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let text = |text: &str| CString::new(text).map_err(io::Error::other);
    sys::mount(&text(source)?, &text(target)?, &text(kind)?, flags, &text(data)?)
}

fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|error| error.to_string())
}

fn said(doing: &str, error: &io::Error) -> String {
    format!("failed to {doing}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_their_number() {
        let known = "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert!(is_named(known, 1000));
        assert!(!is_named(known, 100));
        assert!(!is_named("me:x", 1000));
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescaped(r"/a\040b/\134c"), r"/a b/\c");
        assert_eq!(unescaped("/plain"), "/plain");
        assert_eq!(unescaped(r"/odd\09"), r"/odd\09");
    }
}
