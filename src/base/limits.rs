//! Every bound in one place, each with its arithmetic. Full is an ordinary, counted answer.

/// RFC 3261 §18.1.1: UDP receivers take a datagram of any size up to this.
pub const SIP_MESSAGE_BYTES_MAX: usize = 65_535;
/// A snapshot of a large conference is some 60 KiB; F54 accepts bodies up to 256 KiB over TCP.
pub const SIP_STREAM_MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// Real INVITEs from SBCs carry 20 to 60 header lines.
pub const SIP_HEADERS_MAX: usize = 256;
/// Server transactions alive at once: the INVITEs and the BYEs of 1,000 calls a second, each for 32 s
/// (timers L and J, RFC 6026 and RFC 3261 table 4), and half as much again.
pub const SIP_TRANSACTIONS_MAX: usize = 98_304;
/// Bytes that server transactions keep: of an answered one some 2 KiB, of one that waits for its answer
/// the head as well; a stranger's 64 KiB head must not be kept so many times.
pub const SIP_TRANSACTIONS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Answers given before a restart and kept for retransmissions: an INVITE and a BYE for each of
/// 2,500 streams in calls of two, with room.
pub const SIP_ANSWERS_MAX: usize = 4_096;
/// Nonces whose uses are counted: one for each of 2,500 streams' dialogs, renewed each five minutes.
pub const SIP_NONCES_MAX: usize = 4_096;
/// Sources that wait because they guessed passwords.
pub const SIP_BACKOFFS_MAX: usize = 4_096;
/// Signalling connections at once: one for each of 2,500 streams, with room for reconnects.
pub const SIP_CONNECTIONS_MAX: usize = 4_096;
/// RFC 3261 §18.1.1: a request that is larger goes over a stream, because its fragments would get
/// lost unseen.
pub const SIP_DATAGRAM_REQUEST_BYTES_MAX: usize = 1_300;
/// F52: messages of a source that has no RS here, a second. An SBC that comes back with 1,000 calls
/// must not be refused; twice that may come at once.
pub const SIP_STRANGER_RATE: u32 = 1_000;
/// F52: messages of a source with an RS, a second: 1,000 calls with INVITE, ACK and BYE, doubled.
pub const SIP_KNOWN_RATE: u32 = 6_000;
/// F52: refusals that a source over its rate gets, a second; what is more is dropped.
pub const SIP_REFUSAL_RATE: u32 = 200;
/// Sources whose rate is kept, some 100 bytes each; those beyond share one.
pub const SIP_SOURCES_MAX: usize = 4_096;
/// RFC 7866 needs four m-lines; trading turrets send up to 16. Twice that.
pub const SDP_MEDIA_MAX: usize = 32;
/// Lines of one SDP body: 32 sections of some 60 lines.
pub const SDP_LINES_MAX: usize = 2_048;
/// Bytes of messages that are not whole yet, over all connections: 128 of the largest.
pub const SIP_STREAMS_BYTES_MAX: usize = 128 * SIP_STREAM_MESSAGE_BYTES_MAX;
/// Label of a stream as it is kept beside its media; real ones are numbers or some 30 characters.
pub const LABEL_BYTES_MAX: usize = 256;
/// Codec name and `fmtp` of a format, the same; H.264 parameter sets take some 200 bytes.
pub const FORMAT_TEXT_BYTES_MAX: usize = 1_024;
/// Formats of a stream, the same: 32 × 2 × 1,024 bytes and a label fit a frame.
pub const STREAM_FORMATS_MAX: usize = 32;
/// Parts in one multipart body, nested ones included.
pub const MULTIPART_PARTS_MAX: usize = 16;
/// RSs or streams in one frame of salts: 1,000 × 48 + 1,000 × 26 bytes fit a frame.
pub const FRAME_SALTS_MAX: usize = 1_000;
/// Slots in one frame of what media holds: 1,000 × 21 bytes.
pub const FRAME_HELD_MAX: usize = 1_000;
/// Nesting of multipart in multipart.
pub const MULTIPART_DEPTH_MAX: usize = 4;
/// F54: limits against hostile XML.
pub const METADATA_BYTES_MAX: usize = 256 * 1024;
/// F54.
pub const METADATA_DEPTH_MAX: usize = 32;
/// F54.
pub const METADATA_NODES_MAX: usize = 10_000;
/// Rows and spans kept of one RS's metadata over time. A CS of two parties on two streams makes about
/// 40, so this is 6,500 CSs: a month of a persistent RS with 200 a day.
pub const METADATA_HISTORY_MAX: usize = 262_144;
/// Design section 2: at most this many live SSRCs per stream; the excess is counted.
pub const SOURCES_PER_STREAM: usize = 4;
/// RFC 3711 §3.3.2 asks for ≥ 64; long paths reorder more, 1,024 cost 128 octets.
pub const REPLAY_WINDOW: u64 = 1_024;
/// Receive buffers of a worker in which packets wait for their keys: a quarter of all. The 768 others are
/// more than the 500 packets that come between two turns at 100,000 a second.
pub const QUARANTINE_PACKETS: usize = 256;
/// So many of them hold what one stream waits for: 2 s at 50 packets/s, with room for bursts.
pub const QUARANTINE_PER_STREAM: usize = 128;
/// So many hold packets from addresses that nobody named and nothing was ever proven of, and of one stream.
pub const QUARANTINE_STRANGERS: (usize, usize) = (64, 16);
/// So long a packet waits.
pub const QUARANTINE_MS: u64 = 2_000;
/// Slot of the receive buffer ring: 16 B recvmsg header + 32 B name + 112 B control + payload.
pub const BUFFER_BYTES: usize = 2_048;
/// Name area of a receive buffer: sockaddr_in6 needs 28.
pub const BUFFER_NAME_BYTES: usize = 32;
/// Control area: timestamp 32 + drops 24 + original address 32 (IPv6: 48) = 104, in steps of 16.
pub const BUFFER_CONTROL_BYTES: usize = 112;
/// Largest datagram kept whole.
pub const DATAGRAM_BYTES_MAX: usize = BUFFER_BYTES - 16 - BUFFER_NAME_BYTES - BUFFER_CONTROL_BYTES;
/// 100,000 packets/s × 5 ms between turns = 500; next power of two, doubled for a burst.
pub const BUFFER_COUNT: u16 = 1_024;
/// Streams of one worker that have a shared socket each, so that its drops are theirs alone.
pub const SHARED_SOCKETS_MAX: usize = 64;
/// Sockets that more streams than that share. A socket costs the kernel a wake-up, a task and a last, empty
/// look whenever anything has come: at 100,000 packets/s and a turn of 200 packets, 64 sockets have three
/// for each of them, 16 have twelve.
pub const SHARED_SOCKETS_MANY: usize = 16;
/// Packets taken in one worker turn (one commit batch).
pub const TURN_PACKETS_MAX: usize = 256;
/// Commands taken in one worker turn.
pub const TURN_COMMANDS_MAX: usize = 64;
/// A worker that waits longer than this is late for its heartbeat.
pub const TURN_WAIT_MS: u64 = 5;
/// Commands that may wait for one worker; full becomes 503 before any 200.
pub const WORKER_QUEUE: usize = 4_096;
/// Descriptors in one hand-over frame (the kernel's SCM_MAX_FD is 253).
pub const FRAME_FDS_MAX: usize = 250;
/// Bytes of one hand-over frame.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;

/// The recording policy as JSON, bytes: it travels in one frame, inside of which each quote takes two.
pub const POLICY_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;
/// Largest event payload in the ring.
pub const EVENT_BYTES_MAX: usize = 4_096;
/// Packets that a stream sends each second: one per 20 ms of voice.
pub const PACKETS_PER_STREAM_S: u32 = 50;
/// Streams that a worker on a core of its own is measured with, without loss (benches/path.sh): 100,000
/// packets/s. More may be well, which is for whoever has that machine to measure.
pub const WORKER_STREAMS_SHOWN: u32 = 2_000;
/// What no worker takes: to receive a packet and throw it away costs the kernel some 2.1 µs, and 500,000 of
/// them a second are more than all the time that a core has.
pub const WORKER_STREAMS_MAX: u32 = 10_000;
