//! Whole sessions: whatever a client sends and a next hop answers, what `bridgehead_fuzz` promises holds.
//!
//! Input: flags, the number of whims, the whims, then what the client sends. In it 0x1e waits for replies, 0x1f sleeps 100
//! seconds, 0x1d divides what is sent.
#![no_main]

use bridgehead_fuzz::{Setting, Step, play};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [flags, count, rest @ ..] = data else { return };
    let (whims, sent) = rest.split_at(usize::from(count & 15).min(rest.len()));
    let setting = Setting { flags: *flags, whims: whims.to_vec() };
    let mut steps = Vec::new();
    for piece in sent.split_inclusive(|octet| (0x1d..=0x1f).contains(octet)) {
        let (octets, mark) = match piece {
            [octets @ .., mark @ 0x1d..=0x1f] => (octets, *mark),
            octets => (octets, 0x1e),
        };
        steps.push(Step::Send(octets.to_vec()));
        steps.push(if mark == 0x1f { Step::Sleep(100) } else { Step::Await });
        if mark == 0x1d {
            steps.pop();
        }
    }
    play(&setting, &steps);
});
