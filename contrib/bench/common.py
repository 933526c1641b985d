"""What the benchmarks share: ports, processes and what they used, a private Postfix, the machine's description."""

import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "bridgehead"
TICK = os.sysconf("SC_CLK_TCK")


def build():
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=ROOT, check=True)


def describe_machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {int(memory[1]) >> 20} GiB, "
        f"Linux {platform.release()}, bridgehead {commit.stdout.strip()}, {time.strftime('%Y-%m-%d')}"
    )


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def await_greeting(port, process, limit=60):
    end = time.time() + limit
    while time.time() < end:
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as s:
                if s.recv(3) == b"220":
                    s.sendall(b"QUIT\r\n")
                    s.recv(64)
                    return
        except OSError:
            pass
        time.sleep(0.05)
    sys.exit(f"{process.args[0]}: no greeting on port {port}")


def tree(pid):
    """The process and its living descendants."""
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_seconds(pid):
    """What the process, its descendants, and those of them that have ended used, in seconds."""
    total = 0
    for one in tree(pid):
        try:
            fields = pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / TICK


def peak_mib(pid):
    """Peak resident memory of one process."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def resident_mib(pid):
    """Proportional memory of the process and its descendants, now."""
    total = 0
    for one in tree(pid):
        try:
            rollup = pathlib.Path(f"/proc/{one}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])
        except (OSError, TypeError):
            pass
    return total / 1024


def end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


MASTER = """
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
"""


class Postfix:
    """A private instance below `directory`; the machine's own is not touched."""

    def __init__(self, directory, port, settings, routes=(), smtpd_options=""):
        self.directory = directory
        for part in ("conf", "queue", "data"):
            (directory / part).mkdir(parents=True)
        # Postfix's own user has to reach its queue.
        directory.parent.chmod(0o755)
        shutil.chown(directory / "data", "postfix")
        conf = directory / "conf"
        main = {
            "compatibility_level": "3.6",
            "queue_directory": directory / "queue",
            "data_directory": directory / "data",
            "maillog_file": directory / "mail.log",
            "maillog_file_prefixes": directory,
            "mydestination": "",
            "local_recipient_maps": "",
            "alias_maps": "",
            "alias_database": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "smtp_dns_support_level": "disabled",
            "smtpd_peername_lookup": "no",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "transport_maps": f"texthash:{conf}/transport",
            "default_process_limit": "150",
            "message_size_limit": "104857600",
            **settings,
        }
        (conf / "main.cf").write_text("".join(f"{k} = {v}\n" for k, v in main.items()))
        (conf / "master.cf").write_text(f"127.0.0.1:{port} inet n - n - - smtpd {smtpd_options}\n{MASTER}")
        (conf / "transport").write_text("".join(f"{domain} smtp:[127.0.0.1]:{to}\n" for domain, to in routes))
        subprocess.run(["postfix", "-c", conf, "check"], check=True)
        (directory / "queue/quick-start").touch()
        self.process = subprocess.Popen(
            ["postfix", "-c", conf, "start-fg"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        await_greeting(port, self.process)

    def mail_from(self, sender):
        """How many messages were queued from this address (a pattern), and their bytes."""
        text = (self.directory / "mail.log").read_text()
        sizes = re.findall(rf"qmgr\[\d+\]: \S+: from=<{sender}>, size=(\d+)", text)
        return len(sizes), sum(map(int, sizes))

    def end(self):
        try:
            os.kill(int((self.directory / "queue/pid/master.pid").read_text()), signal.SIGTERM)
            self.process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
