//! Sendmail.

use super::{Places, relays, replicates};
use crate::support::{Jail, Scratch, recipe};

#[test]
fn sendmail_routes_replication_mail_to_bridgehead() {
    replicates("sendmail", |scratch, places| start(scratch, places, "replication-mail"));
}

#[test]
fn sendmail_sends_everything_through_bridgehead() {
    relays("sendmail-smarthost", |scratch, places| start(scratch, places, "smarthost"));
}

fn start(scratch: &Scratch, places: &Places, variant: &str) -> Jail {
    let piece = |name: &str| recipe(&format!("sendmail/{variant}/{name}"), places.bridgehead);
    // The smarthost needs no more than lines for sendmail.mc.
    let table = |name: &str| if variant == "smarthost" { String::new() } else { piece(name) };
    let script = format!(
        r#"
S="$PEERS/sendmail-bin/usr/libexec/sendmail" CF="$PEERS/sendmail-cf/usr/share/sendmail/cf"
mkdir -p "$W/mqueue"
chmod 700 "$W/mqueue"
touch /etc/mail/local-host-names
cat >/etc/mail/relay-domains <<'EOF'
{relay_domains}
EOF
cat >/etc/mail/mailertable <<'EOF'
{mailertable}
repl.tokyo.example	tokyo:[127.0.0.1]
.	people:[127.0.0.1]
EOF
cat >"$W/sendmail.mc" <<EOF
OSTYPE(\`linux')dnl
define(\`QUEUE_DIR', \`$W/mqueue')dnl
define(\`STATUS_FILE', \`$W/statistics')dnl
define(\`confPID_FILE', \`$W/pid')dnl
define(\`confDEF_USER_ID', \`mail:mail')dnl
define(\`confDOMAIN_NAME', \`mx.paris.example')dnl
define(\`ALIAS_FILE', \`')dnl
FEATURE(\`nocanonify')dnl
FEATURE(\`no_default_msa')dnl
FEATURE(\`accept_unresolvable_domains')dnl
FEATURE(\`promiscuous_relay')dnl
DAEMON_OPTIONS(\`Addr={ip}, Port={port}')dnl
EOF
cat >>"$W/sendmail.mc" <<'EOF'
{mc}
Mtokyo,	P=[IPC], F=mDFMuXa8k, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\r\n, L=990,
		T=DNS/RFC822/SMTP,
		A=TCP $h {tokyo}
Mpeople,	P=[IPC], F=mDFMuXa8k, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\r\n, L=990,
		T=DNS/RFC822/SMTP,
		A=TCP $h {people}
EOF
m4 "-D_CF_DIR_=$CF/" "$CF/m4/cf.m4" "$W/sendmail.mc" >"$W/sendmail.cf"
# On a busy machine makemap was seen to crash, once in some dozens of runs.
for attempt in 1 2 3; do
	"$S/makemap" -C "$W/sendmail.cf" hash /etc/mail/mailertable </etc/mail/mailertable && break
done
exec "$S/sendmail" -bD -q2s -C "$W/sendmail.cf"
"#,
        ip = places.server.ip(),
        port = places.server.port(),
        relay_domains = table("relay-domains"),
        mailertable = table("mailertable"),
        mc = piece("sendmail.mc"),
        tokyo = places.tokyo.port(),
        people = places.people.port(),
    );
    Jail::start(scratch, "sendmail", &script, places.server)
}
