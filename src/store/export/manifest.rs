//! `manifest.json`: what an export holds and what proves it.
//!
//! Every file of the folder is listed with its SHA-256; for each segment stands what leads from the
//! stored records to its signed chain head; the whole is signed. The file must be byte for byte what
//! this program writes for its content, so that no byte of it can change unseen: not a space, not the
//! case of a hex digit.
//!
//! It grows with the recording: some 230 bytes for each source (audio, RTCP) and segment, and 700 for each
//! segment. A day of sixteen lines has 45 MB.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::{ExportError, manifest_v1 as v1};
use crate::base::ids::{RsId, SourceId};
use crate::base::time::Wall;
use crate::store::evidence::{
    ChainFields, Digest, Hash, Hex, KeyStatement, Keys, Leaf, Proof, PublicKey, Salt, Signature,
    SigningKey, verify,
};

/// Version of the manifest.
pub const VERSION: u32 = 2;
/// Its file name.
pub const FILE: &str = "manifest.json";
/// The file of the folder that holds the stored records.
pub const RECORDS: &str = "proof/records";
/// What stands before the content in the signed hash, so that a chain head can never pass for one.
pub(super) const DOMAIN: &[u8] = b"floortape export 1\0";

/// The manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What is signed.
    pub content: Content,
    /// Ed25519 over the content, 128 hex digits.
    pub signature: String,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// [`VERSION`].
    pub version: u32,
    /// The program that wrote it.
    pub software: String,
    /// The recording.
    pub recording: RsId,
    /// When it was exported.
    pub created: Wall,
    /// Start of the range, if one was asked for.
    pub from: Option<Wall>,
    /// End of the range.
    pub to: Option<Wall>,
    /// The Communication Session that it was narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Every file but this one, sorted by path.
    pub files: Vec<FileEntry>,
    /// Salt of the recording's leaves, 64 hex digits.
    pub salt: String,
    /// Segments that hold stored records of it, and these.
    pub segments: Vec<Segment>,
    /// Records that were not sealed yet, or are not all that their leaf stands for: the signature alone
    /// vouches for them.
    pub unproven: Vec<Run>,
    /// Of a manifest of version 1: all of its records, instead of both.
    #[serde(skip)]
    pub old: Vec<v1::Run>,
    /// The keys of the store where it had more than one: each vouches for the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyStatement>,
    /// The store's public key, 64 hex digits: signed the segments, signs this.
    pub public_key: String,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path within the folder, `/` between names.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
}

/// A segment, and what leads from its records here to its signed chain head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// The worker that wrote it.
    pub worker: u16,
    /// Its number.
    pub number: u64,
    /// Head of the segment before.
    pub previous: Hex<32>,
    /// Merkle root over its leaves.
    pub root: Hex<32>,
    /// Leaves in the tree.
    pub leaves: u64,
    /// SHA-256 of its footer.
    pub footer: Hex<32>,
    /// The store.
    pub volume: Hex<16>,
    /// First position.
    pub from: u64,
    /// End position.
    pub through: u64,
    /// When it was sealed, wall ns.
    pub created: i64,
    /// Ed25519 over its head.
    pub signature: Hex<64>,
    /// Roots of the largest subtrees without any of the runs' leaves, from left to right.
    pub beside: Vec<Hex<32>>,
    /// The runs, in order of their leaves.
    pub runs: Vec<Proven>,
}

/// Records of one source out of one segment, as one run of bytes in [`RECORDS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proven {
    /// Where they are.
    pub run: Run,
    /// Place of their leaf in the tree.
    pub place: u64,
    /// The leaf: hash of salt and records.
    pub leaf: Hex<32>,
}

/// Records of one source, as one run of bytes in [`RECORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Whose records.
    pub source: SourceId,
    /// Where the run begins.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
    /// From here…
    pub from: Wall,
    /// …to here.
    pub to: Wall,
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hex digits as bytes; lower case only, so that there is one spelling of each value.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let lower = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * N || !digits.iter().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl Manifest {
    /// Signs `content`.
    pub fn sign(content: Content, key: &SigningKey) -> Self {
        let signature = hex(&key.sign(&digest(DOMAIN, &content)));
        Manifest { content, signature }
    }

    /// Writes the file: JSON without white space, and a newline.
    pub fn emit(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, self)?;
        to.write_all(b"\n")
    }

    /// Reads the file: its form must be exactly what [`Manifest::emit`] writes, its signature
    /// must be by the key it names. Whether that key is to be trusted is the reader's to know.
    pub fn parse(bytes: &[u8]) -> Result<Self, ExportError> {
        let form = |error: serde_json::Error| ExportError::Form(error.to_string());
        let other = || ExportError::Form("found other bytes for the same content".to_owned());
        let Versioned { content: OfVersion { version } } =
            serde_json::from_slice(bytes).map_err(form)?;
        let (manifest, digest) = match version {
            v1::VERSION => {
                let old: v1::Manifest = serde_json::from_slice(bytes).map_err(form)?;
                if old.emit() != bytes {
                    return Err(other());
                }
                let digest = old.content.digest();
                (Manifest { content: old.content.into(), signature: old.signature }, digest)
            }
            _ => {
                let manifest: Manifest = serde_json::from_slice(bytes).map_err(form)?;
                let mut rest = Same(bytes);
                if manifest.emit(&mut rest).is_err() || !rest.0.is_empty() {
                    return Err(other());
                }
                let digest = digest(DOMAIN, &manifest.content);
                (manifest, digest)
            }
        };
        let signature: Option<Signature> = unhex(&manifest.signature);
        match (signature, manifest.content.key()) {
            (Some(signature), Some(key)) if verify(&key, &digest, &signature) => Ok(manifest),
            _ => Err(ExportError::Signature),
        }
    }
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    content: OfVersion,
}

#[derive(Deserialize)]
struct OfVersion {
    version: u32,
}

/// Takes what is written as long as it is what is there.
struct Same<'a>(&'a [u8]);

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// SHA-256 of `domain` and `content` as JSON without white space.
pub(super) fn digest(domain: &[u8], content: &impl Serialize) -> Hash {
    struct Into(Digest);
    impl Write for Into {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut digest = Digest::new();
    digest.update(domain);
    // The writer of JSON writes a few bytes at a time.
    let mut into = io::BufWriter::new(Into(digest));
    serde_json::to_writer(&mut into, content).expect("nothing in it that JSON cannot");
    let Ok(Into(digest)) = into.into_inner() else { unreachable!("a digest takes everything") };
    digest.finish()
}

impl From<v1::Content> for Content {
    fn from(old: v1::Content) -> Self {
        Content {
            version: old.version,
            software: old.software,
            recording: old.recording,
            created: old.created,
            from: old.from,
            to: old.to,
            session: old.session,
            files: old.files,
            salt: old.salt,
            segments: Vec::new(),
            unproven: Vec::new(),
            old: old.records,
            keys: old.keys,
            public_key: old.public_key,
        }
    }
}

impl Segment {
    /// With what proves the runs of `sources`: as many as it has leaves, in their order.
    pub fn new(proof: &Proof, sources: Vec<Run>) -> Self {
        let fields = &proof.fields;
        let proven =
            |(run, leaf): (Run, &Leaf)| Proven { run, place: leaf.place, leaf: Hex(leaf.hash) };
        Segment {
            worker: fields.worker,
            number: fields.number,
            previous: Hex(fields.previous),
            root: Hex(fields.root),
            leaves: fields.leaves,
            footer: Hex(fields.footer),
            volume: Hex(fields.volume),
            from: fields.from,
            through: fields.through,
            created: fields.created,
            signature: Hex(proof.signature),
            beside: proof.beside.iter().copied().map(Hex).collect(),
            runs: sources.into_iter().zip(&proof.leaves).map(proven).collect(),
        }
    }

    /// What leads to its signed head.
    pub fn proof(&self) -> Proof {
        Proof {
            fields: ChainFields {
                previous: self.previous.0,
                root: self.root.0,
                leaves: self.leaves,
                footer: self.footer.0,
                volume: self.volume.0,
                worker: self.worker,
                number: self.number,
                from: self.from,
                through: self.through,
                created: self.created,
            },
            signature: self.signature.0,
            beside: self.beside.iter().map(|hash| hash.0).collect(),
            leaves: self.runs.iter().map(Proven::leaf).collect(),
        }
    }
}

impl Proven {
    /// Its leaf.
    pub fn leaf(&self) -> Leaf {
        Leaf { source: self.run.source, place: self.place, hash: self.leaf.0 }
    }
}

impl Content {
    /// The store's public key.
    pub fn key(&self) -> Option<PublicKey> {
        unhex(&self.public_key)
    }

    /// All keys of the store, the one that signed this last; `None` where they do not hold together.
    pub fn keys(&self) -> Option<Keys> {
        let own = self.key()?;
        if self.keys.is_empty() {
            return Some(Keys::one(own));
        }
        Keys::of(&self.keys).ok().filter(|keys| keys.last() == own)
    }

    /// The salt of what a source's records are hashed with; `None`: it is not 64 hex digits.
    pub fn salt_of(&self, source: SourceId) -> Option<Salt> {
        // The recorder's own events are not salted: they say nothing about anybody.
        if source.stream().is_host() { Some([0; 32]) } else { unhex(&self.salt) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::StreamId;

    fn run(stream: u64) -> Run {
        let source = SourceId::new(StreamId(stream), 1);
        Run { source, offset: 0, bytes: 8, from: Wall(1), to: Wall(2) }
    }

    fn emitted(manifest: &Manifest) -> Vec<u8> {
        let mut bytes = Vec::new();
        manifest.emit(&mut bytes).expect("memory");
        bytes
    }

    fn manifest() -> Manifest {
        let key = SigningKey::from_seed(&[7; 32]);
        let content = Content {
            version: VERSION,
            software: "floortape 0".to_owned(),
            recording: RsId([1; 16]),
            created: Wall(5),
            from: None,
            to: Some(Wall(9)),
            session: None,
            files: vec![FileEntry { path: "1.wav".to_owned(), bytes: 44, sha256: hex(&[2; 32]) }],
            salt: hex(&[3; 32]),
            segments: vec![Segment {
                worker: 0,
                number: 7,
                previous: Hex([4; 32]),
                root: Hex([5; 32]),
                leaves: 2,
                footer: Hex([6; 32]),
                volume: Hex([7; 16]),
                from: 10,
                through: 20,
                created: 30,
                signature: Hex([8; 64]),
                beside: vec![Hex([9; 32])],
                runs: vec![Proven { run: run(1), place: 1, leaf: Hex([10; 32]) }],
            }],
            unproven: vec![run(2)],
            old: Vec::new(),
            keys: Vec::new(),
            public_key: hex(&key.public_key()),
        };
        Manifest::sign(content, &key)
    }

    #[test]
    fn every_changed_missing_or_added_byte_is_found() {
        let whole = emitted(&manifest());
        assert_eq!(Manifest::parse(&whole), Ok(manifest()));
        for at in 0..whole.len() {
            for change in [1, 0x20, 0x80] {
                let mut bad = whole.clone();
                bad[at] ^= change;
                assert!(Manifest::parse(&bad).is_err(), "byte {at} by {change:#x}");
            }
            let mut longer = whole.clone();
            longer.insert(at, b' ');
            assert!(Manifest::parse(&longer).is_err(), "space at {at}");
            assert!(Manifest::parse(&whole[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_manifest_signed_by_another_key_than_it_names_is_refused() {
        let other = SigningKey::from_seed(&[8; 32]);
        let forged = Manifest::sign(manifest().content, &other);
        assert_eq!(Manifest::parse(&emitted(&forged)), Err(ExportError::Signature));
    }
}
