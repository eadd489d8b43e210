//! Work that goes on beside a loop, each piece known by what it is for.

use std::collections::HashMap;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::warn;

/// What is under way, and what each is for. Aborted when it is dropped.
#[derive(Debug)]
pub(super) struct Beside<T> {
    what: &'static str,
    tasks: JoinSet<()>,
    of: HashMap<Id, T>,
}

impl<T> Beside<T> {
    /// Nothing yet; `what` is done, for the log.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, tasks: JoinSet::new(), of: HashMap::new() }
    }

    /// Begins a piece of work.
    pub(super) fn begin(&mut self, of: T, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(work);
        self.of.insert(task.id(), of);
    }

    /// What the pieces under way are for; those that have ended are not among them.
    pub(super) fn each(&mut self) -> impl ExactSizeIterator<Item = &T> {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended);
        }
        self.of.values()
    }

    /// Waits until one of them ends; for ever if there is none.
    pub(super) async fn one_ends(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.ended(ended),
            None => std::future::pending().await,
        }
    }

    /// Waits until all have ended.
    pub(super) async fn all_end(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(panic) => {
                warn!(work = self.what, error = %panic, "work beside a loop ended badly");
                panic.id()
            }
        };
        self.of.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_ends_badly_is_under_way_no_more() {
        let mut beside = Beside::new("trying");
        beside.begin("fine", async {});
        beside.begin("bad", async { panic!("on purpose") });
        beside.begin("long", std::future::pending());
        beside.one_ends().await;
        beside.one_ends().await;
        assert_eq!(beside.each().collect::<Vec<_>>(), [&"long"]);
    }
}
