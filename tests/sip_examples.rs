//! Published and vendors' messages through framing, lexer and value parsers. They lie beside the
//! clone (`../shared/spec/examples`) where they exist at all; our own counterparts are the unit
//! tests of `wire::sip`.

use std::path::{Path, PathBuf};

use floortape::wire::sip::{Frame, StreamFramer, parse_datagram};

fn messages(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            messages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "sip") {
            found.push(path);
        }
    }
}

#[test]
fn every_published_message_is_read_alike_from_datagram_and_stream() {
    // Asked at run time, so that the folder is found wherever the clone is built.
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".to_owned());
    let folder = Path::new(&root).join("../shared/spec/examples");
    let mut found = Vec::new();
    messages(&folder, &mut found);
    if folder.is_dir() {
        assert!(!found.is_empty(), "expected messages in {}", folder.display());
    }
    for path in &found {
        let name = path.display();
        let bytes = std::fs::read(path).expect("readable");
        let message = parse_datagram(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let cseq = message.cseq().unwrap_or_else(|| panic!("{name}: CSeq"));
        assert_eq!(message.method(), Some(&*cseq.method), "{name}");
        let via = message.via().unwrap_or_else(|| panic!("{name}: Via"));
        assert!(via.branch().is_some_and(|branch| branch.starts_with("z9hG4bK")), "{name}");
        for address in [message.from(), message.to()] {
            let address = address.unwrap_or_else(|| panic!("{name}: From or To"));
            assert!(address.parts().is_some_and(|uri| !uri.host.is_empty()), "{name}");
        }
        if let Some(contact) = message.contact() {
            let tags = ["+sip.src", "+sip.srs"];
            assert!(tags.iter().any(|tag| contact.params.has(tag)), "{name}: feature tag");
        }
        if !message.body.is_empty() {
            assert!(message.content_type().is_some(), "{name}: Content-Type");
        }
        let mut framer = StreamFramer::new(1 << 20);
        framer.push(&bytes);
        assert_eq!(framer.pull(), Some(Frame::Message(message)), "{name}");
    }
    println!("{} messages read", found.len());
}
