//! Takes the words out of the history: what it says of recordings of which nothing is kept any more. Who
//! called whom, what was said to us and how it was answered goes; that there was a recording, when, and
//! which streams it had stays, so that every row of a segment still has an owner.
//!
//! A file is replaced by one that names what it replaced, signed like all of them, so that the chain holds
//! and everybody sees that it is not what it was. Newest first: a recording is said to be forgotten in
//! the file that begins it, which is the last one that is touched. What a cut leaves is done again.

use std::collections::BTreeSet;
use std::path::Path;

use super::chain::Signer;
use super::entry::{DialogState, Entry, Sealed, SrcFacts, StreamOpened};
use super::file::write_again;
use super::read::{JournalError, at, numbered, read_whole, walk};
use super::{frame, history};
use crate::base::ids::RsId;
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::store::event::StreamDescription;

/// Why the words go.
#[derive(Clone, Copy, Debug)]
pub struct Forgetting<'a> {
    /// Whose.
    pub recordings: &'a BTreeSet<RsId>,
    /// When.
    pub at: Wall,
    /// The entry of the audit trail that says so.
    pub audit: u64,
}

/// Which of `recordings` files of the journal in `dir` still say something of: that goes into the
/// history first.
pub fn in_journal<D: Disk>(
    disk: &D,
    dir: &Path,
    recordings: &BTreeSet<RsId>,
) -> Result<BTreeSet<RsId>, JournalError> {
    let mut found = BTreeSet::new();
    for (_, name) in numbered(disk, dir, ".journal")? {
        let path = dir.join(&name);
        let bytes = read_whole(disk, &path).map_err(at("read", &path))?;
        walk(&name, &bytes, 0, |entry| {
            found.extend(entry.rs().filter(|rs| recordings.contains(rs)));
        });
    }
    Ok(found)
}

/// Does it in the history in `past`. Returns how many files are new.
pub fn forget<D: Disk>(
    disk: &D,
    past: &Path,
    forgetting: &Forgetting<'_>,
    signer: Option<&Signer>,
) -> Result<usize, JournalError> {
    let mut rewritten = 0;
    for (_, name) in numbered(disk, past, history::SUFFIX)?.into_iter().rev() {
        let path = past.join(&name);
        let bytes = read_whole(disk, &path).map_err(at("read", &path))?;
        let Some(frames) = forgetting.frames(&bytes) else { continue };
        let Some(new) = history::rewrite(&bytes, &frames, signer) else { continue };
        let temporary = path.with_extension("forgotten.tmp");
        // Left by an attempt before; may well not exist.
        let _ = disk.remove(&temporary);
        write_again(disk, &temporary, &new).inspect_err(|_| {
            let _ = disk.remove(&temporary);
        })?;
        disk.rename(&temporary, &path).map_err(at("rename", &temporary))?;
        rewritten += 1;
    }
    if rewritten > 0 {
        disk.sync_names(past).map_err(at("sync", past))?;
    }
    Ok(rewritten)
}

impl Forgetting<'_> {
    /// The frames of a file without the words; `None`: it has none of these, or something in it cannot be
    /// read, and then all of it is evidence of that.
    fn frames(&self, file: &[u8]) -> Option<Vec<u8>> {
        let mut frames = Vec::with_capacity(file.len());
        let (mut at, mut any) = (history::head_bytes(file)?, false);
        while at < file.len() {
            let (entry, size) = frame::read::<Entry>(&file[at..])?;
            let raw = &file[at..at + size];
            at += size;
            let Some(rs) = entry.rs().filter(|rs| self.recordings.contains(rs)) else {
                frames.extend_from_slice(raw);
                continue;
            };
            any = true;
            let begins = matches!(entry, Entry::Opened { .. });
            frame::write(&without_words(entry), &mut frames);
            if begins {
                let Forgetting { at, audit, .. } = *self;
                frame::write(&Entry::Forgotten { rs, at, audit }, &mut frames);
            }
        }
        any.then_some(frames)
    }
}

/// An entry with nothing of what a client said. Its salt goes, too: whoever has it can try out which records
/// a leaf of the chain was made of. Bodies still count: one that lacks some was never accepted.
fn without_words(entry: Entry) -> Entry {
    match entry {
        Entry::Opened { rs, at, dialog, signalling, streams, own, bodies, retention, .. } => {
            Entry::Opened {
                rs,
                at,
                dialog: dialog_of_nobody(&dialog),
                src: SrcFacts::default(),
                signalling,
                quirks: Vec::new(),
                salt: nothing(),
                streams: streams.into_iter().map(stream_of_nobody).collect(),
                own,
                answer: String::new(),
                answer_sdp: nothing(),
                bodies,
                timer: None,
                retention,
            }
        }
        Entry::Changed { rs, at, dialog, streams, refused, .. } => Entry::Changed {
            rs,
            at,
            dialog: dialog_of_nobody(&dialog),
            streams: streams.into_iter().map(stream_of_nobody).collect(),
            quirks: Vec::new(),
            answer_sdp: nothing(),
            timer: None,
            hold: None,
            refused,
        },
        Entry::Body { rs, number, at, method, cseq, .. } => Entry::Body {
            rs,
            number,
            at,
            method,
            cseq,
            content_type: String::new(),
            disposition: String::new(),
            bytes: String::new(),
        },
        Entry::Ended { rs, at, by, remote_cseq, bye, .. } => {
            Entry::Ended { rs, at, by, reason: String::new(), remote_cseq, bye }
        }
        entry => entry,
    }
}

fn nothing() -> Sealed {
    Sealed("".into())
}

fn dialog_of_nobody(dialog: &DialogState) -> DialogState {
    let nowhere = ([0, 0, 0, 0], 0).into();
    DialogState {
        call_id: String::new(),
        local_tag: String::new(),
        remote_tag: String::new(),
        local_uri: String::new(),
        remote_uri: String::new(),
        remote_target: String::new(),
        route_set: Vec::new(),
        local_cseq: dialog.local_cseq,
        remote_cseq: dialog.remote_cseq,
        transport: dialog.transport.clone(),
        peer: nowhere,
        local: nowhere,
        identity: None,
        user: None,
        answered: None,
        update: dialog.update,
    }
}

fn stream_of_nobody(stream: StreamOpened) -> StreamOpened {
    StreamOpened {
        description: StreamDescription { label: None, remote: None, ..stream.description },
        rtcp_to: None,
        crypto: None,
        address: None,
        ..stream
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::{Before, Chained};
    use super::super::check::{Signed, check};
    use super::super::standing_tests::{dialog, rs};
    use super::*;
    use crate::base::ids::{Generation, Slot, StreamId};
    use crate::base::prng::Prng;
    use crate::store::catalog::Journalled;
    use crate::store::event::Origin;
    use crate::store::evidence::{Digest, FileMark, SigningKey, verify};
    use crate::store::journal::entry::Signalling;
    use crate::store::test_disk::TestDisk;

    const DIR: &str = "/store/journal";
    const PAST: &str = "/store/history";
    /// What no file may hold of whoever is forgotten.
    const NAME: &str = "ann@bank.example";

    fn signer() -> Signer {
        Signer { key: SigningKey::from_seed(&[7; 32]).into(), volume: "v".to_owned() }
    }

    fn entries(number: u64, name: &str) -> Vec<Entry> {
        let (rs, at) = (rs(number), Wall(number as i64));
        let mut dialog = dialog(1, true);
        dialog.call_id = format!("{name}-call");
        dialog.remote_uri = format!("sip:{name}");
        let description = StreamDescription {
            stream: StreamId(number),
            rs,
            line: 0,
            label: Some(name.to_owned()),
            media: "audio".to_owned(),
            formats: Vec::new(),
            suite: None,
            transport: "RTP/AVP".to_owned(),
            slot: Slot(0),
            port: 5_000,
            remote: None,
        };
        let stream = StreamOpened {
            description,
            generation: Generation(1),
            active: true,
            rtcp_to: None,
            rtcp_mux: false,
            crypto: None,
            barred: None,
            address: None,
        };
        let sealed = |what: &str| Sealed(format!("{what} {name}").into());
        vec![
            Entry::Opened {
                rs,
                at,
                dialog,
                src: SrcFacts { identity: name.to_owned(), ..SrcFacts::default() },
                signalling: Signalling::Udp,
                quirks: vec![format!("odd: {name}")],
                salt: sealed("salt"),
                streams: vec![stream],
                own: false,
                answer: format!("answer to {name}"),
                answer_sdp: sealed("answer"),
                bodies: Some(1),
                timer: None,
                retention: None,
            },
            Entry::Body {
                rs,
                number: 1,
                at,
                method: "INVITE".to_owned(),
                cseq: 1,
                content_type: "text/plain".to_owned(),
                disposition: String::new(),
                bytes: format!("=={name}"),
            },
            Entry::Ended {
                rs,
                at: Wall(number as i64 + 1),
                by: Origin::Src,
                reason: format!("BYE of {name}"),
                remote_cseq: 2,
                bye: false,
            },
        ]
    }

    /// Files of the history, each behind the one before it, and a journal that names the newest.
    fn store(files: &[Vec<Entry>]) -> TestDisk {
        let disk = TestDisk::default();
        let signer = signer();
        let mut previous = None;
        for (through, entries) in (1..).zip(files) {
            let mut frames = Vec::new();
            assert!(entries.iter().all(|entry| frame::write(entry, &mut frames)));
            let bytes = history::write(through, &frames, previous, Some(&signer));
            previous = Some(FileMark::of(through, &bytes));
            disk.put(&Path::new(PAST).join(history::file_name(through)), bytes);
        }
        let number = files.len() as u32;
        let before = Before { history: previous, ..Before::default() };
        let (digest, mut kept) = (Digest::new(), Vec::new());
        let mut chained = Chained { signer: &signer, number, bytes: 0, digest, before: &before };
        let (version, volume, at) = (1, "v".to_owned(), Wall(1));
        chained.put(&Entry::Start { version, volume, at, kept: true, before: None }, &mut kept);
        chained.put(&Entry::Durable { marks: Vec::new(), seal: None }, &mut kept);
        disk.put(&Path::new(DIR).join(format!("{number:08}.journal")), kept);
        disk
    }

    fn faults(disk: &TestDisk) -> Vec<String> {
        let key = signer().key.public_key();
        let by = |digest: &_, signature: &_| verify(&key, digest, signature);
        let signed = Signed { volume: "v", by: &by };
        let found = check(disk, Path::new(DIR), Path::new(PAST), &signed, &[]).expect("memory");
        found.faults.into_iter().map(|fault| format!("{} {}", fault.file, fault.why)).collect()
    }

    fn forget_one(disk: &TestDisk, number: u64, at: i64) -> usize {
        let recordings = [rs(number)].into();
        let forgetting = Forgetting { recordings: &recordings, at: Wall(at), audit: 9 };
        forget(disk, Path::new(PAST), &forgetting, Some(&signer())).expect("memory")
    }

    fn holds(disk: &TestDisk, text: &str) -> bool {
        let found = |path: &std::path::PathBuf| {
            memchr::memmem::find(&disk.get(path), text.as_bytes()).is_some()
        };
        disk.paths().iter().any(found)
    }

    fn journalled(disk: &TestDisk) -> Journalled {
        let replay = super::super::read(disk, Path::new(DIR), Path::new(PAST)).expect("memory");
        assert_eq!(replay.damage, []);
        Journalled::of(&replay.entries)
    }

    #[test]
    fn no_word_of_it_stays_and_the_chain_holds() {
        let disk = store(&[entries(1, "bob@x"), entries(2, NAME), entries(3, "carl@x")]);
        assert!(holds(&disk, NAME) && faults(&disk).is_empty());
        let before = journalled(&disk);
        assert_eq!(forget_one(&disk, 2, 77), 1);
        assert!(!holds(&disk, NAME));
        assert_eq!(faults(&disk), Vec::<String>::new());
        let after = journalled(&disk);
        for other in [rs(1), rs(3)] {
            assert_eq!(after.recordings[&other], before.recordings[&other]);
        }
        let (was, is) = (&before.recordings[&rs(2)], &after.recordings[&rs(2)]);
        assert_eq!((is.forgotten, was.forgotten), (Some(Wall(77)), None));
        assert_eq!((is.start, is.end, is.state), (was.start, was.end, was.state));
        assert!(is.streams.keys().eq(was.streams.keys()));
        // And once more for another one, and for the same file.
        assert_eq!(forget_one(&disk, 1, 78), 1);
        assert_eq!(forget_one(&disk, 1, 79), 1);
        assert_eq!(forget_one(&disk, 8, 79), 0, "nobody");
        assert!(!holds(&disk, "bob@x") && holds(&disk, "carl@x"));
        assert_eq!(faults(&disk), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_another_one_puts_in_its_place_is_found() {
        let disk = store(&[entries(1, "bob@x"), entries(2, NAME)]);
        let path = Path::new(PAST).join(history::file_name(1));
        let old = disk.get(&path);
        forget_one(&disk, 1, 77);
        let new = disk.get(&path);
        for bit in (0..new.len() * 8).step_by(7) {
            let mut bad = new.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            disk.put(&path, bad);
            assert!(!faults(&disk).is_empty(), "bit {bit}");
        }
        // By whoever has no key of the store.
        let other = Signer { key: SigningKey::from_seed(&[8; 32]).into(), volume: "v".to_owned() };
        for signer in [None, Some(&other)] {
            let forged = history::rewrite(&old, &[], signer).expect("it has a head");
            disk.put(&path, forged);
            assert!(!faults(&disk).is_empty());
        }
        disk.put(&path, new);
        assert!(faults(&disk).is_empty());
    }

    #[test]
    fn f06_a_cut_at_any_instant_leaves_whole_files_and_is_made_up_for() {
        // Its words stand in two files.
        let (mut first, second) = (entries(2, NAME), entries(3, "carl@x"));
        let behind = [first.split_off(1), second].concat();
        for nth in 1..16 {
            let disk = store(&[first.clone(), behind.clone()]);
            disk.fail_nth(nth);
            let recordings = [rs(2)].into();
            let forgetting = Forgetting { recordings: &recordings, at: Wall(7), audit: 9 };
            let done = forget(&disk, Path::new(PAST), &forgetting, Some(&signer()));
            for seed in 0..6 {
                let cut = disk.power_cut(&mut Prng::new(seed));
                assert_eq!(faults(&cut), Vec::<String>::new(), "{nth} {seed}");
                let known = journalled(&cut);
                let forgotten = known.recordings[&rs(2)].forgotten.is_some();
                assert!(!forgotten || !holds(&cut, NAME) || done.is_err(), "{nth} {seed}");
                forget_one(&cut, 2, 8);
                assert!(!holds(&cut, NAME), "{nth} {seed}");
                assert_eq!(faults(&cut), Vec::<String>::new());
            }
        }
    }

    #[test]
    fn what_the_journal_still_says_is_told() {
        let disk = TestDisk::default();
        let mut frames = Vec::new();
        assert!(entries(4, NAME).iter().all(|entry| frame::write(entry, &mut frames)));
        disk.put(&Path::new(DIR).join("00000001.journal"), frames);
        let asked = [rs(3), rs(4)].into();
        let found = in_journal(&disk, Path::new(DIR), &asked).expect("memory");
        assert_eq!(found, [rs(4)].into());
    }
}
