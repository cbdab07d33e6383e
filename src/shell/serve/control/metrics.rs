//! The figures of the recorder as a monitoring system reads them: Prometheus' text, base units, and no
//! identity in a label.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::base::counter::Counter;
use crate::base::time::Mono;
use crate::plane::control::Figures;
use crate::plane::handoff::frame::WorkerStats;
use crate::proto::sip::Oddity;
use crate::shell::serve::control::anchors;
use crate::shell::serve::control::peaks::Backlog;
use crate::shell::serve::control::scrub::Scrubbed;
use crate::shell::tls::Refusal;

/// The media type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What a worker's four figures of a stage are.
const QUANTILES: [&str; 4] = ["0.5", "0.99", "0.999", "1"];

/// All figures at one instant.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// When.
    pub(super) at: Mono,
    /// Of media, by worker; none while it is down.
    pub(super) workers: Vec<WorkerStats>,
    /// Of control.
    pub(super) control: Figures,
    /// Recordings that were accepted, and that have ended, since control's start.
    pub(super) accepted: u64,
    /// See above.
    pub(super) ended: u64,
    /// Messages over their source's rate.
    pub(super) over_rate: u64,
    /// TLS handshakes that went well.
    pub(super) shaken: u64,
    /// Those in vain, by reason.
    pub(super) tls_refused: Vec<(Refusal, u64)>,
    /// Places that anchors go to.
    pub(super) anchors: Vec<anchors::Place>,
    /// What reading the store over has come to.
    pub(super) scrubbed: Scrubbed,
    /// What is to be drawn yet.
    pub(super) backlog: Backlog,
    /// How long the disk has room for the present load, s; `None`: not known.
    pub(super) disk_left_s: Option<u64>,
}

/// The page.
pub(super) fn page(snapshot: Arc<Snapshot>) -> String {
    let mut registry = Registry::with_prefix("floortape");
    registry.register_collector(Box::new(snapshot));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("a String takes any text");
    page
}

type Labels<const N: usize> = [(&'static str, String); N];

/// One page under way.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counters<const N: usize>(
        &mut self,
        (name, help): (&str, &str),
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in values {
            let counter = ConstCounter::new(value);
            if N == 0 {
                return counter.encode(family);
            }
            counter.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges<const N: usize>(
        &mut self,
        (name, help): (&str, &str),
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (Labels<N>, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            let gauge = ConstGauge::new(value);
            if N == 0 {
                return gauge.encode(family);
            }
            gauge.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn worker(stats: &WorkerStats) -> (&'static str, String) {
    ("worker", stats.worker.0.to_string())
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.state(&mut page)?;
        self.media(&mut page)?;
        self.signalling(&mut page)?;
        self.evidence(&mut page)
    }
}

impl Snapshot {
    fn state(&self, page: &mut Page<'_>) -> fmt::Result {
        let control = &self.control;
        let ready = f64::from(u8::from(control.obstacle.is_none()));
        page.gauges(("ready", "Whether a call would be recorded now"), None, [([], ready)])?;
        let info = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        page.gauges(("build", "The version that runs"), None, [(info, 1.0)])?;
        let running = [([], control.recordings as f64)];
        page.gauges(("recordings", "Recording Sessions that run"), None, running)?;
        let streams = [([], control.streams as f64)];
        page.gauges(("streams", "Streams that have a port pair"), None, streams)?;
        let most = [([], control.streams_max as f64)];
        page.gauges(("streams_max", "Streams that may have one"), None, most)?;
        let help =
            "Streams of which no media comes, though by the SRC's reports or metadata it should";
        page.gauges(("streams_without_media", help), None, [([], control.without_media as f64)])?;
        let free = control.pairs_free.iter();
        let free = free.map(|(family, free)| ([("family", family.to_string())], *free as f64));
        page.gauges(("port_pairs_free", "Port pairs that a new stream could have"), None, free)?;
        let left = self.disk_left_s.map(|left| ([], left as f64));
        let help = "Time for which the disk has room at the present load";
        page.gauges(("disk_left", help), Some(&Unit::Seconds), left)
    }

    fn media(&self, page: &mut Page<'_>) -> fmt::Result {
        let workers = &self.workers;
        let datagrams = workers.iter().flat_map(|stats| {
            let counts = Counter::ALL.iter().zip(&stats.counters);
            counts.map(|(end, count)| ([worker(stats), ("end", end.label().to_owned())], *count))
        });
        let help = "Datagrams taken from the sockets, each by the one place where it ended";
        page.counters(("datagrams", help), None, datagrams)?;
        let marks = workers.iter().flat_map(|stats| {
            [("captured", stats.tail), ("durable", stats.durable), ("sealed", stats.sealed)]
                .map(|(step, at)| ([worker(stats), ("step", step.to_owned())], at.0))
        });
        let help = "Bytes of records up to which everything is in the ring, on disk, in a segment";
        page.counters(("records", help), Some(&Unit::Bytes), marks)?;
        let ring = workers.iter().map(|stats| ([worker(stats)], stats.ring_bytes as f64));
        page.gauges(("ring", "Size of the ring in memory"), Some(&Unit::Bytes), ring)?;
        let used = workers.iter().map(|stats| {
            let held = stats.tail.0.saturating_sub(stats.durable.min(stats.sealed).0);
            ([worker(stats)], held as f64)
        });
        let help = "Bytes of the ring that may not be used again yet";
        page.gauges(("ring_used", help), Some(&Unit::Bytes), used)?;
        let lag = workers.iter().map(|stats| ([worker(stats)], stats.lag_ms as f64 / 1e3));
        let help = "Age of the oldest byte that is not on disk";
        page.gauges(("durable_lag", help), Some(&Unit::Seconds), lag)?;
        let stages = workers.iter().flat_map(|stats| {
            [
                ("wire_to_ring", stats.captured_ns),
                ("ring_to_disk", stats.durable_ns),
                ("turn", stats.turn_ns),
            ]
            .into_iter()
            .flat_map(move |(stage, figures)| {
                let figures = QUANTILES.into_iter().zip(figures);
                figures.map(move |(quantile, ns)| {
                    let stage = ("stage", stage.to_owned());
                    let labels = [worker(stats), stage, ("quantile", quantile.to_owned())];
                    (labels, ns as f64 / 1e9)
                })
            })
        });
        let help = "How long packets take, in the last minute at most; quantile 1: the longest";
        page.gauges(("stage", help), Some(&Unit::Seconds), stages)?;
        let engine =
            workers.iter().map(|stats| ([worker(stats), ("engine", stats.engine.clone())], 1.0));
        page.gauges(("engine", "How packets are received"), None, engine)?;
        let failed = workers
            .iter()
            .map(|stats| ([worker(stats)], f64::from(u8::from(stats.disk_error.is_some()))));
        page.gauges(("disk_failed", "Whether nothing can be kept any more"), None, failed)
    }

    fn signalling(&self, page: &mut Page<'_>) -> fmt::Result {
        let control = &self.control;
        let help = "Recordings accepted, since the start of control as all that follows";
        page.counters(("recordings_accepted", help), None, [([], self.accepted)])?;
        let ended = [([], self.ended)];
        page.counters(("recordings_ended", "Recordings that have ended"), None, ended)?;
        let refused = control.refused.iter().filter_map(|(oddity, count)| match oddity {
            Oddity::Refused(code) => Some(([("status", code.to_string())], count)),
            _ => None,
        });
        let help = "SIP requests that were refused before a session was asked for";
        page.counters(("sip_refused", help), None, refused)?;
        let dropped = control
            .refused
            .iter()
            .filter_map(|(oddity, count)| Some(([("reason", oddity.label()?.to_owned())], count)));
        let help = "What came to the SIP listeners and got no answer";
        page.counters(("sip_dropped", help), None, dropped)?;
        let help = "SIP messages over the rate of their source";
        page.counters(("sip_over_rate", help), None, [([], self.over_rate)])?;
        let help = "Requests in a dialog from somebody else than the one who made it";
        page.counters(("sip_intruders", help), None, [([], control.intruders)])?;
        let guesses = [([], control.guesses)];
        page.counters(("digest_failures", "Wrong answers to digest challenges"), None, guesses)?;
        let help = "Calls and lines that the recording policy does not want";
        page.counters(("policy_unwanted", help), None, [([], control.unwanted)])?;
        let shaken = [([], self.shaken)];
        page.counters(("tls_handshakes", "TLS handshakes that went well"), None, shaken)?;
        let refused = self.tls_refused.iter();
        let refused = refused.map(|(why, count)| ([("reason", why.text().to_owned())], *count));
        page.counters(("tls_refused", "TLS handshakes in vain"), None, refused)
    }
}

impl Snapshot {
    fn evidence(&self, page: &mut Page<'_>) -> fmt::Result {
        let places = self.anchors.iter();
        let of = |place: &anchors::Place, count| ([("to", place.kind.to_owned())], count);
        let help = "Anchors that a log outside of the store has taken";
        let taken = places.clone().map(|place| of(place, place.taken));
        page.counters(("anchors", help), None, taken)?;
        let failed = places.clone().map(|place| of(place, place.failed));
        page.counters(("anchor_failures", "Attempts at that in vain"), None, failed)?;
        let waiting = places.map(|place| ([("to", place.kind.to_owned())], place.waiting as f64));
        page.gauges(("anchors_waiting", "Anchors that wait for it"), None, waiting)?;
        let scrubbed = &self.scrubbed;
        let help = "Bytes of segments read over against their sums";
        page.counters(("scrub", help), Some(&Unit::Bytes), [([], scrubbed.bytes)])?;
        let help = "Times that all segments were read over";
        page.counters(("scrub_passes", help), None, [([], scrubbed.passes)])?;
        let help = "Extents and segments that were found damaged so and are still there";
        page.gauges(("scrub_damaged", help), None, [([], scrubbed.damaged as f64)])?;
        let Backlog { segments, since, drawn } = self.backlog;
        let help = "Segments of which pictures were drawn beforehand";
        page.counters(("peaks_drawn", help), None, [([], drawn)])?;
        let help =
            "Sealed segments that are still to be drawn: who asks has them drawn from the records";
        page.gauges(("peaks_waiting", help), None, [([], segments as f64)])?;
        let help = "When the oldest of them begins, Unix time";
        let since = since.map(|since| ([], since.0 as f64 / 1e9));
        page.gauges(("peaks_waiting_since", help), Some(&Unit::Seconds), since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Position, WorkerId};
    use crate::base::time::Wall;

    #[test]
    fn a_page_has_each_figure_with_its_help_and_unit() {
        let mut counters = vec![0; Counter::ALL.len()];
        counters[Counter::RtpRecorded as usize] = 41;
        let stats = WorkerStats {
            worker: WorkerId(1),
            counters,
            tail: Position(9_000),
            durable: Position(8_000),
            sealed: Position(5_000),
            captured_ns: [1_000_000, 2_000_000, 3_000_000, 4_000_000],
            engine: "io_uring".to_owned(),
            ..WorkerStats::default()
        };
        let control = Figures {
            obstacle: Some("draining".to_owned()),
            pairs_free: vec![(crate::base::family::Family::V4, 12)],
            ..Figures::default()
        };
        let snapshot = Snapshot {
            workers: vec![stats],
            control,
            tls_refused: vec![(Refusal::Expired, 3)],
            disk_left_s: Some(600),
            anchors: vec![anchors::Place { kind: "syslog", taken: 5, failed: 2, waiting: 1 }],
            scrubbed: Scrubbed { bytes: 7_000, passes: 1, damaged: 2 },
            backlog: Backlog { segments: 4, since: Some(Wall(1_500_000_000)), drawn: 9 },
            ..Snapshot::default()
        };
        let page = page(Arc::new(snapshot));
        for line in [
            "# TYPE floortape_datagrams counter",
            "floortape_datagrams_total{worker=\"1\",end=\"rtp_recorded\"} 41",
            "floortape_records_bytes_total{worker=\"1\",step=\"durable\"} 8000",
            "floortape_ring_used_bytes{worker=\"1\"} 4000.0",
            "floortape_stage_seconds{worker=\"1\",stage=\"wire_to_ring\",quantile=\"0.999\"} 0.003",
            "floortape_ready 0.0",
            "floortape_port_pairs_free{family=\"IPv4\"} 12.0",
            "floortape_tls_refused_total{reason=\"client certificate has expired\"} 3",
            "floortape_disk_left_seconds 600.0",
            "floortape_recordings_accepted_total 0",
            "floortape_anchors_total{to=\"syslog\"} 5",
            "floortape_anchor_failures_total{to=\"syslog\"} 2",
            "floortape_anchors_waiting{to=\"syslog\"} 1.0",
            "floortape_scrub_bytes_total 7000",
            "floortape_scrub_passes_total 1",
            "floortape_scrub_damaged 2.0",
            "floortape_peaks_drawn_total 9",
            "floortape_peaks_waiting 4.0",
            "floortape_peaks_waiting_since_seconds 1.5",
            "# EOF",
        ] {
            assert!(page.lines().any(|own| own == line), "{line} in\n{page}");
        }
        for line in page.lines().filter(|line| line.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).expect("a name");
            assert!(page.contains(&format!("# HELP {name} ")), "help of {name}");
        }
    }
}
