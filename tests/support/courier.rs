//! Two sites whose mail a test carries by hand, so that it can look at it, change it, lose it and repeat it.

use std::time::Duration;

use super::{Client, Recorded, Recorder, Reply, SOON, Scratch, Site, await_some, free_address};

pub struct ByHand {
    pub paris: Site,
    pub tokyo: Site,
    from_paris: Recorder,
    from_tokyo: Recorder,
    _scratch: Scratch,
}

impl ByHand {
    /// Both started, introduced, and in contact.
    pub fn start(test: &str) -> ByHand {
        let scratch = Scratch::new(test);
        let (from_paris, from_tokyo) = (Recorder::start(), Recorder::start());
        let mut paris = Site::init(&scratch, "paris", free_address(), from_paris.address);
        let mut tokyo = Site::init(&scratch, "tokyo", free_address(), from_tokyo.address);
        paris.introduce(&tokyo);
        paris.start();
        tokyo.start();
        let pair = ByHand { paris, tokyo, from_paris, from_tokyo, _scratch: scratch };
        await_some("both sites to be in contact", SOON, || {
            pair.paris.ok(&["sync"]);
            pair.tokyo.ok(&["sync"]);
            pair.carry_for(Duration::from_millis(500));
            (is_up(&pair.paris) && is_up(&pair.tokyo)).then_some(())
        });
        pair.carry_for(Duration::from_secs(1));
        pair
    }

    /// Carries mail both ways for so long.
    pub fn carry_for(&self, time: Duration) {
        let end = std::time::Instant::now() + time;
        while std::time::Instant::now() < end {
            for (recorder, to) in [(&self.from_paris, &self.tokyo), (&self.from_tokyo, &self.paris)] {
                for mail in recorder.take() {
                    assert!(mail.is_for(&to.mailbox), "only replication mail is sent: {mail:?}");
                    deliver(to, &mail.message).expect(250);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Carries mail both ways for so long, also what is still sent to Tokyo's former mailbox.
    pub fn carry_to_both_for(&self, former: &str, time: Duration) {
        let end = std::time::Instant::now() + time;
        while std::time::Instant::now() < end {
            for mail in self.from_paris.take() {
                assert!(mail.is_for(&self.tokyo.mailbox) || mail.is_for(former), "{mail:?}");
                deliver_at(&self.tokyo, former, &mail.message).expect(250);
            }
            for mail in self.from_tokyo.take() {
                deliver(&self.paris, &mail.message).expect(250);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What Paris sends next, not delivered.
    pub fn intercept_from_paris(&self) -> Vec<Recorded> {
        self.paris.ok(&["sync"]);
        await_some("mail from Paris", SOON, || {
            std::thread::sleep(Duration::from_millis(300));
            Some(self.from_paris.take()).filter(|mail| !mail.is_empty())
        })
    }
}

/// Hands a message to a site's replication mailbox by SMTP; the reply to the final dot, or the refusal before it.
pub fn deliver(to: &Site, message: &[u8]) -> Reply {
    deliver_at(to, &to.mailbox, message)
}

/// The same, to a mailbox of the site that is not the one that this test goes by.
pub fn deliver_at(to: &Site, mailbox: &str, message: &[u8]) -> Reply {
    let mailbox = format!("<{mailbox}>");
    Client::greet(to.address).transact("<somebody@outside.example>", &[&mailbox], message)
}

fn is_up(site: &Site) -> bool {
    site.status()["partners"][0]["state"] == "up"
}
