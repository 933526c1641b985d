//! AUTH, offered from a password file.

use super::refusal::Refusal;
use super::session::{Flow, Session};

impl Session {
    pub(super) async fn auth(&mut self, _mechanism: &str, _initial: Option<&str>) -> Flow {
        self.refuse(Refusal::NotImplemented)
    }
}
