//! `flakefarm gc`: what is no longer kept, here or on a farm: old history, and what nothing refers to any more.

use super::shown::size;
use crate::args::{AnswerFormat, GcArgs};
use crate::exit::{Complaint, Exit};
use crate::role_settings::{needed, retention, settings};
use crate::{output, stores};
use flakefarm_coordinator::calendar::date_of;
use flakefarm_coordinator::engine::STORE_MARKER;
use flakefarm_coordinator::garbage::{self, Doing, Garbage};
use flakefarm_coordinator::history::retention::HistoryRetention;
use flakefarm_shared::samples::codec;
use flakefarm_shared::{Digest, UnixMicros, now_micros};

pub(crate) async fn gc(args: &GcArgs) -> Result<Exit, Complaint> {
    let settings = settings(args.config.as_deref(), &args.options())?;
    let keep = retention(&settings)?;
    let (database, blobs) = if args.names_a_farm() {
        (needed(&settings, "stores.database")?, needed(&settings, "stores.blobs")?)
    } else {
        let state = stores::state_dir(args.state.as_deref())?;
        let file = |name: &str| state.join(name).display().to_string();
        (format!("sqlite:{}", file("farm.db")), format!("file://{}", file("blobs")))
    };
    let db = stores::open_database(&database).await?;
    let blobs = stores::open_blobs(&blobs)?;
    let doing = if args.dry_run { Doing::Looking } else { Doing::Removing };
    let now = now_micros();
    let found = garbage::collect(&db, &blobs, &keep, now, doing, &Digest::of(STORE_MARKER)).await?;
    db.close().await;
    output::print(&match args.format {
        AnswerFormat::Human => told(&found, &keep, now, doing),
        AnswerFormat::Json => format!("{}\n", serde_json::to_string_pretty(&document(&found, args.dry_run))?),
        AnswerFormat::Csv => table(&found),
    })?;
    Ok(Exit::Clean)
}

fn document(found: &Garbage, dry_run: bool) -> serde_json::Value {
    serde_json::json!({ "schema": "flakefarm.gc/v1", "dry_run": dry_run, "found": found })
}

fn table(found: &Garbage) -> String {
    format!(
        "what,count,bytes\nhourly_packs,{},\ndaily_packs,{},\ndays,{},\nevidence,{},\njobs,{},\nblobs,{},{}\n\
         young_blobs,{},\nkept_blobs,{},{}\n",
        found.hourly_packs,
        found.daily_packs,
        found.days,
        found.evidence,
        found.jobs,
        found.blobs,
        found.blob_bytes,
        found.young_blobs,
        found.kept_blobs,
        found.kept_bytes
    )
}

fn told(found: &Garbage, keep: &HistoryRetention, now: UnixMicros, doing: Doing) -> String {
    let verb = match doing {
        Doing::Looking => "would be deleted",
        Doing::Removing => "deleted",
    };
    let date = |at: UnixMicros| date_of(codec::day_of(at));
    let (hourly, daily) = (date_of(keep.first_hourly_day(now)), date_of(keep.first_daily_day(now)));
    let (evidence, artifacts) = (date(keep.first_evidence(now)), date(keep.first_artifact(now)));
    let mut text = String::new();
    for (title, count) in [
        (format!("sums by hour from before {hourly}"), found.hourly_packs),
        (format!("sums by day from before {daily}"), found.daily_packs + found.days),
        (format!("failures, flips and runs of CI from before {evidence}"), found.evidence),
        (format!("jobs of sweeps that were over before {artifacts}"), found.jobs),
    ] {
        text.push_str(&format!("{title}: {count} {verb}\n"));
    }
    text.push_str(&format!(
        "blobs that nothing refers to: {} {verb}, {}; {} too young to tell\n",
        found.blobs,
        size(found.blob_bytes),
        found.young_blobs
    ));
    text.push_str(&format!("blobs that stay: {}, {}\n", found.kept_blobs, size(found.kept_bytes)));
    text.push_str("points expire by themselves; verdicts and reports are kept\n");
    text
}
