//! Which store a reading verb works on, and how it is opened.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::{self, encryption::Encryption, model::Config};
use crate::host::spare::{self, StoreDisk};
use crate::host::{self, disk, keyfile, signing, sqlite, unlocked, volume};
use crate::shell::access;
use crate::shell::cmd::check::{ConfigArgs, told};
use crate::shell::exit::{Exit, Failure};
use crate::store::audit;
use crate::store::catalog::{Index, Library, RsEntry};
use crate::store::evidence::{KeyStatement, Keys, PublicKey, Salt, SigningKey};
use crate::store::journal::keybox::salt_context;
use crate::store::journal::{self, FileFault, JournalCheck, JournalError, KeyBox};
use crate::store::keys::Kek;
use crate::store::segment::SegmentSet;

/// Where recordings are read from.
#[derive(clap::Args, Clone)]
pub struct StoreArgs {
    /// Store folder [default: that of the configuration, else ./floortape-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Key-encryption key of an encrypted store [default: store.encryption of the configuration]
    #[arg(long, value_name = "FILE")]
    pub(crate) kek: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// A store on this machine.
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) journal: PathBuf,
    unreadable: AtomicBool,
    nameless: bool,
}

impl StoreArgs {
    /// The store's folder, where it is there and its files are not ours to read: the server reads them for
    /// those who have a role.
    pub(crate) fn shut(&self) -> Option<PathBuf> {
        let dir = match &self.store {
            Some(dir) => dir.clone(),
            None => self.config.load_quietly()?.store.dir,
        };
        // The one is nobody's else to read in any store; where we cannot come so far, neither is the other.
        disk::is_shut(&keyfile::path(&dir)).then_some(dir)
    }

    /// The configuration by which recordings are kept; this machine need not be able to record by it.
    pub(crate) fn keeping(&self) -> Result<Config, Failure> {
        // Whoever reads for others was told of no file; what is in force stands in the trail.
        if access::reads_for_others()
            && let Some(store) = &self.store
        {
            return Ok(access::configured(store)?.unwrap_or_default());
        }
        config::load(&self.config.files, &self.config.sets).map_err(told)
    }

    /// Finds the store; it must exist.
    pub(crate) fn find(&self) -> Result<Store, Failure> {
        let (dir, journal) = match &self.store {
            Some(dir) => (dir.clone(), None),
            None => {
                let store = self.config.load()?.store;
                (store.dir, store.journal_dir)
            }
        };
        if !dir.is_dir() {
            return Err(Failure::new(Exit::NotFound, format!("no store at {}", dir.display())));
        }
        self.unlock(&dir)?;
        Ok(Store::at(dir, journal))
    }

    /// The store's folder, whether or not its files are ours to read.
    pub(crate) fn dir(&self) -> Result<PathBuf, Failure> {
        match &self.store {
            Some(dir) => Ok(dir.clone()),
            None => Ok(self.config.load()?.store.dir),
        }
    }

    /// The key-encryption key that is named; `None`: none is.
    pub(crate) fn kek(&self) -> Result<Option<Kek>, Failure> {
        let encryption = match &self.kek {
            Some(path) => Encryption::File(path.clone()),
            // Of a folder that is named nobody need have a configuration.
            None => self.config.load().map_or(Encryption::Off, |config| config.store.encryption),
        };
        unlocked::kek(&encryption).map_err(|error| {
            Failure::new(Exit::Refused, format!("the key-encryption key: {error}"))
        })
    }

    /// Opens the keys of an encrypted store for this process.
    fn unlock(&self, store: &Path) -> Result<(), Failure> {
        // Who reads for others was handed the keys.
        if !unlocked::is_encrypted(store) || unlocked::of_store(store).is_some() {
            return Ok(());
        }
        let Some(kek) = self.kek()? else {
            let why = format!(
                "the store {} is encrypted: name its key-encryption key by --kek FILE, or a \
                 configuration with store.encryption by -c",
                store.display()
            );
            return Err(Failure::new(Exit::Refused, why));
        };
        let unlocked = unlocked::unlock(store, &kek);
        unlocked.map(drop).map_err(|error| Failure::new(Exit::Refused, error.to_string()))
    }
}

impl Store {
    /// The store in a folder that is there, whose keys are known where it is encrypted. `journal`: where that
    /// is, where the store does not say so.
    pub(crate) fn at(dir: PathBuf, journal: Option<PathBuf>) -> Self {
        // The store says itself where the rest of it is.
        let journal = journal
            .or_else(|| volume::read(&dir).ok()?.journal)
            .unwrap_or_else(|| dir.join("journal"));
        // What it is asked for is told all the same, and who asks hears that it may be another store,
        // or have parts elsewhere.
        let nameless =
            volume::check(&dir).inspect_err(|error| eprintln!("floortape: {error}")).is_err();
        Store { dir, journal, unreadable: AtomicBool::new(nameless), nameless }
    }

    /// Opens it for reading, by way of the catalogue where there is one.
    pub(crate) fn library(&self) -> Result<Library<StoreDisk>, Failure> {
        let told = |why: &str| eprintln!("floortape: what is damaged is not used: {why}");
        let index =
            sqlite::open_telling(&self.dir, told).map(|index| Box::new(index) as Box<dyn Index>);
        self.open(index)
    }

    /// The same for whoever reads a part of one recording: no more of the catalogue than he asks for.
    pub(crate) fn library_of_part(&self) -> Result<Library<StoreDisk>, Failure> {
        let library = self.library()?;
        sqlite::expect_few_reads(&self.dir);
        Ok(library)
    }

    /// Opens it by journal and records alone: proof does not trust an index.
    pub(crate) fn bare_library(&self) -> Result<Library<StoreDisk>, Failure> {
        self.open(None)
    }

    /// The same once more, for another thread; what cannot be read of it was told before.
    pub(crate) fn library_beside(&self) -> Result<Library<StoreDisk>, Failure> {
        let places = spare::places(&self.dir, &self.journal);
        Ok(Library::open(places, &self.dir, &self.journal, None)?)
    }

    /// The segments that the catalogue has seen; none where there is no catalogue.
    pub(crate) fn indexed_segments(&self) -> SegmentSet {
        sqlite::open_read(&self.dir).and_then(|index| index.segments().ok()).unwrap_or_default()
    }

    fn open(&self, index: Option<Box<dyn Index>>) -> Result<Library<StoreDisk>, Failure> {
        let places = spare::places(&self.dir, &self.journal);
        let library = Library::open(places.clone(), &self.dir, &self.journal, index);
        let unreadable = self.nameless || !places.trouble().is_empty();
        self.unreadable.store(unreadable, Ordering::Relaxed);
        for (folder, why) in places.trouble() {
            eprintln!("floortape: {} cannot be read, the rest is: {why}", folder.display());
        }
        Ok(library?)
    }

    /// Whether a folder of it could not be read, or it does not say which those are: what is missing
    /// may lie there.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Whether it has lost its identity: nobody vouches for anything in it.
    pub(crate) fn is_nameless(&self) -> bool {
        self.nameless
    }

    /// The key that signed the segments, to sign what leaves the store.
    pub(crate) fn signing_key(&self) -> Result<SigningKey, Failure> {
        signing::load(&self.dir).map_err(|error| {
            Failure::new(Exit::Io, format!("{}: {error}", signing::path(&self.dir).display()))
        })
    }

    /// The public half of that key, as the store shows it, whatever has become of the key; `None`
    /// where there is none, or it cannot be read.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        signing::published(&self.dir)
            .or_else(|| signing::load(&self.dir).ok().map(|key| key.public_key()))
    }

    /// All keys that it signed with, each vouched for by the one before; what is wrong with the list
    /// of them, where that does not hold.
    pub(crate) fn signers(&self) -> (Option<Keys>, Option<String>) {
        let own = signing::load(&self.dir).ok().map(|key| key.public_key());
        let other = own.is_some_and(|own| signing::published(&self.dir) != Some(own));
        let other = other.then(|| {
            "evidence/signing.pub is not the public half of signing.key, or not there".to_owned()
        });
        match signing::keys(&self.dir) {
            Ok(keys) => (keys, other),
            Err(error) => {
                (self.public_key().map(Keys::one), Some(format!("evidence/keys: {error}")))
            }
        }
    }

    /// What is wrong beside everything that is signed, in words: with the next start's key, and with what the
    /// store says of itself.
    pub(crate) fn aside(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Err(error) = signing::load(&self.dir)
            && matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
        {
            found.push(format!("signing.key: {error}: the next start will be refused"));
        }
        let unknown = volume::unknown_names(&self.dir).into_iter();
        found.extend(unknown.map(|name| {
            format!("volume.json: {name:?} is no name that this version knows: a later one wrote it, or it was changed")
        }));
        found
    }

    /// Snapshots of the journal that are not whole: derived, and nothing is lost with them.
    pub(crate) fn broken_snapshots(&self) -> Vec<String> {
        let places = spare::places(&self.dir, &self.journal);
        // What cannot be listed is told of as the journal itself.
        journal::broken_snapshots(&places, &self.journal).unwrap_or_default()
    }

    /// Files of journal, history and audit trail that somebody has made longer without writing to them, in words:
    /// nobody reads what stands there, and no power cut leaves so much.
    pub(crate) fn unwritten(&self) -> Vec<String> {
        let places = spare::places(&self.dir, &self.journal);
        let trail = host::audit::files_of(&self.dir);
        let past = journal::history::folder(&self.dir);
        let found = [
            ("journal", journal::unwritten(&places, &self.journal)),
            ("history", journal::unwritten(&places, &past)),
            ("audit", journal::unwritten(&trail, &audit::folder(&self.dir))),
        ];
        let mut told = Vec::new();
        for (what, longer) in found {
            // What cannot be listed is told of as the files themselves.
            for (name, written, bytes) in longer.unwrap_or_default() {
                let text = format!(
                    "{what} {name} is {bytes} bytes long, and nothing was ever written behind byte {written}"
                );
                told.push(text);
            }
        }
        told
    }

    /// What vouches for all keys but the first; nothing where the key was never changed.
    pub(crate) fn key_statements(&self) -> Result<Vec<KeyStatement>, Failure> {
        Ok(signing::statements(&self.dir)?)
    }

    /// Its id; empty where it says none.
    pub(crate) fn volume(&self) -> String {
        volume::read(&self.dir).map(|volume| volume.id).unwrap_or_default()
    }

    /// Checks the files of its journal against each other, their signatures, and `heads`.
    pub(crate) fn check_journal(
        &self,
        keys: Option<&Keys>,
        heads: &[crate::store::evidence::FileMark],
    ) -> Result<JournalCheck, JournalError> {
        let places = spare::places(&self.dir, &self.journal);
        let volume = self.volume();
        let by = |hash: &_, signature: &_| keys.is_some_and(|keys| keys.signed(hash, signature));
        let signed = journal::Signed { volume: &volume, by: &by };
        let past = journal::history::folder(&self.dir);
        journal::check(&places, &self.journal, &past, &signed, heads)
    }

    /// The machine key at work.
    pub(crate) fn keys(&self) -> Result<KeyBox, Failure> {
        let key = keyfile::load(&self.dir).map_err(|error| {
            Failure::new(Exit::Io, format!("{}: {error}", keyfile::path(&self.dir).display()))
        })?;
        Ok(KeyBox::new(&key)?)
    }
}

/// The leaf salt of a recording.
pub(crate) fn salt(keys: &KeyBox, rs: &RsEntry) -> Option<Salt> {
    keys.open(&rs.salt, &salt_context(rs.id)).ok()?.as_slice().try_into().ok()
}

/// Which parts of the journal could not be read, in words. A torn tail is what a running server or a
/// power cut leaves; nobody was promised it.
pub(crate) fn damage(library: &Library<StoreDisk>) -> impl Iterator<Item = String> + '_ {
    library.damage().iter().filter(|damage| damage.middle).map(|damage| {
        let (file, from, to) = (&damage.file, damage.from, damage.to);
        format!("journal {file} is damaged from byte {from} to {to}")
    })
}

/// A fault of a file of the journal, in words.
pub(crate) fn journal_fault(fault: &FileFault) -> String {
    format!("journal {} {}", fault.file, fault.why)
}

/// Tells them.
pub(crate) fn tell_damage(library: &Library<StoreDisk>) {
    for text in damage(library) {
        eprintln!("floortape: {text}");
    }
}

/// The recording that `text` names.
pub(crate) fn named(
    library: &Library<StoreDisk>,
    text: &str,
    store: &Path,
) -> Result<RsEntry, Failure> {
    let missing = || {
        let why = format!("no recording {text} in {}", store.display());
        Failure::new(Exit::NotFound, why)
    };
    let id = text.parse().map_err(|_| missing())?;
    let entry = library.entry(id)?;
    tell_damage(library);
    entry.ok_or_else(missing)
}
