//! What logs outside of a store and its list of keys say.

use floortape::store::evidence::{Anchor, Keys, emit_keys, parse_keys};

/// An anchor that is read is written the same again, whatever stood before it; so is a list of keys, and
/// each segment has one signer.
pub fn evidence(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for line in text.lines() {
        if let Ok(anchor) = Anchor::parse(line) {
            assert!(line.ends_with(&anchor.line()));
            assert_eq!(Anchor::parse(&anchor.line()), Ok(anchor));
        }
    }
    let Ok(statements) = parse_keys(data) else { return };
    assert_eq!(emit_keys(&statements), data);
    if let Ok(keys) = Keys::of(&statements) {
        for (worker, number) in [(0, 1), (0, u64::MAX), (u16::MAX, 0)] {
            assert!(keys.all().any(|key| key == keys.signer(worker, number)));
        }
    }
}
