//! What names a revision of a git remote, checked before git sees it: git takes more for an address, and
//! for a revision, than may be asked of a machine that fetches for strangers.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Protocols that are spoken.
pub(super) const PROTOCOLS: [&str; 4] = ["https", "http", "ssh", "git"];
/// Longest address.
const LONGEST_URL: usize = 2_000;
/// Longest name of a branch, tag or directory.
const LONGEST_NAME: usize = 500;

/// A revision of a git remote, and where the project lies in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// `https://`, `http://`, `ssh://` or `git://`, or `user@host:path`.
    pub url: String,
    /// A branch, a tag, or a commit by all its digits; `HEAD` is the remote's own branch.
    pub revision: String,
    /// The project's directory below the top; empty for the top.
    #[serde(default)]
    pub directory: String,
}

/// What is no remote that is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// Not an address of one of these kinds.
    #[error("`{0}` is no git remote that is fetched")]
    Address(String),
    /// It would be shown to everybody.
    #[error("the remote's address holds a password")]
    Password,
    /// Not the name of a branch, tag or commit.
    #[error("`{0}` is no name of a branch, tag or commit")]
    Revision(String),
    /// Not below the top.
    #[error("`{0}` is no directory below the repository's top")]
    Directory(String),
}

impl RemoteError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            RemoteError::Address(_) => {
                "https://, ssh://, http:// and git:// are, and user@host:path; for a repository of this \
                 machine leave --git out: the tree is uploaded"
            }
            RemoteError::Password => "leave it out, and put it in a file: --git-credentials FILE",
            RemoteError::Revision(_) => "main, release/2.1, v1.0, or a commit by all its digits",
            RemoteError::Directory(_) => "services/shop, say",
        }
    }
}

impl Remote {
    /// The address in the form that git is given.
    pub fn checked(&self) -> Result<String, RemoteError> {
        let wrong = || RemoteError::Address(shown(&self.url));
        if !is_revision(&self.revision) {
            return Err(RemoteError::Revision(shown(&self.revision)));
        }
        if !is_directory(self.directory()) {
            return Err(RemoteError::Directory(shown(&self.directory)));
        }
        if self.url.len() > LONGEST_URL
            || !self.url.chars().all(|c| c.is_ascii_graphic() && !"\\\"'`".contains(c))
        {
            return Err(wrong());
        }
        let Some((scheme, rest)) = self.url.split_once("://") else {
            // `user@host:path`, and nothing that looks like `transport::address`.
            let (who, path) = self.url.split_once(':').ok_or_else(wrong)?;
            let (user, host) = who.split_once('@').ok_or_else(wrong)?;
            if !is_plain(user) || !is_plain(host) || path.is_empty() || path.starts_with([':', '-']) {
                return Err(wrong());
            }
            // As it is: its path begins where the user's does, and not at the top of the machine.
            return Ok(self.url.clone());
        };
        let scheme = scheme.to_ascii_lowercase();
        if !PROTOCOLS.contains(&scheme.as_str()) {
            return Err(wrong());
        }
        let (authority, path) = rest.split_once('/').ok_or_else(wrong)?;
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(RemoteError::Password);
        }
        // The port, if there is one, stands behind the last colon of a name or behind `]`.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (place, None),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_is_one =
            bare.map_or_else(|| is_plain(host), |address| address.parse::<std::net::Ipv6Addr>().is_ok());
        let port_is_one = port.is_none_or(|port| port.parse::<u16>().is_ok());
        if !host_is_one || !port_is_one || path.is_empty() || user.is_some_and(|user| !is_plain(user)) {
            return Err(wrong());
        }
        Ok(format!("{scheme}://{rest}"))
    }

    /// The host that is asked, for those who say which may be; none if it is no address.
    pub fn host(&self) -> Option<String> {
        let checked = self.checked().ok()?;
        let rest = checked.split_once("://").map_or(checked.as_str(), |(_, rest)| rest);
        let authority = rest.split('/').next()?.to_owned();
        let place = authority.rsplit('@').next()?.to_owned();
        match place.strip_prefix('[') {
            Some(rest) => rest.split(']').next().map(str::to_owned),
            None => place.split(':').next().map(str::to_ascii_lowercase),
        }
    }

    /// How it is spoken to.
    pub(super) fn protocol(&self) -> String {
        self.url.split_once("://").map_or_else(|| "ssh".to_owned(), |(scheme, _)| scheme.to_ascii_lowercase())
    }

    /// The project's directory, without slashes around it.
    pub(super) fn directory(&self) -> &str {
        self.directory.trim_matches('/')
    }

    /// Whether it names a commit outright.
    pub(super) fn is_commit(&self) -> bool {
        matches!(self.revision.len(), 40 | 64) && self.revision.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// What the remote may call it, the likeliest first.
    pub(super) fn names(&self) -> Vec<String> {
        let revision = &self.revision;
        if revision == "HEAD" || revision.starts_with("refs/") {
            return vec![revision.clone()];
        }
        vec![format!("refs/heads/{revision}"), format!("refs/tags/{revision}")]
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.url, self.revision)?;
        if self.directory().is_empty() { Ok(()) } else { write!(f, ", {}", self.directory()) }
    }
}

/// Letters, digits and what stands between them in names of users and hosts.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// As `git check-ref-format` has it, and no option.
fn is_revision(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    name.len() <= LONGEST_NAME
        && !name.starts_with('-')
        && !name.ends_with('.')
        && name != "@"
        && !name.contains("..")
        && !name.contains("@{")
        && name.split('/').all(part)
        && !name.chars().any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
}

fn is_directory(path: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.eq_ignore_ascii_case(".git");
    path.is_empty()
        || (path.len() <= LONGEST_NAME
            && !path.starts_with('-')
            && !path.chars().any(|c| c.is_control() || ":\\".contains(c))
            && path.split('/').all(part))
}

/// Enough of it to be told apart, without what could be a password.
fn shown(text: &str) -> String {
    let start = text.rsplit('@').next().unwrap_or_default();
    start.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str, revision: &str) -> Remote {
        Remote { url: url.to_owned(), revision: revision.to_owned(), directory: String::new() }
    }

    #[test]
    fn addresses_are_taken_that_name_a_host_and_no_others() {
        for (url, expect) in [
            ("https://git.example.org/shop.git", "https://git.example.org/shop.git"),
            ("HTTP://127.0.0.1:8080/a/b", "http://127.0.0.1:8080/a/b"),
            ("ssh://git@example.org:2222/shop", "ssh://git@example.org:2222/shop"),
            ("git@example.org:team/shop.git", "git@example.org:team/shop.git"),
            ("git://[::1]:9418/shop", "git://[::1]:9418/shop"),
        ] {
            assert_eq!(remote(url, "main").checked(), Ok(expect.to_owned()));
        }
        for url in [
            "",
            "/srv/git/shop",
            "../shop",
            "file:///srv/git/shop",
            "FILE:///x",
            "ext::sh -c id",
            "ext::sh",
            "ssh::git@example.org:x",
            "--upload-pack=id",
            "-oProxyCommand=id",
            "ssh://-oProxyCommand=id/x",
            "git@-oProxyCommand=id:x",
            "https://",
            "https:///x",
            "https://example.org",
            "ftp://example.org/x",
            "https://exa mple.org/x",
            "https://example.org/x\n",
            "https://example.org:port/x",
            "host:path",
            "git@host:-x",
            "https://[::g]/x",
            "fd::17",
            "ssh://a@-b@c/x",
            "https://ex`id`.org/x",
        ] {
            assert!(matches!(remote(url, "main").checked(), Err(RemoteError::Address(_))), "{url}");
        }
        assert_eq!(remote("https://me:secret@example.org/x", "main").checked(), Err(RemoteError::Password));
        assert_eq!(remote("ssh://git@Example.org:22/x", "main").host().as_deref(), Some("example.org"));
        assert_eq!(remote("http://[::1]:80/x", "main").host().as_deref(), Some("::1"));
        assert_eq!(remote("git@Example.org:a/b", "main").host().as_deref(), Some("example.org"));
    }

    #[test]
    fn revisions_and_directories_are_names_and_never_options_or_paths_elsewhere() {
        for name in ["main", "release/2.1", "v1.0", "HEAD", "refs/pull/7/head", &"a".repeat(40), "ümlaut"] {
            assert!(remote("https://h/x", name).checked().is_ok(), "{name}");
        }
        let long = "a".repeat(501);
        for name in [
            "",
            "-x",
            "--upload-pack=id",
            "a..b",
            "a b",
            "a:b",
            "+a",
            "a~1",
            "a^",
            "a*",
            "@{1}",
            "a.lock",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a\u{7}",
            "@",
            "a\\b",
            long.as_str(),
        ] {
            // A leading plus is a name that git takes; here it would be read as force, which it is anyway.
            let taken = remote("https://h/x", name).checked();
            assert_eq!(taken.is_ok(), name == "+a", "{name}");
        }
        for (path, ok) in [
            ("", true),
            ("a/b", true),
            ("/a/", true),
            ("..", false),
            ("a/../b", false),
            (".git", false),
            ("-a", false),
            ("a:b", false),
        ] {
            let remote = Remote { directory: path.to_owned(), ..remote("https://h/x", "main") };
            assert_eq!(remote.checked().is_ok(), ok, "{path}");
        }
    }
}
