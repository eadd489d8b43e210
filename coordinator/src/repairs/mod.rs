//! What a repair tries next, what it may cost, and what is learnt from how repairs went. Pure: proposals, gates
//! and experiments are others'; here it is decided whether one more is worth it. Whoever carries a repair out
//! (a command, a farm) asks the same rules.

mod asked;
mod course;
mod learning;
mod probation;
mod purse;

pub use asked::{OF_REPAIR, RepairBase, RepairEnd, RepairRequest, RepairState, is_of_repair};
pub use course::{Course, Passed, Rules};
pub use learning::{Guess, Learnt, Success, Turn};
pub use probation::{Probation, RUNS as PROBATION_RUNS, question as probation_question};
pub use purse::{Left, Purse};
