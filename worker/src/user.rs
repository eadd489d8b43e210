//! Who attempts run as, and what they are called.

use flakefarm_nest::USER_NAME;

/// The user of attempts, and their group.
pub const USER: u32 = 1_000;
/// The user of attempts in [`flakefarm_shared::World::User`], if the world's own example is taken: every image
/// names it.
pub(crate) const ANOTHER_USER: u32 = 12_345;

/// What a user of attempts is called.
pub(crate) fn user_name(user: u32) -> String {
    if user == USER { USER_NAME.to_owned() } else { format!("{USER_NAME}-{user}") }
}
