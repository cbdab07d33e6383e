//! The SRC role (RFC 7866 §6.1): what a recording client says and sends.
//!
//! Everything here is pure: seeds, keys and time are arguments. `shell/client` gives it sockets and
//! threads; `floortape src call`, `demo` and the load generator are built on both.

pub mod call;
pub mod g711;
pub mod media;
pub mod melody;
pub mod metadata;
pub mod offer;
pub mod protect;
pub mod reports;
pub mod rota;
pub mod sender;
pub mod wav;

pub use call::{Call, Party, Protection, StreamPlan, Uid};
pub use media::Media;
pub use protect::{ProtectError, Protector};
pub use rota::Rota;
pub use sender::{Drops, Sender};
