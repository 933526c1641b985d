//! Messages as a trace shows them.

use bridgehead::replication::parts::{Part, TransferId};
use bridgehead::replication::transfer::{Base, Manifest};
use bridgehead::replication::wire::{Message, Request};

/// A message in the trace.
pub fn said(mail: u64, message: &Message) -> String {
    let hello = message.hello.as_ref().map_or(String::new(), |hello| format!(" hello({})", hello.answer));
    let of_others = match message.introductions.len() {
        0 => String::new(),
        sites => format!(" introduces {sites}"),
    };
    let parts: String = message.parts.iter().map(|item| part(&item.part)).collect();
    let asks: String = message.requests.iter().map(ask).collect();
    let told = match (message.vector.len(), message.vector_digest) {
        (told, Some(_)) => format!(" +{told}"),
        (told, None) => format!(" ={told}"),
    };
    let whole = if message.vector_wanted { " whole?" } else { "" };
    format!(
        "#{}{hello}{of_others}{told}{whole}{parts}{asks}{}",
        mail % 1_000_000,
        if message.answer_wanted { " ?" } else { "" }
    )
}

fn part(part: &Part) -> String {
    let manifest = Manifest::from_bytes(&part.manifest).ok();
    let checkpoint = manifest.as_ref().and_then(|manifest| manifest.checkpoint.claimed().ok());
    let base = match manifest.map(|manifest| manifest.base) {
        Some(Base::At(position, _)) => format!("{}", position.usn),
        Some(Base::Nothing) => "nothing".into(),
        Some(Base::Repair) => "repair".into(),
        None => String::new(),
    };
    let target =
        checkpoint.map_or(String::new(), |said| format!("{} {} {}", said.context, said.position, said.time));
    format!(" part {}/{} of {} {base}->{target}", part.index, part.count, short(part.transfer))
}

fn ask(request: &Request) -> String {
    match request.transfer {
        Some(transfer) => format!(" asks {:?} of {}", request.missing, short(transfer)),
        None => format!(" asks {:?}", request.base.map(|base| base.usn)),
    }
}

/// Enough to tell the transfers of one world apart.
fn short(transfer: TransferId) -> String {
    transfer.to_string()[..6].to_owned()
}
