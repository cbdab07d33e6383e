//! Metadata over time: any documents in any order.

use floortape::base::time::Wall;
use floortape::store::metadata::{Arrival, Model, Spans};
use floortape::wire::metadata::{Root, parse};

/// Stands between the documents of an input. A document may follow the line `BYE`.
pub const BETWEEN: &str = "\n%%\n";

/// The model stays sound, and its state says all there is to say: a new model that hears it as one
/// complete document is in that state, and the old one stays in it.
pub fn merge(data: &[u8]) {
    let mut model = Model::default();
    let text = String::from_utf8_lossy(data);
    for (number, document) in text.split(BETWEEN).take(8).enumerate() {
        let (method, document) = match document.strip_prefix("BYE\n") {
            Some(document) => ("BYE", document),
            None => ("UPDATE", document),
        };
        let number = number as u32;
        let arrival = Arrival { at: Wall(i64::from(number)), method, cseq: number };
        match parse(document.as_bytes(), None) {
            Ok(Root::Recording(document)) => assert!(model.take(&arrival, *document)),
            Ok(Root::SnapshotRequest { .. }) => {}
            Err(fault) => model.unreadable(&arrival, &fault),
        }
        sound(&model);
    }
    model.end(Wall(99));
    let state = model.state();
    assert!(state.sessions.is_empty() && state.participants.is_empty() && state.streams.is_empty());
}

fn sound(model: &Model) {
    model.groups().iter().for_each(|row| ordered(&row.spans));
    model.sessions().iter().for_each(|row| {
        ordered(&row.spans);
        ordered(&row.recorded);
    });
    model.participants().iter().for_each(|row| ordered(&row.spans));
    model.streams().iter().for_each(|row| {
        ordered(&row.spans);
        assert!(row.labels.now().is_none() || row.spans.is_open());
    });
    model.memberships().iter().for_each(|row| ordered(&row.spans));
    model.contributions().iter().for_each(|row| ordered(&row.spans));
    for label in ["1", "2", ""] {
        for part in model.on_label(label) {
            assert!(part.to.is_none_or(|to| to.arrival >= part.from.arrival));
        }
    }
    assert!(model.quirks().iter().all(|quirk| !quirk.contains(char::is_control)));
    let state = model.state();
    let arrival = Arrival { at: Wall(50), method: "UPDATE", cseq: 50 };
    let mut new = Model::default();
    assert!(new.take(&arrival, state.clone()));
    assert_eq!(new.state(), state);
    assert_eq!(new.snapshot_wanted(), None);
    let mut again = model.clone();
    again.take(&arrival, state.clone());
    assert_eq!(again.state(), state);
}

fn ordered(spans: &Spans) {
    let before = spans.len().saturating_sub(1);
    assert!(spans.iter().take(before).all(|span| span.to.is_some()), "{spans:?}");
    let forward = |to: &floortape::store::metadata::Moment, from: Wall| to.arrival >= from;
    for span in spans.iter() {
        assert!(span.to.as_ref().is_none_or(|to| forward(to, span.from.arrival)), "{span:?}");
    }
}
