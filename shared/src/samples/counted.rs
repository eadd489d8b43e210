//! A sample store whose calls are counted and timed.

use super::{Appended, Chunk, SampleError, SampleStore, Samples, StoredPoint};
use crate::UnixMicros;
use crate::ids::TestId;
use crate::metrics::catalogue::SAMPLES;
use crate::metrics::timed;
use async_trait::async_trait;
use std::sync::Arc;

/// Around any sample store.
#[derive(Debug)]
pub struct Counted(Samples);

impl Counted {
    /// Counts what is asked of `samples` from now on.
    pub fn around(samples: Samples) -> Samples {
        Arc::new(Self(samples))
    }
}

#[async_trait]
impl SampleStore for Counted {
    async fn check(&self) -> Result<(), SampleError> {
        self.0.check().await
    }

    async fn append(&self, chunks: &[Chunk]) -> Result<Vec<Appended>, SampleError> {
        let appended = timed("samples", "append", self.0.append(chunks)).await?;
        for (chunk, appended) in chunks.iter().zip(&appended) {
            let result = match appended {
                Appended::New => "new",
                Appended::Duplicate => "duplicate",
            };
            SAMPLES.add(&[result], chunk.points.len() as u64);
        }
        Ok(appended)
    }

    async fn points(
        &self,
        project: &str,
        test: &TestId,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<StoredPoint>, SampleError> {
        timed("samples", "read", self.0.points(project, test, from, to)).await
    }

    async fn points_of_day(
        &self,
        project: &str,
        tests: &[TestId],
        day: i64,
    ) -> Result<Vec<Vec<StoredPoint>>, SampleError> {
        timed("samples", "read", self.0.points_of_day(project, tests, day)).await
    }
}
