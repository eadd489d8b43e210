//! The world of one attempt, as steps: what a process does right after it was cloned into namespaces
//! of its own, and before it gives up every privilege that it had there. Pure: building a list takes
//! no step. The list is data because two programs take it: the nest in its own children, and a
//! prepared interpreter in the children that it forks.

use crate::filter;
use flakefarm_nest::{Argument, HOME, Step, WORK};

/// Where the layers of /work lie while it is mounted.
pub(crate) const LAYERS: &str = "/.layers";
/// The same of an attempt that is forked in a zygote's cell.
pub(crate) const LAYERS_OF_FORK: &str = "/.layers-of-fork";
/// Nothing.
pub(crate) const EMPTY: &str = "/.empty";

/// The user of every attempt, as in a container of its own.
pub(crate) const USER: u32 = 1000;

/// Namespaces that every cell has.
const NAMESPACES: i32 =
    libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// `CAP_SYS_ADMIN`.
const SYS_ADMIN: u64 = 21;

/// What a cell is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An attempt of its own.
    Fresh,
    /// An interpreter that attempts are forked from. Cells are made in it, by its first process, so that is
    /// not behind the closing filter and sees all of its own /proc; the interpreter has a filter of its own.
    Zygote,
    /// An attempt forked by a zygote, over what that has left in /work and /tmp. Its first process takes
    /// the steps and waits; the attempt joins it.
    Forked,
}

/// The measures of a cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CellSpec<'a> {
    pub(crate) kind: Kind,
    /// Where the project's tree lies.
    pub(crate) tree: &'a str,
    pub(crate) scratch_bytes: u64,
    pub(crate) pids: u32,
    pub(crate) shared_network: bool,
    /// How many capabilities the kernel knows.
    pub(crate) capabilities: u64,
}

impl CellSpec<'_> {
    /// Flags of `clone`.
    pub(crate) fn flags(&self) -> u64 {
        let network = if self.shared_network { 0 } else { libc::CLONE_NEWNET };
        (NAMESPACES | network) as u64
    }

    /// What the clone does first.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut list = List::default();
        list.write("refuse groups", "/proc/self/setgroups", "deny");
        list.write("map the user", "/proc/self/uid_map", &format!("{USER} {USER} 1"));
        list.write("map the group", "/proc/self/gid_map", &format!("{USER} {USER} 1"));
        self.places(&mut list);
        self.devices(&mut list);
        self.processes(&mut list);
        self.names(&mut list);
        self.measures(&mut list);
        self.give_up_privileges(&mut list);
        list.0
    }

    /// What a process does that has joined a cell, before it runs anything there.
    pub(crate) fn joining(&self) -> Vec<Step> {
        let mut list = List::default();
        // A change of user namespaces may take what lets a process see itself.
        list.prctl("stay visible to itself", libc::PR_SET_DUMPABLE, 1);
        self.measures(&mut list);
        self.give_up_privileges(&mut list);
        list.0
    }

    fn measures(&self, list: &mut List) {
        list.call("enter the work tree", libc::SYS_chdir, vec![text(WORK)]);
        list.call("set the umask", libc::SYS_umask, vec![number(0o022)]);
        list.limit("limit core dumps", libc::RLIMIT_CORE, 0);
        list.limit("limit processes", libc::RLIMIT_NPROC, u64::from(self.pids));
        // Under memory pressure the kernel ends attempts, not the nest. Refused where that is less.
        list.write("offer itself to the kernel", "/proc/self/oom_score_adj", "900");
        list.optional_since(3);
    }

    /// What programs write to.
    fn places(&self, list: &mut List) {
        let size = self.scratch_bytes;
        list.mount("tmpfs", "/run", "tmpfs", FRESH, "size=16m,mode=0755,uid=1000,gid=1000");
        list.mount("tmpfs", "/dev/shm", "tmpfs", FRESH | libc::MS_NOEXEC, "size=64m,mode=1777");
        let owned = format!("size={size},mode=0755,uid={USER},gid={USER}");
        let layers = match self.kind {
            Kind::Fresh | Kind::Zygote => LAYERS,
            Kind::Forked => LAYERS_OF_FORK,
        };
        list.mount("tmpfs", layers, "tmpfs", FRESH, &owned);
        list.make(&format!("{layers}/upper"), 0o755);
        list.make(&format!("{layers}/work"), 0o755);
        let overlay = |lower: &str, upper: &str, work: &str| {
            format!("lowerdir={lower},upperdir={layers}/{upper},workdir={layers}/{work},userxattr,volatile")
        };
        match self.kind {
            Kind::Fresh | Kind::Zygote => {
                list.mount("overlay", WORK, "overlay", FRESH, &overlay(self.tree, "upper", "work"));
                list.mount("tmpfs", "/tmp", "tmpfs", FRESH, &format!("size={size},mode=1777"));
                list.make(HOME, 0o755);
            }
            Kind::Forked => {
                // What the zygote's collection has written belongs to what was collected.
                let lower = format!("{LAYERS}/upper:{}", self.tree);
                list.mount("overlay", WORK, "overlay", FRESH, &overlay(&lower, "upper", "work"));
                list.make(&format!("{layers}/tmp"), 0o1777);
                list.make(&format!("{layers}/tmp-work"), 0o755);
                list.mount("overlay", "/tmp", "overlay", FRESH, &overlay("/tmp", "tmp", "tmp-work"));
                // Mounted by another, so it cannot be taken away, but covered.
                list.mount(EMPTY, LAYERS, "", libc::MS_BIND, "");
            }
        }
        match self.kind {
            Kind::Zygote => {}
            Kind::Fresh | Kind::Forked => {
                let flags = number(libc::MNT_DETACH as u64);
                list.call("hide the layers", libc::SYS_umount2, vec![text(layers), flags]);
            }
        }
    }

    fn devices(&self, list: &mut List) {
        let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
        list.mount("devpts", "/dev/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=0620");
        list.mount("mqueue", "/dev/mqueue", "mqueue", flags | libc::MS_NODEV, "");
        list.optional_since(1);
    }

    fn processes(&self, list: &mut List) {
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        list.mount("proc", "/proc", "proc", flags, "");
        if self.kind == Kind::Zygote {
            return;
        }
        for place in ["kcore", "keys", "timer_list", "latency_stats", "sched_debug", "sysrq-trigger"] {
            list.mount("/dev/null", &format!("/proc/{place}"), "", libc::MS_BIND, "");
            list.optional_since(1);
        }
        for place in ["acpi", "scsi"] {
            list.mount("tmpfs", &format!("/proc/{place}"), "tmpfs", flags | libc::MS_RDONLY, "size=4k");
            list.optional_since(1);
        }
        for place in ["bus", "fs", "irq", "sys"] {
            let place = format!("/proc/{place}");
            list.mount(&place, &place, "", libc::MS_BIND, "");
            list.mount("", &place, "", libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | flags, "");
            list.optional_since(2);
        }
    }

    fn names(&self, list: &mut List) {
        let name = b"flakefarm";
        let arguments = vec![Argument::Bytes(name.to_vec()), number(name.len() as u64)];
        list.call("set the host name", libc::SYS_sethostname, arguments);
        if self.shared_network {
            return;
        }
        let kind = [libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0];
        list.call("open a socket", libc::SYS_socket, kind.map(|value| number(value as u64)).to_vec());
        // struct ifreq: a name of 16 bytes, then flags of two.
        let mut request = [0_u8; 40];
        request[..2].copy_from_slice(b"lo");
        request[16..18].copy_from_slice(&((libc::IFF_UP | libc::IFF_RUNNING) as u16).to_ne_bytes());
        let arguments =
            vec![Argument::Descriptor, number(libc::SIOCSIFFLAGS), Argument::Bytes(request.to_vec())];
        list.call("bring the loopback up", libc::SYS_ioctl, arguments);
        list.call("close a socket", libc::SYS_close, vec![Argument::Descriptor]);
    }

    /// The capabilities, as bits, that are not given up: to fork into a cell, a zygote needs one in the
    /// user namespace of its own.
    fn kept(&self) -> u64 {
        match self.kind {
            Kind::Zygote => 1 << SYS_ADMIN,
            Kind::Fresh | Kind::Forked => 0,
        }
    }

    fn give_up_privileges(&self, list: &mut List) {
        let kept = self.kept();
        for capability in (0..self.capabilities).filter(|capability| kept >> capability & 1 == 0) {
            list.prctl("drop a capability", libc::PR_CAPBSET_DROP, capability);
        }
        list.drop_ambient();
        list.capabilities("drop capabilities", kept, kept, kept);
        if kept != 0 {
            // So that it outlasts becoming another program.
            let arguments = [libc::PR_CAP_AMBIENT as u64, libc::PR_CAP_AMBIENT_RAISE as u64, SYS_ADMIN];
            list.call("keep a capability", libc::SYS_prctl, arguments.map(number).to_vec());
        }
        list.prctl("refuse new privileges", libc::PR_SET_NO_NEW_PRIVS, 1);
        list.prctl("end with the nest", libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64);
        match self.kind {
            Kind::Zygote => {}
            Kind::Fresh | Kind::Forked => {
                let filter = vec![
                    number(libc::PR_SET_SECCOMP as u64),
                    number(u64::from(libc::SECCOMP_MODE_FILTER)),
                    Argument::Filter(filter::closing()),
                ];
                list.call("install the filter", libc::SYS_prctl, filter);
            }
        }
    }
}

/// Puts down what a zygote has kept, so that what it imports and starts has no capability in effect.
pub(crate) fn put_down() -> Vec<Step> {
    let mut list = List::default();
    list.drop_ambient();
    list.capabilities("put a capability down", 0, 1 << SYS_ADMIN, 0);
    list.0
}

/// Takes it up again.
pub(crate) fn take_up() -> Vec<Step> {
    let mut list = List::default();
    list.capabilities("take a capability up", 1 << SYS_ADMIN, 1 << SYS_ADMIN, 0);
    list.0
}

const FRESH: u64 = libc::MS_NOSUID | libc::MS_NODEV;

#[derive(Debug, Default)]
struct List(Vec<Step>);

impl List {
    fn call(&mut self, purpose: &str, number: libc::c_long, arguments: Vec<Argument>) {
        self.0.push(Step { purpose: purpose.to_owned(), number, arguments, needed: true });
    }

    /// The last `count` steps may fail.
    fn optional_since(&mut self, count: usize) {
        let from = self.0.len() - count;
        for step in &mut self.0[from..] {
            step.needed = false;
        }
    }

    fn mount(&mut self, source: &str, target: &str, kind: &str, flags: u64, data: &str) {
        let arguments = vec![text(source), text(target), text(kind), number(flags), text(data)];
        self.call(&format!("mount {kind} on {target}"), libc::SYS_mount, arguments);
    }

    fn make(&mut self, path: &str, mode: u64) {
        let arguments = vec![number(libc::AT_FDCWD as u64), text(path), number(mode)];
        self.call(&format!("make {path}"), libc::SYS_mkdirat, arguments);
    }

    fn write(&mut self, purpose: &str, path: &str, content: &str) {
        let flags = number((libc::O_WRONLY | libc::O_CLOEXEC) as u64);
        self.call(purpose, libc::SYS_openat, vec![number(libc::AT_FDCWD as u64), text(path), flags]);
        let length = number(content.len() as u64);
        let content = Argument::Bytes(content.as_bytes().to_vec());
        self.call(purpose, libc::SYS_write, vec![Argument::Descriptor, content, length]);
        self.call(purpose, libc::SYS_close, vec![Argument::Descriptor]);
    }

    fn limit(&mut self, purpose: &str, resource: libc::__rlimit_resource_t, value: u64) {
        let both = [value.to_ne_bytes(), value.to_ne_bytes()].concat();
        let arguments = vec![number(0), number(u64::from(resource)), Argument::Bytes(both), number(0)];
        self.call(purpose, libc::SYS_prlimit64, arguments);
    }

    fn drop_ambient(&mut self) {
        let all = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
        self.prctl("drop ambient capabilities", libc::PR_CAP_AMBIENT, all);
    }

    /// `capset` with sets of the first 32 capabilities.
    fn capabilities(&mut self, purpose: &str, effective: u64, permitted: u64, inheritable: u64) {
        // struct __user_cap_header_struct, then two struct __user_cap_data_struct.
        let header: Vec<u8> = [crate::sys::CAPABILITY_VERSION.to_ne_bytes(), 0_u32.to_ne_bytes()].concat();
        let sets = [effective, permitted, inheritable, 0, 0, 0];
        let data: Vec<u8> = sets.iter().flat_map(|set| (*set as u32).to_ne_bytes()).collect();
        self.call(purpose, libc::SYS_capset, vec![Argument::Bytes(header), Argument::Bytes(data)]);
    }

    fn prctl(&mut self, purpose: &str, option: i32, argument: u64) {
        let arguments = vec![number(option as u64), number(argument)];
        self.call(purpose, libc::SYS_prctl, arguments);
    }
}

fn number(value: u64) -> Argument {
    Argument::Number(value)
}

fn text(text: &str) -> Argument {
    Argument::Bytes(text.bytes().chain([0]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: Kind) -> CellSpec<'static> {
        CellSpec { kind, tree: "/tree", scratch_bytes: 1, pids: 2, shared_network: false, capabilities: 41 }
    }

    #[test]
    fn every_attempt_ends_behind_the_filter_and_without_capabilities() {
        let (fresh, forked) = (spec(Kind::Fresh), spec(Kind::Forked));
        let lists =
            [("fresh", fresh.steps()), ("first of forked", forked.steps()), ("forked", forked.joining())];
        for (who, steps) in lists {
            let place = |purpose: &str| steps.iter().position(|step| step.purpose == purpose && step.needed);
            let dropped = place("drop capabilities");
            assert!(dropped.is_some() && dropped < place("refuse new privileges"), "{who}");
            assert_eq!(place("install the filter"), Some(steps.len() - 1), "{who}");
        }
    }

    #[test]
    fn a_zygote_keeps_the_way_to_new_namespaces_open() {
        assert!(!spec(Kind::Zygote).steps().iter().any(|step| step.purpose == "install the filter"));
    }

    #[test]
    fn texts_end_with_nul_so_that_the_kernel_reads_no_further() {
        for step in spec(Kind::Forked).steps().iter().filter(|step| step.number == libc::SYS_mount) {
            for argument in &step.arguments {
                if let Argument::Bytes(bytes) = argument {
                    assert_eq!(bytes.last(), Some(&0), "{}", step.purpose);
                }
            }
        }
    }
}
