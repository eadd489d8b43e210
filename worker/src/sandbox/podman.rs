//! Podman's Docker-compatible API, where it means something else by the same words. Containers are described
//! as Docker is told of them; this translates. What would be laxer if it were not translated is the reason for
//! this file: Podman gives a container a network whose network is disabled.

use bollard::models::{ContainerCreateBody, ResourcesUlimits};
use flakefarm_shared::Digest;
use std::io;
use std::path::Path;

const INLINE_PROFILE: &str = "seccomp=";
/// What containers may have open, and how many processes a user may have, where this process cannot say its
/// own limits: Podman asks for more than an ordinary user may give.
const FILES: i64 = 4_096;
const PROCESSES: i64 = 4_096;
/// More than these nobody needs, and a service of Podman's may not give: it lowers its own limit of processes
/// to 32,768 when it starts, whatever it was started with.
const MOST_FILES: i64 = 1 << 16;
const MOST_PROCESSES: i64 = 1 << 15;

/// Makes a container that was described to Docker into the same for Podman. Profiles of system calls are
/// written to `profiles`, which Podman must see: it takes them by path.
pub(super) fn translate(body: &mut ContainerCreateBody, profiles: &Path) -> io::Result<()> {
    let host = body.host_config.get_or_insert_default();
    // Ignored by Podman; its network `none` costs no more than this, and has a hosts file.
    if body.network_disabled.take() == Some(true) {
        host.network_mode = Some("none".to_owned());
    }
    for options in host.tmpfs.iter_mut().flat_map(|tmpfs| tmpfs.values_mut()) {
        *options = without_owner(options);
    }
    for option in host.security_opt.iter_mut().flatten() {
        if let Some(profile) = option.strip_prefix(INLINE_PROFILE).filter(|profile| profile.starts_with('{'))
        {
            let path = profiles.join(format!("{}.json", &Digest::of(profile.as_bytes()).as_str()[..16]));
            if !path.exists() {
                std::fs::write(&path, profile)?;
            }
            *option = format!("{INLINE_PROFILE}{}", path.display());
        }
    }
    let limits = host.ulimits.get_or_insert_default();
    let own = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    for (name, known_as, otherwise, most) in [
        ("nofile", "Max open files", FILES, MOST_FILES),
        ("nproc", "Max processes", PROCESSES, MOST_PROCESSES),
    ] {
        let most = hard_limit(&own, known_as).unwrap_or(otherwise).min(most);
        limits.push(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(most), hard: Some(most) });
    }
    Ok(())
}

/// A tmpfs that everybody may write to, where one cannot have an owner.
fn without_owner(options: &str) -> String {
    let kept = options.split(',').filter(|option| !option.starts_with("uid=") && !option.starts_with("gid="));
    kept.map(|option| if option.starts_with("mode=") { "mode=1777" } else { option })
        .collect::<Vec<_>>()
        .join(",")
}

/// A hard limit as `/proc/PID/limits` shows it; `None` if there is none.
fn hard_limit(limits: &str, name: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::hardening::{Measures, Wall, hardened};

    #[test]
    fn what_has_no_network_in_docker_has_none_in_podman() {
        let profiles = tempfile::tempdir().unwrap();
        let measures = Measures { memory_bytes: 1 << 30, cpu_millis: None, pids: 9, network: None };
        let wall = Wall::Attempt { user: 1_000, scratch_bytes: 5, names: Vec::new() };
        let mut body = hardened(&measures, wall);
        translate(&mut body, profiles.path()).unwrap();
        let host = body.host_config.unwrap();
        assert_eq!((body.network_disabled, host.network_mode.as_deref()), (None, Some("none")));
        assert_eq!(host.tmpfs.unwrap()["/work"], "rw,exec,nosuid,nodev,size=5,mode=1777");
        let options = host.security_opt.unwrap();
        let path = options.iter().find_map(|option| option.strip_prefix("seccomp=")).unwrap();
        assert!(std::fs::read_to_string(path).unwrap().contains("SCMP_ACT_ERRNO"));
        assert!(options.contains(&"no-new-privileges".to_owned()));
    }

    #[test]
    fn what_may_reach_a_network_is_in_the_one_that_was_named() {
        let profiles = tempfile::tempdir().unwrap();
        let measures = Measures { memory_bytes: 1, cpu_millis: None, pids: 9, network: Some("egress") };
        let mut body = hardened(&measures, Wall::Setup);
        translate(&mut body, profiles.path()).unwrap();
        assert_eq!(body.host_config.unwrap().network_mode.as_deref(), Some("egress"));
    }

    #[test]
    fn own_limits_are_read_as_the_kernel_shows_them() {
        let shown = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             96365                96366                processes \n\
                     Max open files            unlimited            unlimited            files     \n";
        assert_eq!(hard_limit(shown, "Max processes"), Some(96_366));
        assert_eq!(hard_limit(shown, "Max open files"), None);
    }
}
