//! Pure machines: time and bytes come in, values go out. They do not import each other.

pub mod media;
pub mod session;
pub mod sip;
pub mod srtp;
