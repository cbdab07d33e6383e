//! The profiles in `tuning/` say what the program needs, no less.

use std::collections::BTreeMap;

use floortape::host::socket::RECEIVE_BUFFER_BYTES;

/// Settings of a sysctl.d file (its leading `-`, "ignore errors", taken off); panics at a line that
/// `sysctl` would not take and at a setting without a reason above it.
fn settings(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut reasoned = false;
    for line in text.lines() {
        if line.is_empty() {
            reasoned = false;
        } else if line.starts_with("# ") {
            reasoned = true;
        } else {
            assert!(reasoned, "no reason above {line:?}");
            let (key, value) = line.split_once(" = ").expect("KEY = VALUE");
            let key = key.strip_prefix('-').unwrap_or(key);
            assert!(key.split('.').count() > 1 && !key.contains(' '), "{line:?}");
            assert!(found.insert(key.to_owned(), value.to_owned()).is_none(), "{key} twice");
        }
    }
    found
}

#[test]
fn the_sysctl_profile_lets_a_media_socket_have_the_queue_it_asks_for() {
    let found = settings(include_str!("../tuning/sysctl/50-floortape.conf"));
    let limit: usize = found["net.core.rmem_max"].parse().expect("bytes");
    assert!(limit >= RECEIVE_BUFFER_BYTES);
    assert_eq!(found["kernel.io_uring_disabled"], "0");
}
