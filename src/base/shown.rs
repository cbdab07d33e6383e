//! Text from outside, as people are shown it.

/// Nothing in it ends a line, moves a terminal, or turns round how what stands beside it is read.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unfit(c) { '\u{fffd}' } else { c }).collect()
}

/// Controls, separators of lines and paragraphs, and what overrides or isolates the direction of writing
/// (UAX #9 §2): a name with one of these would be read as another, and so would the rest of its line. Marks of
/// direction, which Arabic and Hebrew names have, stay.
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_piece_of_a_line() {
        assert_eq!(plain("a\x1b[31m\n"), "a\u{fffd}[31m\u{fffd}");
        assert_eq!(plain("\u{202e}nnA\u{2066}\u{2028}"), "\u{fffd}nnA\u{fffd}\u{fffd}");
        let kept = "Zo\u{eb} \u{5d0}\u{200f} \u{1f600}";
        assert_eq!(plain(kept), kept);
    }
}
