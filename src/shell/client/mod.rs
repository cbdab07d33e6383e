//! Sockets and threads of the SRC role: what turns `client` into calls on the wire.

mod connection;
pub mod leg;
pub mod load;
pub mod pace;
pub mod signalling;
