//! Holds and retention for those who have the role and cannot write the trail: the server checks what the verb
//! would, and records it as theirs. What there is to show is shown by a reader, as for other verbs.

use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::reading::Reply;
use crate::base::ids::RsId;
use crate::base::keep::Keep;
use crate::base::ports::Clock;
use crate::base::time::Wall;
use crate::config::access::Right;
use crate::host::clock::SystemClock;
use crate::host::{audit, users};
use crate::plane::retention::{Query, detail};
use crate::shell::access::{self, Asker, Wish};
use crate::shell::kept::Known;
use crate::store::audit::{Act, AuditError, action};

/// What somebody wants to hold, to have kept for a shorter time, or to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Keeping {
    /// `hold add`.
    HoldAdd { terms: Vec<String>, from: Option<Wall>, to: Option<Wall>, reason: String, json: bool },
    /// `hold rm`.
    HoldRm { number: u64, reason: String },
    /// `hold ls`.
    HoldLs { json: bool },
    /// `hold why`.
    HoldWhy { id: RsId, json: bool },
    /// `retention plan`.
    Plan { at: Option<Wall>, json: bool },
    /// `retention shorten`.
    Shorten { class: String, keep: Keep, reason: String },
    /// `retention approve`.
    Approve { number: u64, reason: String },
    /// `retention ls`.
    Proposals,
}

impl Keeping {
    /// Whether its entry in the trail is all there is to do.
    pub(super) const fn is_done_by_entry(&self) -> bool {
        matches!(self, Keeping::HoldRm { .. } | Keeping::Approve { .. })
    }

    /// What the audit trail says of it; an error: nothing could, and it is not asked for.
    pub(super) fn wish(&self) -> Result<Wish, String> {
        let read = |verb: &str, object: String| {
            Wish::new(action::READ, object).with("verb", Some(verb.to_owned()))
        };
        let reason = |text: &String| match text.trim().is_empty() {
            true => Err("expected a reason, found nothing".to_owned()),
            false => Ok(Some(text.clone())),
        };
        Ok(match self {
            Keeping::HoldAdd { terms, from, to, reason: why, json: _ } => {
                let query = Query::parse(terms, *from, *to).map_err(|error| error.to_string())?;
                let said = serde_json::to_value(&query).map_err(|error| error.to_string())?;
                Wish::new(action::HOLD_ADD, query.text())
                    .because(reason(why)?)
                    .with(detail::QUERY, Some(said))
            }
            Keeping::HoldRm { number, reason: why } => {
                Wish::new(action::HOLD_RM, number.to_string()).because(reason(why)?)
            }
            Keeping::HoldLs { .. } => read("hold ls", String::new()),
            Keeping::HoldWhy { id, .. } => read("hold why", id.to_string()),
            Keeping::Plan { .. } => read("retention plan", String::new()),
            Keeping::Shorten { class, keep, reason: why } => {
                Wish::new(action::RETENTION_PROPOSED, class.clone())
                    .because(reason(why)?)
                    .with(detail::CLASS, Some(class.clone()))
                    .with(detail::KEEP, Some(keep.to_string()))
            }
            Keeping::Approve { number, reason } => {
                Wish::new(action::RETENTION_APPROVED, number.to_string())
                    .because(Some(reason.clone()))
            }
            Keeping::Proposals => read("retention ls", String::new()),
        })
    }

    /// Why it is not asked for at all, where whoever asks may: there is no such thing, or it wants somebody
    /// else, which is recorded as a refusal.
    pub(super) fn stopped(&self, store: &Path, asker: Asker) -> Result<Option<Reply>, AuditError> {
        if !access::may(store, asker, Right::Keep)? {
            return Ok(None);
        }
        let missing = |what: &str, number: &u64| {
            let why = format!("no {what} {number} in {}", store.display());
            Ok(Some(Reply::Missing(why)))
        };
        match self {
            Keeping::HoldRm { number, .. } => {
                let rules = Known::read(store)?.rules;
                if !rules.holds.contains_key(number) && !rules.unread.contains(number) {
                    return missing("hold", number);
                }
            }
            Keeping::Approve { number, .. } => {
                let rules = Known::read(store)?.rules;
                let Some(proposal) = rules.proposals.get(number) else {
                    return missing("proposal", number);
                };
                let login = audit::login(asker.pid, asker.uid).map(users::name);
                if !proposal.is_by_another(&login.unwrap_or_else(|| users::name(asker.uid))) {
                    refuse_same(store, asker, *number)?;
                    return Ok(Some(Reply::Refused(same_person(*number))));
                }
            }
            _ => {}
        }
        Ok(None)
    }

    /// The verb's words, and those that nobody may take for anything else.
    pub(super) fn words(&self) -> (Vec<OsString>, Vec<OsString>) {
        let mut words: Vec<OsString> = Vec::new();
        let mut tail = Vec::new();
        let time = |key: &str, at: &Option<Wall>| at.map(|at| format!("--{key}={at}").into());
        let json = |json: &bool| json.then(|| "--json".into());
        match self {
            Keeping::HoldAdd { terms, from, to, reason, json: on } => {
                words.extend(["hold".into(), "add".into(), format!("--reason={reason}").into()]);
                words.extend(time("from", from).into_iter().chain(time("to", to)).chain(json(on)));
                tail.extend(terms.iter().map(OsString::from));
            }
            // Nothing is left to do.
            Keeping::HoldRm { .. } | Keeping::Approve { .. } => {}
            Keeping::HoldLs { json: on } => {
                words.extend(["hold".into(), "ls".into()]);
                words.extend(json(on));
            }
            Keeping::HoldWhy { id, json: on } => {
                words.extend(["hold".into(), "why".into(), id.to_string().into()]);
                words.extend(json(on));
            }
            Keeping::Plan { at, json: on } => {
                words.extend(["retention".into(), "plan".into()]);
                words.extend(time("at", at).into_iter().chain(json(on)));
            }
            Keeping::Shorten { class, keep, reason } => {
                words.extend(["retention".into(), "shorten".into()]);
                words.push(format!("--reason={reason}").into());
                tail.extend([class.into(), keep.to_string().into()]);
            }
            Keeping::Proposals => words.extend(["retention".into(), "ls".into()]),
        }
        (words, tail)
    }
}

/// Records that who has proposed something wanted to agree to it, too.
pub(crate) fn refuse_same(store: &Path, asker: Asker, number: u64) -> Result<(), AuditError> {
    let who = audit::who(asker.uid, "");
    let act = Act::new(SystemClock.map().wall, who, action::RETENTION_APPROVED, number.to_string());
    audit::record(store, act.refused("proposed by the same person")).map(drop)
}

/// The same in words.
pub(crate) fn same_person(number: u64) -> String {
    format!("proposal {number} is yours: somebody else must agree to it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: Vec<OsString>) -> Vec<String> {
        words.into_iter().map(|word| word.into_string().expect("text")).collect()
    }

    #[test]
    fn no_term_becomes_another_word_of_the_command_line() {
        let terms = vec!["--store=/etc".to_owned(), "word:-c".to_owned()];
        let (from, to) = (Some(Wall(0)), None);
        let reason = "--json -c x".to_owned();
        let asked = Keeping::HoldAdd { terms: terms.clone(), from, to, reason, json: false };
        let (words, tail) = asked.words();
        let wanted =
            ["hold", "add", "--reason=--json -c x", "--from=1970-01-01T00:00:00.000000000Z"];
        assert_eq!(texts(words), wanted);
        assert_eq!(texts(tail), terms);
    }

    #[test]
    fn what_the_verb_would_refuse_is_not_recorded_as_done() {
        let add = |term: &str, reason: &str| Keeping::HoldAdd {
            terms: vec![term.to_owned()],
            from: None,
            to: None,
            reason: reason.to_owned(),
            json: false,
        };
        assert!(add("sesion:x", "case").wish().is_err());
        assert!(add("sip:ann@desk", " ").wish().is_err());
        let wish = add("sip:ann@desk", "case").wish().expect("understood");
        assert_eq!((&*wish.action, wish.reason.as_deref()), (action::HOLD_ADD, Some("case")));
    }

    #[test]
    fn requests_with_other_fields_are_not_taken() {
        assert!(
            serde_json::from_str::<Keeping>(r#"{"hold_rm":{"number":3,"reason":"x"}}"#).is_ok()
        );
        for bad in [
            r#"{"hold_rm":{"number":3,"reason":"x","store":"/etc"}}"#,
            r#"{"hold_rm":{"number":-3,"reason":"x"}}"#,
            r#"{"shorten":{"class":"default","keep":"soon","reason":"x"}}"#,
        ] {
            assert!(serde_json::from_str::<Keeping>(bad).is_err(), "{bad}");
        }
    }
}
