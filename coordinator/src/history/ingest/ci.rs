//! Where a report comes from, as CI systems say it in their environment. Pure: the environment is passed in.

use serde::{Deserialize, Serialize};

/// What a CI system says of the job that it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CiJob {
    /// The system, in its own spelling of lower-case letters.
    pub provider: Option<String>,
    /// The revision that was tested.
    pub revision: Option<String>,
    /// The branch it is on; of a pull request, the branch it comes from.
    pub branch: Option<String>,
    /// Which attempt at the job this is, from 1.
    pub attempt: Option<u32>,
    /// The job's name.
    pub job: Option<String>,
    /// Where people see it.
    pub url: Option<String>,
}

/// What the environment says; nothing outside of CI.
pub fn detect(variable: &dyn Fn(&str) -> Option<String>) -> CiJob {
    let environment = Environment(variable);
    PROVIDERS
        .iter()
        .find(|(marker, _)| environment.first(&[marker]).is_some())
        .map(|(_, read)| read(&environment))
        .unwrap_or_default()
}

type Read = fn(&Environment<'_>) -> CiJob;

/// By the variable that is set in it.
const PROVIDERS: [(&str, Read); 7] = [
    ("GITHUB_ACTIONS", github),
    ("GITLAB_CI", gitlab),
    ("CIRCLECI", circle),
    ("TF_BUILD", azure),
    ("BUILDKITE", buildkite),
    ("TRAVIS", travis),
    ("JENKINS_URL", jenkins),
];

struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    /// The first variable that is set and not empty.
    fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| (self.0)(name).filter(|value| !value.trim().is_empty()))
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.first(&[name])?.trim().parse().ok()
    }
}

fn github(env: &Environment<'_>) -> CiJob {
    let run =
        (env.first(&["GITHUB_SERVER_URL"]), env.first(&["GITHUB_REPOSITORY"]), env.first(&["GITHUB_RUN_ID"]));
    CiJob {
        provider: Some("github".to_owned()),
        revision: env.first(&["GITHUB_SHA"]),
        branch: env.first(&["GITHUB_HEAD_REF", "GITHUB_REF_NAME"]),
        attempt: env.number("GITHUB_RUN_ATTEMPT"),
        job: env.first(&["GITHUB_JOB"]),
        url: match run {
            (Some(server), Some(repository), Some(run)) => {
                Some(format!("{server}/{repository}/actions/runs/{run}"))
            }
            _ => None,
        },
    }
}

fn gitlab(env: &Environment<'_>) -> CiJob {
    CiJob {
        provider: Some("gitlab".to_owned()),
        revision: env.first(&["CI_COMMIT_SHA"]),
        branch: env.first(&["CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "CI_COMMIT_REF_NAME"]),
        // A job that is run again is another job, with another address.
        attempt: None,
        job: env.first(&["CI_JOB_NAME"]),
        url: env.first(&["CI_JOB_URL"]),
    }
}

fn circle(env: &Environment<'_>) -> CiJob {
    CiJob {
        provider: Some("circleci".to_owned()),
        revision: env.first(&["CIRCLE_SHA1"]),
        branch: env.first(&["CIRCLE_BRANCH"]),
        attempt: None,
        job: env.first(&["CIRCLE_JOB"]),
        url: env.first(&["CIRCLE_BUILD_URL"]),
    }
}

fn azure(env: &Environment<'_>) -> CiJob {
    let build = (
        env.first(&["SYSTEM_COLLECTIONURI"]),
        env.first(&["SYSTEM_TEAMPROJECT"]),
        env.first(&["BUILD_BUILDID"]),
    );
    let short = |branch: String| branch.strip_prefix("refs/heads/").map_or(branch.clone(), str::to_owned);
    CiJob {
        provider: Some("azure".to_owned()),
        revision: env.first(&["BUILD_SOURCEVERSION"]),
        branch: env.first(&["SYSTEM_PULLREQUEST_SOURCEBRANCH", "BUILD_SOURCEBRANCH"]).map(short),
        attempt: env.number("SYSTEM_JOBATTEMPT"),
        job: env.first(&["SYSTEM_JOBDISPLAYNAME", "AGENT_JOBNAME"]),
        url: match build {
            (Some(collection), Some(project), Some(build)) => {
                Some(format!("{}/{project}/_build/results?buildId={build}", collection.trim_end_matches('/')))
            }
            _ => None,
        },
    }
}

fn buildkite(env: &Environment<'_>) -> CiJob {
    let url = match (env.first(&["BUILDKITE_BUILD_URL"]), env.first(&["BUILDKITE_JOB_ID"])) {
        (Some(build), Some(job)) => Some(format!("{build}#{job}")),
        (build, _) => build,
    };
    CiJob {
        provider: Some("buildkite".to_owned()),
        revision: env.first(&["BUILDKITE_COMMIT"]),
        branch: env.first(&["BUILDKITE_BRANCH"]),
        attempt: env.number("BUILDKITE_RETRY_COUNT").map(|retries| retries.saturating_add(1)),
        job: env.first(&["BUILDKITE_STEP_KEY", "BUILDKITE_LABEL"]),
        url,
    }
}

fn travis(env: &Environment<'_>) -> CiJob {
    CiJob {
        provider: Some("travis".to_owned()),
        revision: env.first(&["TRAVIS_PULL_REQUEST_SHA", "TRAVIS_COMMIT"]),
        branch: env.first(&["TRAVIS_PULL_REQUEST_BRANCH", "TRAVIS_BRANCH"]),
        attempt: None,
        job: env.first(&["TRAVIS_JOB_NAME", "TRAVIS_JOB_NUMBER"]),
        url: env.first(&["TRAVIS_JOB_WEB_URL"]),
    }
}

fn jenkins(env: &Environment<'_>) -> CiJob {
    let short = |branch: String| branch.strip_prefix("origin/").map_or(branch.clone(), str::to_owned);
    CiJob {
        provider: Some("jenkins".to_owned()),
        revision: env.first(&["GIT_COMMIT"]),
        branch: env.first(&["CHANGE_BRANCH", "BRANCH_NAME", "GIT_BRANCH"]).map(short),
        attempt: None,
        job: env.first(&["JOB_NAME"]),
        url: env.first(&["BUILD_URL"]),
    }
}

/// Longest revision.
const LONGEST_REVISION: usize = 128;

/// Whether a text can be a revision: a word of letters, digits and a few signs, as every version control
/// system writes them.
pub fn is_revision(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST_REVISION
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/+:@~^-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> CiJob {
        detect(&|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[track_caller]
    fn check(variables: &[(&str, &str)], expect: [&str; 5], attempt: Option<u32>) {
        let job = of(variables);
        let found = [&job.provider, &job.revision, &job.branch, &job.job, &job.url]
            .map(|text| text.as_deref().unwrap_or(""));
        assert_eq!((found, job.attempt), (expect, attempt));
    }

    #[test]
    fn every_provider_says_where_it_is() {
        check(&[], ["", "", "", "", ""], None);
        check(
            &[
                ("GITHUB_ACTIONS", "true"),
                ("GITHUB_SHA", "abc"),
                ("GITHUB_REF_NAME", "7/merge"),
                ("GITHUB_HEAD_REF", "fix"),
                ("GITHUB_RUN_ATTEMPT", "2"),
                ("GITHUB_JOB", "test"),
                ("GITHUB_SERVER_URL", "https://github.com"),
                ("GITHUB_REPOSITORY", "a/b"),
                ("GITHUB_RUN_ID", "9"),
            ],
            ["github", "abc", "fix", "test", "https://github.com/a/b/actions/runs/9"],
            Some(2),
        );
        check(
            &[
                ("GITLAB_CI", "true"),
                ("CI_COMMIT_SHA", "abc"),
                ("CI_COMMIT_REF_NAME", "main"),
                ("CI_JOB_NAME", "t"),
                ("CI_JOB_URL", "u"),
            ],
            ["gitlab", "abc", "main", "t", "u"],
            None,
        );
        check(
            &[
                ("CIRCLECI", "true"),
                ("CIRCLE_SHA1", "abc"),
                ("CIRCLE_BRANCH", "main"),
                ("CIRCLE_JOB", "t"),
                ("CIRCLE_BUILD_URL", "u"),
            ],
            ["circleci", "abc", "main", "t", "u"],
            None,
        );
        check(
            &[
                ("TF_BUILD", "True"),
                ("BUILD_SOURCEVERSION", "abc"),
                ("BUILD_SOURCEBRANCH", "refs/heads/main"),
                ("SYSTEM_JOBATTEMPT", "3"),
                ("AGENT_JOBNAME", "t"),
                ("SYSTEM_COLLECTIONURI", "https://dev.azure.com/o/"),
                ("SYSTEM_TEAMPROJECT", "p"),
                ("BUILD_BUILDID", "4"),
            ],
            ["azure", "abc", "main", "t", "https://dev.azure.com/o/p/_build/results?buildId=4"],
            Some(3),
        );
        check(
            &[
                ("BUILDKITE", "true"),
                ("BUILDKITE_COMMIT", "abc"),
                ("BUILDKITE_BRANCH", "main"),
                ("BUILDKITE_RETRY_COUNT", "1"),
                ("BUILDKITE_LABEL", "t"),
                ("BUILDKITE_BUILD_URL", "u"),
                ("BUILDKITE_JOB_ID", "j"),
            ],
            ["buildkite", "abc", "main", "t", "u#j"],
            Some(2),
        );
        check(
            &[
                ("TRAVIS", "true"),
                ("TRAVIS_COMMIT", "abc"),
                ("TRAVIS_BRANCH", "main"),
                ("TRAVIS_JOB_NUMBER", "4.1"),
                ("TRAVIS_JOB_WEB_URL", "u"),
            ],
            ["travis", "abc", "main", "4.1", "u"],
            None,
        );
        check(
            &[
                ("JENKINS_URL", "x"),
                ("GIT_COMMIT", "abc"),
                ("GIT_BRANCH", "origin/main"),
                ("JOB_NAME", "t"),
                ("BUILD_URL", "u"),
            ],
            ["jenkins", "abc", "main", "t", "u"],
            None,
        );
    }

    #[test]
    fn revisions_are_words() {
        for good in ["3f2c1d", "r1234", "v1.2.3-rc+1", "refs/heads/main", "HEAD~1"] {
            assert!(is_revision(good), "{good}");
        }
        for bad in ["", "-x", "a b", "a\nb", "$(rm)", "ü", "<a>", &"a".repeat(200)] {
            assert!(!is_revision(bad), "{bad}");
        }
    }
}
