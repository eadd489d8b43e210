//! `flakefarm notify`: who is told of what. Only a farm tells: it is there when something happens.

use crate::args::{
    ChannelAddArgs, ChannelArgs, ChannelListArgs, FarmAddressArgs, HookArgs, ListFormat, NotifyAction,
    NotifyArgs,
};
use crate::ask::config_complaint;
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::memory;
use crate::operators::{ago, json, print_table};
use crate::say::say;
use flakefarm_coordinator::http::{ChannelName, NewChannel, NewHook};
use flakefarm_coordinator::notify::{Channel, Kind};
use flakefarm_project::config::without_project;
use std::path::Path;
use url::Url;

/// `flakefarm notify`.
pub(crate) async fn notify(args: &NotifyArgs) -> Result<Exit, Complaint> {
    match &args.action {
        NotifyAction::Add(args) => add(args).await,
        NotifyAction::List(args) => list(args).await,
        NotifyAction::Remove(args) => {
            farm(&args.farm)?.remove_channel(&named(args)).await?;
            say(format!("channel {} is removed", args.name));
            Ok(Exit::Clean)
        }
        NotifyAction::Try(args) => {
            farm(&args.farm)?.try_channel(&named(args)).await?;
            say("a message is on its way\nhint: flakefarm notify deliveries says whether it arrived");
            Ok(Exit::Clean)
        }
        NotifyAction::Hook(args) => hook(args).await,
        NotifyAction::Deliveries(args) => deliveries(args).await,
        NotifyAction::Retry(args) => {
            let revived = farm(&args.farm)?.retry_deliveries(&project(args.project.as_ref())).await?;
            say(format!("{} dead deliveries are tried again", revived.revived));
            Ok(Exit::Clean)
        }
    }
}

fn farm(args: &FarmAddressArgs) -> Result<Farm, Complaint> {
    let settings = without_project(&args.options()).map_err(|error| config_complaint(&error))?;
    let address = settings.text("farm.url").ok_or_else(|| {
        Complaint::usage("only a farm notifies anybody").hint("pass --farm URL, or set FLAKEFARM_FARM")
    })?;
    Farm::new(&address, settings.text("farm.token"))
}

fn project(given: Option<&String>) -> String {
    given.cloned().unwrap_or_else(memory::name_of_this_directory)
}

fn named(args: &ChannelArgs) -> ChannelName {
    ChannelName { project: project(args.project.as_ref()), name: args.name.clone() }
}

async fn add(args: &ChannelAddArgs) -> Result<Exit, Complaint> {
    let channel = Channel {
        name: args.name.clone(),
        kind: kind(args)?,
        alarm_rate: args.alarm_rate.map_or(0.0, |rate| rate.get()),
        recovery_sweeps: args.recovery_sweeps,
        owners: args.owners.clone(),
        quiet: args.quiet,
        digest: args.digest.clone(),
        zone: args.zone.clone(),
    };
    if let Some(wrong) = channel.wrong() {
        return Err(Complaint::usage(wrong));
    }
    let to = channel.kind.describe();
    let project = project(args.project.as_ref());
    farm(&args.farm)?.put_channel(&NewChannel { project: project.clone(), channel }).await?;
    say(format!(
        "channel {} of {project}: {to}\nhint: flakefarm notify try {} sends a message",
        args.name, args.name
    ));
    Ok(Exit::Clean)
}

async fn hook(args: &HookArgs) -> Result<Exit, Complaint> {
    let secret = if args.remove { None } else { Some(read(args.secret_file.as_deref())?) };
    let (farm, project) = (farm(&args.farm)?, project(args.project.as_ref()));
    farm.set_hook(&NewHook { project: project.clone(), secret }).await?;
    if args.remove {
        say(format!("comments of {project} ask for nothing any more"));
    } else {
        say(format!("deliveries of issue comments go to {}", farm.hook_address(&project)?));
    }
    Ok(Exit::Clean)
}

fn kind(args: &ChannelAddArgs) -> Result<Kind, Complaint> {
    let secret = || read(args.secret_file.as_deref());
    if let Some(url) = &args.webhook {
        return Ok(Kind::Webhook { url: url.clone(), secret: secret()? });
    }
    if let Some(file) = &args.slack_file {
        let url = read(Some(file))?;
        // The address is a secret: it is not shown.
        let url =
            url.parse().map_err(|_| Complaint::usage(format!("{} holds no address", file.display())))?;
        return Ok(Kind::Slack { url });
    }
    let api = |usual: &str| match &args.api {
        Some(api) => Ok(api.clone()),
        None => usual.parse::<Url>().map_err(|error| Complaint::usage(error.to_string())),
    };
    if let Some(named) = &args.github {
        let (repository, issue) = match named.split_once('#') {
            Some((repository, issue)) => (repository, Some(issue)),
            None => (named.as_str(), None),
        };
        let number = issue.map(str::parse::<u64>).transpose();
        let issue =
            number.map_err(|_| Complaint::usage(format!("{named} is no issue such as owner/name#12")))?;
        let api = api("https://api.github.com/")?;
        return Ok(Kind::Github { api, repository: repository.to_owned(), issue, token: secret()? });
    }
    if let Some(named) = &args.gitlab {
        let (project, thread) = match named.split_once('#') {
            Some((project, thread)) => (project, Some(thread.to_owned())),
            None => (named.as_str(), None),
        };
        let api = api("https://gitlab.com/api/v4/")?;
        return Ok(Kind::Gitlab { api, project: project.to_owned(), thread, token: secret()? });
    }
    let server = read(args.smtp_file.as_deref())?;
    let server =
        server.parse().map_err(|_| Complaint::usage("the file of --smtp-file holds no smtp:// address"))?;
    Ok(Kind::Mail { server, from: args.from.clone().unwrap_or_default(), to: args.mail.clone() })
}

fn read(file: Option<&Path>) -> Result<String, Complaint> {
    let file = file.ok_or_else(|| Complaint::usage("a file with the secret is needed"))?;
    let text = std::fs::read_to_string(file)
        .map_err(|error| Complaint::usage(format!("failed to read {}: {error}", file.display())))?;
    Ok(text.trim().to_owned())
}

async fn list(args: &ChannelListArgs) -> Result<Exit, Complaint> {
    let found = farm(&args.farm)?.channels(&project(args.project.as_ref())).await?;
    if args.format == ListFormat::Json {
        return json(&found);
    }
    let mut rows = vec![["CHANNEL", "TO", "QUIET", "DIGEST", "ZONE"].map(str::to_owned)];
    rows.extend(found.channels.into_iter().map(|channel| {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "no".to_owned());
        [channel.name, channel.to, or_none(channel.quiet), or_none(channel.digest), channel.zone]
    }));
    print_table(&rows, "nobody is told of anything")?;
    Ok(Exit::Clean)
}

async fn deliveries(args: &ChannelListArgs) -> Result<Exit, Complaint> {
    let found = farm(&args.farm)?.deliveries(&project(args.project.as_ref())).await?;
    if args.format == ListFormat::Json {
        return json(&found);
    }
    let mut rows = vec![["STATE", "CHANNEL", "WHAT", "TRIES", "SINCE", "LAST ERROR"].map(str::to_owned)];
    rows.extend(found.deliveries.into_iter().map(|delivery| {
        let error = delivery.last_error.unwrap_or_default();
        let tries = delivery.tries.to_string();
        [delivery.state, delivery.channel, delivery.title, tries, ago(delivery.created_at), error]
    }));
    print_table(&rows, "nothing was sent yet")?;
    Ok(Exit::Clean)
}
