//! Which process a container belongs to, as a label tells it, and whether that process is gone: what
//! a killed worker left behind is then removed by the next one without waiting for its expiry.

use std::fs;

/// This process: where its number means something, the number, and when it started, since numbers
/// are used again.
pub(crate) fn this_process() -> String {
    let pid = std::process::id();
    format!("{} {pid} {}", realm(), started(pid).unwrap_or_default())
}

/// Whether `owner` was a process here that has ended. Of a process elsewhere nothing is known.
pub(crate) fn is_gone(owner: &str) -> bool {
    let mut words = owner.split(' ');
    let (Some(realm_of_owner), Some(pid), Some(start)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let Ok(pid) = pid.parse() else { return false };
    realm_of_owner == realm() && !start.is_empty() && started(pid).as_deref() != Some(start)
}

/// This boot of this machine and this process name space.
fn realm() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}/{}", boot.trim(), namespace.display())
}

/// Start time of a live process, in clock ticks since boot (field 22 of its `stat`, proc(5)).
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let state = fields.chars().next()?;
    // A zombie has ended, whoever forgot to look.
    if state == 'Z' { None } else { fields.split(' ').nth(19).map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_here_can_be_known_to_be_gone() {
        assert!(!is_gone(&this_process()));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let owner = format!("{} {} {}", realm(), child.id(), started(child.id()).unwrap());
        assert!(!is_gone(&owner));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_gone(&owner));
        assert!(
            is_gone(&this_process().replacen(&started(std::process::id()).unwrap(), "1", 1)),
            "number used again"
        );
        assert!(!is_gone(&owner.replacen(&realm(), "elsewhere", 1)));
        assert!(!is_gone(""));
        assert!(!is_gone("a b"));
    }
}
