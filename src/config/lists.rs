//! What stands in `[[…]]`: each entry is a table, judged key by key, so that one wrong value hides no
//! other.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, CLASS_KEYS, Key, PEER_KEYS, RULE_KEYS};
use super::load::{at, build, insert};
use super::policy::AorPattern;
use super::retention::DEFAULT_CLASS;

/// What is wrong with one value.
pub(super) struct Wrong {
    /// Where.
    pub(super) span: Range<usize>,
    /// Its key.
    pub(super) key: String,
    /// Expected and found.
    pub(super) why: String,
    /// How to mend it.
    pub(super) fix: String,
}

type Value<'t> = Spanned<DeValue<'t>>;

/// A list of tables.
struct List {
    /// Its path.
    path: &'static str,
    keys: &'static [Key],
    /// Keys that each entry must have, first among `keys`, and values that stand in for them.
    required: [(&'static str, StandIn); 2],
}

#[derive(Clone, Copy)]
enum StandIn {
    Text(&'static str),
    Yes,
}

const PEERS: List = List {
    path: "peers",
    keys: PEER_KEYS,
    required: [("name", StandIn::Text("peer")), ("match", StandIn::Text("192.0.2.1"))],
};

const RULES: List = List {
    path: "policy.rules",
    keys: RULE_KEYS,
    required: [("name", StandIn::Text("rule")), ("record", StandIn::Yes)],
};

const CLASSES: List = List {
    path: "retention",
    keys: CLASS_KEYS,
    required: [("name", StandIn::Text("class")), ("keep", StandIn::Text("forever"))],
};

/// A rule's name stands in reports and in quirks.
const RULE_NAME_CHARS_MAX: usize = 64;

/// The faults of `[[peers]]`.
pub(super) fn peer_errors(value: &Value<'_>) -> Vec<Wrong> {
    PEERS.errors(value)
}

/// The faults of `[[policy.rules]]`. `peers`: what stands in `[[peers]]`.
pub(super) fn rule_errors(value: &Value<'_>, peers: Option<&Value<'_>>) -> Vec<Wrong> {
    RULES.condition_errors(value, peers, "policy.record")
}

/// The faults of `[[retention]]`. `peers`: what stands in `[[peers]]`.
pub(super) fn class_errors(value: &Value<'_>, peers: Option<&Value<'_>>) -> Vec<Wrong> {
    let mut found = CLASSES.condition_errors(value, peers, "store.retention");
    for class in tables(value) {
        let name = class.iter().find(|(key, _)| key.get_ref() == "name");
        if let Some((_, name)) =
            name.filter(|(_, name)| name.get_ref().as_str() == Some(DEFAULT_CLASS))
        {
            found.push(Wrong {
                span: name.span(),
                key: format!("{}.name", CLASSES.path),
                why: format!("\"{DEFAULT_CLASS}\" is the class of what no other one fits"),
                fix: "set store.retention, or give it another name".to_owned(),
            });
        }
    }
    found
}

impl List {
    /// The faults of a list whose entries have a name, and conditions. `instead`: the key that decides
    /// where no condition is met.
    fn condition_errors(
        &self,
        value: &Value<'_>,
        peers: Option<&Value<'_>>,
        instead: &str,
    ) -> Vec<Wrong> {
        let mut found = self.errors(value);
        let peers: BTreeSet<&str> =
            peers.map(tables).into_iter().flatten().filter_map(|peer| text(peer, "name")).collect();
        let (mut names, mut whole) = (BTreeSet::new(), Vec::new());
        for rule in value.get_ref().as_array().into_iter().flat_map(|rules| rules.iter()) {
            let Some(entries) = rule.get_ref().as_table() else { continue };
            self.name_errors(entries, &mut names, &mut found);
            let required = self.required.map(|(name, _)| name);
            if entries.keys().all(|key| required.contains(&key.get_ref().as_ref())) {
                found.push(Wrong {
                    span: rule.span(),
                    key: self.path.to_owned(),
                    why: "a rule without a condition would decide about everything".to_owned(),
                    fix: format!("add peer, aor, label, media or codec, or set {instead} instead"),
                });
            }
            for (key, entry) in entries {
                let key = key.get_ref().as_ref();
                let Some(known) = self.keys.iter().find(|known| known.path == key) else {
                    continue;
                };
                let Some(values) = entry.get_ref().as_array() else { continue };
                let mut wrong = |span: Range<usize>, why: String, fix: String| {
                    found.push(Wrong { span, key: format!("{}.{key}", self.path), why, fix });
                };
                if values.is_empty() {
                    let why = "expected at least one value: nothing could meet this".to_owned();
                    wrong(entry.span(), why, format!("write {}, or leave it out", known.fix));
                }
                for value in values.iter() {
                    let Some(text) = value.get_ref().as_str() else { continue };
                    let pattern = AorPattern::try_from(text.to_owned());
                    if let (true, Err(why)) = (key == "aor", pattern) {
                        // The list as a whole was blamed for it.
                        whole.push(entry.span());
                        wrong(value.span(), why, format!("write {}", known.fix));
                    } else if key == "peer" && !peers.contains(text) {
                        let near = keys::nearest(text, peers.iter().copied());
                        let fix = near.map(|near| format!("did you mean \"{near}\"?"));
                        let fix = fix.unwrap_or("add it to [[peers]]".to_owned());
                        wrong(value.span(), format!("no [[peers]] has the name \"{text}\""), fix);
                    } else if text.is_empty() {
                        let why = "expected a value, found nothing".to_owned();
                        wrong(value.span(), why, format!("write {}", known.fix));
                    }
                }
            }
        }
        found.retain(|wrong| !whole.contains(&wrong.span));
        found
    }

    /// A name that cannot be told from another, or that would break a report.
    fn name_errors<'t>(
        &self,
        entries: &'t DeTable<'_>,
        names: &mut BTreeSet<&'t str>,
        found: &mut Vec<Wrong>,
    ) {
        let Some((_, name)) = entries.iter().find(|(key, _)| key.get_ref() == "name") else {
            return;
        };
        let Some(text) = name.get_ref().as_str() else { return };
        let unfit = |c: char| c.is_control() || c == '"' || c == '\\';
        let why = if text.is_empty() || text.contains(unfit) {
            "expected a name without quotes, backslashes and line ends".to_owned()
        } else if text.chars().count() > RULE_NAME_CHARS_MAX {
            format!("expected at most {RULE_NAME_CHARS_MAX} characters")
        } else if !names.insert(text) {
            format!("another rule is called \"{text}\" too")
        } else {
            return;
        };
        let fix = "give each rule a short name of its own: reports count by it".to_owned();
        found.push(Wrong { span: name.span(), key: format!("{}.name", self.path), why, fix });
    }

    /// The faults of all entries.
    fn errors(&self, value: &Value<'_>) -> Vec<Wrong> {
        let wrong = |span: Range<usize>, key: String, why: &str, fix: &str| Wrong {
            span,
            key,
            why: why.to_owned(),
            fix: fix.to_owned(),
        };
        let header = format!("write [[{}]]", self.path);
        let Some(all) = value.get_ref().as_array() else {
            return vec![wrong(value.span(), self.path.to_owned(), "expected a list", &header)];
        };
        let mut found = Vec::new();
        for one in all.iter() {
            let Some(entries) = one.get_ref().as_table() else {
                found.push(wrong(one.span(), self.path.to_owned(), "expected a table", &header));
                continue;
            };
            for (name, entry) in entries {
                let path = format!("{}.{}", self.path, name.get_ref());
                let Some(key) = self.keys.iter().find(|key| key.path == name.get_ref()) else {
                    let near = keys::nearest(name.get_ref(), self.keys.iter().map(|key| key.path));
                    let fix = near
                        .map_or("remove it".to_owned(), |near| format!("did you mean \"{near}\"?"));
                    found.push(wrong(name.span(), path, "unknown key", &fix));
                    continue;
                };
                if let Err(error) = build(self.alone(key.path, entry)) {
                    let span = error.span().unwrap_or_else(|| entry.span());
                    found.push(wrong(span, path, error.message(), &format!("write {}", key.fix)));
                }
            }
            for (required, key) in self.required.iter().zip(self.keys) {
                if !entries.contains_key(required.0) {
                    let path = format!("{}.{}", self.path, required.0);
                    let fix = format!("add {} = {}", required.0, key.fix);
                    found.push(wrong(one.span(), path, "missing key", &fix));
                }
            }
        }
        found
    }

    /// A configuration of this list alone, with one entry. The required keys stand in, so that only
    /// `entry` can be wrong.
    fn alone<'t>(&self, key: &str, entry: &Value<'t>) -> DeTable<'t> {
        let mut alone = DeTable::new();
        for (name, stand_in) in self.required {
            let value = match stand_in {
                StandIn::Text(text) => DeValue::String(text.into()),
                StandIn::Yes => DeValue::Boolean(true),
            };
            alone.insert(at(name), Spanned::new(0..0, value));
        }
        alone.insert(at(key), entry.clone());
        let list = [Spanned::new(0..0, DeValue::Table(alone))].into_iter().collect();
        let mut root = DeTable::new();
        insert(&mut root, self.path, Spanned::new(0..0, DeValue::Array(list)));
        root
    }
}

/// The tables of a list.
fn tables<'v, 't>(list: &'v Value<'t>) -> impl Iterator<Item = &'v DeTable<'t>> {
    let all = list.get_ref().as_array().into_iter().flat_map(|all| all.iter());
    all.filter_map(|one| one.get_ref().as_table())
}

/// The text at `key`.
fn text<'v>(table: &'v DeTable<'_>, key: &str) -> Option<&'v str> {
    table.iter().find(|(name, _)| name.get_ref() == key)?.1.get_ref().as_str()
}
