//! TLS connections that send half a ClientHello and nothing more. What the server ends is made again at
//! once, so that as many as asked for stand at any time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Socket, Type};

use super::options::Options;

/// Eight of a source may stand at a time: with so many sources none has more.
const SOURCES: u32 = 32;
/// Between two looks at all of them.
const LOOK: Duration = Duration::from_millis(20);
/// A server that takes none for so long is not under siege but gone.
const CONNECT: Duration = Duration::from_secs(2);
/// Fewer on the average are not what was asked for.
const SHARE: f64 = 0.95;

pub(crate) fn run(options: &Options) -> Result<String, String> {
    let words = |error: std::io::Error| error.to_string();
    let hello = half_a_hello();
    let sources = options.sources.unwrap_or(SOURCES);
    let mut open: Vec<Option<TcpStream>> = (0..options.connections).map(|_| None).collect();
    let (mut made, mut looks, mut stood) = (0_u64, 0_u64, 0_u64);
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < options.seconds {
        for (number, place) in (0..).zip(&mut open) {
            if place.as_ref().is_none_or(is_over) {
                let stream = connect(options, number % sources, &hello).map_err(words)?;
                *place = Some(stream);
                made += 1;
            }
        }
        looks += 1;
        stood += open.iter().flatten().filter(|stream| !is_over(stream)).count() as u64;
        std::thread::sleep(LOOK);
    }
    let average = stood as f64 / looks.max(1) as f64;
    let told = format!(
        "half open: {average:.0} TLS connections at a time from {sources} addresses for {:.0} s, \
         {made} in all, each with {} bytes of a ClientHello",
        options.seconds,
        hello.len()
    );
    let wanted = options.connections as f64 * SHARE;
    if average < wanted { Err(format!("{told}; expected {wanted:.0}")) } else { Ok(told) }
}

/// The first half of what a client begins with.
fn half_a_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory takes it");
    hello.truncate(hello.len() / 2);
    hello
}

fn connect(options: &Options, source: u32, hello: &[u8]) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(options.to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((options.source(source), 0)).into())?;
    socket.connect_timeout(&options.to.into(), CONNECT)?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(hello)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn is_over(mut stream: &TcpStream) -> bool {
    let kind = stream.read(&mut [0]).map_err(|error| error.kind());
    kind != Err(ErrorKind::WouldBlock)
}
