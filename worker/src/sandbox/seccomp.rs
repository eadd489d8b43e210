//! The system calls that a container of an attempt may make: `seccomp.txt`, as the engine reads it.
//!
//! Docker's default profile lists the calls of three architectures; compiling them is a sizeable part
//! of a container's start. This one is smaller and never more permissive.

use serde_json::{Value, json};
use std::sync::LazyLock;

/// Calls allowed whatever their arguments.
const ALLOWED: &str = include_str!("seccomp.txt");

/// CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: new namespaces are refused.
const NAMESPACES: u64 = 0x7e02_0000;
/// Where `clone` takes its flags, but on s390.
const CLONE_FLAGS: u32 = 0;
/// AF_VSOCK leads to the hypervisor.
const VSOCK: u64 = 40;
/// PER_LINUX and PER_LINUX32, each also as UNAME26, and the question which it is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// What a kernel says that does not know a call: the C library then takes an older one.
const ENOSYS: u32 = 38;

static PROFILE: LazyLock<String> = LazyLock::new(|| compiled(&[]));

/// The profile, as JSON.
pub(crate) fn profile() -> &'static str {
    &PROFILE
}

/// The profile with the calls in `opened` allowed on top, whatever their arguments.
pub(crate) fn compiled(opened: &[&str]) -> String {
    let mut names: Vec<&str> = allowed().collect();
    names.extend(opened);
    let mut rules = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    let when = |name: &str, index: u32, value: u64, op: &str| {
        let argument = json!({ "index": index, "value": value, "valueTwo": 0, "op": op });
        json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument] })
    };
    if !opened.contains(&"clone") {
        rules.push(when("clone", CLONE_FLAGS, NAMESPACES, "SCMP_CMP_MASKED_EQ"));
    }
    // Its flags lie in memory, where a filter cannot look.
    rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    rules.push(when("socket", 0, VSOCK, "SCMP_CMP_NE"));
    rules.extend(PERSONALITIES.map(|value| when("personality", 0, value, "SCMP_CMP_EQ")));
    let profile: Value = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules });
    profile.to_string()
}

fn allowed() -> impl Iterator<Item = &'static str> {
    ALLOWED.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// What gives a way out of a container, or into its neighbours, if it is allowed.
    const NEVER: [&str; 40] = [
        "acct",
        "add_key",
        "bpf",
        "chroot",
        "clock_settime",
        "clone",
        "clone3",
        "delete_module",
        "fanotify_init",
        "finit_module",
        "fsconfig",
        "fsmount",
        "fsopen",
        "init_module",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "ioperm",
        "iopl",
        "kcmp",
        "kexec_load",
        "keyctl",
        "mount",
        "mount_setattr",
        "move_mount",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pidfd_getfd",
        "pivot_root",
        "process_vm_writev",
        "ptrace",
        "reboot",
        "request_key",
        "setns",
        "swapon",
        "syslog",
        "umount2",
        "unshare",
        "userfaultfd",
    ];

    #[test]
    fn each_call_is_named_once_and_none_is_dangerous() {
        let names: Vec<&str> = allowed().collect();
        let distinct: HashSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len(), "a call is named twice");
        let found: Vec<&&str> = NEVER.iter().filter(|name| distinct.contains(**name)).collect();
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn opening_a_call_opens_no_other() {
        let parsed = |opened: &[&str]| -> Value { serde_json::from_str(&compiled(opened)).unwrap() };
        let names = |profile: &Value| -> HashSet<String> {
            let listed = profile["syscalls"][0]["names"].as_array().unwrap();
            listed.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        let (closed, opened) = (parsed(&[]), parsed(&["mount", "clone"]));
        let mut difference: Vec<String> = names(&opened).difference(&names(&closed)).cloned().collect();
        difference.sort();
        assert_eq!(difference, ["clone", "mount"]);
        assert_eq!(closed["defaultAction"], "SCMP_ACT_ERRNO");
    }
}
