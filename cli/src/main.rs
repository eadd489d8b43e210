//! The one binary. Roles (coordinator, worker) and the commands people type; embedded mode is a
//! coordinator and a worker in this process.

// What is said goes through `say` and `output`, which survive a reader that goes away.
#![deny(clippy::print_stderr, clippy::print_stdout)]

/// A coordinator makes and drops what it reads of sweeps on one thread and what it keeps of them on another: the system's
/// allocator kept two fifths of its memory empty for that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod analyse;
mod args;
mod ask;
mod attach;
mod bisect;
mod check;
mod codequality;
mod diagnose;
mod digest;
mod doctor;
mod embedded;
mod exit;
mod farm;
mod guard;
mod init;
mod left;
mod measuring;
mod memory;
mod moving;
mod notify;
mod operators;
mod output;
mod probe;
mod progress;
mod quarantine;
mod remember;
mod repair;
mod role_keys;
mod role_settings;
mod roles;
mod run;
mod say;
mod schedule;
mod shown;
mod signals;
mod status;
mod stores;
mod sweep;
mod telemetry;
mod trees;
mod upload;
mod validate;

use args::{Cli, Command};
use clap::FromArgMatches;
use exit::{Complaint, Exit};
use say::say;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Two crates may each bring a provider; rustls then refuses to choose by itself.
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    let cli = match args::command_line().try_get_matches().and_then(|found| Cli::from_arg_matches(&found)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; printing may fail only on a closed pipe.
            let _closed_pipe = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Clean.into() };
        }
    };
    let unsent = telemetry::init(&cli.command);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(Complaint::of(&error).to_string());
            return Exit::FarmFailed.into();
        }
    };
    let ended = runtime.block_on(async {
        let sending = unsent.start();
        let ended = match cli.command {
            // What it ends with is the command's own.
            Command::Run(args) => Box::pin(run::run(&args)).await,
            command => dispatch(command).await.map(ExitCode::from),
        };
        embedded::all_left().await;
        sending.finish().await;
        ended
    });
    // Blocking file work may still be under way after an interruption; it must not hold us.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match ended {
        Ok(exit) => exit,
        Err(complaint) => {
            say(complaint.to_string());
            complaint.exit.into()
        }
    }
}

async fn dispatch(command: Command) -> Result<Exit, Complaint> {
    match command {
        Command::Sweep(args) => Box::pin(sweep::sweep(&args)).await,
        Command::Diagnose(args) => Box::pin(diagnose::diagnose(&args)).await,
        Command::Bisect(args) => Box::pin(bisect::bisect(&args)).await,
        Command::Repair(args) => Box::pin(repair::repair(&args)).await,
        Command::Analyse(args) => Box::pin(analyse::analyse(&args)).await,
        Command::Validate(args) => Box::pin(validate::validate(&args)).await,
        Command::Check(args) => Box::pin(check::check(&args)).await,
        Command::Guard(args) => Box::pin(guard::guard(&args)).await,
        Command::Run(_) => unreachable!("it is carried out before"),
        Command::Quarantine(args) => Box::pin(quarantine::quarantine(&args)).await,
        Command::Attach(args) => Box::pin(attach::attach(&args)).await,
        Command::Upload(args) => Box::pin(upload::upload(&args)).await,
        Command::History(args) => Box::pin(remember::history(&args)).await,
        Command::Tests(args) => Box::pin(remember::tests(&args)).await,
        Command::Trends(args) => Box::pin(remember::trends(&args)).await,
        Command::Forecast(args) => Box::pin(remember::forecast(&args)).await,
        Command::Gc(args) => Box::pin(remember::gc(&args)).await,
        Command::Init(args) => init::init(&args),
        Command::Simulate(args) => measuring::simulate(&args),
        Command::Report(args) => shown::show(&args).await,
        Command::Sweeps(args) => operators::sweeps(&args).await,
        Command::Cancel(args) => operators::cancel(&args).await,
        Command::Export(args) => Box::pin(moving::export(&args)).await,
        Command::Import(args) => Box::pin(moving::import(&args)).await,
        Command::Digest(args) => Box::pin(digest::digest(&args)).await,
        Command::Notify(args) => Box::pin(notify::notify(&args)).await,
        Command::Schedule(args) => Box::pin(schedule::schedule(&args)).await,
        Command::Workers(args) => operators::workers(&args).await,
        Command::Dead(args) => operators::dead(&args).await,
        Command::Bench(args) => Box::pin(measuring::bench(&args)).await,
        Command::Doctor(args) => Box::pin(doctor::doctor(&args)).await,
        Command::Status(args) => Box::pin(status::status(&args)).await,
        Command::Probe(args) => probe::probe(&args).await,
        Command::Coordinator(args) => Box::pin(roles::coordinator(&args)).await,
        Command::Worker(args) => Box::pin(roles::worker(&args)).await,
        Command::Token(args) => roles::token(&args).await,
    }
}
