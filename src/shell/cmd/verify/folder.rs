//! An exported folder, checked by itself.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::report::{Damaged, Integrity, Report};
use crate::shell::cmd::export::files;
use crate::shell::exit::{Exit, Failure};
use crate::store::catalog::model::Recording;
use crate::store::evidence::PublicKey;
use crate::store::export::manifest::{self, Content, FileEntry, Manifest, RecordsEntry};

/// Longest manifest read: some 400 bytes a run of records, one run per stream and segment.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// Checks `dir`. `trusted`: the key that must have signed it, where the reader knows it.
pub(super) fn check(dir: &Path, trusted: Option<PublicKey>) -> Result<Report, Failure> {
    let path = dir.join(manifest::FILE);
    let missing = || Failure::new(Exit::NotFound, format!("no {}", path.display()));
    let size = std::fs::metadata(&path).map_err(|_| missing())?.len();
    if size > MANIFEST_BYTES_MAX {
        return Err(Failure::new(Exit::Io, format!("{} has {size} bytes", path.display())));
    }
    let content = match Manifest::parse(&std::fs::read(&path)?) {
        Ok(manifest) => manifest.content,
        Err(error) => return Ok(bad(dir, error.to_string())),
    };
    let found = match files(dir) {
        Ok(found) => found,
        Err(error) => return Ok(bad(dir, error.to_string())),
    };
    let recording = std::fs::read(dir.join("recording.json"))
        .ok()
        .and_then(|json| serde_json::from_slice::<Recording>(&json).ok());
    let mut report = match &recording {
        Some(recording) => Report::of(recording),
        None => bad(dir, "recording.json is missing or not understood".to_owned()),
    };
    report.id = content.recording.to_string();
    compare(&content, found, &mut report);
    if let (Some(trusted), Some(key)) = (trusted, content.key())
        && trusted != key
    {
        report.faults.push("signed by another key than this store's".to_owned());
    }
    for entry in &content.records {
        if let Err(why) = records(dir, &content, entry) {
            report.damaged.push(Damaged {
                label: label(recording.as_ref(), entry),
                ssrc: None,
                from: Some(entry.from),
                to: Some(entry.to),
                why,
            });
        }
    }
    report.proven = proven(&content);
    report.settle();
    Ok(report)
}

fn bad(dir: &Path, fault: String) -> Report {
    Report {
        id: dir.display().to_string(),
        integrity: Integrity::Bad,
        complete: false,
        unexplained: 0,
        pending: 0,
        lost: Default::default(),
        lost_range: Default::default(),
        damaged: Vec::new(),
        faults: vec![fault],
        proven: String::new(),
        gone: None,
    }
}

/// Every file as listed, none missing, none more.
fn compare(content: &Content, found: Vec<FileEntry>, report: &mut Report) {
    let found: Vec<FileEntry> =
        found.into_iter().filter(|file| file.path != manifest::FILE).collect();
    for listed in &content.files {
        match found.iter().find(|file| file.path == listed.path) {
            None => report.faults.push(format!("{} is missing", listed.path)),
            Some(file) if file != listed => {
                report.faults.push(format!("{} was changed", listed.path));
            }
            Some(_) => {}
        }
    }
    for file in found {
        if !content.files.iter().any(|listed| listed.path == file.path) {
            report.faults.push(format!("{} does not belong to the export", file.path));
        }
    }
}

fn records(dir: &Path, content: &Content, entry: &RecordsEntry) -> Result<(), String> {
    // Only a listed file, so that a path of a forged manifest leads nowhere else.
    let listed = content.files.iter().find(|file| file.path == entry.path);
    let fits = listed.is_some_and(|file| {
        entry.offset.checked_add(entry.bytes).is_some_and(|end| end <= file.bytes)
    });
    if !fits {
        return Err(format!("the records are not in {}", entry.path));
    }
    let read = File::open(dir.join(&entry.path)).and_then(|file| {
        let size = file.metadata()?.len();
        // A file that was cut is shorter than listed; nothing is allocated for what is not there.
        let mut bytes = vec![0; entry.bytes.min(size) as usize];
        file.read_exact_at(&mut bytes, entry.offset)?;
        Ok(bytes)
    });
    match read {
        Ok(bytes) => content.check(entry, &bytes),
        Err(error) => Err(error.to_string()),
    }
}

fn label(recording: Option<&Recording>, entry: &RecordsEntry) -> String {
    recording
        .and_then(|recording| {
            recording.streams.iter().find(|stream| stream.stream == entry.source.stream())
        })
        .map_or_else(|| entry.source.stream().0.to_string(), |stream| stream.label.clone())
}

fn proven(content: &Content) -> String {
    let sealed = content.records.iter().filter_map(|entry| entry.proof.as_ref());
    let open = content.records.iter().filter(|entry| entry.proof.is_none()).count();
    let last = sealed.map(|proof| proof.fields.number).max();
    let mut text = match last {
        Some(number) => format!("proven up to checkpoint {number}"),
        None => "no checkpoint yet".to_owned(),
    };
    if open > 0 {
        text.push_str(&format!(", {open} runs vouched for by the export's signature alone"));
    }
    text.push_str(&format!(", key {}", &content.public_key[..16.min(content.public_key.len())]));
    text
}
