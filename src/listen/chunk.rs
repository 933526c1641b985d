//! BDAT: a message in chunks.

use super::refusal::Refusal;
use super::session::{Flow, Session};

impl Session {
    pub(super) async fn bdat(&mut self, _octets: u64, _last: bool) -> Flow {
        self.refuse(Refusal::NotImplemented)
    }
}
