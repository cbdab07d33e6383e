//! Reads a configuration: files, each on top of the one before, then each `--set KEY=VALUE` on top of them.
//! All faults are reported at once, each with its place.
//!
//! Every key is checked alone before the whole is built, so that one wrong value hides no other.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::bounds::{self, Breach};
use super::fault::{Fault, Place};
use super::keys::{self, KEYS};
use super::lists::{self, Wrong};
use super::machine::Machine;
use super::model::Config;

/// The commented default: what runs without a file.
pub const DEFAULT: &str = include_str!("../../appliance/floortape.toml");

/// Reads `paths` (none: the built-in default), of which a later one stands above an earlier one key by key,
/// and applies `sets`, each `KEY=VALUE` with a TOML value; a bare word that is no TOML is taken as a string.
///
/// Returns all faults that do not need the machine, in the order of the text.
pub fn load(paths: &[PathBuf], sets: &[String]) -> Result<Config, Vec<Fault>> {
    read(paths, sets, |_| Vec::new())
}

/// As [`load`], and checks the arithmetic against `machine`, and the files that the configuration
/// names by `files`.
pub fn load_for(
    paths: &[PathBuf],
    sets: &[String],
    machine: &Machine,
    files: impl Fn(&Config) -> Vec<Breach>,
) -> Result<Config, Vec<Fault>> {
    read(paths, sets, |config| {
        let mut found = bounds::machine(config, machine);
        found.extend(files(config));
        found
    })
}

/// Reads all texts, then judges them; `further` is asked only about a configuration that is well
/// formed.
fn read(
    paths: &[PathBuf],
    sets: &[String],
    further: impl Fn(&Config) -> Vec<Breach>,
) -> Result<Config, Vec<Fault>> {
    let mut sources = Vec::new();
    let mut faults = Vec::new();
    if paths.is_empty() {
        sources.push(("built-in floortape.toml".to_owned(), DEFAULT.to_owned()));
    }
    for path in paths {
        match std::fs::read_to_string(path) {
            Ok(text) => sources.push((path.display().to_string(), text)),
            Err(error) => faults.push(Fault {
                origin: path.display().to_string(),
                place: None,
                key: String::new(),
                why: format!("cannot read the configuration: {error}"),
                fix: "name a readable TOML file with -c, or leave it out for the default".into(),
            }),
        }
    }
    for set in sets {
        match set_text(set) {
            Ok(text) => sources.push((format!("--set {set}"), text)),
            Err(fault) => faults.push(*fault),
        }
    }
    let mut document = Document { sources: &sources, leaves: BTreeMap::new(), faults };
    for source in 0..sources.len() {
        document.add(source);
    }
    document.finish(further)
}

/// The TOML text that `KEY=VALUE` stands for.
fn set_text(set: &str) -> Result<String, Box<Fault>> {
    let Some((key, value)) = set.split_once('=') else {
        return Err(Box::new(Fault {
            origin: format!("--set {set}"),
            place: None,
            key: String::new(),
            why: "expected KEY=VALUE".into(),
            fix: "write for example --set media.streams_max=500".into(),
        }));
    };
    let text = format!("{} = {}", key.trim(), value.trim());
    // A bare word is a string; what begins like a list, table or string must be right TOML.
    let bare = !value.trim_start().starts_with(['[', '{', '"', '\'']);
    if bare && DeTable::parse(&text).is_err() {
        return Ok(format!("{} = {}", key.trim(), toml::Value::from(value)));
    }
    Ok(text)
}

/// Top-level lists of tables.
const LISTS: [&str; 2] = ["peers", "retention"];

/// One value and where it stands.
struct Leaf<'t> {
    source: usize,
    value: Spanned<DeValue<'t>>,
}

/// The texts and the values found in them.
struct Document<'t> {
    /// Origin and text.
    sources: &'t [(String, String)],
    /// By path (`media.ports`); a later text replaces the value of an earlier one.
    leaves: BTreeMap<String, Leaf<'t>>,
    faults: Vec<Fault>,
}

impl<'t> Document<'t> {
    /// Takes the values of one TOML text.
    fn add(&mut self, source: usize) {
        let (root, errors) = DeTable::parse_recoverable(&self.sources[source].1);
        let is_broken = !errors.is_empty();
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let fix = "mend the TOML: lists are [\"a\", \"b\"], texts stand in quotes";
            self.fault(source, &span, "", error.message().to_owned(), fix.to_owned());
        }
        // What was read of a broken text says nothing about what was meant.
        if is_broken {
            return;
        }
        for (name, value) in root.into_inner() {
            self.table(source, name.get_ref(), &name.span(), value);
        }
    }

    /// Takes one top-level entry.
    fn table(
        &mut self,
        source: usize,
        name: &str,
        name_span: &Range<usize>,
        value: Spanned<DeValue<'t>>,
    ) {
        if LISTS.contains(&name) {
            self.leaves.insert(name.to_owned(), Leaf { source, value });
            return;
        }
        let prefix = format!("{name}.");
        if !KEYS.iter().any(|key| key.path.starts_with(&prefix)) {
            let tables = KEYS.iter().filter_map(|key| key.path.split('.').next());
            let near = keys::nearest(name, tables.chain(LISTS));
            self.unknown(source, name_span, name, near);
            return;
        }
        let span = value.span();
        let DeValue::Table(entries) = value.into_inner() else {
            let why = "expected a table".to_owned();
            self.fault(source, &span, name, why, format!("write [{name}] and its keys below"));
            return;
        };
        for (key, value) in entries {
            let path = format!("{prefix}{}", key.get_ref());
            if KEYS.iter().any(|known| known.path == path) {
                self.leaves.insert(path, Leaf { source, value });
            } else {
                let siblings =
                    KEYS.iter().filter_map(|known| known.path.strip_prefix(prefix.as_str()));
                let near = keys::nearest(key.get_ref(), siblings);
                self.unknown(source, &key.span(), &path, near);
            }
        }
    }

    fn unknown(&mut self, source: usize, span: &Range<usize>, path: &str, near: Option<&str>) {
        let fix = match near {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "remove it; all keys stand in the commented default floortape.toml".into(),
        };
        self.fault(source, span, path, "unknown key".into(), fix);
    }

    fn fault(&mut self, source: usize, span: &Range<usize>, key: &str, why: String, fix: String) {
        let (origin, text) = &self.sources[source];
        self.faults.push(Fault {
            origin: origin.clone(),
            place: Some(Place::find(text, span)),
            key: key.to_owned(),
            why,
            fix,
        });
    }

    /// Checks each value alone, then builds the whole.
    fn finish(mut self, further: impl Fn(&Config) -> Vec<Breach>) -> Result<Config, Vec<Fault>> {
        let mut whole = DeTable::new();
        let mut wrong = Vec::new();
        for (path, leaf) in &self.leaves {
            let errors = if path == "peers" {
                lists::peer_errors(&leaf.value)
            } else if path == "policy.rules" {
                let peers = self.leaves.get("peers").map(|peers| &peers.value);
                lists::rule_errors(&leaf.value, peers)
            } else if path == "retention" {
                let peers = self.leaves.get("peers").map(|peers| &peers.value);
                lists::class_errors(&leaf.value, peers)
            } else {
                let mut alone = DeTable::new();
                insert(&mut alone, path, leaf.value.clone());
                build(alone)
                    .err()
                    .into_iter()
                    .map(|error| plain(path, &leaf.value, &error))
                    .collect()
            };
            if errors.is_empty() {
                insert(&mut whole, path, leaf.value.clone());
            }
            wrong.extend(errors.into_iter().map(|error| (leaf.source, error)));
        }
        for (source, error) in wrong {
            self.fault(source, &error.span, &error.key, error.why, error.fix);
        }
        // Wrong values are left out, so that the arithmetic of the rest is checked all the same.
        match build(whole) {
            Ok(config) => {
                let mut breaches = bounds::values(&config);
                if breaches.is_empty() && self.faults.is_empty() {
                    breaches = further(&config);
                }
                let known: Vec<String> =
                    self.faults.iter().map(|fault| fault.key.clone()).collect();
                breaches.retain(|breach| !known.iter().any(|key| key == breach.path));
                let placed = self.place(breaches);
                self.faults.extend(placed);
                if self.faults.is_empty() {
                    return Ok(config);
                }
            }
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                self.fault(0, &span, "", error.message().to_owned(), keys::fix("").to_owned());
            }
        }
        self.faults.sort_by_key(|fault| {
            let source = self.sources.iter().position(|(origin, _)| *origin == fault.origin);
            (source, fault.place.as_ref().map(|place| (place.line, place.column)))
        });
        Err(self.faults)
    }

    /// Puts breaches at the place of their key.
    fn place(&self, breaches: Vec<Breach>) -> Vec<Fault> {
        let faults = breaches.into_iter().map(|breach| {
            let fix = breach.fix.unwrap_or_else(|| keys::fix(breach.path).to_owned());
            let (origin, place) = match self.leaves.get(breach.path) {
                Some(leaf) => {
                    let (origin, text) = &self.sources[leaf.source];
                    (origin.clone(), Some(Place::find(text, &leaf.value.span())))
                }
                None => ("default".to_owned(), None),
            };
            Fault { origin, place, key: breach.path.to_owned(), why: breach.why, fix }
        });
        faults.collect()
    }
}

fn plain(path: &str, value: &Spanned<DeValue<'_>>, error: &toml::de::Error) -> Wrong {
    Wrong {
        span: error.span().unwrap_or_else(|| value.span()),
        key: path.to_owned(),
        why: error.message().to_owned(),
        fix: format!("write {}", keys::fix(path)),
    }
}

pub(super) fn build(root: DeTable<'_>) -> Result<Config, toml::de::Error> {
    Config::deserialize(ValueDeserializer::from(Spanned::new(0..0, DeValue::Table(root))))
}

pub(super) fn at<'t>(name: &str) -> Spanned<std::borrow::Cow<'t, str>> {
    Spanned::new(0..0, name.to_owned().into())
}

/// Puts `value` at `path` (`table.key` or `table`).
pub(super) fn insert<'t>(root: &mut DeTable<'t>, path: &str, value: Spanned<DeValue<'t>>) {
    let Some((table, key)) = path.split_once('.') else {
        root.insert(at(path), value);
        return;
    };
    let entry =
        root.entry(at(table)).or_insert_with(|| Spanned::new(0..0, DeValue::Table(DeTable::new())));
    if let DeValue::Table(entries) = entry.get_mut() {
        entries.insert(at(key), value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::{CLASS_KEYS, PEER_KEYS, RULE_KEYS};
    use super::super::model::SrtpPolicy;
    use super::*;
    use crate::base::prng::Prng;

    fn faults(text: &str) -> Vec<Fault> {
        let sources = [("f.toml".to_owned(), text.to_owned())];
        let mut document =
            Document { sources: &sources, leaves: BTreeMap::new(), faults: Vec::new() };
        document.add(0);
        document.finish(|_| Vec::new()).err().unwrap_or_default()
    }

    #[test]
    fn the_commented_default_is_the_default_and_names_every_key() {
        assert_eq!(load(&[], &[]).expect("the default is valid"), Config::default());
        for key in KEYS.iter().filter(|key| key.path != "policy.rules") {
            let name = key.path.rsplit('.').next().expect("split gives at least one");
            let named = DEFAULT.lines().any(|line| {
                line.trim_start_matches("# ").split('=').next().is_some_and(|k| k.trim() == name)
            });
            assert!(named, "{} is not in floortape.toml", key.path);
        }
        for key in PEER_KEYS.iter().chain(RULE_KEYS).chain(CLASS_KEYS) {
            assert!(DEFAULT.contains(&format!("# {} = ", key.path)), "{}", key.path);
        }
    }

    #[test]
    fn the_key_list_is_the_model() {
        let config = Config {
            media: super::super::model::Media {
                srtp: Some(SrtpPolicy::Allow),
                interface: Some("i".into()),
                advertise: Some(super::super::address::Listed(vec![[127, 0, 0, 1].into()])),
                ..Default::default()
            },
            store: super::super::model::Store {
                journal_dir: Some("j".into()),
                spare_dir: Some("s".into()),
                segment_dirs: vec!["d".into()],
                volume: Some("v".into()),
                ..Default::default()
            },
            evidence: super::super::model::Evidence {
                anchor_file: Some("a".into()),
                syslog: Some("/dev/log".into()),
                webhook: Some("http://h/".into()),
                webhook_token: Some("t".into()),
                ..Default::default()
            },
            http: super::super::model::Http { token: Some("t".into()), ..Default::default() },
            sip: super::super::model::Sip {
                cert: Some("c".into()),
                advertise: Some(super::super::address::Listed(Vec::new())),
                key: Some("k".into()),
                client_ca: Some("a".into()),
                client_crl: Some("r".into()),
                ..Default::default()
            },
            ..Default::default()
        };
        let table = toml::Table::try_from(&config).expect("a configuration is TOML");
        let mut paths = Vec::new();
        for (name, value) in &table {
            if let Some(table) = value.as_table() {
                paths.extend(table.keys().map(|key| format!("{name}.{key}")));
            }
        }
        paths.sort();
        let mut known: Vec<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        known.sort();
        assert_eq!(paths, known);
    }

    #[test]
    fn all_faults_come_at_once_each_with_its_place() {
        let found = faults(
            "[sip]\nudp = [\"127.0.0.1:5060\", 7]\nstrikt = true\n[media]\nports = \"9\"\n\
             streams_max = 0\n[stor]\n[[peers]]\nname = \"x\"\nmatch = 5\n[[peers]]\nnam = 1\n",
        );
        let places: Vec<_> = found
            .iter()
            .map(|fault| (fault.key.as_str(), fault.place.as_ref().map_or(0, |place| place.line)))
            .collect();
        assert_eq!(
            places,
            [
                ("sip.udp", 2),
                ("sip.strikt", 3),
                ("media.ports", 5),
                ("media.streams_max", 6),
                ("stor", 7),
                ("peers.match", 10),
                ("peers.name", 11),
                ("peers.match", 11),
                ("peers.nam", 12),
            ]
        );
        assert_eq!(found[1].fix, "did you mean \"strict\"?");
        assert_eq!(found[0].place.as_ref().map(|place| (place.column, place.width)), Some((26, 1)));
    }

    #[test]
    fn rules_that_do_not_fit_into_a_frame_are_refused() {
        let rule = |count: usize| {
            let all: Vec<String> =
                (0..count).map(|number| format!("\"sip:{number}@pbx.example\"")).collect();
            faults(&format!(
                "[[policy.rules]]\nname = \"all\"\nrecord = true\naor = [{}]\n",
                all.join(", ")
            ))
        };
        assert_eq!(rule(2_000), []);
        let found = rule(5_000);
        assert_eq!((found.len(), found[0].key.as_str()), (1, "policy.rules"));
    }

    #[test]
    fn classes_of_retention_are_judged_where_they_stand() {
        let class = |lines: &str| format!("[[retention]]\nname = \"a\"\n{lines}");
        let one = |lines: &str| {
            let found = faults(&class(lines));
            assert_eq!(found.len(), 1, "{lines}: {found:?}");
            let place = found[0].place.as_ref().expect("it stands in the text");
            (found[0].key.clone(), place.line, found[0].why.clone())
        };
        let (key, line, why) = one("keep = \"90 days\"\nlabel = [\"1\"]\n");
        assert_eq!((key.as_str(), line), ("retention.keep", 3));
        assert!(why.contains("\"90d\"") && why.contains("\"90 days\""), "{why}");
        assert_eq!(one("label = [\"1\"]\n").0, "retention.keep");
        assert!(one("keep = \"1y\"\n").2.contains("without a condition"));
        assert!(one("keep = \"1y\"\npeer = [\"b\"]\n").2.contains("no [[peers]]"));
        assert!(one("keep = \"1y\"\naor = [\"sip:?\"]\n").2.contains("only wildcard"));
        let (key, line, _) = one("keep = \"1y\"\nlabel = [\"1\"]\nkep = 3\n");
        assert_eq!((key.as_str(), line), ("retention.kep", 5));
        let default = class("keep = \"1y\"\nlabel = [\"1\"]\n").replace("\"a\"", "\"default\"");
        assert_eq!(faults(&default)[0].key, "retention.name");
        let good = class("keep = \"5s\"\nlabel = [\"1\"]\n");
        assert_eq!(faults(&good), []);
        assert_eq!(faults(&format!("{good}{good}"))[0].key, "retention.name", "twice");
        assert_eq!(faults("[store]\nretention = \"1 day\"\n")[0].key, "store.retention");
        assert_eq!(faults("[store]\nretention_check_s = 0\n")[0].key, "store.retention_check_s");
    }

    #[test]
    fn a_broken_line_does_not_hide_a_wrong_value() {
        let found = faults("[sip]\nudp = [\n[media]\nstreams_max = \"many\"\n");
        assert!(found.iter().any(|fault| fault.key.is_empty()), "{found:?}");
        assert!(found.len() >= 2 || found[0].place.is_some(), "{found:?}");
    }

    #[test]
    fn sets_win_over_the_file_and_bare_words_are_strings() {
        let sets = ["log.level=debug", "media.streams_max = 7", "media.ports=30000-30999"];
        let sets: Vec<String> = sets.into_iter().map(str::to_owned).collect();
        let config = load(&[], &sets).expect("all three are valid");
        assert_eq!(config.log.level, "debug");
        assert_eq!((config.media.streams_max, config.media.ports.first), (7, 30_000));
        for wrong in ["x", "sip.udp=[", "media.streams_max=many", "media=3", "a.b=1"] {
            let found = load(&[], &[wrong.to_owned()]).expect_err("each is wrong");
            assert_eq!(found[0].origin, format!("--set {wrong}"), "{found:?}");
        }
    }

    #[test]
    fn too_few_ports_are_told_with_numbers() {
        let sets = ["media.streams_max=100".to_owned(), "media.ports=20000-20099".to_owned()];
        let found = load(&[], &sets).expect_err("50 pairs are too few");
        assert_eq!(found.len(), 1);
        assert!(found[0].why.contains("100 streams need 100"), "{}", found[0].why);
        assert!(found[0].why.contains("holds 50"), "{}", found[0].why);
    }

    #[test]
    fn addresses_that_answers_could_not_carry_are_refused_where_they_stand() {
        let cases = [
            ("address = \"0.0.0.0\"", "media.address", "found 0.0.0.0"),
            ("address = [\"192.0.2.1\", \"::\"]", "media.address", "found ::"),
            ("address = []", "media.address", "at least one"),
            ("address = [\"::1\", \"::1\"]", "media.address", "twice"),
            ("advertise = \"2001:db8::1\"", "media.advertise", "no IPv6 address"),
            ("advertise = [\"192.0.2.1\", \"192.0.2.2\"]", "media.advertise", "second IPv4"),
            ("advertise = \"0.0.0.0\"", "media.advertise", "found 0.0.0.0"),
            (
                "address = [\"192.0.2.1\", \"::ffff:192.0.2.1\"]",
                "media.address",
                "write it as such",
            ),
            ("advertise = \"::ffff:192.0.2.1\"", "media.advertise", "write it as such"),
            ("address = \"255.255.255.255\"", "media.address", "broadcast"),
        ];
        for (line, key, word) in cases {
            let found = faults(&format!("[media]\n{line}\n"));
            assert_eq!(found.len(), 1, "{line}: {found:?}");
            assert_eq!(found[0].key, key, "{line}");
            assert!(found[0].why.contains(word), "{line}: {}", found[0].why);
            let place = found[0].place.as_ref().expect("it stands in the text");
            assert_eq!((place.line, place.column), (2, line.find("= ").expect("=") + 3));
        }
        for right in [
            "address = \"0.0.0.0\"\nadvertise = \"192.0.2.1\"",
            "address = [\"192.0.2.1\", \"2001:db8::1\"]\nadvertise = [\"2001:db8::9\", \"198.51.100.1\"]",
        ] {
            assert_eq!(faults(&format!("[media]\n{right}\n")), [], "{right}");
        }
        let twice = faults("[sip]\nadvertise = [\"a.example\", \"b.example\"]\n");
        assert_eq!(twice[0].key, "sip.advertise");
        let wrong = faults("[sip]\nadvertise = \"sip:a\"\n");
        assert!(wrong[0].why.contains("such as"), "{}", wrong[0].why);
    }

    #[test]
    fn several_addresses_need_ports_for_all_streams_each() {
        let text = "[media]\naddress = [\"127.0.0.1\", \"::1\"]\nports = \"20000-20099\"\n\
                    streams_max = 26\n";
        let found = faults(text);
        assert_eq!((found.len(), found[0].key.as_str()), (1, "media.ports"));
        assert!(found[0].why.contains("26 streams on 2 addresses need 52"), "{}", found[0].why);
        assert!(found[0].fix.contains("to 25"), "{}", found[0].fix);
        assert_eq!(faults(&text.replace("26", "25")), []);
    }

    #[test]
    fn mutated_files_never_panic() {
        let mut prng = Prng::new(72);
        for _ in 0..500 {
            let mut bytes = DEFAULT.as_bytes().to_vec();
            for _ in 0..=prng.below(4) {
                let at = prng.below(bytes.len() as u64) as usize;
                match prng.below(3) {
                    0 => bytes[at] = b" =[]\"'.#\n09az-"[prng.below(14) as usize],
                    1 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            for fault in faults(&String::from_utf8_lossy(&bytes)) {
                assert!(fault.to_string().contains("fix: "));
            }
        }
    }
}
