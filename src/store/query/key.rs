//! The keys of the language.

/// What stands before the colon of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A recording.
    Id,
    /// A party, by address or name.
    Party,
    /// A party's address.
    Aor,
    /// A party's name.
    Name,
    /// Part of a name or address.
    Word,
    /// A Communication Session.
    Session,
    /// A line.
    Label,
    /// Who sent it, by the name in `[[peers]]`.
    Peer,
    /// A Call-ID.
    Call,
    /// The recording client.
    Src,
    /// A codec.
    Codec,
    /// Extension data and other metadata.
    Text,
    /// Oddities.
    Quirk,
    /// What is in it.
    Has,
    /// The ledger's word.
    Verdict,
    /// Where it stands.
    Is,
    /// How long it is.
    Duration,
    /// It ran at or after.
    From,
    /// It ran at or before.
    To,
    /// It ran then.
    At,
}

/// Each key as it is written. `desk` is a peer, since a desk's turret or its SBC is who sends; `on` is `at`.
const KEYS: &[(&str, Key)] = &[
    ("id", Key::Id),
    ("party", Key::Party),
    ("aor", Key::Aor),
    ("name", Key::Name),
    ("word", Key::Word),
    ("session", Key::Session),
    ("label", Key::Label),
    ("peer", Key::Peer),
    ("desk", Key::Peer),
    ("call", Key::Call),
    ("src", Key::Src),
    ("codec", Key::Codec),
    ("text", Key::Text),
    ("quirk", Key::Quirk),
    ("has", Key::Has),
    ("verdict", Key::Verdict),
    ("is", Key::Is),
    ("duration", Key::Duration),
    ("from", Key::From),
    ("to", Key::To),
    ("at", Key::At),
    ("on", Key::At),
];

/// The language in a table, for `--help`.
pub const HELP: &str = "\
Query language:
  miller  mil*  \"ann miller\"    words of names, addresses, the client and extension data; a session,
                              label or Call-ID; * at the end: any word that begins so;
                              jurgen is JÜRGEN, too, and gross Groß
  sip:ann@desk.example        an address; * stands for any characters; a number as +49301234
  0190a1b2...                 a recording's id
  party:X  aor:X  name:X      a party by either, by address, by name
  word:X                      X anywhere in a name or address, as holds have it
  session:X  label:X  call:X  a Communication Session, a line, a Call-ID (whole, or X*)
  peer:X  desk:X              who sent it, by its name in [[peers]]
  src:X  codec:X              the recording client; a codec
  text:X  quirk:X             extension data and other metadata; oddities
  has:X                       gap, dtmf, text, video, quirk, pause
  verdict:X                   complete, continuous, gaps, empty: of its worst stream
  is:X                        live, held, ended, orphan, own, sealed, gone
  duration:>10m               also >=, <, <=, 1h30m, 10m..2h
  from:T  to:T                it ran at or after T, at or before T
  at:T  on:T                  it ran then: T may be a day, a minute or a second
  a b   a OR b   NOT a   -a   both; either; not; ( ) group
Times: 2026-11-30, 2026-11-30 14:05, 14:05, each with a zone behind it if not the local one
  (2026-11-30 14:05 Europe/Berlin), RFC 3339, -2h, 2h ago, -7d, now, today, yesterday";

/// Farther from any key than this a word is no slip of the pen.
const DISTANCE_MAX: usize = 2;

impl Key {
    /// The key that is written so.
    pub fn of(text: &str) -> Option<Key> {
        KEYS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, key)| *key)
    }

    /// Whether it takes a time.
    pub(super) const fn is_time(self) -> bool {
        matches!(self, Key::From | Key::To | Key::At)
    }
}

/// All keys, for whoever wrote another.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(name, _)| *name)
}

/// Which of `known` was probably meant.
pub(super) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    known
        .map(|name| (distance(text.as_bytes(), name.as_bytes()), name))
        .filter(|(distance, name)| *distance <= DISTANCE_MAX.min(name.len() / 2 + 1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Insertions, deletions and replacements from one to the other.
fn distance(one: &[u8], other: &[u8]) -> usize {
    if one.len().abs_diff(other.len()) > DISTANCE_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(a != b)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[other.len()]
}
