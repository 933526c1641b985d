//! MAIL and RCPT: the envelope grows, each forward path with the word of whoever decides on it.
//!
//! PROMISES
//!   A relayed recipient is answered with the next hop's own reply; a group that was pipelined goes on in one
//!   write. A pooled connection that died since its last transaction is replaced unnoticed. What the next hop cannot carry is
//!   refused, never dropped. A next hop that goes away before the client was given any reply of its is replaced by the
//!   next one of the route.
//!
//! STANDARDS
//!   RFC 5321 section 3.3 and 4.5.3.1.10 (452), RFC 1870, RFC 6152, RFC 6531, RFC 3461, RFC 2920.
//!
//! BUGS
//!   MAIL is answered by us, since its route is not known before the first RCPT; a next hop's refusal of the
//!   reverse path is the reply to every RCPT.

use bytes::Buf;
use tracing::warn;

use super::grammar::Step;
use super::refusal::Refusal;
use super::session::{End, Flow, Session};
use crate::relay::Unavailable;
use crate::relay::connection::Batch;
use crate::relay::dial::DialError;
use crate::relay::next_hop::Lease;
use crate::route::{Decision, Onward};
use crate::smtp::{
    Command, Enhanced, Envelope, Line, MailParameters, Path, RcptParameters, Recipient, Reply,
};

/// One mail transaction.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Reverse path and parameters of MAIL; recipients are in `accepted`.
    pub envelope: Envelope,
    pub onward: Option<Onward>,
    pub lease: Option<Lease>,
    pub accepted: Vec<Accepted>,
    /// The next hop was lost after it had accepted recipients.
    pub lost: bool,
    /// The client was given a next hop's reply: no other may speak now.
    pub answered: bool,
}

/// A forward path that was answered with 250.
#[derive(Debug)]
pub struct Accepted {
    pub path: Path,
    /// It goes to replication.
    pub intercepted: bool,
}

/// A forward path on its way to an answer.
struct Candidate {
    recipient: Recipient,
    verdict: Verdict,
}

enum Verdict {
    Intercept,
    /// To the next hop; which of its replies, once they are there.
    Relay(Option<usize>),
    Refuse(Refusal),
}

/// What the next hop answered to a group of recipients.
struct Answers {
    /// One for each relayed recipient, in order.
    recipients: Vec<Reply>,
    /// To the DATA that went with them.
    data: Option<Reply>,
}

impl Transaction {
    pub fn relays(&self) -> bool {
        self.accepted.iter().any(|accepted| !accepted.intercepted)
    }

    pub fn intercepts(&self) -> bool {
        self.accepted.iter().any(|accepted| accepted.intercepted)
    }

    /// Gives the connection back before any message: it stays usable behind a RSET.
    pub fn abandon(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            lease.connection.set_needs_reset(true);
            lease.release();
        }
    }
}

impl Session {
    pub(super) fn mail(&mut self, path: Path, parameters: &str) -> Flow {
        if self.grammar.accept(Step::Mail(&path)).is_err() {
            let need = match self.transaction {
                Some(_) => "Nested MAIL; RSET first",
                None => "EHLO, HELO or LHLO first",
            };
            return self.refuse(Refusal::OutOfSequence(need));
        }
        self.settings = self.service.relay.settings();
        let parameters = match self.check_mail(&path, parameters) {
            Ok(parameters) => parameters,
            Err(refusal) => {
                self.grammar.reset();
                return self.refuse(refusal);
            }
        };
        self.client.utf8 = parameters.smtputf8;
        let envelope = Envelope { reverse_path: path, parameters, recipients: Vec::new() };
        self.transaction = Some(Box::new(Transaction { envelope, ..Transaction::default() }));
        self.say(&Reply::new(250, Enhanced(2, 1, 0), "Ok"));
        Ok(())
    }

    fn check_mail(&self, path: &Path, parameters: &str) -> Result<MailParameters, Refusal> {
        if let Some(refusal) = self.precondition() {
            return Err(refusal);
        }
        let parameters = MailParameters::parse(parameters)?;
        let offered = &self.offered;
        if parameters.size.is_some() && offered.size.is_none() {
            return Err(Refusal::NotOffered("SIZE"));
        }
        if parameters.is_binary() && !offered.takes_binary() {
            return Err(Refusal::NotOffered("BINARYMIME"));
        }
        if parameters.body.is_some() && !parameters.is_binary() && !offered.eight_bit_mime {
            return Err(Refusal::NotOffered("8BITMIME"));
        }
        if parameters.smtputf8 && !offered.smtputf8 {
            return Err(Refusal::NotOffered("SMTPUTF8"));
        }
        if (parameters.ret.is_some() || parameters.envid.is_some()) && !offered.dsn {
            return Err(Refusal::NotOffered("DSN"));
        }
        if parameters.auth.is_some() && !self.client.extended {
            return Err(Refusal::NotOffered("AUTH"));
        }
        if parameters.size.is_some_and(|size| size > self.settings.config.limits.message_bytes_max) {
            return Err(Refusal::MessageTooLarge);
        }
        if !path.is_ascii() && !parameters.smtputf8 {
            return Err(Refusal::NeedsSmtpUtf8);
        }
        if !self.service.admission.message(&self.client, &self.settings.config) {
            return Err(Refusal::MessageRate);
        }
        Ok(parameters)
    }

    /// One RCPT and those that were pipelined behind it; DATA too, where it follows at once.
    pub(super) async fn recipients(&mut self, path: Path, parameters: &str) -> Flow {
        if self.grammar.ask(Step::Rcpt(&path)).is_err() {
            return self.refuse(Refusal::OutOfSequence("MAIL first"));
        }
        let mut group = Vec::new();
        self.consider(path, parameters, &mut group).await;
        let with_data = self.consider_pipelined(&mut group).await;
        let answers = match group.iter().any(|c| matches!(c.verdict, Verdict::Relay(_))) {
            true => self.forward(&mut group, with_data).await,
            false => Ok(Answers { recipients: Vec::new(), data: None }),
        };
        let data = self.answer(group, &answers)?;
        if !with_data {
            return Ok(());
        }
        self.data(data).await
    }

    /// Takes further RCPT lines from the input. True: DATA stood behind them and was taken too.
    async fn consider_pipelined(&mut self, group: &mut Vec<Candidate>) -> bool {
        let bytes_max = self.settings.config.limits.command_bytes_max;
        while let Line::Whole(octets) = Line::find(&self.input, bytes_max) {
            if self.input[..octets].eq_ignore_ascii_case(b"DATA\r\n") {
                if self.is_binary() {
                    return false;
                }
                // Behind DATA nothing may follow; where something does, DATA is refused in its own turn.
                let last = self.input.len() == octets;
                if last {
                    self.input.advance(octets);
                }
                return last;
            }
            if !self.input[..octets].get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"RCPT ")) {
                return false;
            }
            let line = self.input[..octets - 2].to_vec();
            let Ok(Command::Rcpt(path, parameters)) = Command::parse(&line) else {
                return false;
            };
            self.input.advance(octets);
            self.consider(path, parameters, group).await;
        }
        false
    }

    /// Whether the transaction is for a message of any octets.
    pub(super) fn is_binary(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.envelope.parameters.is_binary())
    }

    async fn consider(&mut self, path: Path, parameters: &str, group: &mut Vec<Candidate>) {
        let (parameters, parsed) = match RcptParameters::parse(parameters) {
            Ok(parameters) => (parameters, Ok(())),
            Err(error) => (RcptParameters::default(), Err(Refusal::from(error))),
        };
        let recipient = Recipient { path, parameters };
        let verdict = match parsed.and_then(|()| self.check_recipient(&recipient, group.len())) {
            Ok(verdict) => verdict,
            Err(refusal) => Verdict::Refuse(refusal),
        };
        let verdict = match verdict {
            Verdict::Relay(_) if !self.is_known(&recipient.path).await => {
                Verdict::Refuse(Refusal::UnknownRecipient)
            }
            verdict => verdict,
        };
        group.push(Candidate { recipient, verdict });
    }

    fn check_recipient(&mut self, recipient: &Recipient, in_group: usize) -> Result<Verdict, Refusal> {
        let trusted = self.is_trusted();
        let Some(transaction) = &mut self.transaction else {
            return Err(Refusal::OutOfSequence("MAIL first"));
        };
        if transaction.accepted.len() + in_group >= self.settings.config.limits.recipients_max {
            return Err(Refusal::TooManyRecipients);
        }
        if recipient.parameters != RcptParameters::default() && !self.offered.dsn {
            return Err(Refusal::NotOffered("DSN"));
        }
        if !recipient.path.is_ascii() && !transaction.envelope.parameters.smtputf8 {
            return Err(Refusal::NeedsSmtpUtf8);
        }
        match self.settings.routes.decide(&recipient.path, trusted) {
            Decision::Intercept(_) => Ok(Verdict::Intercept),
            Decision::Refuse(why) => Err(why.into()),
            Decision::Relay(space) => {
                let onward = space.onward(&recipient.path);
                match &transaction.onward {
                    Some(chosen) if *chosen != onward => Err(Refusal::OtherRoute),
                    Some(_) => Ok(Verdict::Relay(None)),
                    None => {
                        transaction.onward = Some(onward);
                        Ok(Verdict::Relay(None))
                    }
                }
            }
        }
    }

    /// Whether the directory knows an address of ours; where it is not asked, everything is known.
    async fn is_known(&self, path: &Path) -> bool {
        let config = &self.settings.config;
        match &self.service.recipients {
            Some(recipients) if config.known_recipients_only && !path.domain().is_empty() => {
                !self.settings.routes.is_own(path) || recipients.is_known(path).await
            }
            _ => true,
        }
    }

    /// Asks the next hop about the group's relayed recipients.
    async fn forward(&mut self, group: &mut [Candidate], with_data: bool) -> Result<Answers, Refusal> {
        let (mut fresh, mut tried, mut failure) = (false, Vec::new(), None);
        loop {
            let relay = self.service.relay.clone();
            let patience = self.settings.config.limits.reply_timeout;
            let attributes = self.client.attributes();
            let Some(transaction) = &mut self.transaction else {
                return Err(Refusal::Internal);
            };
            if transaction.lost {
                return Err(Refusal::NextHopLost);
            }
            let begins = transaction.lease.is_none();
            let mut lease = match (transaction.lease.take(), &transaction.onward) {
                (Some(lease), _) => lease,
                (None, Some(onward)) => match &self.authenticated {
                    Some(own) if own.onward == *onward => own.take().ok_or(Refusal::NextHopLost)?,
                    _ => match relay.acquire(&self.settings, onward, fresh, &tried).await {
                        Ok(lease) => lease,
                        // The words of a next hop that was reached say more than that none is left.
                        Err(error) => return failure.unwrap_or_else(|| Err(away(&error))),
                    },
                },
                (None, None) => return Err(Refusal::Internal),
            };
            let extensions = lease.connection.extensions().clone();
            let mut batch = Batch::default();
            if begins {
                if let Some(name) = transaction.envelope.parameters.lacking(&extensions) {
                    lease.release();
                    return Err(Refusal::NextHopLacks(name));
                }
                if lease.connection.needs_reset() {
                    batch.push(b"RSET\r\n");
                }
                if lease.next_hop.config.xforward {
                    attributes.write_xforward(&mut batch.bytes, &extensions.xforward);
                    batch.end_command();
                }
                transaction.envelope.write_mail(&mut batch.bytes, &extensions);
                batch.end_command();
            }
            let before = batch.len();
            for candidate in group.iter_mut().filter(|c| matches!(c.verdict, Verdict::Relay(_))) {
                if let Some(name) = candidate.recipient.parameters.lacking(&extensions) {
                    candidate.verdict = Verdict::Refuse(Refusal::NextHopLacks(name));
                    continue;
                }
                candidate.verdict = Verdict::Relay(Some(batch.len() - before));
                candidate.recipient.write_rcpt(&mut batch.bytes, &extensions);
                batch.end_command();
            }
            let recipients = batch.len() - before;
            let data = with_data && extensions.pipelining && recipients > 0;
            if data {
                batch.push(b"DATA\r\n");
            }
            let exchanged = lease.connection.exchange(&batch, patience).await;
            let mut replies = match exchanged {
                Ok(replies) if !replies.iter().any(|reply| reply.code() == 421) => replies,
                _ if begins && lease.connection.is_reused() && !fresh => {
                    fresh = true;
                    continue;
                }
                failed => {
                    if let Err(error) = &failed {
                        lease.failed(error);
                    }
                    transaction.lost = transaction.relays();
                    let going = failed.ok().and_then(|replies| replies.into_iter().find(|r| r.code() == 421));
                    let answers = match going.map(|reply| transient(&reply)) {
                        Some(reply) => Ok(Answers { recipients: vec![reply; recipients], data: None }),
                        None => Err(Refusal::NextHopLost),
                    };
                    if !begins || transaction.answered || self.authenticated.is_some() {
                        transaction.answered = true;
                        return answers;
                    }
                    warn!(target: "bridgehead::relay", next_hop = %lease.next_hop.config.host, "next hop went away before its reply");
                    lease.next_hop.failed(&self.settings.config.limits);
                    tried.push(lease.next_hop.clone());
                    (fresh, failure) = (false, Some(answers));
                    continue;
                }
            };
            transaction.answered = true;
            lease.next_hop.succeeded();
            lease.connection.set_needs_reset(false);
            let data = if data { replies.pop() } else { None };
            let recipients = replies.split_off(before);
            let refused = begins.then(|| replies.pop()).flatten().filter(|mail| !mail.is_positive());
            if let Some(mail) = refused {
                // The reverse path was refused; so is every recipient, in the next hop's words.
                if data.is_none_or(|reply| reply.code() != 354) {
                    lease.connection.set_needs_reset(true);
                    lease.release();
                }
                return Ok(Answers { recipients: vec![mail; recipients.len()], data: None });
            }
            let accepted = transaction.relays() || recipients.iter().any(Reply::is_positive);
            match &data {
                Some(reply) if reply.code() == 354 && !accepted => {
                    // Nobody is left to send to: an empty message ends what the next hop began.
                    if lease.connection.send(b".\r\n", patience).await.is_err()
                        || lease.connection.reply(patience).await.is_err()
                    {
                        return Ok(Answers { recipients, data: None });
                    }
                    transaction.lease = Some(lease);
                    transaction.abandon();
                    return Ok(Answers { recipients, data: None });
                }
                _ => transaction.lease = Some(lease),
            }
            return Ok(Answers { recipients, data: data.filter(|_| accepted) });
        }
    }

    /// Answers the group in order; gives the reply to DATA where it was asked.
    fn answer(
        &mut self,
        group: Vec<Candidate>,
        answers: &Result<Answers, Refusal>,
    ) -> Result<Option<Reply>, End> {
        for candidate in group {
            match candidate.verdict {
                Verdict::Refuse(refusal) => self.refuse(refusal)?,
                Verdict::Intercept => match self.accept(candidate.recipient.path, true) {
                    true => self.say(&Reply::new(250, Enhanced(2, 1, 5), "Ok, to replication")),
                    false => self.refuse(Refusal::Internal)?,
                },
                Verdict::Relay(index) => match answers {
                    Err(refusal) => self.refuse(refusal.clone())?,
                    Ok(answers) => match index.and_then(|i| answers.recipients.get(i)) {
                        None => self.refuse(Refusal::NextHopLost)?,
                        Some(reply)
                            if reply.is_positive() && !self.accept(candidate.recipient.path, false) =>
                        {
                            self.refuse(Refusal::Internal)?;
                        }
                        Some(reply) => {
                            if !reply.is_positive() {
                                self.service.counters.next_hop_refused_recipient();
                            }
                            self.say(reply);
                        }
                    },
                },
            }
        }
        Ok(answers.as_ref().ok().and_then(|answers| answers.data.clone()))
    }

    fn accept(&mut self, path: Path, intercepted: bool) -> bool {
        match &mut self.transaction {
            Some(transaction) if self.grammar.accept(Step::Rcpt(&path)).is_ok() => {
                transaction.accepted.push(Accepted { path, intercepted });
                true
            }
            _ => false,
        }
    }
}

/// Domains that do not exist or take no mail are the client's fault, all else is not.
fn away(error: &Unavailable) -> Refusal {
    match error.reason {
        DialError::NoDomain(_) => Refusal::NoSuchDomain,
        DialError::NullMx(_) => Refusal::NullMx,
        _ => Refusal::NextHopAway,
    }
}

/// A 421 is about the next hop's connection, not about ours: the client gets its words as 451.
pub(super) fn transient(reply: &Reply) -> Reply {
    match reply.code() {
        421 => Reply::new(451, reply.enhanced(), reply.text()),
        _ => reply.clone(),
    }
}
