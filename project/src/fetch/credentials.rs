//! What opens a remote: a token or `user:password` for the web, or a key with its hosts for ssh. Never
//! shown, never an argument, never part of an address.

use base64::Engine as _;
use std::fmt;

/// Longest file of them.
const LONGEST: usize = 64 << 10;
const KEY_BEGINS: &str = "-----BEGIN ";
const KEY_ENDS: &str = "PRIVATE KEY-----";

/// What opens a remote.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Of the web.
    Password {
        /// Who.
        user: String,
        /// With what.
        password: String,
    },
    /// Of ssh.
    Key {
        /// The private key, as its file holds it.
        key: String,
        /// Lines of a `known_hosts` file: only these hosts are believed.
        hosts: String,
    },
}

/// What is no file of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Nothing in it, or too much.
    #[error("the credentials are empty, or too long")]
    Size,
    /// Neither a token nor a key.
    #[error("the credentials are neither a token, nor `user:password`, nor a private key of ssh")]
    Unknown,
    /// The key wants a passphrase, which nobody is there to type.
    #[error("the private key is closed with a passphrase")]
    Passphrase,
    /// Whom the key is for is not said.
    #[error("the file holds a key and no host that is known")]
    NoHosts,
}

impl CredentialsError {
    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            CredentialsError::Size | CredentialsError::Unknown => {
                "a file with one line: a token, or user:password; or with a private key of ssh"
            }
            CredentialsError::Passphrase => {
                "a key of the farm's own, that may only read: ssh-keygen -t ed25519 -N '' -f FILE"
            }
            CredentialsError::NoHosts => "ssh-keyscan HOST >> FILE, and compare what it says",
        }
    }
}

impl Credentials {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        // Keys are not read with the line ends of other systems.
        let text = text.replace("\r\n", "\n");
        let text = text.trim();
        if text.is_empty() || text.len() > LONGEST {
            return Err(CredentialsError::Size);
        }
        if let Some(begin) = text.find(KEY_BEGINS) {
            let ends = text.rfind(KEY_ENDS).map(|at| at + KEY_ENDS.len()).filter(|end| *end > begin);
            let end = ends.ok_or(CredentialsError::Unknown)?;
            let key = format!("{}\n", &text[begin..end]);
            let hosts = format!("{}\n{}\n", text[..begin].trim(), text[end..].trim()).trim().to_owned();
            if is_closed(&key) {
                return Err(CredentialsError::Passphrase);
            }
            if hosts.is_empty() {
                return Err(CredentialsError::NoHosts);
            }
            return Ok(Credentials::Key { key, hosts: format!("{hosts}\n") });
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(CredentialsError::Unknown);
        }
        // Hosts take any name beside a token.
        let (user, password) = text.split_once(':').unwrap_or(("flakefarm", text));
        Ok(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
    }
}

/// Whether a private key wants a passphrase.
fn is_closed(key: &str) -> bool {
    /// Begins a key in the form of OpenSSH; then comes the cipher's name, its length before it.
    const OPENSSH: &[u8] = b"openssh-key-v1\0";
    let body: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(body).unwrap_or_default();
    let open = [&4_u32.to_be_bytes()[..], b"none"].concat();
    let openssh = decoded.strip_prefix(OPENSSH).is_some_and(|rest| !rest.starts_with(&open));
    openssh || key.contains("ENCRYPTED")
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Password { .. } => "Credentials::Password",
            Credentials::Key { .. } => "Credentials::Key",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_passwords_and_keys_are_told_apart_and_shown_by_nothing() {
        let token = Credentials::parse("s3cret\n").unwrap();
        assert_eq!(
            token,
            Credentials::Password { user: "flakefarm".to_owned(), password: "s3cret".to_owned() }
        );
        let password = Credentials::parse("me:a:b").unwrap();
        assert_eq!(password, Credentials::Password { user: "me".to_owned(), password: "a:b".to_owned() });
        let text = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n";
        assert_eq!(Credentials::parse(text), Err(CredentialsError::NoHosts));
        let key = Credentials::parse(&format!("{text}example.org ssh-ed25519 AAAA\n")).unwrap();
        assert!(matches!(&key, Credentials::Key { key, hosts }
            if key == text && hosts == "example.org ssh-ed25519 AAAA\n"));
        assert!(!format!("{token:?} {password:?} {key:?}").contains("s3cret"));
        let crlf = format!("{text}example.org ssh-ed25519 AAAA").replace('\n', "\r\n");
        assert_eq!(Credentials::parse(&crlf), Ok(key));
        let closed = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert_eq!(Credentials::parse(closed), Err(CredentialsError::Passphrase));
        let body = base64::engine::general_purpose::STANDARD.encode(b"openssh-key-v1\0\0\0\0\x0aaes256-ctr");
        let closed = text.replace("abc", &body);
        assert_eq!(Credentials::parse(&closed), Err(CredentialsError::Passphrase));
        for wrong in ["", " ", "two words", "a\nb", "-----BEGIN nothing"] {
            assert!(Credentials::parse(wrong).is_err(), "{wrong}");
        }
    }
}
