//! Interarrival jitter (RFC 3550 §6.4.1, appendix A.8).

/// Jitter after one more packet.
///
/// `jitter` and the result are in 1/16 of an RTP tick, as appendix A.8 keeps it: the report carries
/// it shifted right by four. `arrival_ns`: arrival of this packet minus that of the packet before
/// (by arrival). `timestamp`: its RTP time minus that one's, modulo 2^32. `clock_rate`: ticks a
/// second of the payload type; a rate of 0 leaves the jitter as it is.
///
/// A leap of the RTP clock (a new talk spurt after silence is none) counts with its whole size, as
/// the RFC has it; it decays by a sixteenth with each packet.
#[inline]
pub fn jitter(jitter: u64, arrival_ns: i64, timestamp: u32, clock_rate: u32) -> u64 {
    if clock_rate == 0 {
        return jitter;
    }
    let arrived = i128::from(arrival_ns) * i128::from(clock_rate) / 1_000_000_000;
    let distance = (arrived - i128::from(timestamp as i32)).unsigned_abs();
    // The report has 32 bits, so nothing above them is worth keeping.
    let distance = u64::try_from(distance).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
    jitter + distance - ((jitter + 8) >> 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_none() {
        assert_eq!((0..100).fold(0, |j, _| jitter(j, 20_000_000, 160, 8_000)), 0);
    }

    #[test]
    fn alternating_packets_settle_at_their_deviation() {
        // Every other packet is 5 ms late: |D| is 40 ticks each time.
        let late = |n: u64| if n.is_multiple_of(2) { 25_000_000 } else { 15_000_000 };
        let settled = (0..500).fold(0, |j, n| jitter(j, late(n), 160, 8_000));
        // Appendix A.8 rounds in sixteenths, so it comes to rest within half a tick.
        assert_eq!((settled + 8) >> 4, 40);
    }

    #[test]
    fn order_on_the_wire_and_wrap_of_the_clock_do_no_harm() {
        // A packet overtaken by its follower: RTP time goes back by 160 while 1 ms passes.
        assert_eq!(jitter(0, 1_000_000, 0_u32.wrapping_sub(160), 8_000), 168);
        assert_eq!(jitter(0, 20_000_000, 100_u32.wrapping_sub(u32::MAX - 59), 8_000), 0);
    }

    #[test]
    fn extremes_neither_overflow_nor_divide_by_zero() {
        assert_eq!(jitter(77, i64::MAX, 0, 0), 77);
        let worst = (0..1_000).fold(0, |j, _| jitter(j, i64::MAX, 1 << 31, u32::MAX));
        assert!(worst >> 4 <= u64::from(u32::MAX));
    }
}
