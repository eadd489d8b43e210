//! A channel: where a project's messages go, and what it wants to hear.

use crate::schedule::Rhythm;
use flakefarm_shared::UnixMicros;
use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use url::Url;

/// Longest name of a channel.
const LONGEST_NAME: usize = 100;

/// A channel of a project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name, unique within the project.
    pub name: String,
    /// Where messages go.
    pub kind: Kind,
    /// A test is told of when it fails at least so often.
    #[serde(default)]
    pub alarm_rate: f64,
    /// A test that was told of is told to be well after so many sweeps in a row found it healthy: more than
    /// one, so that a test that fails seldom does not come and go.
    #[serde(default = "recovery")]
    pub recovery_sweeps: u32,
    /// Whose tests it hears of, as CODEOWNERS spells them; none: everybody's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
    /// When nobody is to be disturbed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Quiet>,
    /// When the digest of the week comes, as a cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The time zone of quiet hours and digest.
    #[serde(default = "utc")]
    pub zone: String,
}

fn recovery() -> u32 {
    2
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Where messages go.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// To anybody, as JSON, signed.
    Webhook {
        /// The address.
        #[serde(with = "address")]
        url: Url,
        /// What signs it.
        secret: String,
    },
    /// To Slack, or what takes its messages.
    Slack {
        /// The address of an incoming webhook.
        #[serde(with = "address")]
        url: Url,
    },
    /// To GitHub: as a comment of an issue or pull request, or as an issue of its own for each cause.
    Github {
        /// The interface, `https://api.github.com/`.
        #[serde(with = "address")]
        api: Url,
        /// `owner/name`.
        repository: String,
        /// The issue or pull request.
        #[serde(default)]
        issue: Option<u64>,
        /// A token that may write there.
        token: String,
    },
    /// To GitLab: as a note of an issue or merge request, or as an issue of its own for each cause.
    Gitlab {
        /// The interface, `https://gitlab.com/api/v4/`.
        #[serde(with = "address")]
        api: Url,
        /// The project's number or path.
        project: String,
        /// `issues/4` or `merge_requests/7`.
        #[serde(default)]
        thread: Option<String>,
        /// A token that may write there.
        token: String,
    },
    /// As mail.
    Mail {
        /// `smtp://user:password@host:587`, `smtps://…`.
        #[serde(with = "address")]
        server: Url,
        /// Who writes.
        from: String,
        /// To whom.
        to: Vec<String>,
    },
}

// Secrets are for their receivers: neither logs nor listings show them.
impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Kind {
    /// In a few words, without what is secret.
    pub fn describe(&self) -> String {
        // The path of a Slack webhook is its secret, and so may be that of any other.
        let host = |url: &Url| url.host_str().unwrap_or_default().to_owned();
        match self {
            Kind::Webhook { url, .. } => format!("webhook {}", host(url)),
            Kind::Slack { url } => format!("slack {}", host(url)),
            Kind::Github { repository, issue: Some(issue), .. } => format!("github {repository}#{issue}"),
            Kind::Github { repository, issue: None, .. } => format!("github issues of {repository}"),
            Kind::Gitlab { project, thread: Some(thread), .. } => format!("gitlab {project} {thread}"),
            Kind::Gitlab { project, thread: None, .. } => format!("gitlab issues of {project}"),
            Kind::Mail { to, .. } => format!("mail to {}", to.join(", ")),
        }
    }
}

/// An address as text.
mod address {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use url::Url;

    pub(super) fn serialize<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
        // What it is may be a secret: the error does not show it.
        String::deserialize(deserializer)?.parse().map_err(|_| D::Error::custom("this is no address"))
    }
}

/// Hours in which nothing is sent: what comes up then is sent when they are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quiet {
    /// From this time of the day.
    pub from: Time,
    /// To this one; the next day's, if it is earlier.
    pub to: Time,
}

impl From<Quiet> for String {
    fn from(quiet: Quiet) -> Self {
        format!("{}-{}", quiet.from, quiet.to)
    }
}

impl TryFrom<String> for Quiet {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for Quiet {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` are no hours such as 22:00-07:00");
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let time = |text: &str| text.trim().parse::<Time>().map_err(|_| wrong());
        let quiet = Quiet { from: time(from)?, to: time(to)? };
        if quiet.from == quiet.to { Err(wrong()) } else { Ok(quiet) }
    }
}

impl Channel {
    /// Whether it hears of a test of `owner`: owners with blanks between them, or nobody.
    pub fn hears_of(&self, owner: Option<&str>) -> bool {
        let mut all = owner.unwrap_or_default().split_whitespace();
        self.owners.is_empty() || all.any(|owner| self.owners.iter().any(|own| own == owner))
    }

    /// What is wrong with it, in words.
    pub fn wrong(&self) -> Option<String> {
        if self.name.is_empty()
            || self.name.chars().count() > LONGEST_NAME
            || self.name.chars().any(char::is_control)
        {
            return Some(format!("a channel's name has 1 to {LONGEST_NAME} characters"));
        }
        if TimeZone::get(&self.zone).is_err() {
            return Some(format!("`{}` is no time zone", self.zone));
        }
        if let Some(cron) = &self.digest
            && let Err(error) = Rhythm::parse(cron, &self.zone)
        {
            return Some(error.to_string());
        }
        if !(0.0..=1.0).contains(&self.alarm_rate) || self.recovery_sweeps == 0 {
            return Some("a rate is between 0 and 1, and one sweep at least shows a recovery".to_owned());
        }
        let web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        let fits = match &self.kind {
            Kind::Webhook { url, secret } => web(url) && secret.len() >= 16,
            Kind::Slack { url } => web(url),
            Kind::Github { api, repository, .. } => {
                web(api) && repository.split('/').filter(|part| !part.is_empty()).count() == 2
            }
            Kind::Gitlab { api, thread, .. } => {
                let known = |thread: &String| {
                    let number =
                        thread.strip_prefix("issues/").or_else(|| thread.strip_prefix("merge_requests/"));
                    number.is_some_and(|number| number.parse::<u64>().is_ok())
                };
                web(api) && thread.as_ref().is_none_or(known)
            }
            Kind::Mail { server, from, to } => {
                let address = |text: &String| text.parse::<lettre::message::Mailbox>().is_ok();
                matches!(server.scheme(), "smtp" | "smtps")
                    && address(from)
                    && !to.is_empty()
                    && to.iter().all(address)
            }
        };
        (!fits).then(|| match &self.kind {
            Kind::Webhook { .. } => {
                "a webhook has an http(s) address and a secret of 16 characters or more".to_owned()
            }
            Kind::Slack { .. } => "an incoming webhook has an http(s) address".to_owned(),
            Kind::Github { .. } => "GitHub needs an http(s) address and a repository `owner/name`".to_owned(),
            Kind::Gitlab { .. } => {
                "GitLab needs an http(s) address, and `issues/N` or `merge_requests/N` if any".to_owned()
            }
            Kind::Mail { .. } => "mail needs smtp:// or smtps://, a sender and addresses".to_owned(),
        })
    }

    /// When something that came up at `now` may be sent.
    pub fn may_send_at(&self, now: UnixMicros) -> UnixMicros {
        let Some(Quiet { from, to }) = self.quiet else { return now };
        let Ok(zone) = TimeZone::get(&self.zone) else { return now };
        let Ok(moment) = Timestamp::from_microsecond(now) else { return now };
        let here = moment.to_zoned(zone.clone());
        let time = here.time();
        let (quiet, tomorrow) = if from < to {
            (time >= from && time < to, false)
        } else {
            (time >= from || time < to, time >= from)
        };
        if !quiet {
            return now;
        }
        let day = if tomorrow { here.date().tomorrow() } else { Ok(here.date()) };
        let end = day.and_then(|day| day.to_datetime(to).to_zoned(zone));
        end.map_or(now, |end| end.timestamp().as_microsecond().max(now))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn slack(quiet: Option<&str>, zone: &str) -> Channel {
        Channel {
            name: "team".to_owned(),
            kind: Kind::Slack { url: "http://127.0.0.1:9/hook/secret".parse().unwrap() },
            alarm_rate: 0.0,
            recovery_sweeps: 2,
            owners: Vec::new(),
            quiet: quiet.map(|quiet| quiet.parse().unwrap()),
            digest: None,
            zone: zone.to_owned(),
        }
    }

    #[test]
    fn quiet_hours_end_by_the_clock_on_the_wall() {
        let check = |quiet: &str, zone: &str, at: &str, expect: &str| {
            let at = at.parse::<Timestamp>().unwrap().as_microsecond();
            let sent = slack(Some(quiet), zone).may_send_at(at);
            assert_eq!(Timestamp::from_microsecond(sent).unwrap().to_string(), expect, "{quiet} {zone}");
        };
        check("22:00-07:00", "UTC", "2026-11-28T23:30:00Z", "2026-11-29T07:00:00Z");
        check("22:00-07:00", "UTC", "2026-11-28T06:59:00Z", "2026-11-28T07:00:00Z");
        check("22:00-07:00", "UTC", "2026-11-28T12:00:00Z", "2026-11-28T12:00:00Z");
        check("12:00-13:00", "UTC", "2026-11-28T12:30:00Z", "2026-11-28T13:00:00Z");
        // The night on which the clocks go forward is an hour shorter.
        check("22:00-07:00", "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T05:00:00Z");
        assert!("22-x".parse::<Quiet>().is_err() && "07:00-07:00".parse::<Quiet>().is_err());
    }

    #[test]
    fn what_cannot_be_reached_is_refused_and_secrets_are_not_shown() {
        let good = slack(None, "UTC");
        assert_eq!(good.wrong(), None);
        assert!(!format!("{good:?}").contains("secret"));
        assert!(Channel { zone: "Mars/Olympus".to_owned(), ..good.clone() }.wrong().is_some());
        assert!(Channel { digest: Some("often".to_owned()), ..good.clone() }.wrong().is_some());
        let short = Kind::Webhook { url: "https://a.example/".parse().unwrap(), secret: "short".to_owned() };
        assert!(Channel { kind: short, ..good.clone() }.wrong().is_some());
        let mail = Kind::Mail { server: "smtp://h".parse().unwrap(), from: "a b".to_owned(), to: vec![] };
        assert!(Channel { kind: mail, ..good }.wrong().is_some());
    }
}
