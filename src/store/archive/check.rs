//! Whether the segments of a worker are one chain.

use crate::store::evidence::{Hash, Keys, head, verify};
use crate::store::segment::{SegmentError, SegmentName, Trailer};

/// What is wrong with a chain, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFault {
    /// The segment at which it shows; for a missing one, its name.
    pub segment: SegmentName,
    /// What is wrong.
    pub why: String,
}

/// What checking a chain found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainReport {
    /// Segments looked at.
    pub segments: u64,
    /// Head of the last one.
    pub head: Option<Hash>,
    /// Faults, in order.
    pub faults: Vec<ChainFault>,
}

/// Checks the trailers of one worker, given in order of their names. Nothing may be missing from
/// number 1 on; every head must cover the one before, every span begin where the last one ended.
pub fn check_chain(
    trailers: &[(SegmentName, Result<Trailer, SegmentError>)],
    keys: Option<&Keys>,
) -> ChainReport {
    let mut report = ChainReport::default();
    let mut number = 1;
    let mut before: Option<&Trailer> = None;
    for (name, trailer) in trailers {
        let mut fault = |segment, why: String| report.faults.push(ChainFault { segment, why });
        report.segments += 1;
        let missing = name.number.saturating_sub(number);
        if missing > 0 {
            let first = SegmentName { worker: name.worker, number };
            fault(first, format!("{missing} segment(s) missing from here on"));
            before = None;
        }
        let follows = number > 1 && missing == 0;
        number = name.number + 1;
        let trailer = match trailer {
            Ok(trailer) => trailer,
            Err(error) => {
                fault(*name, error.to_string());
                before = None;
                continue;
            }
        };
        if (trailer.worker, trailer.number) != (name.worker, name.number) {
            let inside = SegmentName { worker: trailer.worker, number: trailer.number };
            fault(*name, format!("was sealed as {}", inside.file()));
        }
        if head(&trailer.chain_fields()) != trailer.head {
            fault(*name, "the fields do not give the chain head".to_owned());
        }
        let signer = keys.map(|keys| keys.signer(name.worker.0, name.number));
        if !verify(
            signer.as_ref().unwrap_or(&trailer.public_key),
            &trailer.head,
            &trailer.signature,
        ) {
            fault(*name, "not signed by this store's key".to_owned());
        }
        match before {
            Some(before) if trailer.previous != before.head => {
                fault(*name, "does not follow the chain head before it".to_owned());
            }
            Some(before) if trailer.from < before.through => {
                fault(*name, "covers positions that the segment before covers".to_owned());
            }
            None if !follows && missing == 0 && trailer.previous != [0; 32] => {
                fault(*name, "is the first, but names one before".to_owned());
            }
            _ => {}
        }
        report.head = Some(trailer.head);
        before = Some(trailer);
    }
    report
}
