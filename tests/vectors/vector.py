#!/usr/bin/env python3
"""Puts vectors together as bridgehead-replication(7) says, with none of bridgehead's code.

usage: vector.py PAYLOAD...

The payloads of messages from one site, oldest first. Prints where the site stands after each, and whether the
digest told is that of the whole.
"""

import hashlib
import sys


def read_cbor(octets, at=0):
    """RFC 8949, as much as a payload needs."""
    kind, small = octets[at] >> 5, octets[at] & 31
    at += 1
    if kind == 7:
        return {20: False, 21: True}[small], at
    value = small
    if small >= 24:
        length = 1 << (small - 24)
        value, at = int.from_bytes(octets[at:at + length], "big"), at + length
    if kind == 0:
        return value, at
    if kind == 2:
        return octets[at:at + value], at + value
    if kind == 3:
        return octets[at:at + value].decode(), at + value
    items = []
    for _ in range(value * (kind - 3)):
        item, at = read_cbor(octets, at)
        items.append(item)
    return (items if kind == 4 else dict(zip(items[::2], items[1::2]))), at


def octets_of(name, item):
    held = bytes(56)
    if 1 in item:
        invocation, usn = item[1]
        held = invocation + usn.to_bytes(8, "big") + item[2]
    return name.encode() + bytes([0, item[3]]) + held


def main(payloads):
    known = {}
    for path in payloads:
        with open(path, "rb") as file:
            message, _ = read_cbor(file.read())
        if 10 not in message:
            known = {}
        for item in message[3]:
            # ASCII letters alone.
            known[item[0].encode().lower().decode()] = item
        items = sorted(octets_of(name, item) for name, item in known.items())
        digest = hashlib.sha256(b"bridgehead vector 1\0" + b"".join(items)).digest()[:16]
        print("whole" if 10 not in message else "known" if message[10] == digest else "vector wanted")
        for name, item in sorted(known.items()):
            print(name, item[1][1] if 1 in item else "nothing", item[3])
        print(digest.hex())


main(sys.argv[1:])
