//! The log: one line an event on stderr, because stdout is data.

use tracing_subscriber::EnvFilter;

/// Starts logging at `level` (`error`, `warn`, `info` or `debug`). Later calls change nothing.
///
/// `webrtc_sdp` stays silent at every level: it prints the lines it ignores, and an `a=crypto` line
/// holds a key.
pub fn start(level: &str) {
    let filter = EnvFilter::new(format!("{level},webrtc_sdp=off"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
