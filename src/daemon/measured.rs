//! What the running daemon measures: one picture for `bridgehead status --json` and for Prometheus.
//!
//! PROMISES
//!   Names of metrics and labels stay as they are. What clients and senders choose is never a label: hosts, rules, events,
//!   naming contexts and connected sites are, and the configuration bounds their number.
//!
//! STANDARDS
//!   OpenMetrics 1.0.

use std::fmt;
use std::fmt::Error;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::counters::ReplicationSnapshot;
use crate::listen::CountersSnapshot;
use crate::relay::counters::HopSnapshot;
use crate::replication::status::{PeerState, Status};

/// What only the daemon knows.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub version: &'static str,
    /// RFC 3339, UTC.
    #[serde(serialize_with = "as_text")]
    pub started: Timestamp,
    pub ready: bool,
    pub sessions_open: u64,
    pub relay: CountersSnapshot,
    pub next_hops: Vec<HopSnapshot>,
    pub replication: ReplicationSnapshot,
}

/// That, and what the store says.
#[derive(Clone, Debug)]
pub struct Picture {
    pub daemon: Measured,
    pub status: Status,
    pub holds: u64,
    pub quarantined: u64,
}

fn as_text<S: serde::Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

impl Picture {
    /// The text of `/metrics`.
    ///
    /// # Errors
    /// None in practice: it is written to memory.
    pub fn text(self) -> Result<String, Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    fn relay(&self, page: &mut Page) -> fmt::Result {
        let daemon = &self.daemon;
        let relay = &daemon.relay;
        page.gauge("sessions_open", "Client sessions that are open", daemon.sessions_open as f64)?;
        page.counter("sessions", "Client sessions that were let in", relay.sessions)?;
        let messages = [("accepted", relay.messages), ("refused", relay.messages_refused)];
        page.counters("messages", "Messages by their final reply", "reply", messages)?;
        page.counter("message_octets", "Octets of messages with a positive final reply", relay.octets)?;
        let copies = [("accepted", relay.intercepted), ("refused", relay.intercepted_refused)];
        page.counters("intercepted", "Messages to a replication mailbox by their reply", "reply", copies)?;
        let refusals = relay.refusals.iter().map(|(rule, count)| (*rule, *count));
        page.counters("refusals", "Refusals of ours by the rule or limit that was met", "rule", refusals)?;
        let theirs = relay.next_hop_refused_recipients;
        page.counter("next_hop_refused_recipients", "Recipients that a next hop refused", theirs)?;
        let cut = relay.sessions_cut_off;
        page.counter("sessions_cut_off", "Sessions still open when draining had to end", cut)
    }

    fn next_hops(&self, page: &mut Page) -> fmt::Result {
        let hops = &self.daemon.next_hops;
        let of =
            |value: fn(&HopSnapshot) -> u64| hops.iter().map(move |hop| (hop.next_hop.as_str(), value(hop)));
        let kinds = hops.iter().flat_map(|hop| [(hop, "busy", hop.busy), (hop, "idle", hop.idle)]);
        let rows =
            kinds.map(|(hop, state, n)| ([("next_hop", &hop.next_hop[..]), ("state", state)], n as f64));
        page.gauges(
            "next_hop_connections",
            "Connections to next hops, carrying a transaction or kept",
            rows,
        )?;
        page.counters(
            "next_hop_connects",
            "Connections made to next hops",
            "next_hop",
            of(|hop| hop.connects),
        )?;
        page.counters(
            "next_hop_reuses",
            "Transactions on a pooled connection",
            "next_hop",
            of(|hop| hop.reuses),
        )?;
        let idle = of(|hop| hop.closed_idle);
        page.counters("next_hop_closed_idle", "Pooled connections that nobody used", "next_hop", idle)?;
        let backs = of(|hop| hop.back_offs);
        page.counters(
            "next_hop_back_offs",
            "Times a next hop was passed over from then on",
            "next_hop",
            backs,
        )?;
        let rows =
            hops.iter().map(|hop| ([("next_hop", &hop.next_hop[..])], f64::from(u8::from(hop.backed_off))));
        page.gauges("next_hop_backed_off", "Whether a next hop is passed over now", rows)?;
        let failures =
            hops.iter().flat_map(|hop| hop.failures.iter().map(move |(reason, n)| (hop, *reason, *n)));
        let rows =
            failures.map(|(hop, reason, n)| ([("next_hop", &hop.next_hop[..]), ("reason", reason)], n));
        page.counters_of("next_hop_failures", "What went wrong at next hops", rows)
    }

    fn replication(&self, page: &mut Page) -> fmt::Result {
        let replication = &self.daemon.replication;
        let mail = replication.mail.iter().map(|(became, count)| (*became, *count));
        page.counters("replication_mail", "Replication mail by what became of it", "became", mail)?;
        let octets = [("in", replication.octets_in), ("out", replication.octets_out)];
        page.counters("replication_mail_octets", "Octets of replication mail", "direction", octets)?;
        let parts = [("first", replication.parts_sent), ("again", replication.parts_resent)];
        page.counters("replication_parts", "Parts of transfers that left", "sent", parts)?;
        let events = replication.events.iter().map(|(event, count)| (*event, *count));
        page.counters("replication_events", "Events of replication, as the log names them", "event", events)?;
        let failures = replication.store_failures;
        page.counter("store_failures", "Transactions of which the store kept nothing", failures)?;
        page.gauge("holds", "Transfers that wait for an operator", self.holds as f64)?;
        page.gauge("quarantined", "Kept copies of messages that took no effect", self.quarantined as f64)
    }

    fn contexts(&self, page: &mut Page) -> fmt::Result {
        let contexts = &self.status.contexts;
        let of = |context: &'_ str| [("context", context.to_owned())];
        let rows = contexts.iter().map(|context| (of(&context.context), context.entries as f64));
        page.gauges("context_entries", "Entries of a naming context", rows)?;
        let rows = contexts.iter().map(|context| (of(&context.context), context.position.usn as f64));
        page.gauges("context_usn", "Update sequence number of a naming context", rows)?;
        let verified =
            |context: &crate::replication::status::ContextStatus| f64::from(u8::from(context.verified));
        let rows = contexts.iter().map(|context| (of(&context.context), verified(context)));
        page.gauges("context_verified", "Whether its digest is the one that its master signed", rows)
    }

    fn partners(&self, page: &mut Page) -> fmt::Result {
        let partners = &self.status.partners;
        let rows = partners.iter().map(|partner| ([("site", &partner.site[..])], partner.behind as f64));
        page.gauges("site_contexts_behind", "Naming contexts in which a connected site and we differ", rows)?;
        let up = |state| f64::from(u8::from(matches!(state, PeerState::Up | PeerState::Paused)));
        let rows = partners.iter().map(|partner| ([("site", &partner.site[..])], up(partner.state)));
        page.gauges("site_up", "Whether a connected site answers, or is paused on purpose", rows)?;
        let times = [
            ("site_heard_timestamp_seconds", "When a connected site was last heard"),
            ("site_equal_timestamp_seconds", "When replicas were last proved equal"),
        ];
        for (at, (name, help)) in times.into_iter().enumerate() {
            let rows = partners.iter().filter_map(|partner| {
                let time = [&partner.last_heard, &partner.equal][at].as_ref()?.parse::<Timestamp>().ok()?;
                Some(([("site", &partner.site[..])], time.as_second() as f64))
            });
            page.gauges(name, help, rows)?;
        }
        let trips = partners.iter().filter_map(|partner| Some((partner, partner.round_trip?)));
        let rows = trips.map(|(partner, seconds)| ([("site", &partner.site[..])], seconds as f64));
        page.gauges("site_round_trip_seconds", "The measured round trip", rows)
    }
}

impl Collector for Picture {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let daemon = &self.daemon;
        let info = [([("version", daemon.version), ("site", &self.status.site[..])], 1.0)];
        page.gauges("build", "The program and its site", info)?;
        let started = daemon.started.as_second() as f64;
        page.gauge("start_timestamp_seconds", "When the daemon was started", started)?;
        page.gauge("ready", "Whether new sessions are taken", f64::from(u8::from(daemon.ready)))?;
        self.relay(&mut page)?;
        self.next_hops(&mut page)?;
        self.replication(&mut page)?;
        self.contexts(&mut page)?;
        self.partners(&mut page)
    }
}

/// The page as it is written; every name gets the prefix `bridgehead_`.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let counter = ConstCounter::new(count);
        let name = format!("bridgehead_{name}");
        counter.encode(self.0.encode_descriptor(&name, &format!("{help}."), None, counter.metric_type())?)
    }

    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        rows: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        self.counters_of(name, help, rows.into_iter().map(|(value, count)| ([(label, value)], count)))
    }

    fn counters_of<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        let name = format!("bridgehead_{name}");
        let kind = ConstCounter::new(0u64).metric_type();
        let mut metric = self.0.encode_descriptor(&name, &format!("{help}."), None, kind)?;
        for (labels, count) in rows {
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let name = format!("bridgehead_{name}");
        gauge.encode(self.0.encode_descriptor(&name, &format!("{help}."), None, gauge.metric_type())?)
    }

    fn gauges<'l, V: AsRef<str>, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'l str, V); N], f64)>,
    ) -> fmt::Result {
        let name = format!("bridgehead_{name}");
        let kind = ConstGauge::new(0f64).metric_type();
        let mut metric = self.0.encode_descriptor(&name, &format!("{help}."), None, kind)?;
        for (labels, value) in rows {
            let labels = labels.each_ref().map(|(key, value)| (*key, value.as_ref()));
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
