//! Whole messages through every stage: SIP, multipart, SDP, metadata, recognition, negotiation.
//!
//! Two sets: messages published elsewhere, read from `../shared/spec/examples` where that folder lies
//! beside the project, and our own in `tests/corpus`. The tables say what each must come to.

use std::fs;
use std::path::{Path, PathBuf};

use floortape::base::time::Wall;
use floortape::proto::session::{
    AnswerOrigin, Body, FeatureTag, LineChange, Local, Negotiated, Policy, Recognition, Request,
    emit_answer, negotiate, not_acceptable, recognise,
};
use floortape::store::metadata::{Arrival, Direction, Model, attribute, sdp_lines};
use floortape::wire::metadata::{self, DataMode, Dialect, Document, Root};
use floortape::wire::sdp::Description;
use floortape::wire::sip::{Message, parse_datagram};

fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

/// The folder of published messages; says so where it is absent.
fn published() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/spec/examples");
    if !folder.is_dir() {
        println!("skipped: {} is absent", folder.display());
        return None;
    }
    Some(folder)
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn message(path: &Path) -> Message {
    parse_datagram(&bytes(path)).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()))
}

/// What an initial INVITE comes to.
struct Outcome {
    code: u16,
    quirks: Vec<String>,
    body: Body,
    negotiated: Option<Negotiated>,
}

fn judge(message: &Message, policy: &Policy) -> Outcome {
    let header = |name| message.headers.get(name).unwrap_or_default();
    let read =
        Body::read(header("Content-Type"), header("Content-Disposition"), &message.body, policy);
    let body = match read {
        Ok(body) => body,
        Err(refusal) => {
            let (code, body) = (refusal.code, Body::default());
            return Outcome { code, quirks: Vec::new(), body, negotiated: None };
        }
    };
    let require: Vec<&str> = message.headers.list("Require").collect();
    let supported: Vec<&str> = message.headers.list("Supported").collect();
    let src = message
        .headers
        .list("Contact")
        .next()
        .map_or(FeatureTag::Absent, |contact| FeatureTag::in_contact(contact, "src"));
    let request = Request { require: &require, supported: &supported, understood: &[], src };
    let (code, quirks) = match recognise(&request, &body, policy) {
        Recognition::Refuse(refusal) => (refusal.code, Vec::new()),
        Recognition::Rs { quirks } => (200, quirks),
    };
    let mut outcome = Outcome { code, quirks, body, negotiated: None };
    if let (200, Some(offer)) = (outcome.code, &outcome.body.offer) {
        let negotiated = negotiate(offer, None, policy);
        if negotiated.accepted().next().is_none() {
            outcome.code = not_acceptable(&negotiated).code;
        }
        outcome.negotiated = Some(negotiated);
    }
    outcome
}

fn document(bytes: &[u8]) -> Document {
    match metadata::parse(bytes, None) {
        Ok(Root::Recording(document)) => *document,
        other => panic!("no recording: {other:?}"),
    }
}

fn plain_answer(negotiated: &Negotiated) -> String {
    let locals: Vec<Option<Local<'_>>> = (0..negotiated.lines.len())
        .map(|n| Some(Local { port: 20_000 + 2 * n as u16, key: None, address: None }))
        .collect();
    let address = "192.0.2.20".parse().expect("an address");
    emit_answer(
        negotiated,
        &locals,
        &AnswerOrigin { session_id: 1, version: 1, address, connection: address },
    )
}

#[test]
fn our_own_messages_come_to_what_the_table_says() {
    // File, lenient, strict, accepted lines (lenient), active ones, a word of a quirk.
    let table: &[(&str, u16, u16, usize, usize, &str)] = &[
        ("metadata-first.sip", 200, 200, 2, 2, ""),
        ("no-closing-delimiter.sip", 200, 200, 2, 2, ""),
        ("sdes-two-streams.sip", 200, 488, 2, 2, "unprotected signalling"),
        ("sdes-none-acceptable.sip", 488, 488, 0, 0, ""),
        ("tag-in-uri-no-option.sip", 200, 421, 2, 2, "inside the Contact URI"),
        ("bare-src-hold-no-direction.sip", 200, 421, 2, 1, "src instead of +sip.src"),
        ("not-siprec.sip", 421, 421, 0, 0, ""),
        ("unknown-extension.sip", 420, 420, 0, 0, ""),
        ("gtd-optional.sip", 200, 200, 2, 2, ""),
        ("gtd-required.sip", 415, 415, 0, 0, ""),
        ("broken-mime.sip", 400, 400, 0, 0, ""),
        ("offerless.sip", 488, 488, 0, 0, ""),
        ("broken-metadata.sip", 200, 200, 2, 2, ""),
        ("entity-bomb.sip", 200, 200, 2, 2, ""),
        ("draft-namespace-disguised.sip", 200, 421, 2, 2, "metadata came as application/xml"),
        ("label-escapes-path.sip", 200, 200, 1, 1, ""),
        ("ipv6-only.sip", 200, 200, 1, 1, ""),
        ("metadata-contradicts.sip", 200, 200, 2, 2, ""),
    ];
    let mut files: Vec<String> = fs::read_dir(own(""))
        .expect("the corpus is there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    files.retain(|file| file.ends_with(".sip") && !table.iter().any(|(own, ..)| own == file));
    assert!(files.is_empty(), "not in the table: {files:?}");
    for (file, lenient, strict, accepted, active, quirk) in table {
        let message = message(&own(file));
        let outcome = judge(&message, &Policy::default());
        assert_eq!(outcome.code, *lenient, "{file}");
        assert!(
            quirk.is_empty() || outcome.quirks.iter().any(|own| own.contains(quirk)),
            "{file}: {:?}",
            outcome.quirks
        );
        let taken: Vec<bool> = outcome
            .negotiated
            .iter()
            .flat_map(Negotiated::accepted)
            .map(|(_, accepted)| accepted.active)
            .collect();
        assert_eq!(taken.len(), *accepted, "{file}");
        assert_eq!(taken.iter().filter(|active| **active).count(), *active, "{file}");
        let strictly = judge(&message, &Policy { strict: true, ..Policy::default() });
        assert_eq!(strictly.code, *strict, "{file}, strict");
    }
}

#[test]
fn broken_metadata_is_an_error_of_its_own_and_leaves_the_call_alone() {
    for file in ["broken-metadata.sip", "entity-bomb.sip"] {
        let outcome = judge(&message(&own(file)), &Policy::default());
        let part = outcome.body.metadata().expect("the part is kept");
        assert!(metadata::parse(&part.body, None).is_err(), "{file}");
        assert_eq!(outcome.code, 200);
    }
}

#[test]
fn metadata_joins_the_lines_by_label_or_says_why_not() {
    let joined = |file: &str| {
        let outcome = judge(&message(&own(file)), &Policy::default());
        let document = document(&outcome.body.metadata().expect("metadata").body);
        attribute(&document, &sdp_lines(outcome.body.offer.as_ref().expect("an offer")))
    };
    let good = joined("metadata-first.sip");
    assert!(good.contradictions.is_empty(), "{:?}", good.contradictions);
    assert_eq!(good.lines[0].send, good.lines[1].recv);
    assert_eq!(good.lines[0].send[0].as_str(), "AAAAAAAAAAAAAAAAAAAAAg==");
    let bad = joined("metadata-contradicts.sip");
    assert_eq!(bad.contradictions.len(), 2, "{:?}", bad.contradictions);
    assert!(bad.lines[1].send.is_empty());
}

#[test]
fn sdes_lines_of_a_message_are_taken_in_order_and_never_printed() {
    let outcome = judge(&message(&own("sdes-two-streams.sip")), &Policy::default());
    let negotiated = outcome.negotiated.expect("negotiated");
    let taken: Vec<(u32, &str)> = negotiated
        .accepted()
        .map(|(_, accepted)| accepted.crypto.as_ref().expect("srtp"))
        .map(|crypto| (crypto.tag, crypto.suite.name()))
        .collect();
    assert_eq!(taken, [(1, "AES_CM_128_HMAC_SHA1_80"), (2, "AES_CM_128_HMAC_SHA1_32")]);
    let shown = format!("{negotiated:?} {:?}", outcome.body.offer);
    assert!(!shown.contains("AAECAwQF") && !shown.contains("HRwbGhkY"), "{shown}");
}

#[test]
fn published_invites_become_recording_sessions() {
    let Some(folder) = published() else { return };
    // File; m-lines; formats of the first answer line; sessions, participants, streams.
    let table: &[(&str, usize, &str, [usize; 3])] = &[
        ("rfc7866/fig12-initial-invite-legacy-type.sip", 1, "0", [1, 1, 1]),
        ("rfc7866/fig12-initial-invite-rfc9806-type.sip", 1, "0", [1, 1, 1]),
        ("rfc8068/dialog-unmixed/01-invite.sip", 4, "0", [1, 2, 4]),
        ("rfc8068/dialog-mixed-conference/01-invite.sip", 1, "0", [1, 2, 1]),
        ("vendor/cisco-cube-media-proxy-invite.sip", 2, "0", [1, 2, 2]),
    ];
    for (file, lines, formats, [sessions, participants, streams]) in table {
        let message = message(&folder.join(file));
        for strict in [false, true] {
            let outcome = judge(&message, &Policy { strict, ..Policy::default() });
            assert_eq!(outcome.code, 200, "{file}");
            let negotiated = outcome.negotiated.expect("negotiated");
            assert_eq!(negotiated.accepted().count(), *lines, "{file}");
            let answer = plain_answer(&negotiated);
            let wanted = format!("m=audio 20000 RTP/AVP {formats}\r\n");
            assert!(answer.contains(&wanted), "{file}: {answer}");
            assert_eq!(answer.matches("a=recvonly").count(), *lines, "{file}");
            let document = document(&outcome.body.metadata().expect("metadata").body);
            let found =
                [document.sessions.len(), document.participants.len(), document.streams.len()];
            assert_eq!(found, [*sessions, *participants, *streams], "{file}");
            assert_eq!(document.dialect, Dialect::Final, "{file}");
            let lines = sdp_lines(outcome.body.offer.as_ref().expect("an offer"));
            let attribution = attribute(&document, &lines);
            assert!(attribution.contradictions.is_empty(), "{:?}", attribution.contradictions);
            assert!(attribution.lines.iter().all(|line| !line.send.is_empty()), "{file}");
        }
    }
}

#[test]
fn published_dialogs_go_on_without_touching_media() {
    let Some(folder) = published() else { return };
    for (dialog, files) in [
        ("unmixed", ["01-invite.sip", "03-reinvite-hold.sip", "05-reinvite-resume.sip"].as_slice()),
        (
            "mixed-conference",
            &[
                "01-invite.sip",
                "03-reinvite-hold.sip",
                "05-reinvite-resume.sip",
                "07-reinvite-join.sip",
            ],
        ),
    ] {
        let mut current: Option<Negotiated> = None;
        for (at, file) in files.iter().enumerate() {
            let path = folder.join("rfc8068").join(format!("dialog-{dialog}")).join(file);
            let outcome = judge(&message(&path), &Policy::default());
            let offer = outcome.body.offer.as_ref().expect("an offer");
            let next = negotiate(offer, current.as_ref(), &Policy::default());
            assert_eq!(next.unchanged, at > 0, "{file}: same o= version is a no-op");
            let document = document(&outcome.body.metadata().expect("metadata").body);
            let wanted = if at == 0 { DataMode::Complete } else { DataMode::Partial };
            assert_eq!(document.datamode, wanted, "{file}");
            current = Some(next);
        }
    }
}

/// A published dialog through the metadata machine: request `n` comes in second `n`.
fn merged(folder: &Path, files: &[&str]) -> Model {
    let mut model = Model::default();
    for (second, file) in files.iter().enumerate() {
        let path = folder.join("rfc8068").join(file);
        let bytes = if file.ends_with(".xml") {
            bytes(&path)
        } else {
            judge(&message(&path), &Policy::default())
                .body
                .metadata()
                .expect("metadata")
                .body
                .clone()
        };
        let method = if file.contains("bye") { "BYE" } else { "INVITE" };
        let at = Wall(second as i64 * 1_000_000_000);
        let arrival = Arrival { at, method, cseq: 101 + second as u32 };
        assert!(model.take(&arrival, document(&bytes)), "{file}");
    }
    model
}

/// Who sends on a line, as `first AoR from-to` in seconds.
fn senders(model: &Model, label: &str) -> Vec<String> {
    let seconds = |at: Wall| at.0 / 1_000_000_000;
    let name = |id: &metadata::Id| {
        let row = model.participants().get(id).expect("known");
        row.names.iter().last().expect("named").0[0].aor.clone()
    };
    let parts = model.on_label(label).into_iter().filter(|part| part.direction == Direction::Send);
    let mut shown: Vec<String> = parts
        .map(|part| {
            let to = part.to.map(|to| seconds(to.arrival).to_string()).unwrap_or_default();
            format!("{} {}-{to}", name(&part.participant), seconds(part.from.arrival))
        })
        .collect();
    shown.sort();
    shown
}

#[test]
fn published_dialogs_give_the_speakers_of_every_moment() {
    let Some(folder) = published() else { return };
    let unmixed = merged(
        &folder,
        &[
            "dialog-unmixed/01-invite.sip",
            "dialog-unmixed/03-reinvite-hold.sip",
            "dialog-unmixed/05-reinvite-resume.sip",
            "dialog-unmixed/07-bye-with-metadata.sip",
        ],
    );
    let (alice, bob) = ("sip:alice@atlanta.com", "sip:bob@biloxy.com");
    for label in ["96", "97"] {
        assert_eq!(senders(&unmixed, label), [format!("{alice} 0-1"), format!("{alice} 2-3")]);
    }
    for label in ["98", "99"] {
        assert_eq!(senders(&unmixed, label), [format!("{bob} 0-3")]);
    }
    assert!(unmixed.state().sessions.is_empty(), "it has stopped");
    assert!(unmixed.quirks().is_empty(), "{:?}", unmixed.quirks());
    assert_eq!(unmixed.snapshot_wanted(), None);

    let mixed = merged(
        &folder,
        &[
            "dialog-mixed-conference/01-invite.sip",
            "dialog-mixed-conference/03-reinvite-hold.sip",
            "dialog-mixed-conference/05-reinvite-resume.sip",
            "dialog-mixed-conference/07-reinvite-join.sip",
        ],
    );
    let speakers = senders(&mixed, "96");
    assert_eq!(speakers.len(), 4, "{speakers:?}");
    assert!(speakers.iter().any(|one| one.contains("carol") && one.ends_with(" 3-")));
    assert_eq!(mixed.state().sessions[0].sip_session_ids.len(), 3);
    assert_eq!(mixed.state().participants.len(), 3);
    assert!(mixed.quirks().is_empty(), "{:?}", mixed.quirks());
}

#[test]
fn published_complete_and_partial_documents_merge_as_the_rfc_means() {
    let Some(folder) = published() else { return };
    let mut model = Model::default();
    for (cseq, file) in ["rfc7865-8.1-complete.xml", "rfc7865-8.2-partial.xml"].iter().enumerate() {
        let arrival = Arrival { at: Wall(cseq as i64), method: "INVITE", cseq: cseq as u32 };
        model.take(&arrival, document(&bytes(&folder.join("rfc7865").join(file))));
    }
    // Bob has left; Paul, the session and all four streams are as they were.
    let state = model.state();
    assert_eq!((state.participant_session.len(), state.participant_stream.len()), (1, 1));
    assert_eq!((state.participants.len(), state.streams.len(), state.sessions.len()), (2, 4, 1));
    assert_eq!(state.groups[0].extensions.len(), 2);
    assert!(model.quirks().is_empty(), "{:?}", model.quirks());
}

#[test]
fn a_published_bye_carries_metadata_and_a_snapshot_request_is_known() {
    let Some(folder) = published() else { return };
    let bye = message(&folder.join("rfc8068/dialog-unmixed/07-bye-with-metadata.sip"));
    let outcome = judge(&bye, &Policy::default());
    let document = document(&outcome.body.metadata().expect("metadata").body);
    assert!(document.sessions[0].stop_time.is_some());
    assert_eq!(document.participant_session.len(), 2);
    assert!(document.participant_session.iter().all(|own| own.disassociate_time.is_some()));
    for kind in ["legacy", "rfc9806"] {
        let update =
            message(&folder.join(format!("rfc7866/fig13-snapshot-request-{kind}-type.sip")));
        let outcome = judge(&update, &Policy::default());
        let part = outcome.body.metadata().expect("the request");
        assert_eq!(part.disposition.as_deref(), Some("recording-session"));
        let reason = Some("SRS internal error".to_owned());
        assert_eq!(metadata::parse(&part.body, None), Ok(Root::SnapshotRequest { reason }));
    }
}

#[test]
fn published_documents_hold_what_their_sections_say() {
    let Some(folder) = published() else { return };
    // File, mode, groups, sessions, participants, streams, CS-RS, participant-CS, participant-stream.
    use DataMode::{Complete, Partial};
    let table: &[(&str, DataMode, [usize; 7])] = &[
        ("rfc7865/rfc7865-8.1-complete.xml", Complete, [1, 1, 2, 4, 1, 2, 2]),
        ("rfc7865/rfc7865-8.2-partial.xml", Partial, [0, 0, 1, 0, 0, 1, 0]),
        ("rfc8068/rfc8068-3.2.1-basic-call-complete.xml", Complete, [1, 1, 2, 4, 1, 2, 2]),
        ("rfc8068/rfc8068-3.2.2-hold-partial.xml", Partial, [0, 0, 0, 0, 0, 0, 2]),
        ("rfc8068/rfc8068-3.2.2-resume-partial.xml", Partial, [0, 0, 0, 0, 0, 0, 2]),
        ("rfc8068/rfc8068-3.2.4-disconnect-partial.xml", Partial, [0, 1, 0, 0, 0, 2, 0]),
        ("rfc8068/rfc8068-3.3.1-mixed-basic-complete.xml", Complete, [0, 1, 2, 1, 0, 2, 2]),
        ("rfc8068/rfc8068-3.3.2-mixed-hold-partial.xml", Partial, [0, 0, 0, 1, 0, 0, 2]),
        ("rfc8068/rfc8068-3.3.2-mixed-resume-partial.xml", Partial, [0, 0, 0, 1, 0, 0, 2]),
        ("rfc8068/rfc8068-3.3.3-join-partial.xml", Partial, [0, 1, 1, 0, 0, 1, 1]),
        ("vendor/netsapiens-two-user-no-streams.xml", Complete, [0, 1, 2, 0, 0, 0, 0]),
    ];
    for (file, mode, counts) in table {
        let read = document(&bytes(&folder.join(file)));
        assert_eq!((read.dialect, read.datamode), (Dialect::Final, *mode), "{file}");
        let count = |read: &Document| {
            [
                read.groups.len(),
                read.sessions.len(),
                read.participants.len(),
                read.streams.len(),
                read.session_recording.len(),
                read.participant_session.len(),
                read.participant_stream.len(),
            ]
        };
        assert_eq!(count(&read), *counts, "{file}");
        // What we write of it reads back with the same content.
        assert_eq!(count(&document(&metadata::emit(&read))), *counts, "{file}");
    }
    let hold = document(&bytes(&folder.join("rfc8068/rfc8068-3.2.2-hold-partial.xml")));
    let [first, second] = hold.participant_stream.as_slice() else { panic!("two parties") };
    assert_eq!((first.send.len(), first.recv.len()), (0, 2));
    assert_eq!((second.send.len(), second.recv.len()), (2, 0));
    let basic = document(&bytes(&folder.join("rfc8068/rfc8068-3.2.1-basic-call-complete.xml")));
    assert_eq!(basic.sessions[0].group.as_ref(), Some(&basic.groups[0].id));
    assert_eq!(basic.groups[0].extensions.len(), 2);
    let join = document(&bytes(&folder.join("rfc8068/rfc8068-3.3.3-join-partial.xml")));
    assert_eq!(join.sessions[0].sip_session_ids.len(), 3);
    let user = document(&bytes(&folder.join("vendor/netsapiens-two-user-no-streams.xml")));
    assert_eq!(user.extensions[0].name, "netsapiensExtension");
    assert!(user.quirks.iter().any(|quirk| quirk.contains("base64")));
}

#[test]
fn published_offers_are_followed_through_hold_escalation_and_removal() {
    let Some(folder) = published() else { return };
    let offer = |file: &str| {
        Description::parse(&bytes(&folder.join(file))).unwrap_or_else(|e| panic!("{file}: {e}"))
    };
    let policy = Policy::default();
    let step = |before: &str, after: &str| {
        let first = negotiate(&offer(before), None, &policy);
        negotiate(&offer(after), Some(&first), &policy)
    };
    let changes = |negotiated: &Negotiated| {
        negotiated.lines.iter().map(|line| line.changes.clone()).collect::<Vec<_>>()
    };
    let hold = step("vendor/cisco-cube-hold-1-before.sdp", "vendor/cisco-cube-hold-2-onhold.sdp");
    let paused = vec![LineChange::Paused];
    assert_eq!(changes(&hold), [paused.clone(), vec![], paused, vec![]]);
    let escalated = step(
        "vendor/cisco-cube-escalation-1-audio.sdp",
        "vendor/cisco-cube-escalation-2-audio-video.sdp",
    );
    let (recoded, added) =
        (vec![LineChange::FormatsChanged], vec![LineChange::Added { reused: false }]);
    assert_eq!(changes(&escalated), [recoded.clone(), recoded, added.clone(), added]);
    assert_eq!(escalated.lines[0].accepted().expect("taken").formats[0].codec, "G729");
    let removed = negotiate(
        &offer("vendor/cisco-cube-deescalation-2-video-port-zero.sdp"),
        Some(&escalated),
        &policy,
    );
    assert!(removed.lines[2].changes.contains(&LineChange::Removed));
    assert_eq!(removed.accepted().count(), 2);
    // RFC 7866 figures 5 and 6: the answer's m-lines are the figure's, but for our ports.
    let figure = negotiate(&offer("rfc7866/fig05-offer.sdp"), None, &policy);
    let ours = plain_answer(&figure);
    let ours = Description::parse(ours.as_bytes()).expect("our own");
    let theirs = offer("rfc7866/fig06-answer.sdp");
    assert_eq!(ours.media.len(), theirs.media.len());
    for (ours, theirs) in ours.media.iter().zip(&theirs.media) {
        assert_eq!(
            (&ours.kind, &ours.transport, &ours.tokens, &ours.label, ours.direction),
            (&theirs.kind, &theirs.transport, &theirs.tokens, &theirs.label, theirs.direction)
        );
    }
}

#[test]
fn a_published_body_without_connection_lines_is_recorded_all_the_same() {
    let Some(folder) = published() else { return };
    let body = bytes(&folder.join("vendor/opensips-two-streams.mime"));
    let read = Body::read("multipart/mixed", "", &body, &Policy::default()).expect("readable");
    let negotiated = negotiate(read.offer.as_ref().expect("an offer"), None, &Policy::default());
    let taken: Vec<_> = negotiated.accepted().collect();
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|(_, accepted)| accepted.active && accepted.remote_rtp.is_none()));
    assert!(negotiated.quirks.iter().any(|quirk| quirk.contains("no c= line")));
    assert_eq!(document(&read.metadata().expect("metadata").body).streams.len(), 2);
}
