//! `flakefarm diagnose`: why tests are flaky, asked like every other question.

use crate::args::DiagnoseArgs;
use crate::ask::{self, Asked, Session, describe, tests_and_path};
use crate::exit::{Complaint, Exit};
use crate::signals;
use crate::sweep::{Wishes, question};
use flakefarm_coordinator::plan::{QuestionKind, TestFilter};
use flakefarm_shared::World;

pub(crate) async fn diagnose(args: &DiagnoseArgs) -> Result<Exit, Complaint> {
    let (tests, path) = tests_and_path(&args.tests);
    if tests.is_empty() {
        let last = path.display();
        return Err(Complaint::usage(format!("{last} is a directory: name the test to diagnose"))
            .hint(format!("flakefarm diagnose TEST {last}; flakefarm sweep {last} finds flaky ones")));
    }
    let mut session = Session::open(&args.ask, &path, &args.ask.options(), signals::stop_on_signal()?)?;
    if session.printed_settings()? {
        return Ok(Exit::Clean);
    }
    let tests = TestFilter(tests);
    let named = tests.describe();
    let wishes = Wishes {
        kind: QuestionKind::Diagnose { tests },
        tests: TestFilter(args.among.clone()),
        order: args.order,
        repeats: true,
    };
    let question = question(wishes, &session)?;
    let place = session.place(question.sandbox).await?;
    let archive = session.archive().await?;
    let snapshot = place.put(archive.bytes).await?;
    let (name, how) = (&session.loaded.spec.name, describe(&session.loaded));
    session.progress.note(&format!("{name}: {how}; diagnosing {named}, seed {}", question.seed));
    let submission = session.submission(question, snapshot, archive.revision, World::Plain);
    match session.carry_out(place, &submission).await? {
        Asked::Detached => Ok(Exit::Clean),
        Asked::Ended(ended) => ask::finish(&ended, &args.ask.output).await,
    }
}
