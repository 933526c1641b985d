//! OpenSMTPD.

use super::{Places, relays, replicates};
use crate::support::{Jail, Scratch, recipe};

#[test]
fn opensmtpd_routes_replication_mail_to_bridgehead() {
    replicates("opensmtpd", |scratch, places| start(scratch, places, "replication-mail"));
}

#[test]
fn opensmtpd_sends_everything_through_bridgehead() {
    relays("opensmtpd-smarthost", |scratch, places| start(scratch, places, "smarthost"));
}

fn start(scratch: &Scratch, places: &Places, variant: &str) -> Jail {
    let script = format!(
        r#"
mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty /usr/libexec/opensmtpd
chmod 711 /var/spool/smtpd
mount --bind "$PEERS/opensmtpd/usr/libexec/opensmtpd" /usr/libexec/opensmtpd
cat >"$W/smtpd.conf" <<'EOF'
listen on {ip} port {port} hostname mx.paris.example
{recipe}
action "tokyo" relay host smtp://{tokyo}
action "people" relay host smtp://{people}
match from any for domain "repl.tokyo.example" action "tokyo"
match from any for any action "people"
EOF
exec "$PEERS/opensmtpd/usr/sbin/smtpd" -d -f "$W/smtpd.conf"
"#,
        ip = places.server.ip(),
        port = places.server.port(),
        recipe = recipe(&format!("opensmtpd/{variant}.conf"), places.bridgehead),
        tokyo = places.tokyo,
        people = places.people,
    );
    Jail::start(scratch, "opensmtpd", &script, places.server)
}
