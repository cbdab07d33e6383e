//! What kernel, our own processes and operators hand us: receive buffers, hand-over frames,
//! configuration.

use floortape::base::limits::BUFFER_BYTES;
use floortape::config::load;
use floortape::plane::handoff::datagram::{AT_PAYLOAD, Datagram, port, read, write};
use floortape::plane::handoff::frame::Envelope;

/// A receive buffer: its port is found without the rest, nothing outside of it is lent, and what was read
/// and written again reads the same.
pub fn datagram(data: &[u8]) {
    let found = port(data);
    let Some(first) = read(data) else { return };
    assert_eq!(found, Some(first.port));
    assert!(first.port != 0 && first.payload.len() <= data.len() - AT_PAYLOAD);
    assert!(first.length == first.payload.len() || first.truncated);
    if data.len() > BUFFER_BYTES {
        return;
    }
    let mut buffer = [0; BUFFER_BYTES];
    write(&mut buffer, &first);
    // The true length of one that was cut is the kernel's to know.
    let kept = Datagram { length: first.payload.len(), ..first };
    assert_eq!((read(&buffer), port(&buffer)), (Some(kept), Some(first.port)));
}

/// A frame written again reads the same.
pub fn handoff(data: &[u8]) {
    let Ok(first) = Envelope::parse(data) else { return };
    let bytes = first.emit();
    let second = Envelope::parse(&bytes).expect("our own frame");
    assert_eq!((second.id, second.fds), (first.id, first.fds));
    assert_eq!(second.emit(), bytes);
}

/// Each line is a `--set`. Faults say what and why; without one there is a configuration.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let sets: Vec<String> = text.lines().take(16).map(str::to_owned).collect();
    let Err(faults) = load(&[], &sets) else { return };
    assert!(!faults.is_empty(), "refused without a reason");
    for fault in faults {
        assert!(!fault.why.is_empty() && !fault.fix.is_empty(), "{fault:?}");
        assert!(fault.place.as_ref().is_none_or(|place| place.line > 0 && place.column > 0));
        assert!(!fault.to_string().is_empty());
    }
}
