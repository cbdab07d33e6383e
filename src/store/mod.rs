//! What is kept and how it is proven: records, log, segments, evidence, audit trail, journal,
//! metadata over time, catalogue, query, peaks, export.
//! Pure formats and rules; files are reached through the `Disk` port.

pub mod archive;
pub mod audit;
pub mod catalog;
pub mod cipher;
pub mod event;
pub mod evidence;
pub mod export;
pub mod journal;
pub mod keys;
pub mod ledger;
pub mod log;
pub mod metadata;
pub mod peaks;
pub mod places;
pub mod query;
pub mod record;
pub mod segment;
pub mod tap;

#[cfg(test)]
pub(crate) mod fault_disk;
#[cfg(test)]
pub(crate) mod test_disk;
