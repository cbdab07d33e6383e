//! The command line of the parts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// See the usage in `main.rs`.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) to: SocketAddr,
    pub(crate) net: Ipv4Addr,
    pub(crate) sources: Option<u32>,
    pub(crate) rate: Option<u32>,
    pub(crate) seconds: f64,
    pub(crate) connections: usize,
    pub(crate) from: IpAddr,
    pub(crate) user: String,
    pub(crate) folder: PathBuf,
    pub(crate) limit_ms: f64,
}

fn parsed<T: std::str::FromStr>(word: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{word}: what is {text}?"))
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Options {
            to: ([127, 0, 0, 1], 5_060).into(),
            net: Ipv4Addr::LOCALHOST,
            sources: None,
            rate: None,
            seconds: 10.0,
            connections: 256,
            from: Ipv4Addr::LOCALHOST.into(),
            user: super::USERS[0].to_owned(),
            folder: PathBuf::from("."),
            limit_ms: 500.0,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word} needs a value"))?;
            match *word {
                "--to" => options.to = parsed(word, value)?,
                "--net" => options.net = parsed(word, value)?,
                "--sources" => options.sources = Some(parsed(word, value)?),
                "--rate" => options.rate = Some(parsed(word, value)?),
                "--seconds" => options.seconds = parsed(word, value)?,
                "--connections" => options.connections = parsed(word, value)?,
                "--from" => options.from = parsed(word, value)?,
                "--user" => options.user = (*value).to_owned(),
                "--folder" => options.folder = PathBuf::from(value),
                "--limit-ms" => options.limit_ms = parsed(word, value)?,
                _ => return Err(format!("unknown word {word}")),
            }
        }
        Ok(options)
    }

    /// Address number `number` of those to send from.
    pub(crate) fn source(&self, number: u32) -> IpAddr {
        Ipv4Addr::from(u32::from(self.net) + number).into()
    }
}
