//! Words: how text is cut for the search, in a query and in an index alike.

use super::folding::{folded, is_of_word};

/// Words taken of one text; an extension may be as long as a document.
pub const WORDS_MAX: usize = 2_000;
/// Bytes of a word that count.
const WORD_BYTES_MAX: usize = 120;
/// Stands for an ASCII character that is neither letter nor digit in a value that is one word: the control
/// pictures, which no text is made of, so that no index cuts it there.
const PICTURES: u32 = 0x2400;

/// The words of `text`: runs of letters and digits, [`folded`].
pub fn tokens(text: &str) -> Vec<String> {
    let text = folded(text);
    let runs = text.split(|c: char| !is_of_word(c)).filter(|run| !run.is_empty());
    runs.take(WORDS_MAX).map(|run| cut(run.to_owned())).collect()
}

fn cut(mut word: String) -> String {
    if word.len() > WORD_BYTES_MAX {
        let end = (0..=WORD_BYTES_MAX).rev().find(|at| word.is_char_boundary(*at));
        word.truncate(end.unwrap_or(0));
    }
    word
}

/// A value that is one word whatever it is made of, [`folded`]: a label, a Call-ID.
pub fn coded(text: &str) -> String {
    let code = |c: char| match c {
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => {
            char::from_u32(PICTURES + u32::from(c)).unwrap_or(c)
        }
        c => c,
    };
    cut(folded(text.trim()).chars().map(code).collect())
}

/// An id of a Communication Session without case and separators: logs write UUIDs in several ways.
pub fn plain_session(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    text.strip_prefix("urn:uuid:").unwrap_or(&text).replace('-', "")
}
