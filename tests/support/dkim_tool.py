"""Signs a message (RFC 6376) or verifies it, with dkimpy: dkim_tool.py sign|verify KEY.pem < message.

The public key that DNS would publish is derived from the private one.
"""

import base64
import sys

import dkim
from cryptography.hazmat.primitives import serialization

verb, path = sys.argv[1:]
private = open(path, "rb").read()
message = sys.stdin.buffer.read()
if verb == "sign":
    headers = [b"from", b"to", b"subject", b"date", b"message-id", b"x-odd", b"x-folded"]
    strict = (b"simple", b"simple")
    signature = dkim.sign(message, b"test", b"outside.example", private, canonicalize=strict, include_headers=headers)
    sys.stdout.buffer.write(signature + message)
else:
    public = serialization.load_pem_private_key(private, None).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)
    sys.exit(0 if dkim.verify(message, dnsfunc=lambda name, timeout=5: record) else 1)
