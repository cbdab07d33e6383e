//! The shape of `[policy]`: what is recorded, and who may record.

use serde::{Deserialize, Serialize};

/// `[policy]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What becomes of a line that no rule decides about.
    pub record: Rest,
    /// Who may begin a recording.
    pub sources: Sources,
    /// Metadata and new recordings are taken over TLS only.
    pub secure_signalling: bool,
    /// In order; the first that fits a line decides about it.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// Whether anything may be left out of a recording.
    pub fn is_selective(&self) -> bool {
        self.record == Rest::Listed || self.rules.iter().any(|rule| !rule.record)
    }
}

/// What becomes of a line that no rule decides about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rest {
    /// It is recorded.
    #[default]
    All,
    /// It is not.
    Listed,
}

/// Who may begin a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sources {
    /// Everybody.
    #[default]
    Any,
    /// Who has an entry in `[[peers]]`.
    Peers,
}

/// `[[policy.rules]]`: decides about a line that meets all conditions it has; of the values of one
/// condition any will do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name in reports; no two rules have the same.
    pub name: String,
    /// Whether a line that it fits is recorded.
    pub record: bool,
    /// Names of `[[peers]]`: who sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Vec<String>>,
    /// Who is in its call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aor: Option<Vec<AorPattern>>,
    /// Its `a=label`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Vec<String>>,
    /// Its media.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Vec<MediaKind>>,
    /// The codec that is taken of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<Vec<String>>,
}

impl Rule {
    /// Whether it has a condition at all.
    pub fn has_condition(&self) -> bool {
        let Rule { peer, aor, label, media, codec, .. } = self;
        peer.is_some() || aor.is_some() || label.is_some() || media.is_some() || codec.is_some()
    }
}

/// Media of an m-line that can be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Voice.
    Audio,
    /// Video.
    Video,
    /// Real-time text.
    Text,
}

impl MediaKind {
    /// As SDP has it.
    pub fn name(self) -> &'static str {
        match self {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
            MediaKind::Text => "text",
        }
    }
}

/// An address of record in which `*` stands for any characters, also none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AorPattern(String);

impl AorPattern {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<AorPattern> for String {
    fn from(pattern: AorPattern) -> Self {
        pattern.0
    }
}

impl TryFrom<String> for AorPattern {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        // `?` and `[a-z]` are wildcards elsewhere: who writes one would wait in vain for its calls.
        // Brackets are those of IPv6 hosts, in which only hex digits and colons stand.
        let literal = |inside: &str| {
            inside.split(']').next().is_some_and(|host| {
                host.contains(':')
                    && host.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c))
            })
        };
        let class = text.split('[').skip(1).any(|inside| !literal(inside));
        let unfit = |c: char| c.is_control() || c.is_whitespace() || "?<>\"\\;,{}".contains(c);
        if text.is_empty() || class || text.contains(unfit) {
            return Err(format!(
                "expected an address such as \"sip:*@desk.example\" or \"tel:+49*\", in which * is the \
                 only wildcard and no parameters stand; found \"{text}\""
            ));
        }
        Ok(AorPattern(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_the_only_wildcard() {
        let made = |text: &str| AorPattern::try_from(text.to_owned());
        for good in ["*", "sip:*@private.example", "tel:+49*", "ann@x", "sip:a@[2001:db8::1]"] {
            assert_eq!(made(good).expect("fine").as_str(), good);
        }
        for bad in ["", "sip:a?@x", "sip:[a-c]*@x", "sip:a b@x", "<sip:a@x>", "sip:a@x;user=phone"]
        {
            assert!(made(bad).expect_err("no pattern").contains(&format!("\"{bad}\"")), "{bad}");
        }
    }

    #[test]
    fn only_a_policy_that_leaves_something_out_is_selective() {
        let rule = |record| Rule {
            name: "r".to_owned(),
            record,
            peer: None,
            aor: None,
            label: Some(vec!["1".to_owned()]),
            media: None,
            codec: None,
        };
        assert!(!Policy::default().is_selective());
        assert!(!Policy { rules: vec![rule(true)], ..Policy::default() }.is_selective());
        assert!(Policy { rules: vec![rule(false)], ..Policy::default() }.is_selective());
        assert!(Policy { record: Rest::Listed, ..Policy::default() }.is_selective());
    }
}
