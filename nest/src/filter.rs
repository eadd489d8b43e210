//! Filters of system calls, as packed classic BPF.
//!
//! In a container the engine's filter holds for all, and opens five calls that the nest needs. The
//! closing filter closes these again for attempts. On a host there is no engine, so the nest first
//! puts itself behind a filter that refuses what Docker's default profile refuses.

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`; of arguments the lower half.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

#[cfg(target_arch = "x86_64")]
const THIS_ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const THIS_ARCHITECTURE: u32 = 0xc000_00b7;

/// The newest call that was looked at when this was written (`mseal`): later ones do not exist here.
const NEWEST_KNOWN: u32 = 462;

/// Every flag of `clone` that makes a namespace.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// What the nest itself needs and attempts must not have, beside `clone` with new namespaces.
const NEEDED_BY_THE_NEST: [libc::c_long; 4] =
    [libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_sethostname];

/// What zygotes need beside, to fork into a cell.
const NEEDED_BY_ZYGOTES: libc::c_long = libc::SYS_setns;

/// What needs a capability, or is of no use to tests and has often been a way out.
const REFUSED: [libc::c_long; 48] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_get_mempolicy,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_process_madvise,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    libc::SYS_setdomainname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// The same, of calls that one architecture has only.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS__sysctl,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_modify_ldt,
    libc::SYS_sysfs,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_vhangup,
];
#[cfg(target_arch = "aarch64")]
const REFUSED_HERE: &[libc::c_long] = &[libc::SYS_vhangup];

/// The filter that attempts run behind, over whatever there is already.
pub(crate) fn closing() -> Vec<u8> {
    refusing(NEEDED_BY_THE_NEST.into_iter().chain([NEEDED_BY_ZYGOTES]))
}

/// The filter of a zygote, which keeps the privilege to join namespaces: no other call that it opens.
pub(crate) fn of_zygote() -> Vec<u8> {
    refusing(NEEDED_BY_THE_NEST.into_iter())
}

fn refusing(calls: impl Iterator<Item = libc::c_long>) -> Vec<u8> {
    let mut filter = beginning();
    for number in calls {
        refuse(&mut filter, number, libc::EPERM);
    }
    // Its flags lie in memory, which no filter sees; programs fall back to `clone`.
    refuse(&mut filter, libc::SYS_clone3, libc::ENOSYS);
    filter.push(instruction(EQUAL, 0, 4, libc::SYS_clone as u32));
    filter.push(instruction(LOAD, 0, 0, FIRST_ARGUMENT));
    filter.push(instruction(ANY_BIT, 0, 1, NEW_NAMESPACES));
    filter.push(instruction(RETURN, 0, 0, failing(libc::EPERM)));
    filter.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    pack(&filter)
}

/// The filter that a nest on a host puts itself behind.
pub(crate) fn of_host() -> Vec<u8> {
    let mut filter = beginning();
    for number in REFUSED.iter().chain(REFUSED_HERE) {
        refuse(&mut filter, *number, libc::EPERM);
    }
    // Sockets to a hypervisor leave every network namespace.
    filter.push(instruction(EQUAL, 0, 4, libc::SYS_socket as u32));
    filter.push(instruction(LOAD, 0, 0, FIRST_ARGUMENT));
    filter.push(instruction(EQUAL, 0, 1, libc::AF_VSOCK as u32));
    filter.push(instruction(RETURN, 0, 0, failing(libc::EPERM)));
    filter.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    // Other personalities switch off what makes attacks on memory hard; these are what Docker allows.
    filter.push(instruction(EQUAL, 0, 8, libc::SYS_personality as u32));
    filter.push(instruction(LOAD, 0, 0, FIRST_ARGUMENT));
    filter.push(instruction(EQUAL, 5, 0, 0));
    filter.push(instruction(EQUAL, 4, 0, 0x8));
    filter.push(instruction(EQUAL, 3, 0, 0x2_0000));
    filter.push(instruction(EQUAL, 2, 0, 0x2_0008));
    filter.push(instruction(EQUAL, 1, 0, u32::MAX));
    filter.push(instruction(RETURN, 0, 0, failing(libc::EPERM)));
    filter.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    pack(&filter)
}

/// Kills what is of another architecture, and knows no call beyond the newest (those of the x32
/// interface among them). Leaves the number loaded.
fn beginning() -> Vec<libc::sock_filter> {
    vec![
        instruction(LOAD, 0, 0, ARCHITECTURE),
        instruction(EQUAL, 1, 0, THIS_ARCHITECTURE),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(LOAD, 0, 0, NUMBER),
        instruction(GREATER, 0, 1, NEWEST_KNOWN),
        instruction(RETURN, 0, 0, failing(libc::ENOSYS)),
    ]
}

fn refuse(filter: &mut Vec<libc::sock_filter>, number: libc::c_long, error: i32) {
    filter.push(instruction(EQUAL, 0, 1, number as u32));
    filter.push(instruction(RETURN, 0, 0, failing(error)));
}

fn failing(error: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | error as u32
}

fn instruction(code: u16, if_so: u8, if_not: u8, operand: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: if_so, jf: if_not, k: operand }
}

fn pack(filter: &[libc::sock_filter]) -> Vec<u8> {
    filter
        .iter()
        .flat_map(|i| {
            let [code_low, code_high] = i.code.to_ne_bytes();
            let operand = i.k.to_ne_bytes();
            [code_low, code_high, i.jt, i.jf, operand[0], operand[1], operand[2], operand[3]]
        })
        .collect()
}
