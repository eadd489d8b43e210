//! Names of attributes, as OpenTelemetry's semantic conventions give them (tests are "development", CI a
//! release candidate: they may change, and are written nowhere else), and ours where it has none.

/// The version of the conventions that these names are of.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// What runs: one of [`crate::metrics::Owner`]'s words behind `flakefarm-`.
pub const SERVICE_NAME: &str = "service.name";
/// Its version.
pub const SERVICE_VERSION: &str = "service.version";
/// Which one of them.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";

/// The project of a sweep.
pub const PIPELINE_NAME: &str = "cicd.pipeline.name";
/// The sweep.
pub const PIPELINE_RUN_ID: &str = "cicd.pipeline.run.id";
/// `success`, `failure`, `error` or `cancellation`.
pub const PIPELINE_RESULT: &str = "cicd.pipeline.result";
/// What a job does: `list` or `run`.
pub const TASK_NAME: &str = "cicd.pipeline.task.name";
/// The job.
pub const TASK_RUN_ID: &str = "cicd.pipeline.task.run.id";
/// `success`, `failure`, `error` or `cancellation`.
pub const TASK_RUN_RESULT: &str = "cicd.pipeline.task.run.result";
/// The worker.
pub const WORKER_ID: &str = "cicd.worker.id";
/// The revision under test.
pub const REVISION: &str = "vcs.ref.head.revision";

/// The project whose tests run.
pub const SUITE_NAME: &str = "test.suite.name";
/// `success`, `failure`, `aborted` or `timed_out`.
pub const SUITE_RUN_STATUS: &str = "test.suite.run.status";
/// A test.
pub const CASE_NAME: &str = "test.case.name";
/// `pass` or `fail`.
pub const CASE_RESULT: &str = "test.case.result.status";

/// `rabbitmq`.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// The class of the queue.
pub const MESSAGING_DESTINATION: &str = "messaging.destination.name";
/// What is done with a message.
pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
/// The same in the conventions' own words: `process`.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// The message: a job and its publication.
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
/// Why it failed.
pub const ERROR_TYPE: &str = "error.type";

/// An attempt, as an event.
pub const ATTEMPT: &str = "flakefarm.attempt";
/// Its number in the job.
pub const ATTEMPT_INDEX: &str = "flakefarm.attempt.index";
/// `completed`, `interrupted`, `nothing_ran` or `infrastructure`.
pub const ATTEMPT_OUTCOME: &str = "flakefarm.attempt.outcome";
/// How it was isolated.
pub const ATTEMPT_LEVEL: &str = "flakefarm.attempt.level";
/// How long it took, in seconds.
pub const ATTEMPT_DURATION: &str = "flakefarm.attempt.duration";
/// Tests that passed in it.
pub const ATTEMPT_PASSED: &str = "flakefarm.attempt.passed";
/// Tests that failed in it.
pub const ATTEMPT_FAILED: &str = "flakefarm.attempt.failed";
/// A test that failed, as an event.
pub const CASE: &str = "test.case";
/// How often a job was published.
pub const PUBLICATION: &str = "flakefarm.job.publication";
/// Attempts of a job or a sweep.
pub const ATTEMPTS: &str = "flakefarm.attempts";
/// How a sweep ended.
pub const SWEEP_STATE: &str = "flakefarm.sweep.state";
/// What a sweep asked.
pub const SWEEP_QUESTION: &str = "flakefarm.sweep.question";
/// Tests of a sweep.
pub const SWEEP_TESTS: &str = "flakefarm.sweep.tests";
/// Those found flaky.
pub const SWEEP_FLAKY: &str = "flakefarm.sweep.flaky";
