//! Who may do what in a store. Asked by verbs that act on the files themselves, and by the server for those
//! who cannot read them; either way each answer that lets somebody act, and each refusal, is in the audit trail
//! before anything is done.
//!
//! The rules in force are those of the newest `configured` in the trail, so that a verb beside the server and
//! the server itself go by the same ones, whatever files they were started with.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Map, Value};

use super::exit::{Exit, Failure};
use crate::base::ports::Clock;
use crate::config::access::{Access, Principal, ReasonFor, Right, Role};
use crate::config::model::Config;
use crate::host::audit::{self, Locked};
use crate::host::clock::SystemClock;
use crate::host::users::{self, User};
use crate::store::audit::{Act, AuditError, Entry, Outcome, Who, action};

/// Bytes that a reason may have.
const REASON_BYTES_MAX: usize = 1_000;

/// What somebody wants to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// See [`action`].
    pub(crate) action: String,
    /// To what.
    pub(crate) object: String,
    /// Why.
    pub(crate) reason: Option<String>,
    /// What else the trail should say.
    pub(crate) detail: Map<String, Value>,
}

impl Wish {
    pub(crate) fn new(action: &str, object: impl Into<String>) -> Self {
        Wish { action: action.to_owned(), object: object.into(), ..Wish::default() }
    }

    pub(crate) fn because(self, reason: Option<String>) -> Self {
        Wish { reason, ..self }
    }

    /// Says one more thing, where there is one.
    pub(crate) fn with(mut self, key: &str, value: Option<impl Into<Value>>) -> Self {
        self.detail.extend(value.map(|value| (key.to_owned(), value.into())));
        self
    }
}

/// Who wants it, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) uid: u32,
    pub(crate) pid: u32,
}

impl Asker {
    /// We ourselves.
    pub(crate) fn ourselves() -> Self {
        Asker { uid: rustix::process::geteuid().as_raw(), pid: std::process::id() }
    }
}

/// The answer. Both are in the trail.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Go on.
    Allowed(Box<Entry>),
    /// Why not.
    Refused(String),
}

/// Whether `asker` may do `wish` in `store`, for which `right` is needed. Where this fails, nothing may be
/// done: it would be in no trail.
pub(crate) fn ask(
    store: &Path,
    asker: Asker,
    right: Right,
    wish: Wish,
) -> Result<Answer, AuditError> {
    // A directory service may be slow, and nobody else shall wait for it: names first, then the lock.
    let user = users::by_uid(asker.uid);
    let name = user.as_ref().map_or_else(|| asker.uid.to_string(), |user| user.name.clone());
    let login = audit::login(asker.pid, asker.uid).map(users::name);
    let (mut trail, access, role) = loop {
        let access = in_force(store)?;
        let role = role(&access, store, asker.uid, user.as_ref(), right);
        let trail = Locked::take(store)?;
        // Configured meanwhile: other rules.
        if in_force(store)? == access {
            break (trail, access, role);
        }
    };
    let why = match role {
        None => Some(format!(
            "user {name} has no role that may do this (`access` in the configuration)"
        )),
        Some(_) => reason_fault(&access, right, wish.reason.as_deref()).map(str::to_owned),
    };
    let role = role.map_or("", Role::name).to_owned();
    let who = Who { uid: asker.uid, user: name, role };
    let mut act = Act::new(SystemClock.map().wall, who, &wish.action, wish.object)
        .because(wish.reason.unwrap_or_default());
    act.detail = wish.detail;
    // Who has become root since: all that the kernel knows of it.
    if let Some(login) = login {
        act = act.with("login", login);
    }
    match why {
        None => Ok(Answer::Allowed(Box::new(trail.append(act)?))),
        Some(why) => {
            // A reason that could not stand in the trail is not kept either.
            act.reason.truncate(act.reason.floor_char_boundary(REASON_BYTES_MAX));
            trail.append(act.refused(&*why))?;
            Ok(Answer::Refused(why))
        }
    }
}

/// Whether whoever started us has asked for us: the server, before it had its reader read for somebody.
static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// From now on nothing is asked in this process: it has been, and is in the trail.
pub(crate) fn is_asked() {
    IS_ASKED.store(true, Ordering::Relaxed);
}

/// The entry by which that was recorded; 0: there is none.
static ASKED_AS: AtomicU64 = AtomicU64::new(0);

/// It has been recorded as entry `number`.
pub(crate) fn is_recorded(number: u64) {
    ASKED_AS.store(number, Ordering::Relaxed);
}

/// The entry in the trail that stands for what this process does, where whoever started it has recorded it.
pub(crate) fn recorded() -> Option<u64> {
    Some(ASKED_AS.load(Ordering::Relaxed)).filter(|number| *number > 0)
}

/// Whether this process reads for somebody else.
pub(crate) fn reads_for_others() -> bool {
    IS_ASKED.load(Ordering::Relaxed)
}

/// Whether `asker` has `right`; recorded nowhere.
pub(crate) fn may(store: &Path, asker: Asker, right: Right) -> Result<bool, AuditError> {
    let user = users::by_uid(asker.uid);
    Ok(role(&in_force(store)?, store, asker.uid, user.as_ref(), right).is_some())
}

/// The configuration that was in force last, by the trail; `None`: it says none that this version knows.
pub(crate) fn configured(store: &Path) -> Result<Option<Config>, AuditError> {
    let entry = audit::newest(store, |entry| entry.action == action::CONFIGURED)?;
    let config = entry.and_then(|entry| entry.detail.get("config").cloned());
    Ok(config.and_then(|config| serde_json::from_value(config).ok()))
}

/// The same for us, who act on the files of `store`; a refusal is exit code 4. Where nobody can write the
/// trail, because this is a copy on a read-only disk or another user's, whoever can read the files may: it
/// is said aloud, and recorded nowhere.
pub(crate) fn ask_for_ourselves(store: &Path, right: Right, wish: Wish) -> Result<(), Failure> {
    if reads_for_others() {
        return Ok(());
    }
    match ask(store, Asker::ourselves(), right, wish) {
        Ok(Answer::Allowed(_)) => Ok(()),
        Ok(Answer::Refused(why)) => Err(Failure::new(Exit::Refused, format!("refused: {why}"))),
        Err(error) if error.is_read_only() => {
            eprintln!("floortape: not recorded in any audit trail: {error}");
            Ok(())
        }
        Err(error) => {
            let why = format!("not done, because it cannot be recorded: {error}");
            Err(Failure::new(Exit::Io, why))
        }
    }
}

/// Records that what `entry` allowed did not come to its end.
pub(crate) fn failed(store: &Path, entry: &Entry, why: &str) -> Result<(), AuditError> {
    let mut act =
        Act::new(SystemClock.map().wall, entry.who.clone(), &entry.action, &*entry.object)
            .with("of", entry.number)
            .with("why", why);
    act.outcome = Outcome::Failed;
    audit::record(store, act).map(drop)
}

/// Records that the listen which `entry` allowed has ended, how long it was, and why.
pub(crate) fn listened(
    store: &Path,
    entry: &Entry,
    seconds: f64,
    why: &str,
) -> Result<(), AuditError> {
    let who = entry.who.clone();
    let act = Act::new(SystemClock.map().wall, who, action::LISTEN_END, &*entry.object)
        .with("of", entry.number)
        .with("seconds", (seconds * 10.0).round() / 10.0)
        .with("why", why);
    audit::record(store, act).map(drop)
}

/// The rules that were configured last; where none ever were, the store's owner has all roles and nobody
/// else any.
fn in_force(store: &Path) -> Result<Access, AuditError> {
    let configured = audit::newest(store, |entry| entry.action == action::CONFIGURED)?;
    let access = configured.as_ref().and_then(|entry| entry.detail.get("config")?.get("access"));
    // Of a later version, with rules that this one does not know: nobody but the owner then.
    Ok(access.and_then(|access| serde_json::from_value(access.clone()).ok()).unwrap_or_default())
}

/// The widest role by which `uid` has `right`.
fn role(
    access: &Access,
    store: &Path,
    uid: u32,
    user: Option<&User>,
    right: Right,
) -> Option<Role> {
    let owner = owner(store).ok();
    Role::ALL.into_iter().filter(|role| role.may(right)).find(|role| match role {
        Role::Owner => uid == 0 || owner == Some(uid),
        role => access.of(*role).iter().any(|principal| is(principal, uid, user)),
    })
}

/// The user to whom the store belongs.
pub(crate) fn owner(store: &Path) -> io::Result<u32> {
    Ok(std::fs::metadata(store)?.uid())
}

fn is(principal: &Principal, uid: u32, user: Option<&User>) -> bool {
    match (principal, user) {
        (Principal::Uid(wanted), _) => *wanted == uid,
        (Principal::User(name), Some(user)) => *name == user.name,
        (Principal::Group(name), Some(user)) => users::is_in(user, name),
        (_, None) => false,
    }
}

fn reason_fault(access: &Access, right: Right, reason: Option<&str>) -> Option<&'static str> {
    match reason {
        Some(text) if text.len() > REASON_BYTES_MAX || text.contains(char::is_control) => {
            Some("a reason has at most 1000 bytes, without line ends and other control characters")
        }
        Some(text) if !text.trim().is_empty() => None,
        _ if right == Right::Hear && access.reason == ReasonFor::Listen => {
            Some("a reason must be given before a listen: --reason TEXT (`access.reason`)")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str) -> std::path::PathBuf {
        let pid = std::process::id();
        let store = std::env::temp_dir().join(format!("floortape-access-{name}-{pid}"));
        std::fs::create_dir_all(&store).expect("a temp folder");
        store
    }

    fn configure(store: &Path, access: Access) {
        let config = Config { access, ..Config::default() };
        let act =
            Act::new(SystemClock.map().wall, audit::ourselves("server"), action::CONFIGURED, "")
                .with("config", serde_json::to_value(&config).expect("JSON"));
        audit::record(store, act).expect("recorded");
    }

    const STRANGER: Asker = Asker { uid: 4_000_000_001, pid: 0 };

    fn refused(store: &Path, asker: Asker, right: Right, reason: Option<&str>) -> Option<String> {
        let wish = Wish::new(action::LISTEN, "r").because(reason.map(str::to_owned));
        match ask(store, asker, right, wish).expect("recorded") {
            Answer::Allowed(entry) => {
                assert_eq!(entry.outcome, Outcome::Allowed);
                None
            }
            Answer::Refused(why) => Some(why),
        }
    }

    #[test]
    fn without_rules_the_owner_may_all_and_a_stranger_nothing_and_both_are_in_the_trail() {
        let store = store("none");
        assert_eq!(refused(&store, Asker::ourselves(), Right::Hear, None), None);
        let why = refused(&store, STRANGER, Right::See, None).expect("refused");
        assert!(why.contains("4000000001"), "{why}");
        let entries = audit::read(&store).expect("readable").entries;
        let said: Vec<_> = entries.iter().map(|e| (e.outcome, e.who.role.as_str())).collect();
        let wanted =
            [(Outcome::Allowed, "server"), (Outcome::Allowed, "owner"), (Outcome::Refused, "")];
        assert_eq!(said, wanted);
        assert_eq!(
            (entries[2].who.uid, entries[2].text("why")),
            (STRANGER.uid, Some(why.as_str()))
        );
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn the_rules_in_force_are_those_that_were_configured_last() {
        let store = store("rules");
        let listener = vec![Principal::Uid(STRANGER.uid)];
        configure(&store, Access { listener, ..Access::default() });
        assert_eq!(refused(&store, STRANGER, Right::Hear, None), None);
        assert_eq!(refused(&store, STRANGER, Right::See, None), None);
        for right in [Right::Control, Right::Keep, Right::Trail, Right::Verify] {
            assert!(refused(&store, STRANGER, right, None).is_some(), "{right:?}");
        }
        let auditor = vec![Principal::Uid(STRANGER.uid)];
        configure(&store, Access { auditor, reason: ReasonFor::Listen, ..Access::default() });
        assert!(refused(&store, STRANGER, Right::Hear, Some("a complaint")).is_some());
        assert_eq!(refused(&store, STRANGER, Right::Trail, None), None, "no reason for this");
        let ours = Asker::ourselves();
        for reason in [None, Some(""), Some("  "), Some("a\nb"), Some(&*"x".repeat(1_001))] {
            assert!(refused(&store, ours, Right::Hear, reason).is_some(), "{reason:?}");
        }
        assert_eq!(refused(&store, ours, Right::Hear, Some("a complaint")), None);
        let last = audit::read(&store).expect("readable").entries.pop().expect("entries");
        assert_eq!((&*last.reason, &*last.who.role), ("a complaint", "owner"));
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn a_full_or_broken_disk_lets_nobody_act() {
        let store = store("broken");
        std::fs::write(store.join("audit"), "").expect("a file where the folder should be");
        let failure = ask_for_ourselves(&store, Right::Hear, Wish::new(action::EXPORT, "r"));
        assert_eq!(failure.expect_err("not done").exit, Exit::Io);
        std::fs::remove_dir_all(store).expect("ours");
    }
}
