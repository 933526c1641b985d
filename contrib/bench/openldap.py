"""OpenLDAP beside bridgehead: what its own replication costs for the same directory on the same machine.

Debian's slapd, installed or unpacked under target/peers (it is fetched there when it is in neither place), with its usual
back-mdb, on loopback. A provider and a consumer each have a directory; octets are the payload of the TCP connection between
them, both ways, as the kernel counts it. `durable` means that each write waits for the disk, which is slapd's default.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import common

SUFFIX = "dc=example,dc=com"
ADMIN = f"cn=admin,{SUFFIX}"
PASSWORD = "secret"
GROUP = f"cn=everybody,{SUFFIX}"
MEMBERS = 25_000
UNPACKED = common.ROOT / "target/peers/slapd"
INDICES = "index objectClass,entryUUID,entryCSN,uid,member eq\nindex mail,cn,sn,givenName,displayName eq,sub\n"


def prefix():
    """Where slapd is installed, as a path to put before /usr and /etc."""
    if pathlib.Path("/usr/sbin/slapd").exists():
        return pathlib.Path("/")
    if not (UNPACKED / "usr/sbin/slapd").exists():
        with tempfile.TemporaryDirectory() as place:
            os.chmod(place, 0o755)
            words = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", "slapd"]
            subprocess.run(words, cwd=place, check=True, stdout=subprocess.DEVNULL)
            UNPACKED.mkdir(parents=True, exist_ok=True)
            subprocess.run(["dpkg", "-x", *pathlib.Path(place).glob("*.deb"), UNPACKED], check=True)
    return UNPACKED


class Slapd:
    """One server; `delta`: its provider keeps a log of changes, its consumer reads that."""

    def __init__(self, directory, provider=None, delta=False, durable=True):
        self.root, self.directory, self.process = prefix(), directory, None
        self.port, self.replication_port = common.free_port(), common.free_port()
        (directory / "db").mkdir(parents=True)
        (directory / "log").mkdir()
        sync = "" if durable else "dbnosync\n"
        lines = [f"include {self.root}/etc/ldap/schema/{name}.schema" for name in ("core", "cosine", "inetorgperson")]
        lines += [f"modulepath {self.root}/usr/lib/ldap", *(f"moduleload {m}" for m in ("back_mdb", "syncprov", "accesslog"))]
        lines += ["loglevel 0", "sizelimit unlimited"]
        everything = " ".join(f"{kind}.{how}=unlimited" for kind in ("time", "size") for how in ("soft", "hard"))
        if provider is None and delta:
            lines += ["database mdb", "suffix cn=accesslog", "rootdn cn=accesslog", "maxsize 8589934592"]
            lines += [f"directory {directory}/log", f"{sync}index default eq", "index entryCSN,objectClass,reqEnd,reqResult,reqStart,reqDN eq"]
            lines += ["overlay syncprov", "syncprov-nopresent TRUE", "syncprov-reloadhint TRUE"]
            lines += [f'limits dn.exact="{ADMIN}" {everything}', f'access to * by dn.exact="{ADMIN}" read by * none']
        lines += ["database mdb", f"suffix {SUFFIX}", f"rootdn {ADMIN}", f"rootpw {PASSWORD}", "maxsize 8589934592"]
        lines += [f"directory {directory}/db", INDICES + sync]
        if provider is None:
            lines += ["overlay syncprov", "syncprov-checkpoint 100 10", "syncprov-sessionlog 10000"]
            if delta:
                lines += ["overlay accesslog", "logdb cn=accesslog", "logops writes", "logsuccess TRUE"]
            lines.insert(0, "serverID 1")
        else:
            log = ' logbase=cn=accesslog logfilter="(&(objectClass=auditWriteObject)(reqResult=0))" syncdata=accesslog'
            lines += [
                f"syncrepl rid=001 provider=ldap://127.0.0.1:{provider.replication_port} type=refreshAndPersist "
                f"searchbase={SUFFIX} bindmethod=simple binddn={ADMIN} credentials={PASSWORD} "
                f'retry="1 +" schemachecking=off{log if delta else ""}',
                f"updateref ldap://127.0.0.1:{provider.port}",
            ]
        (directory / "slapd.conf").write_text("\n".join(lines) + "\n")

    def words(self, *more):
        return [self.root / "usr/sbin/slapd", *more, "-f", self.directory / "slapd.conf"]

    def environment(self):
        return {**os.environ, "LD_LIBRARY_PATH": str(self.root / "usr/lib/x86_64-linux-gnu")}

    def add(self, ldif):
        """Loads a file as fast as slapd can, off line; seconds."""
        began = time.perf_counter()
        words = [*self.words("-T", "add"), "-q", "-w", "-S", "1", "-b", SUFFIX, "-l", ldif]
        done = subprocess.run(words, env=self.environment(), capture_output=True)
        if done.returncode:
            sys.exit(f"slapadd: {done.stderr.decode()}")
        return time.perf_counter() - began

    def start(self):
        import ldap

        urls = f"ldap://127.0.0.1:{self.port}/ ldap://127.0.0.1:{self.replication_port}/"
        log = open(self.directory / "slapd.log", "ab")
        self.process = subprocess.Popen([*self.words("-d", "0"), "-h", urls], env=self.environment(), stderr=log)
        for _ in range(2000):
            if self.process.poll() is not None:
                sys.exit(f"slapd ended: {(self.directory / 'slapd.log').read_text()}")
            try:
                self.client = ldap.initialize(f"ldap://127.0.0.1:{self.port}")
                return self.client.simple_bind_s(ADMIN, PASSWORD)
            except ldap.SERVER_DOWN:
                time.sleep(0.005)
        sys.exit("slapd does not start")

    def reached(self):
        """Where it stands: its contextCSN; None while it has none."""
        import ldap

        try:
            found = self.client.search_s(SUFFIX, ldap.SCOPE_BASE, "(objectClass=*)", ["contextCSN"])
        except ldap.NO_SUCH_OBJECT:
            return None
        return sorted(found[0][1].get("contextCSN", [])) or None

    def payload(self):
        """Octets on the connection with the consumer so far, both ways."""
        words = ["ss", "-tinH", "state", "established", f"( sport = :{self.replication_port} )"]
        found = re.findall(r"bytes_(?:sent|received):(\d+)", subprocess.check_output(words, text=True))
        return sum(map(int, found))

    def end(self):
        if self.process:
            common.end(self.process)


def until_equal(provider, consumer, pause):
    while consumer.reached() != provider.reached():
        time.sleep(pause)


def modify(provider, changes):
    import ldap

    for dn, modifications in changes:
        try:
            provider.client.modify_s(dn, modifications)
        except ldap.NO_SUCH_ATTRIBUTE:
            pass


def read_changes(file):
    """Change records that replace or add values, from LDIF."""
    import ldap
    import ldif

    operations = {0: ldap.MOD_ADD, 1: ldap.MOD_DELETE, 2: ldap.MOD_REPLACE}

    class Changes(ldif.LDIFRecordList):
        def handle_modify(self, dn, modifications, controls=None):
            self.all_records.append((dn, [(operations[op], kind, values) for op, kind, values in modifications]))

    with open(file, "rb") as records:
        parser = Changes(records)
        parser.parse_change_records()
    return parser.all_records


def replicate(place, ldif, changes, entries, delta, durable):
    """Loads a provider, connects an empty consumer, changes: what each costs, by name."""
    import ldap

    provider = Slapd(place / "provider", delta=delta, durable=durable)
    consumer = Slapd(place / "consumer", provider, delta, durable)
    result = {"entries": entries}
    try:
        provider.add(ldif)
        provider.start()
        began = time.perf_counter()
        consumer.start()
        until_equal(provider, consumer, 0.05)
        result["seconds"] = time.perf_counter() - began
        time.sleep(1)
        result["load"] = provider.payload() / entries
        # As large as the largest group of 100,000 people.
        members = [f"uid=member{n},ou=Elsewhere,{SUFFIX}".encode() for n in range(MEMBERS)]
        provider.client.add_s(GROUP, [("objectClass", b"groupOfNames"), ("cn", b"everybody"), ("member", members)])
        until_equal(provider, consumer, 0.01)
        time.sleep(1)
        one = [(changes[0][0], [(ldap.MOD_REPLACE, "title", [b"Chancellor"])])]
        member = [(GROUP, [(ldap.MOD_ADD, "member", [b"uid=more,ou=Elsewhere," + SUFFIX.encode()])])]
        for what, batch in (("changes", changes), ("one", one), ("member", member)):
            before, began = provider.payload(), time.perf_counter()
            modify(provider, batch)
            until_equal(provider, consumer, 0.01)
            result[what + " seconds"] = time.perf_counter() - began
            time.sleep(1)
            result[what] = (provider.payload() - before) / len(batch)
    finally:
        consumer.end()
        provider.end()
        shutil.rmtree(place, ignore_errors=True)
    return result


def sample(run, file, people):
    """Writes the sample directory; its entries."""
    # slapadd takes the version line for an entry without a name.
    text = run(["sample", "--context", SUFFIX, "--people", str(people)]).removeprefix(b"version: 1\n")
    file.write_bytes(text)
    return len(re.findall(rb"^dn:", text, re.M))


def measure(run, place, people, replicated_people, changes_count):
    """`run` runs bridgehead, whose sample it is. slapadd loads `people`, the consumers `replicated_people`."""
    large, small, changes = (place / f"{name}.ldif" for name in ("large", "small", "small-changes"))
    entries = sample(run, large, people)
    loader = Slapd(place / "loader")
    result = {"slapadd": {"entries": entries, "load": large.stat().st_size / entries, "seconds": loader.add(large)}}
    shutil.rmtree(loader.directory)
    entries = sample(run, small, replicated_people)
    count = str(min(changes_count, replicated_people))
    words = ["sample", "--context", SUFFIX, "--people", str(replicated_people), "--changes", count]
    changes.write_bytes(run(words))
    records = read_changes(changes)
    result["syncrepl"] = replicate(place / "syncrepl", small, records, entries, False, True)
    # Its first load is syncrepl's; without waiting for the disk the octets are the same.
    result["delta-syncrepl"] = replicate(place / "delta", small, records, entries, True, False)
    return result
