//! Which lines somebody means who names them by label, or by whom is heard on them.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::ids::StreamId;
use crate::shell::exit::{Exit, Failure};
use crate::store::catalog::model::{Name, Participant};
use crate::store::catalog::{RsEntry, senders_of};
use crate::store::journal::entry::line_name;
use crate::store::query::folded;

/// The lines of `rs` that have one of these labels, or all where none is named; of them, those on which
/// `party` is heard: an address (`sip:a@b`, `a@b`, `a`) or part of a name. Exit 3 where there is none.
pub(crate) fn lines_of(
    rs: &RsEntry,
    labels: &[String],
    party: Option<&str>,
) -> Result<BTreeSet<StreamId>, Failure> {
    let names: BTreeMap<StreamId, String> = rs
        .streams
        .iter()
        .map(|(id, entry)| {
            let description = &entry.description;
            (*id, line_name(description.label.as_deref(), description.line))
        })
        .collect();
    let all = |names: &BTreeMap<StreamId, String>| {
        names.values().collect::<BTreeSet<_>>().into_iter().cloned().collect::<Vec<_>>().join(", ")
    };
    if let Some(unknown) = labels.iter().find(|label| !names.values().any(|name| name == *label)) {
        let why = format!("recording {} has no line {unknown}; it has {}", rs.id, all(&names));
        return Err(Failure::new(Exit::NotFound, why));
    }
    let labelled = names.iter().filter(|(_, name)| labels.is_empty() || labels.contains(name));
    let mut lines: BTreeSet<StreamId> = labelled.map(|(id, _)| *id).collect();
    if let Some(party) = party {
        let senders = senders_of(rs);
        lines.retain(|line| senders[line].iter().any(|one| is_meant(one, party)));
        if lines.is_empty() {
            let heard = senders.values().flatten().flat_map(|one| &one.names).map(told);
            let heard: BTreeSet<String> = heard.collect();
            let heard = heard.into_iter().collect::<Vec<_>>().join(", ");
            let of = if heard.is_empty() { "it names nobody".to_owned() } else { heard };
            let why = format!("recording {}: nobody heard on these lines is {party}: {of}", rs.id);
            return Err(Failure::new(Exit::NotFound, why));
        }
    }
    Ok(lines)
}

fn told(name: &Name) -> String {
    name.name.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| name.aor.clone())
}

/// Whether `text` means that participant, by any name that it ever had.
pub(crate) fn is_meant(one: &Participant, text: &str) -> bool {
    let text = folded(text.trim());
    let former = one.former_names.iter().flat_map(|list| &list.names);
    !text.is_empty()
        && one.names.iter().chain(former).any(|name| {
            let aor = folded(&name.aor);
            let address = without_scheme(&aor);
            let user = address.split('@').next().unwrap_or_default();
            let wanted = without_scheme(&text);
            let is_named = name.name.as_ref().is_some_and(|own| folded(own).contains(&text));
            is_named || wanted == address || wanted == user
        })
}

fn without_scheme(aor: &str) -> &str {
    ["sip:", "sips:", "tel:"].iter().find_map(|scheme| aor.strip_prefix(scheme)).unwrap_or(aor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_is_known_by_address_user_or_part_of_a_name() {
        let names = vec![Name {
            aor: "sip:Anna@desk.example".to_owned(),
            name: Some("Anna Berg".to_owned()),
        }];
        let one = Participant {
            participant_id: "p".to_owned(),
            names,
            former_names: Vec::new(),
            periods: Vec::new(),
            defined: true,
        };
        for good in
            ["sip:anna@desk.example", "anna@desk.example", "ANNA", "berg", "Anna Berg", "ÀNNA"]
        {
            assert!(is_meant(&one, good), "{good}");
        }
        for bad in ["", "  ", "ann@desk.example", "desk.example", "sip:", "bob"] {
            assert!(!is_meant(&one, bad), "{bad}");
        }
    }
}
