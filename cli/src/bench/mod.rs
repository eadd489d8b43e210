//! `flakefarm bench`: what attempts cost at each level of isolation and in other people's ways, and
//! whether everything around them keeps up. In one run, in interleaved rounds, on one machine.

mod control;
mod meter;
mod stats;

use crate::args::StoreArgs;
use crate::exit::{Complaint, Exit};
use crate::output;
use clap::Args;
use control::{Addresses, Size};
use std::num::NonZeroU32;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Measure planner, queue, workers and stores around attempts that take no time; with --database,
    /// --queue and --samples on those services, too
    #[arg(long)]
    pub(crate) control_plane: bool,
    /// Two minutes instead of twenty
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

pub(crate) async fn bench(args: &BenchArgs) -> Result<Exit, Complaint> {
    if args.control_plane {
        return control_plane(args).await;
    }
    Ok(Exit::Clean)
}

async fn control_plane(args: &BenchArgs) -> Result<Exit, Complaint> {
    let count = |n: u32| NonZeroU32::new(n).expect("not zero");
    let size = if args.quick {
        Size { jobs: 2_000, suite_attempts: count(60), tests: count(500), queued: 50_000 }
    } else {
        Size { jobs: 10_000, suite_attempts: count(200), tests: count(1_000), queued: 500_000 }
    };
    let mut stores = vec![Addresses {
        name: "embedded".to_owned(),
        database: "embedded:".to_owned(),
        queue: "embedded:".to_owned(),
        samples: "embedded:".to_owned(),
    }];
    if let (Some(database), Some(queue), Some(samples)) =
        (&args.stores.database, &args.stores.queue, &args.stores.samples)
    {
        stores.push(Addresses {
            name: "RabbitMQ + Redis + PostgreSQL".to_owned(),
            database: database.clone(),
            queue: queue.clone(),
            samples: samples.clone(),
        });
    }
    for addresses in &stores {
        for workers in [1, 8] {
            let result = control::measure(addresses, workers, size).await?;
            output::print(&format!("{result:?}\n"))?;
        }
    }
    Ok(Exit::Clean)
}
