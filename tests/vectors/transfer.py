#!/usr/bin/env python3
"""Applies the transfers full, delta and repair, and computes the state digests that they lead to.

Written from bridgehead-replication(7) alone, with Python's standard library; hence it reads NAME.chunks, which is
NAME.body (a zstd frame) expanded. Nothing is bounded here, for the files are ours.
"""
import hashlib, os, re, struct

HERE = os.path.dirname(os.path.abspath(__file__))
NIL = bytes(16)


def cbor(octets, at=0):
    """One item of CBOR, and where it ends."""
    major, low = octets[at] >> 5, octets[at] & 31
    at += 1
    if low < 24: number = low
    else:
        size = 1 << (low - 24)
        number = int.from_bytes(octets[at:at + size], "big")
        at += size
    if major == 0: return number, at
    if major in (2, 3):
        text = octets[at:at + number]
        return (text if major == 2 else text.decode()), at + number
    if major == 4:
        items = []
        for _ in range(number):
            item, at = cbor(octets, at)
            items.append(item)
        return items, at
    return None, at  # null


def cbor_of(item):
    def head(major, number):
        if number < 24: return bytes([major << 5 | number])
        for low, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if number < 1 << 8 * size: return bytes([major << 5 | low]) + number.to_bytes(size, "big")
    if isinstance(item, bytes): return head(2, len(item)) + item
    if isinstance(item, str): return head(3, len(item.encode())) + item.encode()
    return head(4, len(item)) + b"".join(map(cbor_of, item))


class Reader:
    def __init__(self, octets): self.octets, self.at = octets, 0
    def left(self): return len(self.octets) - self.at
    def take(self, n):
        assert self.left() >= n
        self.at += n
        return self.octets[self.at - n:self.at]
    def octet(self): return self.take(1)[0]
    def number(self):
        number = shift = 0
        while True:
            octet = self.octet()
            number |= (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80: return number
    def distance(self, expected):
        folded = self.number()
        return (expected + (folded >> 1 if folded & 1 == 0 else -(folded >> 1) - 1)) % (1 << 64)
    def stream(self): return Reader(self.take(self.number()))


def part_of(octets, part):
    if len(octets) > 255: return b""
    words = re.findall(rb"[A-Za-z\x80-\xff]+", octets)
    if part == 0: return octets
    if part == 1: return words[0] if words else b""
    if part == 2: return words[1] if len(words) > 1 else b""
    if part == 3: return words[-1] if words else b""
    first = re.search(rb"[A-Za-z\x80-\xff]+", octets)
    return octets[first.end() + 1:] if first else b""


def case_of(octets, case):
    if case == 1: return octets.lower()
    if case == 2: return octets[:1].upper() + octets[1:]
    return octets


def column(reader, records, names, before):
    """Values for each of `records`: octets, or the number of an entry."""
    pieces = [(reader.number(), reader.octet(), reader.octet()) for _ in range(reader.number())]
    mask = reader.octet()
    form, length, text, entry, *digits = [reader.stream() if mask >> bit & 1 else Reader(b"") for bit in range(8)]
    news, values, number = [], [], 0

    def source(record, source):
        if source == 0: return names[record]
        found = [value for of, value in before[source - 1] if of == record]
        return found[0] if found and isinstance(found[0], bytes) else b""

    for record in records:
        kind = form.number()
        if kind == 2:
            number = entry.distance(number)
            values.append((record, number))
            continue
        if kind in (0, 1): news.append((kind, text.take(length.number())))
        kind, pattern = news[kind - 3 if kind > 2 else -1]
        value, run = b"", 0
        for octet in pattern:
            if kind == 1 or octet >= 0x20: value += bytes([octet])
            elif octet >= 0x10:
                value += digits[run].take(octet - 0x0F)
                run += 1
            else:
                of, part, case = pieces[octet - 1]
                value += case_of(part_of(source(record, of), part), case)
        values.append((record, value))
    assert not any(stream.left() for stream in [form, length, text, entry, *digits])
    return values


def numbers(reader):
    count, stream, expected, found = reader.number(), reader.stream(), 0, []
    for _ in range(count):
        found.append(stream.distance(expected))
        expected = found[-1] + 1
    return found


def names(reader, count):
    parents, before, found = reader.stream(), 0, []
    types = column(reader, range(count), [], [])
    rest = column(reader, range(count), [], [])
    for (_, kind), (_, value) in zip(types, rest):
        before = parents.distance(before)
        found.append((before - 1 if before else None, (kind + b"=" + value).decode()))
    return found


def added(reader):
    batches = [[reader.take(12), 0] for _ in range(reader.number())]
    indices, ordinals, uuids = reader.stream(), reader.stream(), []
    while indices.left():
        batch = batches[indices.number()]
        ordinal = ordinals.distance(batch[1])
        batch[1] = ordinal + 1
        uuids.append(struct.pack(">I", ordinal * 0x9E3779B1 % (1 << 32)) + batch[0])
    return list(zip(uuids, names(reader, len(uuids))))


def dictionary(state, run):
    """The octets that both ends make of a run of entries of the base."""
    attributes = {}
    for uuid in sorted(state)[run[0]:run[0] + run[1]]:
        for key, (name, values) in state[uuid][2].items():
            attributes.setdefault((key, name), []).append(values[0])
    pieces = [bytes([0, len(name)]) + name.encode() for _, name in sorted(attributes)]
    for key in sorted(attributes):
        texts = [pattern_of(value) for value in attributes[key] if len(value) <= 128]
        pieces += list(dict.fromkeys(texts))
    made = b""
    for piece in pieces:
        if len(made) + len(piece) > 32768: break
        made += piece
    return made


def pattern_of(value):
    runs = re.findall(rb"[0-9]+", value)
    if len(value) > 1024 or min(value, default=32) < 32 or len(runs) > 4 or max(map(len, runs), default=0) > 16: return value
    return re.sub(rb"[0-9]+", lambda run: bytes([15 + len(run[0])]), value)


def contents(reader, name_of):
    of = numbers(reader)
    table = [(reader.octet(), reader.stream().octets.decode()) for _ in range(reader.number())]
    shapes = [[(reader.number(), reader.number()) for _ in range(reader.number())] for _ in range(reader.number())]
    indices, counts = reader.stream(), reader.stream()
    items = []
    for record in range(len(of)):
        for attribute, count in shapes[indices.number()]:
            items.append((attribute, record, count - 1 if count else counts.number()))
    sources, columns = [name_of(number) for number in of], []
    for attribute in range(len(table)):
        records = [record for at, record, count in items if at == attribute for _ in range(count)]
        columns.append(column(reader, records, sources, columns))
    for attribute, record, _ in items:
        values = [value for at, value in columns[attribute] if at == record]
        yield of[record], table[attribute][0], table[attribute][1], values


def apply(name, state):
    """`state`: entryUUID -> [parent, RDN, {attribute in small letters: (name, values)}]."""
    with open(os.path.join(HERE, name + ".manifest"), "rb") as file: manifest, _ = cbor(file.read())
    with open(os.path.join(HERE, name + ".chunks"), "rb") as file: body = Reader(file.read())
    checkpoint, _ = cbor(manifest[1][0])
    lineage_leads(manifest, checkpoint)
    above = checkpoint[1].split(",", 1)[1]
    if manifest[2] == 0: state = {}
    bases = sorted(state) if manifest[2] == 1 else []
    if len(manifest) > 9:
        with open(os.path.join(HERE, name + ".dictionary"), "rb") as file:
            assert file.read() == dictionary(state, manifest[9]), name + " has another dictionary"
    state, deleted, renamed, new, changes = dict(state), [], [], [], []
    while True:
        kind, chunk = body.octet(), body.stream()
        if kind == 0: break
        if kind == 1: bases += [chunk.take(16) for _ in range(chunk.left() // 16)]
        if kind == 2: deleted += numbers(chunk)
        if kind == 3:
            of = numbers(chunk)
            renamed += zip(of, names(chunk, len(of)))
        if kind == 4: new += added(chunk)
        if kind == 5:
            rdn = lambda n: new[n - len(bases)][1][1].split("=", 1)[1].encode() if n >= len(bases) else b""
            changes += contents(chunk, rdn)
        assert not chunk.left()
    uuid = lambda n: NIL if n is None else bases[n] if n < len(bases) else new[n - len(bases)][0]
    for n in deleted: del state[uuid(n)]
    for n, (parent, rdn) in renamed: state[uuid(n)] = [uuid(parent), rdn, dict(state[uuid(n)][2])]
    for entry, (parent, rdn) in new: state[entry] = [uuid(parent), rdn, {}]

    def dn(entry):
        parent, rdn, _ = state[entry]
        return rdn + "," + (above if parent == NIL else dn(parent))

    for n, operation, attribute, values in changes:
        values = [value if isinstance(value, bytes) else dn(uuid(value)).encode() for value in values]
        parent, rdn, attributes = state[uuid(n)]
        attributes = dict(attributes)
        spelled, old = attributes.get(attribute.lower(), (attribute, []))
        if operation != 0: values = [v for v in old if v not in values] + (values if operation == 1 else [])
        else: spelled = attribute
        attributes[attribute.lower()] = (spelled, values)
        if not values: del attributes[attribute.lower()]
        state[uuid(n)] = [parent, rdn, attributes]
    found = digest(sorted((entry, entry_hash(entry, state[entry])) for entry in state), 0)
    assert found == checkpoint[4] and len(state) == checkpoint[5], name + " leads elsewhere"
    print("%s: %d entries, digest %s" % (name, len(state), found.hex()))
    return state


def lineage_leads(manifest, checkpoint):
    """The lineage told is the one signed, and passes the base of a delta from another invocation."""
    told, ends = len(manifest) > 8 and manifest[8] or (bytes(32), [])
    base = manifest[3] and manifest[3][0]
    if base and base[0] == checkpoint[2]: return
    for (invocation, usn), held in ends:
        told = hashlib.sha256(b"bridgehead lineage 1\0" + told + invocation + struct.pack(">Q", usn) + held).digest()
    assert told == (checkpoint[7] if len(checkpoint) > 7 else bytes(32)), "the lineage is not the one signed"
    assert not base or any(base[0] == end[0] and base[1] <= end[1] for end, _ in ends), "the base is not on it"


def entry_hash(uuid, entry):
    parent, rdn, attributes = entry
    listed = [[name, values] for _, (name, values) in sorted(attributes.items())]
    return hashlib.sha256(b"bridgehead entry 1\0" + cbor_of([uuid, parent, rdn, listed])).digest()


def digest(items, depth):
    if not items: return bytes(32)
    count = struct.pack(">Q", len(items))
    if len(items) <= 16:
        return hashlib.sha256(b"bridgehead leaf 1\0" + count + b"".join(u + h for u, h in items)).digest()
    nibble = lambda uuid: uuid[depth // 2] >> (0 if depth % 2 else 4) & 15
    children = [[item for item in items if nibble(item[0]) == n] for n in range(16)]
    told = b"".join(struct.pack(">Q", len(child)) + digest(child, depth + 1) for child in children)
    return hashlib.sha256(b"bridgehead node 1\0" + told).digest()


full = apply("full", {})
delta = apply("delta", full)
apply("repair", full)
apply("onward", delta)
