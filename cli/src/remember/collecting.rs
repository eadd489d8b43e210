//! `flakefarm gc`: what is no longer kept of history.

use crate::args::GcArgs;
use crate::exit::{Complaint, Exit};
use crate::memory::open_here;
use crate::output;
use flakefarm_coordinator::db::PackSpan;
use flakefarm_coordinator::history::collect::date_of;
use flakefarm_coordinator::history::retention::HistoryRetention;
use flakefarm_shared::now_micros;

pub(crate) async fn gc(args: &GcArgs) -> Result<Exit, Complaint> {
    let (db, _) = open_here(args.state.as_deref()).await?;
    let now = now_micros();
    let keep = HistoryRetention::default();
    let mut text = String::new();
    for (title, span, first) in [
        ("sums by hour", PackSpan::Hours, keep.first_hourly_day(now)),
        ("sums by day", PackSpan::Days, keep.first_daily_day(now)),
    ] {
        let (count, verb) = if args.dry_run {
            (db.count_packs_before(span, first).await?, "would be deleted")
        } else {
            (db.delete_packs_before(span, first).await?, "deleted")
        };
        text.push_str(&format!("{title} before {}: {count} packs {verb}\n", date_of(first)));
    }
    db.close().await;
    text.push_str("points expire by themselves; verdicts are kept\n");
    output::print(&text)?;
    Ok(Exit::Clean)
}
