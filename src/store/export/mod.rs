//! What leaves the store: audio, packets, and the proof that goes with them. Pure formatting: bytes
//! and values in, bytes and values out; the `export` verb writes the files.

pub mod align;
#[cfg(test)]
mod align_tests;
pub mod announce;
pub mod cover;
pub mod decoder;
pub mod encoding;
pub mod g711;
pub mod g722;
pub mod h264;
pub mod manifest;
pub mod manifest_v1;
pub mod mix;
pub mod name;
pub mod pack;
pub mod pcapng;
pub mod placement;
pub mod rtpdump;
pub mod tar;
pub mod timeline;
pub mod times;
pub mod timing;
pub mod tones;
pub mod voice;
pub mod wav;

/// Why an export cannot be made or checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// `manifest.json` is not what this program writes, byte for byte.
    #[error("manifest.json is not in canonical form: {0}")]
    Form(String),
    /// The manifest is not signed by the key it names.
    #[error("manifest.json is not signed by the key it names")]
    Signature,
}
