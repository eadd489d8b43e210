//! The laws of a sandbox that holds hostile tests: what a test does to break out, to stay, or to reach
//! another attempt, and that it comes to nothing. Bounded in time; programs are shell or Python.

use super::sandbox::{Level, watch};
use flakefarm_worker::sandbox::RunningSandbox;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// For an attempt whose program has ended, whatever it has left behind.
const SOON: Duration = Duration::from_secs(20);

/// Lives until it is ended, and tells that it does: lines with the time.
const TICKING: &str = "echo up; while :; do date +%s%N; sleep 0.05; done";

/// An attempt that runs [`TICKING`] does so after this was called, by the machine's one clock.
async fn still_ticks(running: &mut RunningSandbox) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    loop {
        let line = running.next_line().await.expect("it still runs");
        let told: u128 = String::from_utf8_lossy(&line).parse().expect("a time");
        if told > since {
            return;
        }
    }
}

/// Children that left their session, ignore signals and hold the output end with their attempt, and
/// nothing of them is there for the next.
pub async fn what_outlives_its_test_ends_with_it(level: &Level) {
    let program = "import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(n, signal.SIG_IGN)
        print('daemon', flush=True)
        while True:
            try: open('/tmp/alive', 'a').write('.')
            except OSError: pass
            time.sleep(0.01)
    os._exit(0)
os.wait()
while not os.path.exists('/tmp/alive'): time.sleep(0.01)
print('done', flush=True)
sys.exit(6)";
    let begun = Instant::now();
    let (lines, exit) = level.python(program).await;
    assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    assert_eq!((lines.last().map(String::as_str), exit.exit_code), (Some("done"), 6));
    let (lines, _) = level
        .python(
            "import glob
print(glob.glob('/tmp/alive'))
print(sum(b'SIG_IGN' in open(p, 'rb').read() for p in glob.glob('/proc/[0-9]*/cmdline') if p != '/proc/1/cmdline') - 1)",
        )
        .await;
    assert_eq!(lines, ["[]", "0"]);
}

/// A kill of everything that can be killed ends neither the sandbox's own first process nor another
/// attempt.
pub async fn signals_reach_nobody_else(level: &Level) {
    let mut other = level.start(TICKING).await;
    assert_eq!(other.next_line().await, Some(b"up".to_vec()));
    let program = "import os, signal
for n in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
    for process in range(1, 400):
        # A container's init passes a polite signal on to the program: that is the program's own doing.
        if process != os.getpid() and (process > 1 or n != signal.SIGTERM):
            try: os.kill(process, n)
            except OSError: pass
print('survived', flush=True)
try: os.kill(-1, signal.SIGKILL)
except OSError: pass
print('alone', flush=True)";
    let (lines, exit) = level.python(program).await;
    assert_eq!((lines, exit.exit_code), (vec!["survived".to_owned(), "alone".to_owned()], 0));
    still_ticks(&mut other).await;
    other.kill().await;
    assert_eq!(other.finish().await.expect("ends").exit_code, 137);
}

/// No call that makes namespaces, mounts, traces another's process or looks into the kernel succeeds,
/// and no file that changes the machine can be written.
pub async fn the_kernel_grants_nothing(level: &Level) {
    let program = r#"
import ctypes, os, platform
call = ctypes.CDLL(None, use_errno=True).syscall
wide = platform.machine() == 'x86_64'
numbers = dict(mount=165, umount2=166, pivot_root=155, sethostname=170, setns=308, unshare=272, clone=56,
    chroot=161, bpf=321, keyctl=250, add_key=248, perf_event_open=298, ptrace=101, init_module=175, reboot=169,
    settimeofday=164, open_tree=428, fsopen=430, mount_setattr=442, userfaultfd=323, io_uring_setup=425,
    process_vm_writev=311, kexec_load=246, syslog=103, clone3=435) if wide else dict(mount=40, umount2=39,
    pivot_root=41, sethostname=161, setns=268, unshare=97, clone=220, chroot=51, bpf=280, keyctl=219, add_key=217,
    perf_event_open=241, ptrace=117, init_module=105, reboot=142, settimeofday=170, open_tree=428, fsopen=430,
    mount_setattr=442, userfaultfd=282, io_uring_setup=425, process_vm_writev=271, kexec_load=104, syslog=116,
    clone3=435)
NEWUSER, NEWNS = 0x10000000, 0x20000
arguments = dict(mount=(b'tmpfs', b'/tmp', b'tmpfs', 0, 0), umount2=(b'/proc', 2), pivot_root=(b'/', b'/tmp'),
    sethostname=(b'x', 1), setns=(0, 0), unshare=(NEWUSER | NEWNS,), clone=(NEWUSER | 17, 0, 0, 0, 0), chroot=(b'/tmp',),
    ptrace=(16, 1, 0, 0), process_vm_writev=(1, 0, 0, 0, 0, 0), syslog=(3, ctypes.create_string_buffer(8), 8))
for name, number in numbers.items():
    words = [ctypes.c_long(w) if isinstance(w, int) else w for w in arguments.get(name, (0, 0, 0, 0))]
    if call(ctypes.c_long(number), *words) >= 0 and name not in ('process_vm_writev',):
        print('granted', name)
for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches', '/proc/sysrq-trigger', '/proc/1/mem',
             '/proc/kcore', '/dev/mem', '/dev/kmsg', '/dev/sda', '/dev/vda', '/etc/passwd',
             '/sys/kernel/uevent_helper', '/sys/fs/cgroup/release_agent', '/sys/fs/cgroup/cgroup.procs',
             '/sys/fs/cgroup/memory/memory.limit_in_bytes', '/sys/fs/cgroup/pids/pids.max'):
    try:
        open(path, 'r+b', buffering=0).write(b'0')
        print('wrote', path)
    except OSError: pass
for path in ('/proc/1/root', '/proc/1/cwd', '/proc/1/fd', '/proc/1/environ'):
    try:
        found = os.listdir(path) if path.endswith(('root', 'cwd', 'fd')) else open(path, 'rb').read()
        if os.path.samefile('/proc/1/root', '/') : continue
        print('looked into', path)
    except OSError: pass
try:
    os.mknod('/tmp/disk', 0o60666, os.makedev(254, 0))
    open('/tmp/disk', 'rb').read(1)
    print('made a device')
except OSError: pass
try: os.setuid(0); print('became root')
except OSError: pass
print('held', flush=True)
"#;
    let (lines, exit) = level.python(program).await;
    assert_eq!(lines, ["held"], "{}", exit.output.to_text());
}

/// Links, and paths through other descriptors, lead to nothing that can be written; the next attempt
/// finds its places as fresh as this one did.
pub async fn links_lead_nowhere_new(level: &Level) {
    let script = "ls -A /work | sort > /tmp/before
        ln -s / /work/root; ln -s /flakefarm /work/flakefarm; ln -s /proc/self/root/etc /tmp/etc
        for p in /work/root/x /work/root/usr/x /work/flakefarm/x /work/flakefarm/tree/x /work/flakefarm/plugin/x \
                 /tmp/etc/x /proc/self/cwd/../x /proc/self/root/x /work/../x /.layers/x /.layers/upper/x /.empty/x; do
          touch \"$p\" 2> /dev/null && echo \"wrote $p\"
        done
        ln /etc/passwd /tmp/passwd 2> /dev/null && echo x 2> /dev/null >> /tmp/passwd && echo 'wrote passwd'
        rm -rf /work/* /work/.[!.]* 2> /dev/null; echo mine > /work/planted; mkdir -p /tmp/home/.config; echo mine > \"$HOME\"/.profile
        echo end";
    let (lines, exit) = level.shell(script).await;
    assert_eq!(lines, ["end"], "{}", exit.output.to_text());
    let (lines, _) = level
        .shell("for p in /work/root /work/flakefarm /work/planted /tmp/etc /tmp/before /x \"$HOME\"/.profile; do test -e $p && echo \"found $p\"; done; echo end")
        .await;
    assert_eq!(lines, ["end"]);
}

/// Neither the engine's socket nor any other of the machine is there.
pub async fn no_engine_can_be_reached(level: &Level) {
    let program = "import glob, os, socket, stat
paths = ['/var/run/docker.sock', '/run/docker.sock', '/run/podman/podman.sock', '/run/containerd/containerd.sock',
         '/run/dbus/system_bus_socket', '/run/systemd/private']
for top in ('/run', '/var/run', '/tmp', '/dev', '/mnt'):
    for here, _, files in os.walk(top):
        paths += [os.path.join(here, name) for name in files]
for path in paths:
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            socket.socket(socket.AF_UNIX).connect(path)
            print('reached', path)
    except OSError: pass
try: socket.create_connection(('127.0.0.1', 2375), 1); print('reached an engine')
except OSError: pass
try: socket.socket(40, socket.SOCK_STREAM); print('reached the hypervisor')
except OSError: pass
try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print('raw socket')
except OSError: pass
print('none', flush=True)";
    let (lines, exit) = level.python(program).await;
    assert_eq!(lines, ["none"], "{}", exit.output.to_text());
}

/// System V segments and POSIX queues of one attempt are not there for another, at once or later.
pub async fn shared_memory_and_queues_are_its_own(level: &Level) {
    let make = "import ctypes, time
libc = ctypes.CDLL(None, use_errno=True)
assert libc.shmget(0x5eed, 4096, 0o1666) >= 0
assert libc.msgget(0x5eed, 0o1666) >= 0
assert libc.semget(0x5eed, 1, 0o1666) >= 0
open('/dev/shm/segment', 'w').write('mine')
print('made', flush=True)
time.sleep(60)";
    let look = "import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(libc.shmget(0x5eed, 4096, 0), libc.msgget(0x5eed, 0), libc.semget(0x5eed, 1, 0), os.listdir('/dev/shm'), flush=True)";
    let nothing = ["-1 -1 -1 []"];
    let mut first = level.start_python(make).await;
    assert_eq!(first.next_line().await, Some(b"made".to_vec()));
    assert_eq!(level.python(look).await.0, nothing, "at the same time");
    first.kill().await;
    first.finish().await.expect("ends");
    assert_eq!(level.python(look).await.0, nothing, "afterwards");
}

/// A socket without a file, and a port of the loopback, belong to one attempt.
pub async fn abstract_sockets_are_its_own(level: &Level) {
    let listen = "import socket, time
s = socket.socket(socket.AF_UNIX); s.bind('\\0flakefarm-law'); s.listen()
t = socket.create_server(('127.0.0.1', 48151))
print('listening', flush=True)
time.sleep(60)";
    let connect = "import socket
for family, address in ((socket.AF_UNIX, '\\0flakefarm-law'), (socket.AF_INET, ('127.0.0.1', 48151))):
    try: socket.socket(family).connect(address); print('reached', address)
    except OSError: print('refused')";
    let mut first = level.start_python(listen).await;
    assert_eq!(first.next_line().await, Some(b"listening".to_vec()));
    assert_eq!(level.python(connect).await.0, ["refused", "refused"]);
    first.kill().await;
    first.finish().await.expect("ends");
}

/// Who uses up memory pays for it: another attempt that runs meanwhile, and the next one, do not.
pub async fn a_memory_hog_is_charged_alone(level: &Level) {
    let hog = "b = []\nwhile True: b.append(bytearray(16 << 20))";
    let mut meek = level.start(TICKING).await;
    assert_eq!(meek.next_line().await, Some(b"up".to_vec()));
    let (_, exit) = level.python(hog).await;
    assert!(exit.oom_killed, "the hog ended with {}", exit.exit_code);
    still_ticks(&mut meek).await;
    meek.kill().await;
    let exit = meek.finish().await.expect("ends");
    assert_eq!((exit.exit_code, exit.oom_killed), (137, false));
    let (lines, exit) = level.shell("echo next").await;
    assert_eq!((lines, exit.exit_code, exit.oom_killed), (vec!["next".to_owned()], 0, false));
}

/// An attempt that fills every place it can write to leaves the next one all of its room.
pub async fn a_full_disk_is_its_own(level: &Level) {
    let fill = "for p in /work/fill /tmp/fill /run/fill /dev/shm/fill; do head -c 100000000 /dev/zero > $p 2> /dev/null; done; echo end";
    let (lines, _) = level.shell(fill).await;
    assert_eq!(lines.last().map(String::as_str), Some("end"));
    let (lines, _) = level
        .shell(
            "head -c 30000000 /dev/zero > /work/room && head -c 20000000 /dev/zero > /tmp/room && echo room",
        )
        .await;
    assert_eq!(lines, ["room"]);
}

/// Attempts that leave as much in memory as they may follow each other at once, and none pays for another.
pub async fn memory_left_in_files_is_charged_alone(level: &Level) {
    let fill = || {
        let script = "for p in /tmp /dev/shm; do fallocate -l 60000000 $p/fill || exit 3; done";
        let mut request = level.request(&["sh", "-c", script]);
        request.limits.memory_bytes = 136 << 20;
        request
    };
    let mut running = level.begin(fill()).await.expect("starts");
    for _ in 0..5 {
        let next = fill();
        level.announce(&mut running, &next).await;
        let (_, exit) = watch(running).await;
        assert_eq!((exit.exit_code, exit.oom_killed), (0, false), "{}", exit.output.to_text());
        running = level.begin(next).await.expect("starts");
    }
    assert_eq!(watch(running).await.1.exit_code, 0);
}

/// A flood of output, which nobody reads for the time being, waits where it is made: it neither fills the
/// worker's memory nor ends the attempt, and what is read of it is in order.
pub async fn a_flood_is_held_back(level: &Level) {
    const READ: u64 = 50_000;
    const MOST: u64 = 64 << 20;
    let flood = "import os\nn = 0\nwhile True:\n  os.write(1, b''.join(b'%d %s\\n' % (n + i, b'x' * 90) for i in range(500)))\n  n += 500";
    let mut running = level.start_python(flood).await;
    let before = own_memory();
    for expect in 0..READ {
        let line = running.next_line().await.expect("it does not end");
        assert_eq!(line.split(|byte| *byte == b' ').next(), Some(expect.to_string().as_bytes()));
    }
    let grown = own_memory().saturating_sub(before);
    assert!(grown < MOST, "{} MiB after {READ} lines", grown >> 20);
    running.kill().await;
    assert_eq!(running.finish().await.expect("ends").exit_code, 137);
}

/// Bytes of this process that are in memory.
fn own_memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a kernel that tells of processes");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4_096
}

/// Where clouds keep the credentials of a machine: not reached, by number or by name, in any way.
pub async fn the_metadata_address_is_out_of_reach(level: &Level) {
    let program = "import socket
for family, address in ((socket.AF_INET, ('169.254.169.254', 80)), (socket.AF_INET6, ('fd00:ec2::254', 80)),
                        (socket.AF_INET, ('100.100.100.200', 80))):
    try: socket.socket(family).connect(address); print('reached', address)
    except OSError: pass
for kind in (socket.SOCK_RAW, socket.SOCK_PACKET if hasattr(socket, 'SOCK_PACKET') else 10):
    try: socket.socket(socket.AF_INET, kind, 1); print('a raw socket')
    except OSError: pass
try: socket.getaddrinfo('metadata.google.internal', 80); print('a name')
except OSError: pass
print('none', flush=True)";
    let (lines, exit) = level.python(program).await;
    assert_eq!(lines, ["none"], "{}", exit.output.to_text());
}
