//! `flakefarm bench` and `flakefarm simulate`: the crate beside the product, as commands of it.

use crate::exit::{Complaint, Exit};
use crate::output;
use crate::say::say;
use flakefarm_bench::{BenchArgs, Measured, SimulateArgs, Unmeasured};

pub(crate) async fn bench(args: &BenchArgs) -> Result<Exit, Complaint> {
    shown(Box::pin(flakefarm_bench::bench(args, &|line| say(line))).await)
}

pub(crate) fn simulate(args: &SimulateArgs) -> Result<Exit, Complaint> {
    shown(flakefarm_bench::simulate(args, &|line| say(line)))
}

fn shown(measured: Result<Measured, Unmeasured>) -> Result<Exit, Complaint> {
    let measured = measured.map_err(|error| {
        let exit = if error.usage { Exit::Usage } else { Exit::FarmFailed };
        let mut complaint = Complaint::new(exit, error.message).log(error.log);
        complaint.hint = error.hint;
        complaint
    })?;
    output::print(&measured.text)?;
    Ok(if measured.holds { Exit::Clean } else { Exit::GateFailed })
}
