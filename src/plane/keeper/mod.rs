//! Keeper's decisions: which role to start when, whom to tell, when to end. It holds no process,
//! no descriptor and no clock: `shell::serve::keeper` does what it says.

mod machine;
mod watch;

pub use machine::{Act, Begin, Event, Machine, Outcome, Role, SPARE_NAME};
pub use watch::Watch;
