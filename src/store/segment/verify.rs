//! Checks a segment against its own proof, byte for byte.

use std::collections::BTreeSet;

use super::footer::{FENCE_BYTES, Footer, TRAILER_BYTES, Trailer};
use super::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::opened::{ExtentReader, Held, Opened};
use super::opener::{Opener, SegmentOpener};
use super::read::{SegmentError, read_footer, read_trailer};
use super::thin::Gone;
use crate::base::ids::{Index, SourceId, StreamId};
use crate::base::ports::{Disk, DiskFile};
use crate::base::time::Mono;
use crate::store::evidence::{Hash, LeafHasher, PublicKey, Salt, head, root, two_leaves, verify};
use crate::store::keys::KeyFault;

/// Records of one source that fail their proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The source.
    pub source: SourceId,
    /// Offset of the extent.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Indexes it held.
    pub indexes: (Index, Index),
    /// Arrivals it held.
    pub arrivals: (Mono, Mono),
    /// What is wrong.
    pub why: String,
}

/// What checking one segment found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentReport {
    /// The trailer, where it can be read.
    pub trailer: Option<Trailer>,
    /// What is wrong with the segment as a whole: footer, root, head, signature, padding.
    pub faults: Vec<String>,
    /// Extents that fail.
    pub damaged: Vec<Damage>,
    /// Extents whose leaf was recomputed and agrees.
    pub proven: u64,
    /// Extents that agree with their CRC but whose salt is not known.
    pub unsalted: Vec<SourceId>,
    /// Extents that agree with their CRC and are encrypted under a key that is not there.
    pub unopened: Vec<SourceId>,
    /// Extents that are gone by retention, and how. Nothing is wrong with that.
    pub gone: Vec<(SourceId, Gone)>,
    /// Bytes read.
    pub bytes_read: u64,
}

impl SegmentReport {
    /// Whether everything that was looked at is as it was sealed.
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.damaged.is_empty()
    }

    /// Adds what is wrong with the keys beside a segment that is encrypted, beside what was told of its
    /// extents.
    pub fn check_keys<D: Disk>(&mut self, footer: &Footer, opener: &SegmentOpener<'_, D>) {
        let told: BTreeSet<StreamId> =
            self.damaged.iter().map(|damage| damage.source.stream()).collect();
        match opener.faults(footer) {
            Ok(faults) => {
                let is_new =
                    |fault: &KeyFault| !matches!(fault, KeyFault::Entry(one) if told.contains(one));
                self.faults
                    .extend(faults.iter().filter(|one| is_new(one)).map(ToString::to_string));
            }
            // Told of every extent that is there.
            Err(_) if self.unopened.is_empty() && !told.is_empty() => {}
            Err(error) => self.faults.push(error.to_string()),
        }
    }

    /// Adds what somebody else found of the same segment, who looked at other extents of it.
    pub fn join(&mut self, other: Self) {
        for fault in other.faults {
            if !self.faults.contains(&fault) {
                self.faults.push(fault);
            }
        }
        self.trailer = self.trailer.take().or(other.trailer);
        self.damaged.extend(other.damaged);
        self.proven += other.proven;
        self.unsalted.extend(other.unsalted);
        self.unopened.extend(other.unopened);
        self.gone.extend(other.gone);
        self.bytes_read += other.bytes_read;
    }
}

/// Checks one segment. `streams`: whose extents are read and hashed (`None`: all, and every other
/// byte of the file); footer, root, head and signature always. `salt` of a stream, where it is
/// known. `key`: who must have signed; `None` takes the segment's own word for it.
pub fn verify_segment<F: DiskFile>(
    file: &F,
    streams: Option<&BTreeSet<StreamId>>,
    salt: &mut dyn FnMut(StreamId) -> Option<Salt>,
    key: Option<&PublicKey>,
) -> SegmentReport {
    verify_opened(file, streams, salt, key, None)
}

/// As [`verify_segment`]; `opener` opens what is encrypted. Without the store's key an extent is compared with
/// its CRC only, and named.
pub fn verify_opened<F: DiskFile>(
    file: &F,
    streams: Option<&BTreeSet<StreamId>>,
    salt: &mut dyn FnMut(StreamId) -> Option<Salt>,
    key: Option<&PublicKey>,
    opener: Option<&dyn Opener>,
) -> SegmentReport {
    let mut verification = match Verification::begin(file, streams.is_none(), key) {
        Ok(verification) => verification,
        Err(report) => return *report,
    };
    let mut reader = ExtentReader::default();
    for place in 0..verification.footer().rows.len() {
        let row = verification.footer().rows[place];
        if streams.is_none_or(|wanted| wanted.contains(&row.source.stream())) {
            let extent = reader.open(file, row.offset, row.bytes, opener);
            if let Some(salt) = verification.extent(place, extent.as_ref(), salt) {
                verification.prove(place, salt, &mut reader);
            }
        }
    }
    verification.finish()
}

/// Extents that wait for another one, to be hashed with it: what is shorter, a stream's events, gains nothing
/// and would be the short one of each pair; what is longer would hold its memory besides.
const WAITING_BYTES: std::ops::RangeInclusive<usize> = 8 << 10..=16 << 20;

/// Records whose leaf is not computed yet: of which row, and under which salt.
struct Waiting {
    place: usize,
    salt: Salt,
    held: Held,
}

/// A segment's proof, checked extent by extent: for whoever reads them anyway.
pub struct Verification {
    footer: Footer,
    report: SegmentReport,
    waiting: Option<Waiting>,
}

impl Verification {
    /// Checks footer, root, head and signature; `whole`: every byte that is no extent, too. Nothing else can
    /// be said of a segment whose footer cannot be read.
    pub fn begin<F: DiskFile>(
        file: &F,
        whole: bool,
        key: Option<&PublicKey>,
    ) -> Result<Self, Box<SegmentReport>> {
        let mut report = SegmentReport::default();
        let footer = match read_trailer(file).and_then(|trailer| read_footer(file, trailer)) {
            Ok(footer) => footer,
            Err(error) => {
                report.faults.push(error.to_string());
                return Err(Box::new(report));
            }
        };
        report.bytes_read = footer.trailer.file_bytes - footer.trailer.rows_at;
        check_signature(&footer, key, &mut report);
        if whole {
            check_frame(file, &footer, &mut report);
        }
        Ok(Verification { footer, report, waiting: None })
    }

    /// The rows, clock maps and trailer that the rest is held against.
    pub const fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Takes what was found at the place of row number `place`. Returns the salt under which its records are to
    /// be proven ([`Self::prove`]), where they are whole and it is known.
    pub fn extent(
        &mut self,
        place: usize,
        found: Result<&Opened<'_>, &SegmentError>,
        salt: &mut dyn FnMut(StreamId) -> Option<Salt>,
    ) -> Option<Salt> {
        let Verification { footer, report, .. } = self;
        let row = &footer.rows[place];
        // What a row claims may be more than any file holds.
        report.bytes_read = report.bytes_read.saturating_add(row.bytes);
        let why = match found {
            Ok(extent) if extent.header.source != row.source => "another source's".to_owned(),
            Ok(extent) if extent.header.number != footer.trailer.number => {
                "another segment's".to_owned()
            }
            Ok(_) => {
                let stream = row.source.stream();
                let salt = if stream.is_host() { Some([0; 32]) } else { salt(stream) };
                if salt.is_none() {
                    report.unsalted.push(row.source);
                }
                return salt;
            }
            Err(SegmentError::NoKey { .. }) => {
                report.unopened.push(row.source);
                return None;
            }
            Err(error) => match error.gone() {
                Some(gone) => {
                    report.gone.push((row.source, gone));
                    return None;
                }
                None => error.to_string(),
            },
        };
        self.damaged(place, why);
        None
    }

    /// Holds the records that `reader` opened last, those of row number `place`, against the leaf that was
    /// sealed: at once, or with those that come next.
    pub fn prove(&mut self, place: usize, salt: Salt, reader: &mut ExtentReader) {
        let held = reader.hold();
        let this = Waiting { place, salt, held };
        if !WAITING_BYTES.contains(&this.held.records().len()) {
            self.proven(&this, leaf(&salt, this.held.records()));
            reader.give_back(this.held);
            return;
        }
        let Some(before) = self.waiting.take() else {
            self.waiting = Some(this);
            return;
        };
        let both = [&before, &this].map(|one| (&one.salt, one.held.records()));
        let [first, second] = two_leaves(both[0], both[1]);
        self.proven(&before, first);
        self.proven(&this, second);
        reader.give_back(before.held);
    }

    fn proven(&mut self, one: &Waiting, found: Hash) {
        let wanted = self.footer.rows[one.place].leaf;
        // Zeros stand in for a salt that was not to be had when the ring ran full.
        if found == wanted || leaf(&[0; 32], one.held.records()) == wanted {
            self.report.proven += 1;
        } else {
            self.damaged(one.place, "the records do not give the leaf that was sealed".to_owned());
        }
    }

    fn damaged(&mut self, place: usize, why: String) {
        let row = &self.footer.rows[place];
        self.report.damaged.push(Damage {
            source: row.source,
            offset: row.offset,
            bytes: row.bytes,
            indexes: (row.first_index, row.last_index),
            arrivals: (row.first_arrival, row.last_arrival),
            why,
        });
    }

    /// What was found.
    pub fn finish(mut self) -> SegmentReport {
        if let Some(last) = self.waiting.take() {
            let found = leaf(&last.salt, last.held.records());
            self.proven(&last, found);
        }
        self.report.damaged.sort_by_key(|damage| damage.offset);
        self.report.trailer = Some(self.footer.trailer);
        self.report
    }
}

fn leaf(salt: &Salt, records: &[u8]) -> Hash {
    let mut leaf = LeafHasher::new(salt);
    leaf.update(records);
    leaf.finish()
}

fn check_signature(footer: &Footer, key: Option<&PublicKey>, report: &mut SegmentReport) {
    let trailer = &footer.trailer;
    let leaves: Vec<Hash> = footer.rows.iter().map(|row| row.leaf).collect();
    if root(&leaves) != trailer.root {
        report.faults.push("the leaves do not give the root".to_owned());
    }
    if head(&trailer.chain_fields()) != trailer.head {
        report.faults.push("the fields do not give the chain head".to_owned());
    }
    let key = key.unwrap_or(&trailer.public_key);
    if *key != trailer.public_key {
        report.faults.push("signed by another key".to_owned());
    } else if !verify(key, &trailer.head, &trailer.signature) {
        report.faults.push("the signature does not fit the chain head".to_owned());
    }
}

/// Everything that is neither extent nor footer: header, order of extents, padding.
fn check_frame<F: DiskFile>(file: &F, footer: &Footer, report: &mut SegmentReport) {
    let trailer = &footer.trailer;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(0, &mut bytes).unwrap_or(0);
    report.bytes_read += read as u64;
    let expected = SegmentHeader {
        worker: trailer.worker,
        volume: trailer.volume,
        number: trailer.number,
        from: trailer.from,
        through: trailer.through,
        created: trailer.created,
        previous: trailer.previous,
    };
    if read < bytes.len() || SegmentHeader::parse(&bytes) != Some(expected) {
        report.faults.push("the header is damaged".to_owned());
    }
    let mut at = SEGMENT_HEADER_BYTES as u64;
    let mut before = None;
    for row in &footer.rows {
        if row.offset != at || before.is_some_and(|before| before >= row.source) {
            report.faults.push(format!("the extents are not in order at offset {at}"));
            break;
        }
        before = Some(row.source);
        at = at.saturating_add(row.bytes);
    }
    let pad_at = trailer.fences_at + trailer.fences * FENCE_BYTES as u64;
    let pad_end = trailer.file_bytes - TRAILER_BYTES as u64;
    let mut pad = vec![0; (pad_end - pad_at).min(1 << 16) as usize];
    let whole = pad.len() as u64 == pad_end - pad_at;
    let read = if pad.is_empty() { 0 } else { file.read_at(pad_at, &mut pad).unwrap_or(0) };
    if !whole || read < pad.len() || pad.iter().any(|byte| *byte != 0) {
        report.faults.push(format!("{}", SegmentError::Footer { offset: pad_at }));
    }
}
