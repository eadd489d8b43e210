//! What the model is made of. It is the protocol between a job's row and its acknowledgement, as a model that can be checked
//! exhaustively: coordinator, broker, workers and what can go wrong with each, a step at a time, in every
//! order. Which copy of a job may run is decided by the coordinator's own function.
//!
//! Time is left out: what takes a while may happen at any moment, unless a live worker is known to
//! prevent it (it is heard every five seconds, and nobody is judged before it could have been).

/// What is modelled, and what may go wrong in it.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) workers: usize,
    pub(crate) slots: usize,
    pub(crate) jobs: usize,
    /// Of each job.
    pub(crate) attempts: u8,
    /// A job whose attempts end their worker.
    pub(crate) killer: Option<usize>,
    /// Faults that may strike, each any number of times up to `budget` together.
    pub(crate) faults: &'static [Fault],
    pub(crate) budget: u8,
}

/// What may go wrong, or be asked for, at any moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// A worker ends as `kill -9` ends it; another takes its place.
    Kill,
    /// A worker loses its connection to the broker, and has another one at once.
    Cut,
    /// A worker is told to leave; another takes its place.
    Drain,
    /// The coordinator ends in the middle of a publication.
    Restart,
    /// A worker's message is recorded, and comes again.
    Again,
    /// The broker loses the jobs that it holds.
    Emptied,
    /// The sweep is cancelled.
    Cancel,
    /// The sweep is interrupted, to be resumed later.
    Interrupt,
    /// A lease is judged wrongly.
    Misjudge,
}

/// A set of attempts of one job.
pub(crate) type Attempts = u8;

/// A job's row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) state: State,
    pub(crate) begun: u8,
    pub(crate) publications: u8,
    pub(crate) made: Attempts,
    pub(crate) lost_leases: u8,
    /// Deliveries of the latest publication that a worker said it had: a bit each.
    pub(crate) taken: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Pending,
    Queued(Option<usize>),
    Done(Attempts),
    Cancelled,
    Dead,
}

impl State {
    pub(crate) fn is_settled(self) -> bool {
        matches!(self, State::Done(_) | State::Cancelled | State::Dead)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) job: usize,
    pub(crate) publication: u8,
    pub(crate) made: Attempts,
    pub(crate) returns: u8,
}

/// Of a worker; it has one message at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    Free,
    /// Received, not yet allowed to run.
    Asks(Hand),
    Runs(Hand, Running),
    /// To be brought home.
    Ended(Hand, Finished),
    /// Home, to be answered.
    Home(Hand),
}

/// A message in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hand {
    pub(crate) message: Message,
    /// The broker waits for its answer.
    pub(crate) owed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Running {
    pub(crate) made: Attempts,
    /// The attempt that is under way.
    pub(crate) under_way: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Finished {
    pub(crate) made: Attempts,
    pub(crate) handed_back: bool,
    /// Its samples are to be recorded.
    pub(crate) record: bool,
    pub(crate) recorded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Worker {
    pub(crate) slots: Vec<Slot>,
    pub(crate) draining: bool,
    /// Of each job the latest publication that ended here.
    pub(crate) ended: Vec<u8>,
    /// The slot that runs alone.
    pub(crate) alone: Option<usize>,
}

/// An end of a job on its way to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct End {
    pub(crate) job: usize,
    pub(crate) publication: u8,
    pub(crate) made: Attempts,
    pub(crate) handed_back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sweep {
    Running,
    Interrupted,
    Cancelled,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Farm {
    pub(crate) sweep: Sweep,
    pub(crate) rows: Vec<Row>,
    /// The publication that is being sent, and whether the broker has it.
    pub(crate) sending: Option<(usize, bool)>,
    /// Sorted: a broker promises no order.
    pub(crate) broker: Vec<Message>,
    pub(crate) dead: Vec<Message>,
    pub(crate) ends: Vec<End>,
    pub(crate) workers: Vec<Worker>,
    /// Attempts of each job whose samples are recorded.
    pub(crate) samples: Vec<Attempts>,
    /// How often each attempt of each job was started.
    pub(crate) starts: Vec<Vec<u8>>,
    /// Faults after which an attempt may be made again.
    pub(crate) excuses: u8,
    pub(crate) budget: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Begin(usize),
    Send,
    MarkQueued,
    /// `known`: a first delivery of a sweep that is known to run; nothing is asked.
    Take {
        worker: usize,
        slot: usize,
        message: Message,
        known: bool,
    },
    /// `late`: having waited for a sign of life of whoever had it.
    Ask {
        worker: usize,
        slot: usize,
        late: bool,
    },
    Start {
        worker: usize,
        slot: usize,
    },
    EndAttempt {
        worker: usize,
        slot: usize,
    },
    /// Nothing is left to do of it, or nothing more is to be done.
    EndJob {
        worker: usize,
        slot: usize,
    },
    Append {
        worker: usize,
        slot: usize,
    },
    Report {
        worker: usize,
        slot: usize,
    },
    Answer {
        worker: usize,
        slot: usize,
    },
    GiveBack {
        worker: usize,
        slot: usize,
    },
    Beat {
        worker: usize,
    },
    HearCancel {
        worker: usize,
    },
    Leave {
        worker: usize,
    },
    Record(End),
    Bury(Message),
    LoseLease(usize),
    FindLost(usize),
    Close,
    Resume,
    Strike(Fault, usize),
}
