//! Submission: the engine's mail is sealed, dressed as a message and handed to the next hop.
//!
//! PROMISES
//!   What became of each mail is told to the engine: the next hop's 250, its refusal, or its absence.
//!   Nothing is queued here; what is lost in a crash the engine sends again.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::Site;
use super::counters;
use super::replicator::Mail;
use crate::message::mime::{self, Letter};
use crate::message::seal::{self, Header};
use crate::message::{random, token};
use crate::relay::Relay;
use crate::replication::engine::Input;
use crate::replication::wire::key_id;
use crate::smtp::{Envelope, Path};

/// Mails under way to next hops at once.
const SUBMISSIONS_MAX: usize = 4;

/// Sends until the replicator is gone, then waits for what is under way.
pub async fn run(site: Arc<Site>, relay: Arc<Relay>, mut queue: mpsc::UnboundedReceiver<Mail>) {
    let permits = Arc::new(Semaphore::new(SUBMISSIONS_MAX));
    let mut under_way = JoinSet::new();
    while let Some(mail) = queue.recv().await {
        while under_way.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { break };
        let (site, relay) = (site.clone(), relay.clone());
        under_way.spawn(async move {
            submit(&site, &relay, mail).await;
            drop(permit);
        });
    }
    under_way.join_all().await;
}

async fn submit(site: &Arc<Site>, relay: &Relay, mail: Mail) {
    let (to, number) = (mail.to.clone(), mail.mail);
    let sealing = site.clone();
    let composed = tokio::task::spawn_blocking(move || compose(&sealing, &mail)).await;
    let (envelope, message) = match composed {
        Ok(Ok(composed)) => composed,
        Ok(Err(reason)) => return failed(site, to, number, 554, String::new(), reason),
        Err(failure) => return failed(site, to, number, 451, String::new(), failure.to_string()),
    };
    match relay.submit(&envelope, &message).await {
        Ok(reply) if reply.is_positive() => {
            site.counters.mail(counters::Mail::Sent, message.len());
            info!(
                event = "message-sent",
                site = to,
                seq = number,
                bytes = message.len(),
                reply = reply.text(),
                "sent"
            );
            site.replicator.input(Input::Sent { to, mail: number });
        }
        Ok(reply) => {
            let enhanced = reply.enhanced().map_or_else(String::new, |enhanced| enhanced.to_string());
            failed(site, to, number, reply.code(), enhanced, reply.text().to_owned());
        }
        Err(failure) => failed(site, to, number, 421, String::new(), failure.to_string()),
    }
}

fn failed(site: &Site, to: String, mail: u64, reply: u16, enhanced: String, text: String) {
    site.counters.mail(counters::Mail::NotSent, 0);
    warn!(event = "message-not-sent", site = to, seq = mail, reply, enhanced, text, "will be sent again");
    site.replicator.input(Input::SendFailed { to, mail, reply, enhanced, text });
}

fn compose(site: &Site, mail: &Mail) -> Result<(Envelope, Vec<u8>), String> {
    let config = site.config();
    let partner = config.partner(&mail.to);
    let card = &partner.ok_or_else(|| format!("no site {} is connected", mail.to))?.card;
    let time = Timestamp::now();
    let header = Header { from: config.site.name.clone(), to: mail.to.clone(), seq: mail.mail, time };
    let key = site.key.load_full();
    let signing = key.signing_as(|key| key_id(key) == mail.signer).unwrap_or_else(|| (*key).clone());
    let sealed =
        seal::seal(&signing, card, &header, &mail.payload, &mut random::system()).map_err(|error| {
            error!(event = "seal-failed", site = mail.to, %error, "a message could not be sealed");
            error.to_string()
        })?;
    let token = key.make_token(&mail.to, mail.mail);
    let letter =
        Letter { from: &config.site.mailbox, to: &card.fields.mailbox, token: &token, time, sealed: &sealed };
    let message = mime::compose(&letter).map_err(|error| error.to_string())?;
    let path = |address: &str| Path::parse(address).map_err(|error| format!("{address}: {error}"));
    let reverse_path = path(&token::return_path(&config.site.mailbox, &token))?;
    Ok((Envelope::plain(reverse_path, path(&card.fields.mailbox)?), message))
}
