//! The system calls, and all that is unsafe: thin wrappers that give errors as `io::Error`. The
//! process has one thread from its start to its end; several of these wrappers rest on that.
#![expect(unsafe_code, reason = "namespaces, descriptors and processes are made by system calls")]

use flakefarm_nest::{Argument, Step};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Parent { child: i32 },
    Child,
}

/// Forks into the namespaces that `flags` name.
pub(crate) fn clone(flags: u64) -> io::Result<Side> {
    // SAFETY: without a stack of its own and without CLONE_VM the child gets a copy of everything, as
    // of `fork`. There is one thread, so that no lock is held in the copy by a thread that is not there.
    let child = checked(unsafe {
        libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD as u64, 0_u64, 0_u64, 0_u64, 0_u64)
    })?;
    Ok(match i32::try_from(child).expect("process ids are small") {
        0 => Side::Child,
        child => Side::Parent { child },
    })
}

/// Stack of a process that only becomes another program.
const SMALL_STACK: usize = 64 << 10;

/// Forks a process that runs `become_other`, and waits until that has become another program or has returned its
/// exit code. Nothing is copied for it: until then it has this process's memory.
pub(crate) fn clone_to_become(become_other: &dyn Fn() -> i32) -> io::Result<i32> {
    extern "C" fn enter(argument: *mut libc::c_void) -> libc::c_int {
        // SAFETY: below, which waits, so that what it points to lives.
        let become_other = unsafe { &*argument.cast::<&dyn Fn() -> i32>() };
        become_other()
    }
    let mut stack = Vec::<u128>::with_capacity(SMALL_STACK / size_of::<u128>());
    let argument = (&raw const become_other).cast_mut().cast();
    // SAFETY: the new process uses a stack of its own, growing down from an aligned end, and this one
    // does nothing before the other has let go of its memory (CLONE_VFORK).
    let child = checked(
        unsafe {
            let top = stack.as_mut_ptr().add(stack.capacity()).cast();
            libc::clone(enter, top, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, argument)
        }
        .into(),
    )?;
    Ok(i32::try_from(child).expect("process ids are small"))
}

/// Ends this process without running anything of it.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: always is.
    unsafe { libc::_exit(code) }
}

/// Steps with their arguments laid out in memory: taking them allocates nothing, unless one fails.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    steps: Vec<(&'a Step, [Word; 6])>,
    /// What addresses in `steps` point to.
    #[expect(clippy::vec_box, reason = "addresses must hold while the list grows")]
    _filters: Vec<Box<libc::sock_fprog>>,
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Value(u64),
    Descriptor,
}

impl<'a> Prepared<'a> {
    /// Lays out the arguments. The steps' own bytes are pointed to, not copied.
    pub(crate) fn new(steps: &'a [Step]) -> Self {
        let mut filters = Vec::new();
        let lay_out = |step: &'a Step| {
            let mut words = [Word::Value(0); 6];
            for (word, argument) in words.iter_mut().zip(&step.arguments) {
                *word = match argument {
                    Argument::Number(number) => Word::Value(*number),
                    Argument::Bytes(bytes) => Word::Value(bytes.as_ptr() as u64),
                    Argument::Filter(packed) => {
                        let filter = Box::new(libc::sock_fprog {
                            len: (packed.len() / size_of::<libc::sock_filter>()) as libc::c_ushort,
                            filter: packed.as_ptr().cast_mut().cast(),
                        });
                        let address = &raw const *filter as u64;
                        filters.push(filter);
                        Word::Value(address)
                    }
                    Argument::Descriptor => Word::Descriptor,
                };
            }
            (step, words)
        };
        let steps = steps.iter().map(lay_out).collect();
        Self { steps, _filters: filters }
    }

    /// Takes every step. The error is what has failed, in a sentence.
    pub(crate) fn take(&self) -> Result<(), String> {
        let mut descriptor = 0;
        for (step, words) in &self.steps {
            let word = |place: usize| match words[place] {
                Word::Value(value) => value,
                Word::Descriptor => descriptor,
            };
            // SAFETY: steps are built by `cell` alone, which gives every call what its manual asks for;
            // addresses point into steps and filters that this object keeps alive.
            let result =
                unsafe { libc::syscall(step.number, word(0), word(1), word(2), word(3), word(4), word(5)) };
            if result < 0 && step.needed {
                return Err(format!("failed to {}: {}", step.purpose, io::Error::last_os_error()));
            }
            if [libc::SYS_openat, libc::SYS_socket].contains(&step.number) {
                // Of a step that was not needed and failed: no descriptor, and its user fails too.
                descriptor = result as u64;
            }
        }
        Ok(())
    }
}

/// A program with its arguments and variables, laid out for `execve`.
#[derive(Debug)]
pub(crate) struct Program {
    /// The places where it may be, the first one first.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    variables: Vec<CString>,
}

impl Program {
    pub(crate) fn new(candidates: Vec<CString>, argv: Vec<CString>, variables: Vec<CString>) -> Self {
        Self { candidates, argv, variables }
    }

    /// Pointers as `execve` wants them; make them before a fork.
    pub(crate) fn laid_out(&self) -> LaidOut<'_> {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        LaidOut {
            name: self.argv.first().map_or(b"", |name| name.as_bytes()),
            candidates: &self.candidates,
            argv: pointers(&self.argv),
            variables: pointers(&self.variables),
        }
    }
}

/// See [`Program::laid_out`].
#[derive(Debug)]
pub(crate) struct LaidOut<'a> {
    name: &'a [u8],
    candidates: &'a [CString],
    argv: Vec<*const libc::c_char>,
    variables: Vec<*const libc::c_char>,
}

impl LaidOut<'_> {
    /// What it is called.
    pub(crate) fn name(&self) -> &[u8] {
        self.name
    }

    /// Becomes the program, or returns why not.
    pub(crate) fn execute(&self) -> i32 {
        let mut worst = libc::ENOENT;
        for candidate in self.candidates {
            // SAFETY: strings end with NUL, lists with a null pointer, and both outlive the call.
            unsafe { libc::execve(candidate.as_ptr(), self.argv.as_ptr(), self.variables.as_ptr()) };
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) | None => {}
                Some(code) => worst = code,
            }
        }
        worst
    }
}

/// What a new program finds as every program does: no signal ignored or blocked.
pub(crate) fn default_signals() {
    // SAFETY: dispositions and mask of this process only; `none` is a valid set, all zeros.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// A session of its own.
pub(crate) fn new_session() {
    // SAFETY: no memory involved; it fails only if this process leads a group already.
    unsafe { libc::setsid() };
}

/// Keeps a descriptor over `execve`.
pub(crate) fn hand_on(fd: RawFd) {
    // SAFETY: no memory involved.
    unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
}

/// Closes every descriptor but these, which are 0 and so on from now on; a program that this process
/// becomes keeps the first three.
pub(crate) fn keep_only<const N: usize>(fds: [RawFd; N]) -> io::Result<[OwnedFd; N]> {
    const STREAMS: RawFd = 3;
    let places = N as RawFd;
    // SAFETY: the caller, a child about to do one thing, uses no other descriptor and owns the new ones
    // alone. First out of the way of each other, then into their places.
    unsafe {
        let mut aside = [0; N];
        for (fd, aside) in fds.into_iter().zip(&mut aside) {
            *aside = checked(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, places).into())? as RawFd;
        }
        for (aside, place) in aside.into_iter().zip(0..) {
            let flags = if place < STREAMS { 0 } else { libc::O_CLOEXEC };
            checked(libc::dup3(aside, place, flags).into())?;
        }
        libc::syscall(libc::SYS_close_range, places, libc::c_uint::MAX, 0);
        Ok(std::array::from_fn(|place| OwnedFd::from_raw_fd(place as RawFd)))
    }
}

/// Says on standard error, without allocating.
pub(crate) fn complain(parts: &[&[u8]]) {
    for part in parts {
        // SAFETY: the buffer is valid for its length.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
}

/// `prctl` with one numeric argument.
pub(crate) fn prctl(option: i32, argument: u64) -> io::Result<()> {
    // SAFETY: used with options whose argument is a number.
    checked(unsafe { libc::prctl(option, argument, 0, 0, 0) }.into()).map(drop)
}

/// How many capabilities the kernel knows.
pub(crate) fn capabilities() -> u64 {
    let known = |capability: &u64| prctl(libc::PR_CAPBSET_READ, *capability).is_ok();
    (0..64).take_while(known).count() as u64
}

/// Installs a packed filter for this process and what it starts. Needs no-new-privileges.
pub(crate) fn install_filter(packed: &[u8]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: (packed.len() / size_of::<libc::sock_filter>()) as libc::c_ushort,
        filter: packed.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the program and its instructions are valid for the duration of the call, which only reads.
    checked(
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) }
            .into(),
    )
    .map(drop)
}

/// How a process ended and the CPU it and its waited-for children took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    pub(crate) process: i32,
    /// 128 + n for signal n.
    pub(crate) exit_code: i32,
    pub(crate) cpu_us: u64,
}

/// Waits for `process`, or for any child if it is -1. `None`: there is none.
pub(crate) fn wait(process: i32) -> Option<Waited> {
    waited(process, 0)
}

/// A child that has ended, if there is one.
pub(crate) fn reap() -> Option<Waited> {
    waited(-1, libc::WNOHANG)
}

fn waited(process: i32, options: i32) -> Option<Waited> {
    let mut status = 0;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let process = loop {
        // SAFETY: both places are valid for writing.
        let result = unsafe { libc::wait4(process, &raw mut status, options, &raw mut usage) };
        if result > 0 {
            break result;
        }
        if result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    };
    let exit_code =
        if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    Some(Waited { process, exit_code, cpu_us: cpu_us(&usage) })
}

/// Ends every other process of the pid namespace whose first process this is, and waits until there is
/// none: who forks while it is killed fails to, and who loses its parent becomes this process's child.
pub(crate) fn end_all_others() {
    // SAFETY: no memory involved. Elsewhere the signal would go to every process of the user.
    unsafe {
        assert!(libc::getpid() == 1, "only the first process of a namespace ends all others");
        loop {
            libc::kill(-1, libc::SIGKILL);
            if wait(-1).is_none() {
                return;
            }
        }
    }
}

/// Has the kernel reap this process's children when they end.
pub(crate) fn reap_nobody() {
    // SAFETY: a disposition of this process only; no memory involved.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// CPU time in microseconds of the children that were waited for, and of theirs.
pub(crate) fn cpu_of_children() -> u64 {
    // SAFETY: all zeros is a valid value of this plain structure, which is valid for writing.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    cpu_us(&usage)
}

fn cpu_us(usage: &libc::rusage) -> u64 {
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

/// Kills a process; one that is gone is no error.
pub(crate) fn kill(process: i32) {
    // SAFETY: no memory involved; the caller's child, not waited for yet, so the id is nobody else's.
    unsafe { libc::kill(process, libc::SIGKILL) };
}

/// A descriptor that can be polled for the end of a process.
pub(crate) fn descriptor_of(process: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory involved; the call returns a new descriptor that nobody else owns.
    unsafe {
        let fd = checked(libc::syscall(libc::SYS_pidfd_open, process, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Reads and writes on it no longer wait.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory involved.
    unsafe {
        let flags = checked(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL).into())?;
        checked(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags as i32 | libc::O_NONBLOCK).into())?;
    }
    Ok(())
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    Writable,
}

/// Waits until one of `interests` can go on (or has ended), with `patience` no longer than that.
/// Says for each whether it can; `None` stands for nothing to wait for.
pub(crate) fn poll<const N: usize>(
    interests: [Option<(BorrowedFd<'_>, Interest)>; N],
    patience: Option<Duration>,
) -> io::Result<[bool; N]> {
    let timeout_ms = patience.map_or(-1, |patience| patience.as_micros().div_ceil(1000) as i32);
    let mut fds = interests.map(|interest| match interest {
        // A negative descriptor is skipped.
        None => libc::pollfd { fd: -1, events: 0, revents: 0 },
        Some((fd, interest)) => libc::pollfd {
            fd: fd.as_raw_fd(),
            events: match interest {
                Interest::Readable => libc::POLLIN,
                Interest::Writable => libc::POLLOUT,
            },
            revents: 0,
        },
    });
    loop {
        // SAFETY: the array is valid for its length.
        match checked(unsafe { libc::poll(fds.as_mut_ptr(), N as libc::nfds_t, timeout_ms) }.into()) {
            Ok(_) => return Ok(fds.map(|fd| fd.revents != 0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Descriptors that one message may carry.
pub(crate) const MOST_DESCRIPTORS: usize = 9;

/// Room for a header and that many descriptors, aligned as headers must be.
#[repr(C, align(8))]
struct Ancillary([u8; 64]);

/// Sends one byte and descriptors over a Unix socket.
pub(crate) fn send_descriptors(socket: BorrowedFd<'_>, mut byte: u8, fds: &[RawFd]) -> io::Result<()> {
    assert!(fds.len() <= MOST_DESCRIPTORS, "room for so many descriptors");
    let mut ancillary = Ancillary([0; 64]);
    // SAFETY: header and payload lie within `ancillary`, which is aligned and large enough for as many
    // descriptors (checked above); the message and all it points to outlive the call.
    unsafe {
        let mut piece = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = ancillary.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of_val(fds) as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of_val(fds) as u32) as _;
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), size_of_val(fds));
        checked(libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) as libc::c_long)?;
    }
    Ok(())
}

/// Receives bytes, and the descriptors that came with them.
pub(crate) fn receive_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut ancillary = Ancillary([0; 64]);
    let mut fds = Vec::new();
    // SAFETY: the message points to buffers that are valid for their lengths; of what the kernel wrote,
    // only whole descriptors within the payload it names are read, and nobody else owns them.
    let length = unsafe {
        let mut piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = ancillary.0.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Ancillary>() as _;
        let length = checked(
            libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) as libc::c_long
        )?;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS
        {
            let payload = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            for place in 0..payload / size_of::<RawFd>() {
                let fd = libc::CMSG_DATA(header).cast::<RawFd>().add(place).read_unaligned();
                fds.push(OwnedFd::from_raw_fd(fd));
            }
        }
        length
    };
    Ok((usize::try_from(length).expect("a length"), fds))
}

/// Real and effective user of this process.
pub(crate) fn user() -> u32 {
    // SAFETY: always is.
    unsafe { libc::getuid() }
}

/// Its group.
pub(crate) fn group() -> u32 {
    // SAFETY: always is.
    unsafe { libc::getgid() }
}

/// Becomes another user, in no further group, and keeps the capabilities it has.
pub(crate) fn become_user(user: u32, group: u32) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1)?;
    // SAFETY: an empty list of groups; numbers otherwise. One thread, so raw calls mean the process.
    unsafe {
        checked(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
        checked(libc::syscall(libc::SYS_setresgid, group, group, group))?;
        checked(libc::syscall(libc::SYS_setresuid, user, user, user))?;
    }
    raise_capabilities()
}

/// Makes all permitted capabilities effective.
fn raise_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        process: i32,
    }
    #[repr(C)]
    #[derive(Default, Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header { version: CAPABILITY_VERSION, process: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: header and two data blocks are what version 3 reads and writes.
    unsafe {
        checked(libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()))?;
        for block in &mut data {
            block.effective = block.permitted;
        }
        checked(libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()))?;
    }
    Ok(())
}

/// `_LINUX_CAPABILITY_VERSION_3`.
pub(crate) const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Bytes that the files of a file system take; 0 if it does not say.
pub(crate) fn bytes_used(path: &std::ffi::CStr) -> u64 {
    file_system(path).map_or(0, |found| (found.f_blocks - found.f_bfree) * found.f_frsize)
}

/// Bytes of the System V shared memory of this process's namespace.
pub(crate) fn bytes_of_shared_memory() -> u64 {
    const SHM_INFO: i32 = 14;
    // struct shm_info: an int, then five unsigned longs, of which the first is all pages.
    let mut found = [0_u64; 6];
    // SAFETY: the place is large enough and valid for writing.
    let result = unsafe { libc::shmctl(0, SHM_INFO, found.as_mut_ptr().cast()) };
    if result < 0 { 0 } else { found[1] * 4096 }
}

/// The mount flags that a new look at a mount must keep, as `statvfs` names them.
pub(crate) fn mount_flags(path: &std::ffi::CStr) -> io::Result<u64> {
    Ok(file_system(path)?.f_flag as u64)
}

fn file_system(path: &std::ffi::CStr) -> io::Result<libc::statvfs> {
    // SAFETY: all zeros is a valid value; the path ends with NUL and the place is valid for writing.
    unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        checked(libc::statvfs(path.as_ptr(), &raw mut found).into())?;
        Ok(found)
    }
}

/// Mounts; empty strings stand for none.
pub(crate) fn mount(
    source: &std::ffi::CStr,
    target: &std::ffi::CStr,
    kind: &std::ffi::CStr,
    flags: u64,
    data: &std::ffi::CStr,
) -> io::Result<()> {
    // SAFETY: four strings that end with NUL; `mount` copies what it needs.
    checked(
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) }
            .into(),
    )
    .map(drop)
}

/// Makes `new` the root and detaches the old one. `new` must be a mount.
pub(crate) fn change_root(new: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: strings that end with NUL. With one directory for both, the old root lies on top of the
    // new one, at `.`, until it is detached.
    unsafe {
        checked(libc::chdir(new.as_ptr()).into())?;
        checked(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        checked(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into())?;
        checked(libc::chdir(c"/".as_ptr()).into())?;
    }
    Ok(())
}

/// Files are made with the mode asked for.
pub(crate) fn no_umask() {
    // SAFETY: no memory involved.
    unsafe { libc::umask(0) };
}

/// The process that is to be ended with this one's parent.
pub(crate) fn end_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)
}
