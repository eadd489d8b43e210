//! `flakefarm attach`: a sweep on a farm that somebody left, followed to its end.

use crate::args::AttachArgs;
use crate::ask::{self, Leaving, config_complaint};
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::progress::Progress;
use crate::{signals, sweep};
use flakefarm_project::config::without_project;

pub(crate) async fn attach(args: &AttachArgs) -> Result<Exit, Complaint> {
    let settings = without_project(&args.farm.options()).map_err(|error| config_complaint(&error))?;
    let address = settings
        .text("farm.url")
        .ok_or_else(|| Complaint::usage("no farm is named").hint("pass --farm URL, or set FLAKEFARM_FARM"))?;
    let farm = Farm::new(&address, settings.text("farm.token"))?;
    farm.check().await?;
    let stop = signals::stop_on_signal()?;
    let mut progress = Progress::new();
    progress.note(&format!("following sweep {} on {}", args.id, farm.address()));
    if farm.status(args.id).await?.state == "running"
        && let Some(warning) = farm.nobody_works().await
    {
        progress.note(&warning);
    }
    let ended = ask::follow(farm, args.id, &mut progress, &stop, Leaving::LeavesIt).await?;
    let exit = ask::finish(&ended, &args.output).await?;
    Ok(if exit == Exit::Clean { sweep::gate(&ended.report, &args.fail_on) } else { exit })
}
