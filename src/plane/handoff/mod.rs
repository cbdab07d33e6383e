//! Where the actors meet: the frames they exchange and the shared memory they look at.

pub mod datagram;
pub mod frame;
pub mod layout;
pub mod queues;
pub mod slot;
pub mod source;
