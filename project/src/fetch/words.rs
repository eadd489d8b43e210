//! What git, and ssh behind it, say when they end, and what that means: they have one exit code for all of it.

/// What is kept of complaints: the last bytes.
pub(super) const COMPLAINTS: usize = 8 << 10;
/// Characters of the words that say why.
const TOLD: usize = 300;
/// Begins what says nothing of why: words of the other side, and that nobody is there to be asked.
const NO_REASON: [&str; 3] = ["hint:", "remote:", "error: unable to read askpass response"];
/// What git says of every end of ssh: what it was stands before.
const BY_SSH: &str = "Could not read from remote repository";
/// What of ssh's words says why, the plainest first.
const SSH_REASONS: [&str; 8] = [
    "Load key",
    "has changed and you have requested",
    "host key is known for",
    "does not appear to be a git repository",
    "epository not found",
    "Permission denied",
    "Host key verification failed",
    "ssh: ",
];
const UNKNOWN_HOST: [&str; 3] =
    ["Host key verification failed", "host key is known for", "has changed and you have requested"];
const REFUSED: [&str; 7] = [
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "Permission denied",
    "the private key cannot be read",
    "error: 401",
    "error: 403",
];
const NO_REPOSITORY: [&str; 5] = [
    "does not appear to be a git repository",
    "epository not found",
    "' not found",
    "error: 404",
    "not exported",
];
const UNKNOWN_REVISION: [&str; 4] =
    ["couldn't find remote ref", "not our ref", "unadvertised object", "no such remote ref"];

/// What the words of a remote's end mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    UnknownHost,
    Refused,
    UnknownRevision,
    NoRepository,
    Other,
}

impl Meaning {
    /// Of what [`said`] gives.
    pub(super) fn of(why: &str) -> Self {
        let said = |words: &[&str]| words.iter().any(|word| why.contains(word));
        if said(&UNKNOWN_HOST) {
            Meaning::UnknownHost
        } else if said(&REFUSED) {
            Meaning::Refused
        } else if said(&UNKNOWN_REVISION) {
            Meaning::UnknownRevision
        } else if said(&NO_REPOSITORY) {
            Meaning::NoRepository
        } else {
            Meaning::Other
        }
    }
}

/// The words that say why, on one line: the first that git calls an error, or what ssh said before it, without
/// what the remote sent to be shown and without what is secret.
pub(super) fn said(complaints: &[u8], secrets: &[String]) -> String {
    let text = String::from_utf8_lossy(&complaints[complaints.len().saturating_sub(COMPLAINTS)..]);
    let lines: Vec<&str> = text
        .split(['\n', '\r'])
        .map(str::trim)
        .filter(|line| !line.is_empty() && !NO_REASON.iter().any(|begin| line.starts_with(begin)))
        .collect();
    let errors = || lines.iter().filter(|line| line.starts_with("fatal:") || line.starts_with("error:"));
    let by_ssh = errors().any(|line| line.contains(BY_SSH));
    let of_ssh = || SSH_REASONS.iter().find_map(|word| lines.iter().find(|line| line.contains(word)));
    let reason = of_ssh().filter(|_| by_ssh).or_else(|| errors().next()).or(lines.last());
    let reason = reason.copied().unwrap_or("git said nothing");
    let reason =
        reason.trim_start_matches("fatal:").trim_start_matches("error:").trim().trim_end_matches(':');
    // It names the file that is made of the credentials for as long as git runs.
    let reason = match reason.strip_prefix("Load key") {
        Some(rest) => {
            format!("the private key cannot be read: {}", rest.rsplit(": ").next().unwrap_or_default())
        }
        None => reason.to_owned(),
    };
    let hidden = secrets.iter().fold(reason, |reason, secret| reason.replace(secret.as_str(), "***"));
    hidden.chars().filter(|c| !c.is_control()).take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_ssh_say_why_and_not_those_of_git_about_it() {
        let tail = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct \
                    access rights\nand the repository exists.\n";
        let reason = |text: &str| said(format!("{text}\r\n{tail}").as_bytes(), &["s3cret".to_owned()]);
        for (text, expect) in [
            ("git@h: Permission denied (publickey).", "git@h: Permission denied (publickey)."),
            (
                "No ED25519 host key is known for h and you have requested strict checking.\r\nHost key \
                 verification failed.",
                "No ED25519 host key is known for h and you have requested strict checking.",
            ),
            (
                "Load key \"/tmp/x/key\": error in libcrypto\r\ngit@h: Permission denied (publickey).",
                "the private key cannot be read: error in libcrypto",
            ),
            ("ERROR: Repository not found.", "ERROR: Repository not found."),
            (
                "ssh: connect to host h port 22: Connection refused",
                "ssh: connect to host h port 22: Connection refused",
            ),
            ("anything else", "Could not read from remote repository."),
            ("Permission denied for s3cret", "Permission denied for ***"),
        ] {
            assert_eq!(reason(text), expect);
        }
        assert_eq!(said(b"remote: no\nfatal: repository 'x' not found\n", &[]), "repository 'x' not found");
        let unasked =
            b"error: unable to read askpass response from 'false'\nfatal: could not read Username for 'x'\n";
        assert_eq!(Meaning::of(&said(unasked, &[])), Meaning::Refused);
        assert_eq!(said(b"", &[]), "git said nothing");
        assert_eq!(Meaning::of("the private key cannot be read: x"), Meaning::Refused);
    }
}
