"""Verifies a log without any of the code that wrote it: Python's standard library and `cryptography`.

    verify_log.py --key KEY --proof FILE ... [--rotations FILE]
    verify_log.py --key KEY --log DIR|URL [--rotations FILE] [--index N ...] [--old FILE] [--proof FILE ...]
                  [--consistency FILE]

KEY is the log's public key (the text of log.pub, or a file that holds it); get it from elsewhere than the log. The log
is a folder with `checkpoint` and `tile/` (SyncShield's DIR/tiles), or the URL of a server of the same; a proof needs
none. It checks

* the checkpoint's Ed25519 signature (C2SP signed-note, tlog-checkpoint),
* that the tiles of the right edge, and those over each leaf, lead to the checkpoint's root (C2SP tlog-tiles),
* for each --index, the leaf: its bundle, its tile, and the inclusion proof made from tiles (RFC 6962, 2.1.1),
* for --old, an earlier checkpoint of the log, the consistency proof made from tiles (RFC 6962, 2.1.2),
* for each --proof, a file of `kiki audit proof` (C2SP tlog-proof, with the leaf in its extra line): the signature on its
  checkpoint and the inclusion proof; prints the record, by its field's names where proto/kiki/log/v1/leaf.proto is at
  hand, else by their numbers,
* for --rotations, the log's changes of key (`log.rotations`, or /rotations of its server): that each was signed by
  both keys, and that KEY is one of them; --old and --proof may be signed by any of them, in its time,
* for --consistency, a file of `kiki audit consistency` (old size, proof, checkpoint, as a C2SP witness is sent it).

Prints what holds. Exits 1 with the first thing that does not.
"""

import argparse
import base64
import hashlib
import math
import pathlib
import re
import struct
import sys
import urllib.request

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    sys.exit("verify_log.py: needs the package cryptography: pip install cryptography")

WIDTH = 256
CONTRACT = pathlib.Path(__file__).parent / "../proto/kiki/log/v1/leaf.proto"


class Wrong(Exception):
    """Something that does not hold."""


def check(holds, what):
    if not holds:
        raise Wrong(what)


def sha256(data):
    return hashlib.sha256(data).digest()


def leaf_hash(leaf):
    return sha256(b"\x00" + leaf)


def node_hash(left, right):
    return sha256(b"\x01" + left + right)


def decode(text):
    return base64.b64decode(text, validate=True)


def number(text):
    check(re.fullmatch("0|[1-9][0-9]*", text), f"no number in its one form: {text!r}")
    return int(text)


class Key:
    """A verifier key: name+id+base64(0x01 || Ed25519 public key)."""

    def __init__(self, text, until=None):
        name, key_id, key = text.strip().split("+", 2)
        material = decode(key)
        check(len(material) == 33 and material[0] == 1, "the key is not an Ed25519 key")
        digest = sha256(name.encode() + b"\n" + material)
        check(digest[:4].hex() == key_id, "the key's id is not that of its name and bytes")
        self.name, self.id, self.raw = name, digest[:4], material
        self.until = until  # the size at which another key took over; None where the changes are not given
        self.public = Ed25519PublicKey.from_public_bytes(material[1:])

    def __eq__(self, other):
        return (self.name, self.raw) == (other.name, other.raw)

    def open(self, note):
        """The (size, root) of a signed checkpoint of the log that is named like this key."""
        text, signatures = note.rsplit("\n\n", 1)
        text += "\n"
        good = 0
        for line in signatures.splitlines():
            check(line.startswith("— "), f"not a signature line: {line!r}")
            name, blob = line[2:].split(" ")
            blob = decode(blob)
            if name == self.name and blob[:4] == self.id:
                try:
                    self.public.verify(blob[4:], text.encode())
                except InvalidSignature:
                    raise Wrong("the checkpoint's signature does not verify") from None
                good += 1
        check(good, f"the checkpoint is not signed by {self.name}")
        origin, size, root = text.split("\n")[:3]
        check(origin == self.name, f"the checkpoint is of {origin!r}")
        size, root = number(size), decode(root)
        check(len(root) == 32, "the checkpoint's root is not 32 bytes")
        return size, root


class Log:
    """A folder or a server of C2SP tlog-tiles, read as a tree of one size."""

    def __init__(self, prefix, size=None):
        self.prefix, self.size, self.tiles = prefix, size, {}

    def fetch(self, path):
        if self.prefix.startswith(("http://", "https://")):
            with urllib.request.urlopen(f"{self.prefix.rstrip('/')}/{path}", timeout=10) as answer:
                return answer.read()
        return (pathlib.Path(self.prefix) / path).read_bytes()

    def path(self, kind, n, count):
        """The path of tile n of a level that has `count` hashes, or leaves."""
        width = min(WIDTH, count - n * WIDTH)
        groups = [f"{n % 1000:03}"]
        while n >= 1000:
            n //= 1000
            groups.insert(0, f"x{n % 1000:03}")
        return f"tile/{kind}/{'/'.join(groups)}" + (f".p/{width}" if width < WIDTH else ""), width

    def tile(self, level, n):
        if (level, n) not in self.tiles:
            path, width = self.path(level, n, self.size >> (8 * level))
            data = self.fetch(path)
            check(len(data) == 32 * width, f"{path} has {len(data)} bytes, not {32 * width}")
            self.tiles[level, n] = [data[i : i + 32] for i in range(0, len(data), 32)]
        return self.tiles[level, n]

    def leaf(self, index):
        path, width = self.path("entries", index // WIDTH, self.size)
        data, leaves = self.fetch(path), []
        while data:
            (length,) = struct.unpack(">H", data[:2])
            check(len(data) >= 2 + length, f"{path} is cut off")
            leaves.append(data[2 : 2 + length])
            data = data[2 + length :]
        check(len(leaves) == width, f"{path} has {len(leaves)} leaves, not {width}")
        return leaves[index % WIDTH]

    def root(self, start, end):
        """The root of leaves start..end: complete subtrees from their tiles, ragged ones from their halves."""
        length = end - start
        if length & (length - 1):
            middle = start + split(length)
            return node_hash(self.root(start, middle), self.root(middle, end))
        level, within = divmod(length.bit_length() - 1, 8)
        first = start >> (8 * level)
        hashes = self.tile(level, first // WIDTH)[first % WIDTH :][: 1 << within]
        while len(hashes) > 1:
            hashes = [node_hash(*hashes[i : i + 2]) for i in range(0, len(hashes), 2)]
        return hashes[0]


def split(length):
    """The largest power of two below length."""
    return 1 << ((length - 1).bit_length() - 1)


def inclusion_proof(log, index, start, end):
    if end - start == 1:
        return []
    middle = start + split(end - start)
    if index < middle:
        return inclusion_proof(log, index, start, middle) + [log.root(middle, end)]
    return inclusion_proof(log, index, middle, end) + [log.root(start, middle)]


def consistency_proof(log, old, start, end, whole=True):
    if old == end - start:
        return [] if whole else [log.root(start, end)]
    middle = split(end - start)
    if old <= middle:
        return consistency_proof(log, old, start, start + middle, whole) + [log.root(start + middle, end)]
    return consistency_proof(log, old - middle, start + middle, end, False) + [log.root(start, start + middle)]


def verify_inclusion(leaf, index, size, proof, root):
    """RFC 9162, 2.1.3.2."""
    check(0 <= index < size, f"leaf {index} is not in a tree of {size}")
    node, last, got = index, size - 1, leaf
    for sibling in proof:
        check(last, "the inclusion proof is too long")
        if node & 1 or node == last:
            got = node_hash(sibling, got)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            got = node_hash(got, sibling)
        node, last = node >> 1, last >> 1
    check(last == 0, "the inclusion proof is too short")
    check(got == root, f"the inclusion proof of leaf {index} leads to another root")


def verify_consistency(old, size, proof, old_root, root):
    """RFC 9162, 2.1.4.2."""
    check(0 < old <= size, f"there is no proof from {old} to {size}")
    if old == size:
        check(not proof and old_root == root, "two trees of one size are not the same")
        return
    if old & (old - 1) == 0:
        proof = [old_root] + proof
    check(proof, "the consistency proof is empty")
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    got_old = got = proof[0]
    for sibling in proof[1:]:
        check(last, "the consistency proof is too long")
        if node & 1 or node == last:
            got_old, got = node_hash(sibling, got_old), node_hash(sibling, got)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            got = node_hash(got, sibling)
        node, last = node >> 1, last >> 1
    check(last == 0, "the consistency proof is too short")
    check(got_old == old_root, "the consistency proof leads to another old root")
    check(got == root, "the consistency proof leads to another root")


def verify_proof_file(text, keys):
    """The leaf, index and size of a C2SP tlog-proof whose extra line is the leaf."""
    head, note = text.split("\n\n", 1)
    lines = head.split("\n")
    check(lines[0] == "c2sp.org/tlog-proof@v1", "not a tlog-proof")
    check(lines[1].startswith("extra ") and lines[2].startswith("index "), "the proof has no leaf and index")
    leaf, index = decode(lines[1][6:]), number(lines[2][6:])
    size, root = open_by_any(keys, note)
    verify_inclusion(leaf_hash(leaf), index, size, [decode(line) for line in lines[3:]], root)
    return leaf, index, size


def wire(message):
    """The fields of a protobuf message in order: number, and an int or bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            check(at < len(message), "the leaf is cut off")
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if not byte & 0x80:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        check(kind in (0, 2), "the leaf has a field of another kind")
        value = varint()
        if kind == 2:
            check(at + value <= len(message), "the leaf is cut off")
            value, at = message[at : at + value], at + value
        yield number, value


def contract(text):
    """Fields by message and number as (name, type), and the names of enum values, of a .proto without nested messages."""
    text, messages, enums = re.sub(r"//.*", "", text), {}, {}
    for kind, name, body in re.findall(r"^(message|enum) (\w+) \{(.*?)^\}", text, re.M | re.S):
        if kind == "enum":
            enums[name] = {int(number): value for value, number in re.findall(r"(\w+) = (\d+);", body)}
        else:
            messages[name] = {int(n): (field, of) for of, field, n in re.findall(r"([\w.]+) (\w+) = (\d+);", body)}
    messages["google.protobuf.Timestamp"] = {1: ("seconds", "int64"), 2: ("nanos", "int32")}
    return messages, enums


def shown(message, kind, names, indent="  "):
    """A protobuf message, a line for each field that it has."""
    messages, enums = names
    for number, value in wire(message):
        field, of = messages.get(kind, {}).get(number, (str(number), ""))
        if of in messages:
            print(f"{indent}{field}:")
            shown(value, of, names, indent + "  ")
            continue
        if isinstance(value, bytes):
            text = of == "string" or not of and value.isascii() and value.decode("ascii").isprintable()
            value = repr(value.decode()) if text else value.hex()
        elif of in enums:
            value = enums[of].get(value, value)
        elif of.startswith("sint"):
            value = value >> 1 ^ -(value & 1)
        elif of.startswith("int") and value >> 63:
            value -= 1 << 64
        print(f"{indent}{field}: {value}")


def fields(message):
    """The length-delimited fields of a protobuf message, by number."""
    return {number: value for number, value in wire(message) if isinstance(value, bytes)}


def follow(text, key):
    """Every key of the log, each change signed by both, with the size up to which it is believed: that with its leaf."""
    keys, last, header = [], (-1, -1), "c2sp.org/tlog-proof@v1\n"
    check(text.startswith(header), "the changes of key do not begin with a tlog-proof")
    for proof in text[len(header) :].split("\n" + header):
        proof = header + proof.rstrip("\n") + "\n"
        head, note = proof.split("\n\n", 1)
        leaf = fields(decode(head.split("\n")[1].removeprefix("extra ")))
        check(38 in leaf, "a change of key without its leaf")  # Leaf.key_rotated
        change = fields(leaf[38])
        old, new = (Key(change[field].decode(), math.inf) for field in (1, 2))
        check(old.name == new.name == leaf[1].decode() == key.name, "a change of another log's key")
        check(not keys or keys[-1] == old, "a change of key is missing")
        check(new not in keys + [old], f"a change of key leads back to {new.id.hex()}")
        record, index, size = verify_proof_file(proof, [old])
        new.open(note)
        check(len(note.rsplit("\n\n", 1)[1].splitlines()) == 2, "a change of key has other signatures than those of the two keys")
        says = dict(wire(record)).get(2, 0)  # Leaf.index
        check(says == index, f"the leaf of a change of key says that it is leaf {says}, not {index}")
        check(index > last[0] and size > last[1], f"a change of key is at leaf {index}, behind that at leaf {last[0]}")
        # Not `size`: who has the old key can add its signature to a later checkpoint of the new one.
        old.until, last = index + 1, (index, size)
        keys[-1:] = [old, new]
    check(key in keys, "no change of key leads from the one that was given")
    return keys


def verify_consistency_file(text, keys, old_root_at):
    head, note = text.split("\n\n", 1)
    old, *proof = head.split("\n")
    check(old.startswith("old "), "the file does not begin with the old size")
    old, (size, root) = number(old[4:]), open_by_any(keys, note)
    verify_consistency(old, size, [decode(line) for line in proof], old_root_at(old), root)
    return f"the first {old} leaves of {size} are those of the tiles"


def open_by_any(keys, note):
    signed = [key for key in keys if f"— {key.name} {base64.b64encode(key.id).decode()[:5]}" in note]
    hint = "; a key that was replaced since, or came later, is followed with --rotations" if keys[-1].until is None else ""
    check(signed, f"the checkpoint is not signed by {keys[-1].name}+{keys[-1].id.hex()}{hint}")
    key = signed[-1]
    size, root = key.open(note)
    check(key.until is None or size <= key.until, f"the key {key.id.hex()} was replaced at {key.until} leaves, and signed {size}")
    return size, root


def read(named):
    path = pathlib.Path(named)
    return path.read_text(encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    option = parser.add_argument
    option("--key", required=True, help="the log's public key, or a file that holds it; from elsewhere than the log")
    option("--proof", metavar="FILE", action="append", default=[], help="a file of `kiki audit proof`; needs no --log")
    option("--rotations", metavar="FILE", help="the log's changes of key (log.rotations); --key is any key among them")
    option("--log", metavar="DIR|URL", help="the log's tiles: a folder or a server with `checkpoint` and `tile/`")
    option("--index", metavar="N", type=int, action="append", default=[], help="a leaf of --log to prove from its tiles")
    option("--old", metavar="FILE", help="an earlier checkpoint: --log has to begin with it")
    option("--consistency", metavar="FILE", help="a file of `kiki audit consistency`, held against --log")
    args = parser.parse_args()
    if not args.log and (args.index or args.old or args.consistency or not args.proof):
        parser.error("--log is missing: only --proof needs none")
    keys = [Key(args.key if "+" in args.key else read(args.key))]
    if args.rotations:
        keys = follow(read(args.rotations), keys[0])
        print(f"keys: {len(keys) - 1} changes, each signed by both keys, lead to {keys[-1].name}+{keys[-1].id.hex()}")
    if args.log:
        verify_tiles(args, keys)
    names = contract(CONTRACT.read_text(encoding="utf-8")) if CONTRACT.is_file() else ({}, {})
    for name in args.proof:
        leaf, index, size = verify_proof_file(read(name), keys)
        print(f"proof: leaf {index} of {len(leaf)} bytes is in the log of {size} leaves that {keys[-1].name} signed")
        shown(leaf, "Leaf", names)
    print("all holds")


def verify_tiles(args, keys):
    key, log = keys[-1], Log(args.log)
    size, root = open_by_any([key], log.fetch("checkpoint").decode())
    print(f"checkpoint: signed by {key.name}, {size} leaves under {root.hex()}")
    log.size = size
    if size:
        check(log.root(0, size) == root, "the tiles lead to another root than the checkpoint's")
        print(f"tiles: {len(log.tiles)} of the right edge lead to the checkpoint's root")
    for index in args.index:
        check(0 <= index < size, f"leaf {index} is not in a log of {size}")
        leaf, tile = log.leaf(index), log.tile(0, index // WIDTH)
        check(leaf_hash(leaf) == tile[index % WIDTH], f"leaf {index} is not the one in its tile")
        verify_inclusion(leaf_hash(leaf), index, size, inclusion_proof(log, index, 0, size), root)
        print(f"inclusion: leaf {index} of {len(leaf)} bytes is in its tile and under the root")
    if args.old:
        old, old_root = open_by_any(keys, read(args.old))
        verify_consistency(old, size, consistency_proof(log, old, 0, size), old_root, root)
        print(f"consistency: the log of {size} leaves begins with the checkpoint of {old}")
    if args.consistency:
        print(f"consistency file: {verify_consistency_file(read(args.consistency), keys, lambda old: log.root(0, old))}")


if __name__ == "__main__":
    try:
        main()
    except (Wrong, ValueError, OSError, IndexError) as error:
        print(f"verify_log.py: {error}", file=sys.stderr)
        sys.exit(1)
