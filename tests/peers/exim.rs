//! Exim.

use super::{Places, relays, replicates};
use crate::support::{Jail, Scratch, recipe};

#[test]
fn exim_routes_replication_mail_to_bridgehead() {
    replicates("exim", |scratch, places| start(scratch, places, "replication-mail"));
}

#[test]
fn exim_sends_everything_through_bridgehead() {
    relays("exim-smarthost", |scratch, places| start(scratch, places, "smarthost"));
}

fn start(scratch: &Scratch, places: &Places, variant: &str) -> Jail {
    let piece = |name: &str| recipe(&format!("exim/{variant}/{name}"), places.bridgehead);
    let script = format!(
        r#"
mkdir -p "$W/spool" "$W/log"
chown -R Debian-exim: "$W/spool" "$W/log"
cat >"$W/exim.conf" <<'EOF'
primary_hostname = mx.paris.example
exim_path = PEERS/exim4-daemon-light/usr/sbin/exim4
spool_directory = WHERE/spool
log_file_path = WHERE/log/%slog
pid_file_path = WHERE/exim.pid
local_interfaces = {ip}
daemon_smtp_ports = {port}
host_lookup =
rfc1413_hosts =
disable_ipv6
keep_environment =
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = acl_rcpt
{main}
begin acl
acl_rcpt:
  accept
begin routers
{routers}
tokyo:
  driver = manualroute
  domains = repl.tokyo.example
  transport = tokyo
  route_list = * 127.0.0.1 byname
  self = send
people:
  driver = manualroute
  transport = people
  route_list = * 127.0.0.1 byname
  self = send
begin transports
{transports}
tokyo:
  driver = smtp
  port = {tokyo}
  allow_localhost
people:
  driver = smtp
  port = {people}
  allow_localhost
begin retry
{retry}
EOF
sed -i "s#PEERS#$PEERS#; s#WHERE#$W#" "$W/exim.conf"
exec "$PEERS/exim4-daemon-light/usr/sbin/exim4" -C "$W/exim.conf" -bdf -q5s
"#,
        ip = places.server.ip(),
        port = places.server.port(),
        main = piece("main"),
        routers = piece("routers"),
        transports = piece("transports"),
        retry = piece("retry"),
        tokyo = places.tokyo.port(),
        people = places.people.port(),
    );
    Jail::start(scratch, "exim", &script, places.server)
}
