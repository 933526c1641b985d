//! DATA: the message streams from the client to the next hop, watched but not touched.
//!
//! PROMISES
//!   Memory does not grow with the message. What leaves is what came, behind one `Received:` field. The final
//!   reply is the next hop's; 250 is said only where it, or replication, said 250. A copy for replication is
//!   committed before the next hop gets the final dot.
//!
//! STANDARDS
//!   RFC 5321 sections 4.1.1.4, 4.5.2, 4.5.3.2.4-6, 6.3; RFC 1870 section 6; RFC 2033 section 4.2.
//!
//! FAILURE
//!   A message that is refused in its course is read to its end, so that the dialogue stays in step; the next
//!   hop's connection is closed without the final dot. If the next hop is lost behind the final dot, the
//!   client gets 451 and may send a message twice, but none is lost.

use std::sync::Arc;

use bytes::Buf;
use tokio::time::Instant;
use tracing::{info, warn};

use super::form::Form;
use super::grammar::Step;
use super::intercept::InterceptedEnvelope;
use super::refusal::Refusal;
use super::session::{End, Flow, Session};
use super::trace;
use super::transaction::{Transaction, transient};
use crate::config::relay::BareLineEnds;
use crate::limits::DATA_BUFFER_BYTES;
use crate::relay::connection::{Batch, ConnectionError};
use crate::relay::next_hop::{Lease, NextHop};
use crate::smtp::Reply;
use crate::smtp::data::{DataScanner, END, LineEndFault};
use crate::smtp::header::HeaderScan;

/// A message on its way through.
pub struct Passage {
    /// Taken from the transaction; see [`Passage::let_go`].
    pub lease: Option<Lease>,
    /// Octets to go before the next stretch: first our trace field.
    pub head: Vec<u8>,
    /// What ends the message, where the last stretch has not brought it.
    pub tail: Vec<u8>,
    /// For replication, un-stuffed.
    pub copy: Option<Vec<u8>>,
    /// What the client will be told instead, once the message has ended.
    pub spoiled: Option<Reply>,
    /// The end of data has gone to the next hop.
    pub ended: bool,
    /// The next hop waits for octets of the message, so that no command would be taken for one.
    pub open: bool,
    /// It goes to the next hop by BDAT.
    pub in_chunks: bool,
    pub octets: u64,
    /// Of the `Received:` field, by which this message is found in all logs.
    id: String,
    next_hop: Option<Arc<NextHop>>,
    header: HeaderScan,
    trace: String,
    started: Instant,
}

impl Passage {
    pub fn new(session: &Session, transaction: &Transaction, lease: Option<Lease>) -> Passage {
        let config = &session.settings.config;
        let paths = transaction.accepted.iter().map(|accepted| &accepted.path);
        let trace = trace::trace(&config.trace_id, &session.listener.name, paths);
        let now = jiff::Zoned::now();
        let id = trace::message_id(&now);
        let head = match lease {
            Some(_) => trace::received(&config.hostname, &session.client, &trace, &id, &now),
            None => Vec::new(),
        };
        Passage {
            id,
            next_hop: lease.as_ref().map(|lease| lease.next_hop.clone()),
            lease,
            head,
            tail: END.to_vec(),
            copy: transaction.intercepts().then(Vec::new),
            spoiled: None,
            ended: false,
            open: true,
            in_chunks: false,
            octets: 0,
            header: HeaderScan::default(),
            trace,
            started: Instant::now(),
        }
    }

    /// The message will not go through; its rest is only read.
    pub fn spoil(&mut self, session: &Session, refusal: Refusal) {
        if self.spoiled.is_none() {
            session.service.counters.refused(refusal.name());
            self.spoil_with(refusal.reply(&session.settings.config.limits));
        }
    }

    pub fn spoil_with(&mut self, reply: Reply) {
        self.spoiled.get_or_insert(reply);
        self.let_go();
        self.copy = None;
    }

    /// Takes the message back. Where the next hop waits for a command its connection stays usable behind a RSET; where it
    /// waits for more of the message the connection closes, since no half message is to be delivered.
    pub fn let_go(&mut self) {
        if let Some(mut lease) = self.lease.take()
            && !self.open
            && lease.connection.expected() == 0
        {
            lease.connection.set_needs_reset(true);
            lease.release();
        }
    }

    /// The connection failed or spoke out of turn in the middle of the message.
    pub fn next_hop_failed(&mut self, session: &Session, error: &ConnectionError) {
        if let Some(lease) = self.lease.take() {
            lease.failed(error);
        }
        warn!(target: "bridgehead::relay", %error, "next hop failed during a message");
        match error {
            ConnectionError::Early(reply) if reply.is_transient() || reply.is_permanent() => {
                self.spoil_with(transient(reply));
            }
            ConnectionError::Early(_) => self.spoil(session, Refusal::NextHopEarly),
            _ => self.spoil(session, Refusal::NextHopLost),
        }
    }

    /// Looks at a stretch of the message: size and loops.
    pub fn watch(&mut self, session: &Session, stretch: &[u8], octets: u64) {
        let limits = &session.settings.config.limits;
        self.octets += octets;
        if self.octets > limits.message_bytes_max {
            self.spoil(session, Refusal::MessageTooLarge);
        }
        if !self.header.is_done() {
            self.header.push(stretch, self.trace.as_bytes());
            if self.header.own_trace() {
                self.spoil(session, Refusal::LoopTrace);
            } else if self.header.received() > limits.received_max {
                self.spoil(session, Refusal::LoopReceived);
            }
        }
        if self.copy.is_some() && self.octets > limits.replication_message_bytes_max as u64 {
            self.spoil(session, Refusal::ReplicationMessageTooLarge);
        }
    }

    /// The one line of a message that came to its end.
    fn log(&self, session: &Session, transaction: &Transaction, reply: &Reply) {
        let event = match (reply.is_positive(), transaction.relays()) {
            (true, true) => "message-relayed",
            (true, false) => "message-intercepted",
            (false, _) => "message-not-relayed",
        };
        self.log_line(session, transaction, event, reply);
    }

    /// The one line of a message whose client went away or was sent away in its middle.
    pub fn log_broken(&self, session: &Session) {
        if let Some(transaction) = &session.transaction {
            self.log_line(session, transaction, "message-broken-off", &"none");
        }
    }

    fn log_line(
        &self,
        session: &Session,
        transaction: &Transaction,
        event: &'static str,
        reply: &dyn std::fmt::Display,
    ) {
        info!(
            target: "bridgehead::relay",
            event,
            id = self.id,
            from = %transaction.envelope.reverse_path,
            to = %transaction.accepted.first().map(|a| a.path.as_str()).unwrap_or(""),
            recipients = transaction.accepted.len(),
            client = %session.client.ip,
            next_hop = %self.next_hop.as_ref().map_or("", |hop| &hop.name),
            octets = self.octets,
            trace = self.trace,
            %reply,
            "message"
        );
    }

    /// Whether the client sends less than it must.
    pub fn is_too_slow(&self, session: &Session) -> bool {
        let limits = &session.settings.config.limits;
        let elapsed = self.started.elapsed();
        limits.data_rate_min != 0
            && elapsed > limits.slow_grace
            && self.octets < limits.data_rate_min.saturating_mul(elapsed.as_secs())
    }
}

impl Session {
    /// DATA. `early`: what the next hop already said to a DATA that went with the recipients.
    pub(super) async fn data(&mut self, early: Option<Reply>) -> Flow {
        let lease = match self.begin_message(early, "DATA").await? {
            Some(lease) => lease,
            None => return Ok(()),
        };
        if !self.input.is_empty() {
            return self.refuse(Refusal::Pipelined("DATA")).and(Err(End::Said));
        }
        if self.grammar.accept(Step::Data).is_err() {
            return self.refuse(Refusal::Internal);
        }
        self.say(&Reply::new(354, None, "End data with <CR><LF>.<CR><LF>"));
        self.flush().await?;
        let Some(transaction) = &self.transaction else {
            return self.refuse(Refusal::Internal);
        };
        let mut passage = Passage::new(self, transaction, lease);
        if let Err(end) = self.stream_data(&mut passage).await {
            passage.log_broken(self);
            return Err(end);
        }
        self.shrink_input();
        self.finish_message(passage).await
    }

    /// Everything before the first octet of a message. `Some`: it may come, and the next hop, if
    /// there is one, waits for it. `None`: the client was told why not.
    pub(super) async fn begin_message(
        &mut self,
        early: Option<Reply>,
        verb: &'static str,
    ) -> Result<Option<Option<Lease>>, End> {
        if verb == "DATA" && self.is_binary() {
            return self.refuse(Refusal::OutOfSequence("BINARYMIME goes with BDAT")).map(|()| None);
        }
        let mut lease = self.transaction.as_mut().and_then(|transaction| transaction.lease.take());
        if self.grammar.ask(Step::Data).is_err() {
            if let (Some(transaction), None) = (&mut self.transaction, early) {
                transaction.lease = lease;
            }
            let refusal = match self.transaction {
                Some(_) => Refusal::NoRecipients,
                None => Refusal::OutOfSequence("MAIL first"),
            };
            return self.refuse(refusal).map(|()| None);
        }
        if verb == "DATA" && !self.input.is_empty() {
            return self.refuse(Refusal::Pipelined(verb)).and(Err(End::Said));
        }
        let (relays, lost) = self.transaction.as_ref().map_or((false, false), |t| (t.relays(), t.lost));
        if lost || (relays && lease.is_none()) {
            self.end_message();
            return self.refuse(Refusal::NextHopLost).map(|()| None);
        }
        if !relays && let Some(mut unused) = lease.take() {
            unused.connection.set_needs_reset(true);
            unused.release();
        }
        let Some(mut lease) = lease else {
            return Ok(Some(None));
        };
        if verb == "BDAT" && self.passes_chunks(&lease) {
            return Ok(Some(Some(lease)));
        }
        let reply = match early {
            Some(reply) => Ok(reply),
            None => {
                let mut batch = Batch::default();
                batch.push(b"DATA\r\n");
                let patience = self.settings.config.limits.reply_timeout;
                lease
                    .connection
                    .exchange(&batch, patience)
                    .await
                    .map(|replies| replies.into_iter().next())
                    .and_then(|reply| reply.ok_or(ConnectionError::Closed))
            }
        };
        match reply {
            Ok(reply) if reply.code() == 354 => Ok(Some(Some(lease))),
            Ok(reply) => {
                if reply.code() != 421 {
                    lease.connection.set_needs_reset(true);
                    lease.release();
                }
                self.end_message();
                self.say(&transient(&reply));
                Ok(None)
            }
            Err(error) => {
                lease.failed(&error);
                warn!(target: "bridgehead::relay", %error, "next hop failed at DATA");
                self.end_message();
                self.refuse(Refusal::NextHopLost).map(|()| None)
            }
        }
    }

    /// The transaction is over without a message.
    pub(super) fn end_message(&mut self) {
        self.grammar.reset();
        self.end_transaction();
    }

    async fn stream_data(&mut self, passage: &mut Passage) -> Flow {
        let config = self.settings.config.clone();
        let mut scanner = DataScanner::new(config.limits.line_bytes_max);
        let mut form = Form::new(config.bare_line_ends);
        let mut room = DATA_BUFFER_BYTES / 4;
        let mut stuffed = 0;
        // Octets at the front of the input that were looked at and wait for more.
        let mut held = 0;
        loop {
            let scan = scanner.scan(&self.input[held..]);
            let octets = scan.content as u64 - (scanner.stuffed() - stuffed);
            stuffed = scanner.stuffed();
            passage.watch(self, &self.input[held..held + scan.content], octets);
            let content = held + scan.content;
            match scanner.fault() {
                Some(fault)
                    if config.bare_line_ends == BareLineEnds::Refuse || fault == LineEndFault::DotNul =>
                {
                    passage.spoil(self, Refusal::LineEnds(fault));
                }
                _ => {}
            }
            if scanner.line_too_long() {
                passage.spoil(self, Refusal::DataLineTooLong);
            }
            // The beginning waits until there is something worth a write: most messages leave whole, in one.
            let waits = !scan.end && room < DATA_BUFFER_BYTES && content < room && passage.spoiled.is_none();
            held = if waits { content } else { 0 };
            let used = content - held + if scan.end { END.len() } else { 0 };
            if !waits && passage.spoiled.is_none() {
                form.pass(passage, &self.input[..used], content, &config.limits).await.unwrap_or_else(
                    |error| {
                        passage.next_hop_failed(self, &error);
                    },
                );
            }
            self.input.advance(used);
            if scan.end {
                return Ok(());
            }
            if passage.is_too_slow(self) {
                return self.refuse(Refusal::TooSlow).and(Err(End::Said));
            }
            if used >= room {
                room = DATA_BUFFER_BYTES;
            }
            self.await_data(room).await?;
        }
    }

    /// The message has ended: replication commits its copy, the next hop gets the final dot, the client the reply.
    pub(super) async fn finish_message(&mut self, mut passage: Passage) -> Flow {
        self.grammar.end_of_data();
        let Some(transaction) = self.transaction.take() else {
            return self.refuse(Refusal::Internal);
        };
        let copies = self.deliver_copies(&mut passage, &transaction).await;
        let relayed = self.final_reply(&mut passage).await;
        let limits = &self.settings.config.limits;
        let reply = match (&passage.spoiled, relayed, copies.last()) {
            (Some(reply), _, _) => reply.clone(),
            (None, Some(reply), _) => reply,
            (None, None, Some(reply)) => reply.clone(),
            (None, None, None) => Refusal::Internal.reply(limits),
        };
        self.service.counters.message(passage.octets, reply.is_positive());
        passage.log(self, &transaction, &reply);
        if self.client.lmtp {
            let mut copies = copies.into_iter();
            for accepted in &transaction.accepted {
                let copy = if accepted.intercepted { copies.next() } else { None };
                self.say(copy.as_ref().unwrap_or(&reply));
            }
        } else {
            self.say(&reply);
        }
        self.client.forwarded = Default::default();
        self.client.utf8 = false;
        Ok(())
    }

    /// Hands the copy to replication, once for each of its mailboxes. Over SMTP, which has one reply for all, a refusal
    /// holds for everybody.
    async fn deliver_copies(&mut self, passage: &mut Passage, transaction: &Transaction) -> Vec<Reply> {
        let Some(copy) = passage.copy.take() else {
            return Vec::new();
        };
        let mailboxes: Vec<_> = transaction.accepted.iter().filter(|accepted| accepted.intercepted).collect();
        let mut replies = Vec::with_capacity(mailboxes.len());
        let mut copy = Some(copy);
        for (i, mailbox) in mailboxes.iter().enumerate() {
            let message = if i + 1 == mailboxes.len() { copy.take() } else { copy.clone() };
            let envelope = InterceptedEnvelope {
                reverse_path: transaction.envelope.reverse_path.clone(),
                mailbox: mailbox.path.clone(),
                client: self.client.address.map(|address| address.ip()),
            };
            let reply = self.service.intercept.deliver(envelope, message.unwrap_or_default()).await;
            let refused = !reply.is_positive();
            self.service.counters.intercepted(!refused);
            replies.push(transient(&reply));
            if refused && !self.client.lmtp {
                passage.spoil_with(transient(&reply));
                break;
            }
        }
        replies
    }

    async fn final_reply(&mut self, passage: &mut Passage) -> Option<Reply> {
        let mut lease = passage.lease.take()?;
        let limits = &self.settings.config.limits;
        let replied = async {
            if !passage.ended {
                if lease.connection.has_unasked() {
                    return Err(lease.connection.unasked().await);
                }
                lease.connection.send_body(&passage.head, &passage.tail, limits.reply_timeout).await?;
            }
            lease.connection.flush().await?;
            lease.connection.final_reply(limits.final_timeout).await
        }
        .await;
        match replied {
            Ok(reply) if reply.code() == 421 => Some(transient(&reply)),
            Ok(reply) if reply.is_intermediate() => Some(Refusal::NextHopEarly.reply(limits)),
            Ok(reply) => {
                // What a refused chunk leaves behind is not defined (RFC 3030 section 2).
                lease.connection.set_needs_reset(passage.in_chunks && !reply.is_positive());
                lease.release();
                Some(reply)
            }
            Err(error) => {
                lease.failed(&error);
                passage.next_hop_failed(self, &error);
                None
            }
        }
    }
}
