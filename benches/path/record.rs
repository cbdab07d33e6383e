//! A plain recorder as a peer: tokio with its default runtime, a task and a socket a stream, webrtc-srtp,
//! one file a worker behind a `BufWriter`. No ledger, no sync, no recovery: what an ordinary engineer
//! would write first.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use webrtc_srtp::context::Context;
use webrtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use webrtc_srtp::protection_profile::ProtectionProfile;

use crate::{HEADER_BYTES, PAYLOAD_BYTES, SUITE};

const REPLAY_WINDOW: usize = 64;
const DATAGRAM_BYTES: usize = 1_500;

type Output = Arc<Mutex<BufWriter<File>>>;

#[derive(Default)]
struct Counts {
    kept: AtomicU64,
    refused: AtomicU64,
}

async fn stream(number: u32, socket: UdpSocket, output: Output, counts: Arc<Counts>) {
    let master = crate::master();
    let (key, salt) = master.split_at(SUITE.key_bytes());
    let mut context = Context::new(
        key,
        salt,
        ProtectionProfile::Aes128CmHmacSha1_80,
        Some(srtp_replay_protection(REPLAY_WINDOW)),
        Some(srtcp_replay_protection(REPLAY_WINDOW)),
    )
    .expect("the suite's length");
    let mut buffer = [0; DATAGRAM_BYTES];
    while let Ok(length) = socket.recv(&mut buffer).await {
        let Ok(clear) = context.decrypt_rtp(&buffer[..length]) else {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        assert_eq!(clear.len(), HEADER_BYTES + PAYLOAD_BYTES);
        let mut file = output.lock().expect("nobody panics with it");
        file.write_all(&number.to_le_bytes()).expect("room");
        file.write_all(&(clear.len() as u32).to_le_bytes()).expect("room");
        file.write_all(&clear).expect("room");
        drop(file);
        counts.kept.fetch_add(1, Ordering::Relaxed);
    }
}

/// Records from each of `ports` until nothing comes any more; prints what was kept as JSON.
pub(crate) fn run(address: IpAddr, ports: Vec<u16>, folder: &Path) {
    let workers = std::thread::available_parallelism().expect("cores").get();
    let outputs: Vec<Output> = (0..workers)
        .map(|worker| {
            let file = File::create(folder.join(format!("{worker}.rec"))).expect("a folder");
            Arc::new(Mutex::new(BufWriter::new(file)))
        })
        .collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let counts = Arc::new(Counts::default());
    runtime.block_on(async {
        for (number, port) in ports.into_iter().enumerate() {
            let socket = UdpSocket::bind((address, port)).await.expect("a free port");
            let output = outputs[number % workers].clone();
            tokio::spawn(stream(number as u32, socket, output, counts.clone()));
        }
        println!("ready");
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(crate::IDLE_MS)).await;
            let kept = counts.kept.load(Ordering::Relaxed);
            if kept > 0 && kept == before {
                break;
            }
            before = kept;
        }
    });
    for output in outputs {
        output.lock().expect("nobody panics with it").flush().expect("room");
    }
    let (kept, refused) = (&counts.kept, &counts.refused);
    println!(
        "{{\"kept\":{},\"refused\":{}}}",
        kept.load(Ordering::Relaxed),
        refused.load(Ordering::Relaxed)
    );
}
