//! Oddities in words: each once, bounded, fit for a terminal.

/// Kept of one RS's metadata: a peer that repeats them must not fill memory.
const QUIRKS_MAX: usize = 128;
/// Longest text of one, in characters.
const QUIRK_CHARS_MAX: usize = 240;

/// What was odd, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Quirks(Vec<String>);

impl Quirks {
    pub(super) fn note(&mut self, text: &str) {
        let plain = text.chars().map(|c| if c.is_control() { '?' } else { c });
        let text: String = plain.take(QUIRK_CHARS_MAX).collect();
        if self.0.len() < QUIRKS_MAX && !self.0.contains(&text) {
            self.0.push(text);
        }
    }

    pub(super) fn all(&self) -> &[String] {
        &self.0
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_kept_once_and_without_control_characters() {
        let mut quirks = Quirks::default();
        (0..500).for_each(|n| quirks.note(&format!("\x1b{}{}", n / 2, "x".repeat(500))));
        assert_eq!(quirks.all().len(), QUIRKS_MAX);
        assert!(quirks.all().iter().all(|text| text.starts_with('?')));
        assert!(quirks.all().iter().all(|text| text.chars().count() == QUIRK_CHARS_MAX));
    }
}
