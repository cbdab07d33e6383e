//! Text as it is compared: however somebody spells a name, he means the same one. One rule for the query and for
//! all that is looked at, an index included.

use icu_normalizer::properties::CanonicalCombiningClassMap;
use icu_normalizer::{ComposingNormalizer, DecomposingNormalizer};

/// `text` without what tells spellings apart: case, by full case folding (`ß` is `ss`); accents; whether accents
/// stand in a letter of their own or behind it; ligatures and full-width forms.
///
/// Upper case made lower is the full folding of Unicode (CaseFolding.txt, C and F), but that the dotless `ı` is
/// an `i` as well.
///
/// ```
/// use floortape::store::query::folded;
/// assert_eq!(folded("JÜRGEN GROẞ"), folded("Ju\u{308}rgen Groß"));
/// assert_eq!(folded("Groß"), "gross");
/// ```
pub fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let apart = DecomposingNormalizer::new_nfkd();
    let plain = |text: &str| -> String {
        apart.normalize(text).chars().filter(|c| !is_accent(*c)).collect()
    };
    let lower = plain(text)
        .chars()
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect::<String>();
    // A letter may have come with its accents: `ΐ` has two.
    ComposingNormalizer::new_nfc().normalize(&plain(&lower)).into_owned()
}

/// A mark above, below or through a letter of Latin, Greek or Cyrillic. Those of other scripts are letters to
/// whoever writes them.
const fn is_accent(c: char) -> bool {
    matches!(
        c,
        // Not U+0345, which is a letter iota as soon as it is large.
        '\u{300}'..='\u{344}'
            | '\u{346}'..='\u{36f}'
            | '\u{483}'..='\u{487}'
            | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}'
            | '\u{fe20}'..='\u{fe2f}'
    )
}

/// Whether `c` belongs to a word: letters, digits, and what is written upon them.
pub(super) fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || (!c.is_ascii() && CanonicalCombiningClassMap::new().get_u8(c) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn spellings_of_one_name_are_one() {
        for (one, other) in [
            ("Jürgen", "JÜRGEN"),
            ("Jürgen", "Ju\u{308}rgen"),
            ("Jürgen", "jurgen"),
            ("Groß", "GROSS"),
            ("Groß", "GROẞ"),
            ("Łódź", "ŁÓDŹ"),
            ("Ὀδυσσεύς", "ΟΔΥΣΣΕΥΣ"),
            ("İstanbul", "istanbul"),
            ("ISTANBUL", "ıstanbul"),
            ("Ångström", "A\u{30a}NGSTRO\u{308}M"),
            ("\u{212b}", "å"),
            ("ﬁﬀ", "FIFF"),
            ("ＡＢＣ１２", "abc12"),
            ("Ёлкин", "ЕЛКИН"),
            ("\u{1f80}", "ΑΙ"),
            ("한", "\u{1112}\u{1161}\u{11ab}"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        for (one, other) in [("ß", "s"), ("ø", "o"), ("が", "か"), ("한", "하"), ("नि", "न")]
        {
            assert_ne!(folded(one), folded(other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_folded_stays_as_it_is() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = c.to_string();
            let once = folded(&text);
            assert_eq!(folded(&once), once, "{c:?}");
            let upper: String = c.to_uppercase().collect();
            assert_eq!(folded(&upper), once, "{c:?}");
            let lower: String = c.to_lowercase().collect();
            assert_eq!(folded(&lower), once, "{c:?}");
        }
        let mut prng = Prng::new(2);
        let some: Vec<char> =
            "aßẞİıſΐſſ\u{308}\u{301}\u{345}ﬁǆᾳがｶﾞ\u{3099}한\u{1161}न\u{94d}".chars().collect();
        for _ in 0..20_000 {
            let length = prng.below(8);
            let text: String =
                (0..length).map(|_| some[prng.below(some.len() as u64) as usize]).collect();
            let once = folded(&text);
            assert_eq!(folded(&once), once, "{text:?}");
        }
    }
}
