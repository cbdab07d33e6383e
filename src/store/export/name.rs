//! File names from labels. A label comes from outside: it never becomes a path.

use std::collections::BTreeSet;

/// Longest stem kept: file systems take 255 bytes, and `~99.pcapng` must fit behind it.
const STEM_BYTES_MAX: usize = 200;

/// Gives out file stems, each once.
#[derive(Debug)]
pub struct Names(BTreeSet<String>);

impl Default for Names {
    fn default() -> Self {
        // `mixed.wav` is the export's own.
        Names(BTreeSet::from(["mixed".to_owned()]))
    }
}

impl Names {
    /// The stem for a stream: its label with everything but `[A-Za-z0-9._-]` %-encoded and no
    /// leading dot, else `mN` (`line` counts from 0, N from 1); repeats get `~2`, `~3`, ….
    pub fn stem(&mut self, label: Option<&str>, line: u16) -> String {
        let stem = match label {
            Some(label) if !label.is_empty() => sanitise(label),
            _ => format!("m{}", u32::from(line) + 1),
        };
        let mut name = stem.clone();
        let mut repeat = 2;
        // Compared without case: a folder on another system may not tell `A` from `a`.
        while !self.0.insert(name.to_ascii_lowercase()) {
            name = format!("{stem}~{repeat}");
            repeat += 1;
        }
        name
    }
}

fn sanitise(label: &str) -> String {
    let mut stem = String::new();
    for byte in label.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b'-')
            || (byte == b'.' && !stem.is_empty());
        let next = if plain { (byte as char).to_string() } else { format!("%{byte:02X}") };
        if stem.len() + next.len() > STEM_BYTES_MAX {
            break;
        }
        stem.push_str(&next);
    }
    // Windows has devices of these names, whatever stands behind the first dot.
    let first = stem.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let numbered = |port: &str| {
        first.strip_prefix(port).is_some_and(|rest| matches!(rest.as_bytes(), [b'0'..=b'9']))
    };
    if ["CON", "PRN", "AUX", "NUL"].contains(&&*first) || numbered("COM") || numbered("LPT") {
        let byte = stem.remove(0) as u8;
        stem.insert_str(0, &format!("%{byte:02X}"));
    }
    stem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_never_become_paths_and_never_collide() {
        let mut names = Names::default();
        for (label, stem) in [
            (Some("1"), "1"),
            (Some("1"), "1~2"),
            (Some("1"), "1~3"),
            (Some("../../x"), "%2E.%2F..%2Fx"),
            (Some(".hidden"), "%2Ehidden"),
            (Some("a b/ü%"), "a%20b%2F%C3%BC%25"),
            (Some("mixed"), "mixed~2"),
            (None, "m4"),
            (Some(""), "m4~2"),
            (Some("x.y_z-1"), "x.y_z-1"),
            (Some("X.y_z-1"), "X.y_z-1~2"),
            (Some("AUX"), "%41UX"),
            (Some("com1.desk"), "%63om1.desk"),
            (Some("auxiliary"), "auxiliary"),
            (Some("com10"), "com10"),
        ] {
            assert_eq!(names.stem(label, 3), stem);
        }
        let long = "é".repeat(4_000);
        assert!(names.stem(Some(&long), 0).len() <= STEM_BYTES_MAX);
    }
}
