//! A caller and an endpoint over a network that loses, doubles, delays and reorders, by seed.

use std::collections::BTreeMap;

use super::tests::{address, at};
use super::*;
use crate::base::prng::Prng;

/// What happened to one call, as both sides saw it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    invites: u32,
    byes: u32,
    acks: u32,
    answered: u32,
    ended: u32,
}

struct Network {
    prng: Prng,
    loss_percent: u64,
    order: u64,
    /// Arrival, order, whether to the endpoint, datagram.
    flying: BTreeMap<(u64, u64), (bool, Vec<u8>)>,
}

impl Network {
    fn send(&mut self, now_ms: u64, to_endpoint: bool, bytes: &[u8]) {
        let copies = match self.prng.below(100) {
            luck if luck < self.loss_percent => 0,
            luck if luck > 90 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let arrival = now_ms + 1 + self.prng.below(300);
            self.order += 1;
            self.flying.insert((arrival, self.order), (to_endpoint, bytes.to_vec()));
        }
    }
}

/// Runs one call of 5 s: the endpoint's control answers each request 40 ms after it came.
fn run(seed: u64, loss_percent: u64) -> Account {
    let (srs, src) = (address("192.0.2.20:5060"), address("192.0.2.10:5060"));
    let config = |seed| EndpointConfig { seed, ..EndpointConfig::default() };
    let (mut endpoint, mut uac) = (Endpoint::new(config(seed)), Uac::new(config(!seed)));
    let mut network =
        Network { prng: Prng::new(seed), loss_percent, order: 0, flying: BTreeMap::new() };
    let mut account = Account::default();
    let mut answers: BTreeMap<(u64, u64), TxnId> = BTreeMap::new();
    let invite = Invite {
        target: Target::Udp { local: src, peer: srs },
        uri: "sip:rec@192.0.2.20".to_owned(),
        from: "<sip:src@192.0.2.10>".to_owned(),
        to: "<sip:rec@192.0.2.20>".to_owned(),
        headers: vec![("Contact".to_owned(), "<sip:src@192.0.2.10>;+sip.src".to_owned())],
        body: b"v=0\r\n".to_vec(),
    };
    let call = uac.call(at(0), &invite).expect("a valid INVITE");
    let mut hang_up_ms = u64::MAX;
    for now_ms in 0..120_000 {
        let now = at(now_ms);
        if now_ms == hang_up_ms {
            uac.hang_up(now, call, &[], &[]);
        }
        if uac.next_timeout().is_some_and(|due| due <= now) {
            uac.handle(now, Input::Tick);
        }
        if endpoint.next_timeout().is_some_and(|due| due <= now) {
            endpoint.handle(now, Input::Tick);
        }
        while let Some(entry) = network.flying.first_entry().filter(|entry| entry.key().0 <= now_ms)
        {
            match entry.remove() {
                (true, bytes) => {
                    endpoint.handle(now, Input::Datagram { local: srs, peer: src, bytes: &bytes });
                }
                (false, bytes) => {
                    uac.handle(now, Input::Datagram { local: src, peer: srs, bytes: &bytes });
                }
            }
        }
        while let Some(entry) = answers.first_entry().filter(|entry| entry.key().0 <= now_ms) {
            let txn = entry.remove();
            endpoint.respond(now, txn, Reply::new(200).with("Contact", "<sip:rec@192.0.2.20>"));
        }
        while let Some(output) = endpoint.poll() {
            match output {
                Output::Transmit { bytes, .. } => network.send(now_ms, false, &bytes),
                Output::Request(request) => {
                    match request.message.method() {
                        Some("INVITE") => account.invites += 1,
                        Some("BYE") => account.byes += 1,
                        other => panic!("seed {seed}: {other:?}"),
                    }
                    answers.insert((now_ms + 40, request.txn.0), request.txn);
                }
                Output::Acked { .. } => account.acks += 1,
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        while let Some(output) = uac.poll(now) {
            match output {
                UacOutput::Transmit { bytes, .. } => network.send(now_ms, true, &bytes),
                UacOutput::Answered { .. } => {
                    account.answered += 1;
                    hang_up_ms = now_ms + 5_000;
                }
                UacOutput::Ended { by_peer: false, .. } => account.ended += 1,
                UacOutput::Progress { .. } => {}
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        let idle = network.flying.is_empty() && answers.is_empty() && hang_up_ms < now_ms;
        if idle && endpoint.next_timeout().is_none() && uac.next_timeout().is_none() {
            break;
        }
    }
    assert_eq!((endpoint.transactions(), uac.calls()), (0, 0), "seed {seed}");
    account
}

#[test]
fn one_call_is_one_session_on_both_sides_whatever_the_network_does() {
    let wanted = Account { invites: 1, byes: 1, acks: 1, answered: 1, ended: 1 };
    for seed in 0..60 {
        assert_eq!(run(seed, 0), wanted, "seed {seed}, no loss");
        assert_eq!(run(seed, 15), wanted, "seed {seed}, loss");
    }
}

/// A call that is given up before or while it is answered: `cancel_ms` after the INVITE left, while
/// control takes `answer_ms` to answer. Gives what the caller saw: (answered, refused, ended).
fn run_cancelled(seed: u64, loss_percent: u64, cancel_ms: u64, answer_ms: u64) -> (u32, u32, u32) {
    let (srs, src) = (address("192.0.2.20:5060"), address("192.0.2.10:5060"));
    let config = |seed| EndpointConfig { seed, ..EndpointConfig::default() };
    let (mut endpoint, mut uac) = (Endpoint::new(config(seed)), Uac::new(config(!seed)));
    let mut network =
        Network { prng: Prng::new(seed), loss_percent, order: 0, flying: BTreeMap::new() };
    let mut answers: BTreeMap<(u64, u64), (TxnId, u16)> = BTreeMap::new();
    let (mut seen, mut sessions, mut byes) = ((0, 0, 0), 0, 0);
    let invite = Invite {
        target: Target::Udp { local: src, peer: srs },
        uri: "sip:rec@192.0.2.20".to_owned(),
        from: "<sip:src@192.0.2.10>".to_owned(),
        to: "<sip:rec@192.0.2.20>".to_owned(),
        headers: vec![("Contact".to_owned(), "<sip:src@192.0.2.10>;+sip.src".to_owned())],
        body: b"v=0\r\n".to_vec(),
    };
    let call = uac.call(at(0), &invite).expect("a valid INVITE");
    for now_ms in 0..200_000 {
        let now = at(now_ms);
        if now_ms == cancel_ms {
            uac.hang_up(now, call, &[], &[]);
        }
        if uac.next_timeout().is_some_and(|due| due <= now) {
            uac.handle(now, Input::Tick);
        }
        if endpoint.next_timeout().is_some_and(|due| due <= now) {
            endpoint.handle(now, Input::Tick);
        }
        while let Some(entry) = network.flying.first_entry().filter(|entry| entry.key().0 <= now_ms)
        {
            match entry.remove() {
                (true, bytes) => {
                    endpoint.handle(now, Input::Datagram { local: srs, peer: src, bytes: &bytes });
                }
                (false, bytes) => {
                    uac.handle(now, Input::Datagram { local: src, peer: srs, bytes: &bytes });
                }
            }
        }
        while let Some(entry) = answers.first_entry().filter(|entry| entry.key().0 <= now_ms) {
            let (txn, code) = entry.remove();
            let reply = Reply::new(code).with("Contact", "<sip:rec@192.0.2.20>");
            let dialog = endpoint.respond(now, txn, reply);
            sessions += u32::from(dialog.is_some() && code == 200);
        }
        while let Some(output) = endpoint.poll() {
            match output {
                Output::Transmit { bytes, .. } => network.send(now_ms, false, &bytes),
                Output::Request(request) => {
                    let bye = request.message.method() == Some("BYE");
                    byes += u32::from(bye);
                    let at_ms = if bye { now_ms } else { now_ms + answer_ms };
                    answers.insert((at_ms, request.txn.0), (request.txn, 200));
                }
                // What control does: the answer it was about to give becomes 487.
                Output::Cancelled { txn } => {
                    answers.retain(|_, (waiting, _)| *waiting != txn);
                    answers.insert((now_ms, txn.0), (txn, 487));
                }
                Output::Acked { .. } => {}
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        while let Some(output) = uac.poll(now) {
            match output {
                UacOutput::Transmit { bytes, .. } => network.send(now_ms, true, &bytes),
                UacOutput::Answered { .. } => seen.0 += 1,
                UacOutput::Refused { .. } => seen.1 += 1,
                UacOutput::Ended { by_peer: false, .. } => seen.2 += 1,
                UacOutput::Progress { .. } => {}
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        let idle = network.flying.is_empty() && answers.is_empty() && now_ms > cancel_ms;
        if idle && endpoint.next_timeout().is_none() && uac.next_timeout().is_none() {
            break;
        }
    }
    assert_eq!((endpoint.transactions(), uac.calls()), (0, 0), "seed {seed}");
    // A session that was promised is ended by a BYE of its own; a cancelled one never was (each BYE
    // counts as a session of one answer).
    assert_eq!(sessions, 2 * byes, "seed {seed}");
    seen
}

#[test]
fn a_call_given_up_at_any_instant_leaves_no_session_on_either_side() {
    let mut ends = [0, 0];
    for seed in 0..120 {
        let (cancel_ms, answer_ms) = (1 + seed * 37 % 900, 20 + seed * 53 % 700);
        match run_cancelled(seed, if seed % 2 == 0 { 0 } else { 15 }, cancel_ms, answer_ms) {
            (0, 1, 0) => ends[0] += 1,
            // The 200 was faster than the CANCEL.
            (0 | 1, 0, 1) => ends[1] += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(ends.iter().all(|count| *count > 10), "both races were run: {ends:?}");
}
