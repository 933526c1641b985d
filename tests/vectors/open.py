#!/usr/bin/env python3
"""Opens a sealed message as bridgehead-replication(7) says, with none of bridgehead's code.

usage: open.py OUR.key OUR.card SENDER.card MESSAGE.bhm

Needs Python 3.11 and the package cryptography (Debian: python3-cryptography). Prints the header
and the body, still compressed if it was; exit status 1 and a reason if the message is refused.
"""

import base64
import hashlib
import hmac
import struct
import sys
import tomllib

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAGIC = b"\x8bBHM\r\n\x1a\n"
MESSAGE = b"bridgehead message 1\0"
INFO = b"bridgehead envelope 1\0"
CARD = b"bridgehead site card 1\0"
SEALING_KEY = b"bridgehead sealing key 1\0"


class Refused(Exception):
    pass


# --- RFC 5869 and RFC 9180: HPKE base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305

KEM_SUITE = b"KEM" + struct.pack(">H", 0x0020)
HPKE_SUITE = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0003)


def extract(salt, key):
    return hmac.digest(salt or bytes(32), key, "sha256")


def expand(key, info, length):
    okm, block, counter = b"", b"", 1
    while len(okm) < length:
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        okm, counter = okm + block, counter + 1
    return okm[:length]


def labeled_extract(suite, salt, label, key):
    return extract(salt, b"HPKE-v1" + suite + label + key)


def labeled_expand(suite, key, label, info, length):
    return expand(key, struct.pack(">H", length) + b"HPKE-v1" + suite + label + info, length)


def raw(public):
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def hpke_open(secret, encapsulated, info, aad, ciphertext):
    shared = secret.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    context = encapsulated + raw(secret.public_key())
    prk = labeled_extract(KEM_SUITE, b"", b"eae_prk", shared)
    shared = labeled_expand(KEM_SUITE, prk, b"shared_secret", context, 32)

    psk_id_hash = labeled_extract(HPKE_SUITE, b"", b"psk_id_hash", b"")
    info_hash = labeled_extract(HPKE_SUITE, b"", b"info_hash", info)
    schedule = b"\0" + psk_id_hash + info_hash
    prk = labeled_extract(HPKE_SUITE, shared, b"secret", b"")
    key = labeled_expand(HPKE_SUITE, prk, b"key", schedule, 32)
    nonce = labeled_expand(HPKE_SUITE, prk, b"base_nonce", schedule, 12)
    return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, aad)


# --- files

def read_key(text):
    """The sealing secrets: the current one and former ones."""
    lines = [line.split("#")[0].split() for line in text.splitlines()]
    lines = [words for words in lines if words]
    assert lines.pop(0) == ["version", "1"]
    return [X25519PrivateKey.from_private_bytes(base64.b64decode(words[4])) for words in lines]


def read_card(text):
    text = "".join(line.rstrip(" \t\r") + "\n" for line in text.split("\n"))
    signed, mark, rest = text.partition('signature = "ed25519:')
    assert mark and (signed == "" or signed.endswith("\n"))
    card = tomllib.loads(signed)
    assert card["format"] == 1
    signing = base64.b64decode(card["signing_key"].removeprefix("ed25519:"))
    signature = base64.b64decode(rest.partition('"')[0])
    Ed25519PublicKey.from_public_bytes(signing).verify(signature, CARD + signed.encode())
    card["signing"] = signing
    return card


# --- CBOR, as much as a header needs (RFC 8949)

def read_cbor(octets, at=0):
    kind, small = octets[at] >> 5, octets[at] & 31
    at += 1
    if small < 24:
        value = small
    else:
        length = 1 << (small - 24)
        value, at = int.from_bytes(octets[at:at + length], "big"), at + length
    if kind == 0:
        return value, at
    if kind == 1:
        return -1 - value, at
    if kind == 2:
        return octets[at:at + value], at + value
    if kind == 3:
        return octets[at:at + value].decode(), at + value
    if kind == 5:
        items = {}
        for _ in range(value):
            key, at = read_cbor(octets, at)
            items[key], at = read_cbor(octets, at)
        return items, at
    raise Refused("a header of another shape")


# --- the message

def open_message(secrets, own, sender, message):
    if not message.startswith(MAGIC):
        raise Refused("no sealed message")
    prefix, encapsulated, ciphertext = message[:21], message[21:53], message[53:]
    if prefix[8] != 1:
        raise Refused("a newer format")
    if struct.unpack(">I", prefix[17:])[0] != len(ciphertext):
        raise Refused("cut off")

    def key_id(secret):
        return hashlib.sha256(SEALING_KEY + raw(secret.public_key())).digest()[:8]

    secret = next((secret for secret in secrets if key_id(secret) == prefix[9:17]), None)
    if secret is None:
        raise Refused("sealed to another key")
    try:
        plain = hpke_open(secret, encapsulated, INFO, prefix, ciphertext)
    except InvalidTag:
        raise Refused("damaged")

    inner, signature = plain[:-64], plain[-64:]
    length = struct.unpack(">H", inner[:2])[0]
    header, end = read_cbor(inner[2:2 + length])
    if end != length:
        raise Refused("a header of another shape")
    body = inner[2 + length:]
    if header[0] != sender["name"]:
        raise Refused(f"sent by {header[0]}")
    if header[1] != own["name"]:
        raise Refused(f"addressed to {header[1]}")
    signed = MESSAGE + prefix + raw(secret.public_key()) + inner
    try:
        Ed25519PublicKey.from_public_bytes(sender["signing"]).verify(signature, signed)
    except InvalidSignature:
        raise Refused(f"the signature is not {header[0]}'s")
    return header, body


def main(key, own, sender, message):
    with open(key) as file:
        secrets = read_key(file.read())
    with open(own, encoding="utf-8", newline="") as file:
        own = read_card(file.read())
    with open(sender, encoding="utf-8", newline="") as file:
        sender = read_card(file.read())
    with open(message, "rb") as file:
        message = file.read()
    try:
        header, body = open_message(secrets, own, sender, message)
    except Refused as reason:
        print(f"refused: {reason}")
        return 1
    names = ["from", "to", "seq", "time", "compression", "payload_bytes"]
    for number, name in enumerate(names):
        print(name, header[number])
    print("body", body.hex())
    return 0


if __name__ == "__main__":
    try:
        status = main(*sys.argv[1:])
    except Exception as error:
        print(f"open.py: {error!r}", file=sys.stderr)
        status = 2
    sys.exit(status)
