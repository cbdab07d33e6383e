//! Classes: how long a recording is kept by the configuration.

use super::facts::{Facts, Line};
use super::rules::Shortening;
use crate::base::keep::Keep;
use crate::config::model::Config;
use crate::config::retention::{DEFAULT_CLASS, RetentionClass};
use crate::proto::session::{aor_fits, normal_aor};
use crate::store::journal::entry::Promise;

/// The classes of a configuration, in order.
#[derive(Clone, Debug)]
pub struct Classes {
    rest: Keep,
    classes: Vec<RetentionClass>,
}

impl Classes {
    /// Those of `config`.
    pub fn of(config: &Config) -> Self {
        let mut classes = config.retention.clone();
        classes.iter_mut().for_each(normalise);
        Classes { rest: config.store.retention, classes }
    }

    /// How long what no class fits is kept.
    pub const fn rest(&self) -> Keep {
        self.rest
    }

    /// The first class that fits, and how long it keeps.
    pub fn class_of(&self, facts: &Facts) -> Promise {
        let fits = |class: &&RetentionClass| fits(class, facts);
        let found = self.classes.iter().find(fits).map(|one| (&*one.name, one.keep));
        let (class, keep) = found.unwrap_or((DEFAULT_CLASS, self.rest));
        Promise { class: class.to_owned(), keep }
    }

    /// How long a recording is kept, and by which class: by that of the configuration, or as it was
    /// promised where that is longer and two persons have not agreed otherwise. A version that promised
    /// nothing deleted nothing.
    pub fn kept(&self, facts: &Facts, shortened: &[Shortening]) -> Promise {
        let now = self.class_of(facts);
        let mut promised = facts
            .promise
            .clone()
            .unwrap_or_else(|| Promise { class: DEFAULT_CLASS.to_owned(), keep: Keep::Forever });
        let agreed = shortened.iter().filter(|one| one.class == promised.class);
        // It is for those that were there when it was agreed.
        let agreed = agreed.filter(|one| facts.start <= one.at).map(|one| one.keep).min();
        promised.keep = agreed.map_or(promised.keep, |agreed| agreed.min(promised.keep));
        if now.keep >= promised.keep { now } else { promised }
    }

    /// No recording is kept for less than this.
    pub fn shortest(&self) -> Keep {
        self.classes.iter().map(|class| class.keep).fold(self.rest, Keep::min)
    }
}

fn normalise(class: &mut RetentionClass) {
    let patterns = class.aor.iter_mut().flatten();
    for pattern in patterns {
        // A normal form of a pattern is one.
        if let Ok(normal) = normal_aor(pattern.as_str()).try_into() {
            *pattern = normal;
        }
    }
}

fn fits(class: &RetentionClass, facts: &Facts) -> bool {
    let own = |wanted: &Option<Vec<String>>, found: Option<&str>| {
        wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|one| Some(&**one) == found))
    };
    let line = |line: &Line| {
        let media = class.media.as_ref();
        own(&class.label, line.label.as_deref())
            && media.is_none_or(|wanted| wanted.iter().any(|one| one.name() == line.media))
            && class
                .codec
                .as_ref()
                .is_none_or(|wanted| wanted.iter().any(|one| one.eq_ignore_ascii_case(&line.codec)))
    };
    let lines = class.label.is_some() || class.media.is_some() || class.codec.is_some();
    own(&class.peer, facts.peer.as_deref())
        && class.aor.as_ref().is_none_or(|patterns| {
            let one = |address: &String| patterns.iter().any(|own| aor_fits(own.as_str(), address));
            facts.addresses.iter().any(one)
        })
        && (!lines || facts.lines.iter().any(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Wall;

    fn classes(text: &str) -> Classes {
        let config: Config = toml::from_str(text).expect("a configuration");
        Classes::of(&config)
    }

    fn keep(text: &str) -> Keep {
        text.parse().expect("how long")
    }

    fn ann() -> Facts {
        let line = |label: &str| Line {
            label: Some(label.to_owned()),
            media: "audio".to_owned(),
            codec: "PCMU".to_owned(),
        };
        Facts {
            addresses: vec!["sip:ann@desk.example".to_owned()],
            lines: vec![line("1"), line("2")],
            peer: Some("turret".to_owned()),
            start: Wall(100),
            ..Facts::default()
        }
    }

    const TEXT: &str = "[store]\nretention = \"30d\"\n[[retention]]\nname = \"two\"\nkeep = \"1y\"\n\
        label = [\"2\"]\npeer = [\"turret\"]\n[[retention]]\nname = \"desk\"\nkeep = \"7y\"\n\
        aor = [\"sips:*@DESK.example\"]\n";

    #[test]
    fn the_first_class_that_fits_counts() {
        let classes = classes(TEXT);
        let of = |facts: &Facts| classes.class_of(facts).class;
        assert_eq!(of(&ann()), "two");
        assert_eq!(of(&Facts { peer: None, ..ann() }), "desk");
        assert_eq!(of(&Facts { peer: None, addresses: Vec::new(), ..ann() }), "default");
        assert_eq!(of(&Facts { lines: ann().lines[..1].to_vec(), ..ann() }), "desk");
        assert_eq!(classes.shortest(), keep("30d"));
    }

    #[test]
    fn f77_what_was_promised_only_grows_without_a_second_person() {
        let classes = classes(TEXT);
        let promised = |text: &str| Facts {
            promise: Some(Promise { class: "old".to_owned(), keep: keep(text) }),
            ..ann()
        };
        let kept = |facts: &Facts, all: &[Shortening]| classes.kept(facts, all).keep;
        // A longer configuration counts, a shorter one does not.
        assert_eq!(kept(&promised("90d"), &[]), keep("1y"));
        assert_eq!(kept(&promised("10y"), &[]), keep("10y"));
        assert_eq!(kept(&Facts { promise: None, ..ann() }, &[]), Keep::Forever);
        let agreed = |class: &str, text: &str, at| {
            [Shortening { class: class.to_owned(), keep: keep(text), at: Wall(at) }]
        };
        assert_eq!(kept(&promised("10y"), &agreed("old", "5y", 200)), keep("5y"));
        // Down to the configuration, of that class, and for what was there.
        assert_eq!(kept(&promised("10y"), &agreed("old", "1d", 200)), keep("1y"));
        assert_eq!(kept(&promised("10y"), &agreed("other", "1d", 200)), keep("10y"));
        assert_eq!(kept(&promised("10y"), &agreed("old", "1d", 99)), keep("10y"));
        let nothing = Facts { promise: None, ..ann() };
        assert_eq!(kept(&nothing, &agreed("default", "2y", 200)), keep("2y"));
    }
}
