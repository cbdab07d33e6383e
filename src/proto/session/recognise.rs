//! Is this INVITE a Recording Session? RFC 7866 §6.1.1 wants the option tag and the feature tag;
//! what SRCs in the field send is less, so the default takes any sure sign and notes what was
//! missing. Strict peers get the RFC's letter.

use crate::wire::sdp::Description;

use super::body::{Body, METADATA_TYPE, METADATA_TYPE_OLD};
use super::line::{Line, WhyRefused};
use super::negotiate::Negotiated;
use super::policy::Policy;

/// Where a feature tag (`+sip.src`) stood in Contact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeatureTag {
    /// Nowhere.
    #[default]
    Absent,
    /// A Contact header parameter (RFC 3840 §9): the only right form.
    Header,
    /// Inside the URI (Avaya SBCE).
    InUri,
    /// A header parameter without `+sip.` (BroadWorks, Webex).
    Bare,
}

impl FeatureTag {
    /// Looks for the tag in a raw Contact value. `name` is `src` or `srs`.
    ///
    /// ```
    /// use floortape::proto::session::FeatureTag;
    /// let find = |contact| FeatureTag::in_contact(contact, "src");
    /// assert_eq!(find("<sip:a@b>;+sip.src"), FeatureTag::Header);
    /// assert_eq!(find("<sip:a@b;+sip.src>"), FeatureTag::InUri);
    /// assert_eq!(find("<sip:a@b>;expires=60;src"), FeatureTag::Bare);
    /// assert_eq!(find("\"+sip.src\" <sip:a@b>"), FeatureTag::Absent);
    /// ```
    pub fn in_contact(contact: &str, name: &str) -> Self {
        let (uri, behind) = match contact.rfind('>') {
            // The URI is what stands in the last brackets; a display name before them says nothing.
            Some(end) => {
                let start = contact[..end].rfind('<').map_or(0, |at| at + 1);
                (&contact[start..end], &contact[end + 1..])
            }
            // Without brackets parameters belong to the header (RFC 3261 §20.10).
            None => contact.split_at(contact.find(';').unwrap_or(contact.len())),
        };
        let full = format!("+sip.{name}");
        let has = |text: &str, wanted: &str| {
            text.split(';').skip(1).any(|parameter| {
                let (own, value) = parameter.split_once('=').unwrap_or((parameter, "true"));
                let value = value.trim().trim_matches('"');
                own.trim().eq_ignore_ascii_case(wanted)
                    && (value.is_empty() || value.eq_ignore_ascii_case("true"))
            })
        };
        if has(behind, &full) {
            FeatureTag::Header
        } else if has(uri, &full) {
            FeatureTag::InUri
        } else if has(behind, name) {
            FeatureTag::Bare
        } else {
            FeatureTag::Absent
        }
    }
}

/// What an initial INVITE's headers say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Option tags of Require.
    pub require: &'a [&'a str],
    /// Option tags of Supported.
    pub supported: &'a [&'a str],
    /// Option tags that the caller understands besides `siprec`.
    pub understood: &'a [&'a str],
    /// `+sip.src` in Contact.
    pub src: FeatureTag,
}

/// A final answer other than 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status code.
    pub code: u16,
    /// Reason phrase.
    pub reason: &'static str,
    /// Headers that go with it.
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// Why, in words: the text of its Warning, else its reason.
    pub fn why(&self) -> &str {
        let warning = self.headers.iter().find(|(name, _)| *name == "Warning");
        let text = warning.and_then(|(_, value)| value.split_once('"')?.1.strip_suffix('"'));
        text.unwrap_or(self.reason)
    }

    fn new(code: u16, reason: &'static str, header: Option<(&'static str, String)>) -> Self {
        Refusal { code, reason, headers: header.into_iter().collect() }
    }

    /// 400, with what was expected and found.
    pub fn malformed(why: &str) -> Self {
        Self::new(400, "Bad Request", Some(("Warning", warning(399, why))))
    }

    /// 403, with the reason.
    pub fn forbidden(why: &str) -> Self {
        Self::new(403, "Forbidden", Some(("Warning", warning(399, why))))
    }

    fn not_acceptable(code: u16, why: &str) -> Self {
        Self::new(488, "Not Acceptable Here", Some(("Warning", warning(code, why))))
    }
}

/// RFC 3261 §20.43: code, agent, quoted text.
fn warning(code: u16, text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() || c == '"' || c == '\\' { '\'' } else { c })
        .collect();
    format!("{code} floortape \"{clean}\"")
}

/// What an INVITE is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// A Recording Session.
    Rs {
        /// What was missing or odd, in words an administrator of the SRC can act on.
        quirks: Vec<String>,
    },
    /// Answer with this.
    Refuse(Refusal),
}

/// Judges an initial INVITE. The order is RFC 3261 §8.2's: extensions first, then content.
pub fn recognise(request: &Request<'_>, body: &Body, policy: &Policy) -> Recognition {
    match judge(request, body, policy) {
        Ok(quirks) => Recognition::Rs { quirks },
        Err(refusal) => Recognition::Refuse(refusal),
    }
}

fn judge(request: &Request<'_>, body: &Body, policy: &Policy) -> Result<Vec<String>, Refusal> {
    unknown_extensions(request)?;
    let tagged = contains(request.require, "siprec") || contains(request.supported, "siprec");
    let mut quirks = if policy.strict {
        // What is no RS is told so before anybody looks into its body.
        strict(request, tagged)?;
        content(body)?;
        Vec::new()
    } else {
        content(body)?;
        lenient(request, tagged, body)?
    };
    quirks.extend(body.quirks.iter().cloned());
    let Some(offer) = &body.offer else {
        return Err(Refusal::not_acceptable(
            399,
            "expected an SDP offer in the INVITE that starts a recording session, found none",
        ));
    };
    if has_keys(offer) && !policy.signalling_protected {
        if policy.strict {
            return Err(Refusal::not_acceptable(399, "SRTP keys over unprotected signalling"));
        }
        quirks.push("SRTP keys over unprotected signalling (RFC 4568 section 8.3)".to_owned());
    }
    Ok(quirks)
}

fn contains(tags: &[&str], wanted: &str) -> bool {
    tags.iter().any(|tag| tag.trim().eq_ignore_ascii_case(wanted))
}

/// RFC 3261 §8.2.2.3.
fn unknown_extensions(request: &Request<'_>) -> Result<(), Refusal> {
    let unknown: Vec<&str> = request
        .require
        .iter()
        .map(|tag| tag.trim())
        .filter(|tag| !tag.is_empty() && !tag.eq_ignore_ascii_case("siprec"))
        .filter(|tag| !contains(request.understood, tag))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(420, "Bad Extension", Some(("Unsupported", unknown.join(", ")))))
}

fn extension_required() -> Refusal {
    Refusal::new(421, "Extension Required", Some(("Require", "siprec".to_owned())))
}

fn strict(request: &Request<'_>, tagged: bool) -> Result<(), Refusal> {
    if !tagged {
        return Err(extension_required());
    }
    if request.src != FeatureTag::Header {
        let why = "expected the feature tag +sip.src as a Contact header parameter";
        return Err(Refusal::forbidden(why));
    }
    Ok(())
}

fn lenient(request: &Request<'_>, tagged: bool, body: &Body) -> Result<Vec<String>, Refusal> {
    // RFC 7866 §6.1.2: an SRC may show its tag in the CS too, so the tag alone makes no RS.
    let marked =
        request.src != FeatureTag::Absent && body.offer.as_ref().is_some_and(looks_recorded);
    if !tagged && body.metadata_part.is_none() && !marked {
        return Err(extension_required());
    }
    let mut quirks = Vec::new();
    if !tagged {
        quirks.push("no siprec option tag in Require (RFC 7866 section 6.1.1)".to_owned());
    } else if !contains(request.require, "siprec") {
        quirks.push("siprec stands in Supported, not in Require".to_owned());
    }
    match request.src {
        FeatureTag::Header => {}
        FeatureTag::Absent => {
            quirks.push("no +sip.src in Contact (RFC 7866 section 6.1.1)".to_owned())
        }
        FeatureTag::InUri => quirks.push("+sip.src stands inside the Contact URI".to_owned()),
        FeatureTag::Bare => quirks.push("Contact has src instead of +sip.src".to_owned()),
    }
    Ok(quirks)
}

fn looks_recorded(offer: &Description) -> bool {
    use crate::wire::sdp::Direction::SendOnly;
    offer.media.iter().any(|media| media.label.is_some() || offer.direction_of(media) == SendOnly)
}

/// RFC 5621 §8.1, §8.4.
fn content(body: &Body) -> Result<(), Refusal> {
    if body.not_understood.is_empty() {
        return Ok(());
    }
    let accept = format!("application/sdp, multipart/mixed, {METADATA_TYPE}, {METADATA_TYPE_OLD}");
    Err(Refusal::new(415, "Unsupported Media Type", Some(("Accept", accept))))
}

fn has_keys(offer: &Description) -> bool {
    offer.media.iter().any(|media| media.port != 0 && !media.crypto.is_empty())
}

impl Body {
    /// The content rules alone, for a request inside a dialog: 415, or nothing.
    pub fn refusal(&self) -> Option<Refusal> {
        content(self).err()
    }
}

/// The refusal of an initial INVITE of which no m-line was taken, or of a change that would lose one:
/// 488 with the reasons.
pub fn not_acceptable(negotiated: &Negotiated) -> Refusal {
    let no_address = |line: &Line| matches!(line.refused(), Some(WhyRefused::NoAddress(_)));
    // RFC 3261 §20.43: network address formats, or media types.
    let code = if negotiated.lines.iter().any(no_address) { 301 } else { 304 };
    let why: Vec<String> = negotiated
        .lines
        .iter()
        .filter_map(|line| Some(format!("m-line {}: {}", line.index + 1, line.refused()?)))
        .take(4)
        .collect();
    if why.is_empty() {
        return Refusal::not_acceptable(304, "the offer has no m-line");
    }
    Refusal::not_acceptable(code, &why.join("; "))
}
