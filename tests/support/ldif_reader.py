"""Reads LDIF with python-ldap's own parser and prints one JSON array a line: [DN, {attribute: [values in base64]}].

An LDIF reader that is not ours, so that the tests do not take our writer's word for what our reader means.
DNs are printed in python-ldap's spelling; attributes keep the order of their values.
"""

import base64
import json
import sys

import ldap.dn
import ldif


class Reader(ldif.LDIFParser):
    def handle(self, dn, entry):
        name = ldap.dn.dn2str(ldap.dn.str2dn(dn))
        values = {k.lower(): [base64.b64encode(v).decode() for v in vs] for k, vs in entry.items()}
        print(json.dumps([name, values], ensure_ascii=False))


with open(sys.argv[1], "rb") as source:
    Reader(source).parse()
