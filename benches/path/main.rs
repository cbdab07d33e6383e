//! The other programs of `benches/path.sh`, which starts them and says what they are for: a generator
//! without SIP, the receive floor, and the recorder that an ordinary engineer would write.
//!
//! `path send TO PORTS FLOWS PER_SECOND SECONDS srtp|plain`, where PORTS is one port, `FIRST+STEP`, or
//! `@FILE` with a port a flow; `path floor ADDRESS PORT`; `path record ADDRESS FIRST FLOWS FOLDER`.

use std::net::{IpAddr, SocketAddr};

use floortape::base::secret::MasterKey;
use floortape::base::suite::Suite;

mod floor;
mod record;
mod send;

const SUITE: Suite = Suite::AesCm128HmacSha1_80;
/// Octets of an RTP header without CSRCs or extension (RFC 3550 §5.1), and of 20 ms of G.711.
const HEADER_BYTES: usize = 12;
const PAYLOAD_BYTES: usize = 160;
/// What every octet of a payload is, so that a reader knows decrypted media.
const FILL: u8 = 0xd5;
/// A receiver that has received is done when nothing has come for so long.
const IDLE_MS: u64 = 1_500;

/// Key and salt of every flow: 0, 1, 2 and so on. The SSRCs keep the key streams apart (RFC 3711
/// §9.1), and nobody else hears them.
fn master() -> Vec<u8> {
    (0..SUITE.master_bytes() as u8).collect()
}

fn key() -> MasterKey {
    MasterKey::new(&master()).expect("the suite's length")
}

/// Ports of the flows.
fn ports(text: &str, flows: usize) -> Vec<u16> {
    if let Some(file) = text.strip_prefix('@') {
        let text = std::fs::read_to_string(file).expect("a file of ports");
        let ports: Vec<u16> =
            text.split_whitespace().map(|port| port.parse().expect("a port")).collect();
        assert_eq!(ports.len(), flows, "a port a flow");
        return ports;
    }
    let (first, step) = text.split_once('+').unwrap_or((text, "0"));
    let (first, step): (u16, u16) = (first.parse().expect("a port"), step.parse().expect("a step"));
    (0..flows).map(|flow| first + step * flow as u16).collect()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse::<IpAddr>().expect("an IP address");
    let number = |text: &str| text.parse::<usize>().expect("a number");
    match words[..] {
        ["send", to, places, flows, per_second, seconds, kind] => {
            let to = address(to);
            let flows = ports(places, number(flows)).into_iter();
            let flows = flows.map(|port| SocketAddr::new(to, port)).collect();
            send::run(flows, number(per_second), number(seconds), kind == "srtp");
        }
        ["floor", at, port] => {
            floor::run(SocketAddr::new(address(at), port.parse().expect("a port")));
        }
        ["record", at, first, flows, folder] => {
            let ports = ports(&format!("{first}+2"), number(flows));
            record::run(address(at), ports, folder.as_ref());
        }
        _ => println!("this is for benches/path.sh"),
    }
}
