//! Recording metadata (RFC 7865, media type RFC 9806): a lenient reader for complete and partial
//! documents and a writer for schema-valid ones.
//!
//! Local names count first, namespaces second, spelling without case third: of the device families
//! in the field nearly none passes the schema. What was odd is said in `quirks`; values are kept as
//! received. Hostile XML is bounded: no DTD, 256 KiB, depth 32, 10,000 nodes.
//!
//! ```
//! use floortape::wire::metadata::{self, DataMode, Root};
//! let xml = br#"<recording xmlns="urn:ietf:params:xml:ns:recording:1">
//!     <datamode>partial</datamode>
//!     <stream stream_id="UAAMm5GRQKSCMVvLyl4rFw=="><label>96</label></stream></recording>"#;
//! let Ok(Root::Recording(document)) = metadata::parse(xml, None) else { panic!() };
//! assert_eq!(document.datamode, DataMode::Partial);
//! assert_eq!(document.streams[0].label.as_deref(), Some("96"));
//! ```

mod id;
mod model;
mod node;
mod reader;
mod veil;
mod writer;

pub use id::Id;
pub use model::{
    DataMode, Dialect, Document, Extension, Group, Name, Participant, ParticipantSession,
    ParticipantStream, Reason, Session, SessionRecording, Stream,
};
pub use reader::{MetadataError, Root, is_recording, parse};
pub use veil::{Named, veil};
pub use writer::{emit, emit_snapshot_request};

/// RFC 7865 §5.1.1.
pub const NAMESPACE: &str = "urn:ietf:params:xml:ns:recording:1";

#[cfg(test)]
mod tests;
