//! Addresses of record as a policy compares them. What an SRC writes there is its own choice (RFC 7865
//! §6.5.1): a URI of any of three schemes, with a port or parameters, or a bare number. Compared is who
//! is meant: without case, `sips` as `sip`, no port, no parameters, numbers without separators.

/// An address as it is compared.
///
/// ```
/// use floortape::wire::aor::normal_aor;
/// assert_eq!(normal_aor("<sips:Bob@X.example:5061;transport=tls>"), "sip:bob@x.example");
/// assert_eq!(normal_aor("tel:+49-30-(12)34;phone-context=x"), "tel:+49301234");
/// assert_eq!(normal_aor("bob@x"), "sip:bob@x");
/// ```
pub fn normal_aor(aor: &str) -> String {
    let aor = bare(aor);
    if let Some((scheme, rest)) = split_scheme(&aor) {
        return match scheme {
            "sip" | "sips" => format!("sip:{}", sip(rest)),
            "tel" => format!("tel:{}", number(rest)),
            _ => aor.clone(),
        };
    }
    if aor.contains('@') {
        format!("sip:{}", sip(&aor))
    } else if aor.chars().any(|c| c.is_ascii_digit()) && aor.chars().all(is_dialled) {
        format!("tel:{}", number(&aor))
    } else {
        aor
    }
}

/// The same, and the number that a SIP address of a telephone stands for (RFC 3261 §19.1.6).
pub fn forms(aor: &str) -> Vec<String> {
    let normal = normal_aor(aor);
    let user = normal.strip_prefix("sip:").and_then(|rest| rest.rsplit_once('@'));
    let is_phone = bare(aor).contains("user=phone");
    let tel = user.filter(|(user, _)| {
        (is_phone || user.starts_with('+'))
            && user.chars().any(|c| c.is_ascii_digit())
            && user.chars().all(is_dialled)
    });
    let tel = tel.map(|(user, _)| format!("tel:{}", number(user)));
    std::iter::once(normal).chain(tel).collect()
}

/// Whether a normal pattern, in which `*` stands for any characters, fits a normal address.
pub fn fits(pattern: &str, aor: &str) -> bool {
    let (pattern, aor) = (pattern.as_bytes(), aor.as_bytes());
    let (mut p, mut a) = (0, 0);
    // Where the last `*` stands, and how much it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while a < aor.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, a));
            p += 1;
        } else if pattern.get(p) == Some(&aor[a]) {
            (p, a) = (p + 1, a + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, a) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What stands in brackets, if anything does; lower case, escapes resolved.
fn bare(aor: &str) -> String {
    let inside = aor.split_once('<').map_or(aor, |(_, rest)| rest.split('>').next().unwrap_or(""));
    unescape(inside.trim()).to_lowercase()
}

/// `%62` is `b` (RFC 3261 §19.1.4).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let hex = digits.filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| *byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*byte);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn split_scheme(aor: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = aor.split_once(':')?;
    let is_name = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_name.then_some((scheme, rest))
}

/// User and host of what stands behind `sip:`.
fn sip(rest: &str) -> String {
    match rest.rsplit_once('@') {
        Some((user, at)) => {
            let user = user.split([';', ':']).next().unwrap_or("");
            format!("{user}@{}", host(at))
        }
        None => host(rest).to_owned(),
    }
}

fn host(text: &str) -> &str {
    let text = text.split([';', '?', '/']).next().unwrap_or("");
    match text.find(']') {
        Some(end) if text.starts_with('[') => &text[..=end],
        _ => text.split(':').next().unwrap_or("").trim_end_matches('.'),
    }
}

fn number(text: &str) -> String {
    let text = text.split(';').next().unwrap_or("");
    text.chars().filter(|c| !is_separator(*c)).collect()
}

/// RFC 3966 §3: they say nothing.
fn is_separator(c: char) -> bool {
    c.is_whitespace() || "-.()".contains(c)
}

fn is_dialled(c: char) -> bool {
    c.is_ascii_digit() || is_separator(c) || "+*#".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn the_same_party_is_the_same_however_it_is_written() {
        for (written, normal) in [
            ("sip:bob@x", "sip:bob@x"),
            (" SIP:Bob@X. ", "sip:bob@x"),
            ("\"Bob\" <sip:bob@x:5060>;tag=1", "sip:bob@x"),
            ("sip:%62ob:secret@x;user=phone?a=b", "sip:bob@x"),
            ("sips:bob@[2001:DB8::1]:5061", "sip:bob@[2001:db8::1]"),
            ("sip:x:5060", "sip:x"),
            ("+49 30 12-34", "tel:+49301234"),
            ("2025550122@192.0.2.55", "sip:2025550122@192.0.2.55"),
            ("desk.example", "desk.example"),
            ("im:bob@x", "im:bob@x"),
            ("%zz%", "%zz%"),
            ("", ""),
        ] {
            assert_eq!(normal_aor(written), normal, "{written}");
            assert_eq!(normal_aor(normal), normal, "{written} twice");
        }
    }

    #[test]
    fn a_sip_address_of_a_telephone_is_its_number_too() {
        assert_eq!(forms("sip:+49-30@gw")[1..], ["tel:+4930"]);
        assert_eq!(forms("sip:4930@gw;user=phone")[1..], ["tel:4930"]);
        assert!(forms("sip:4930@gw")[1..].is_empty(), "an extension may look like that");
        assert!(forms("sip:bob@gw;user=phone")[1..].is_empty());
    }

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, aor, wanted) in [
            ("*", "sip:bob@x", true),
            ("*", "", true),
            ("sip:*@x", "sip:bob@x", true),
            ("sip:*@x", "sip:bob@x.y", false),
            ("sip:*@*.x", "sip:bob@a.b.x", true),
            ("tel:+49*", "tel:+4930", true),
            ("tel:+49*", "tel:+39", false),
            ("sip:b*b*b@x", "sip:bbbb@x", true),
            ("sip:bob@x", "sip:bob@x", true),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern, aor), wanted, "{pattern} {aor}");
        }
    }

    #[test]
    fn any_text_has_a_form() {
        let mut prng = Prng::new(9);
        for _ in 0..5_000 {
            let length = prng.below(24);
            let text: String = (0..length)
                .map(|_| {
                    "sip:te<>@%4[];?.+ä*".chars().nth(prng.below(19) as usize).expect("nineteen")
                })
                .collect();
            let normal = normal_aor(&text);
            assert!(fits("*", &normal) && fits(&normal, &normal), "{text}");
        }
    }
}
