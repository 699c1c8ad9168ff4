"""Verifies a log without any of the code that wrote it: Python's standard library and `cryptography`.

    verify_log.py --key KEY --log DIR|URL [--rotations FILE] [--index N ...] [--old FILE] [--proof FILE ...]
                  [--consistency FILE]

KEY is the log's public key (the text of log.pub, or a file that holds it); get it from elsewhere than the log. The log
is a folder with `checkpoint` and `tile/` (SyncShield's DIR/tiles), or the URL of a server of the same. It checks

* the checkpoint's Ed25519 signature (C2SP signed-note, tlog-checkpoint),
* that the tiles of the right edge, and those over each leaf, lead to the checkpoint's root (C2SP tlog-tiles),
* for each --index, the leaf: its bundle, its tile, and the inclusion proof made from tiles (RFC 6962, 2.1.1),
* for --old, an earlier checkpoint of the log, the consistency proof made from tiles (RFC 6962, 2.1.2),
* for each --proof, a file of `kiki audit proof` (C2SP tlog-proof, with the leaf in its extra line),
* for --rotations, the log's changes of key (`log.rotations`, or /rotations of its server): that each was signed by
  both keys and that they lead from KEY to the one that signs; --old may be signed by any of them,
* for --consistency, a file of `kiki audit consistency` (old size, proof, checkpoint, as a C2SP witness is sent it).

Prints what holds. Exits 1 with the first thing that does not.
"""

import argparse
import base64
import hashlib
import pathlib
import struct
import sys
import urllib.request

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WIDTH = 256


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


class Key:
    """A verifier key: name+id+base64(0x01 || Ed25519 public key)."""

    def __init__(self, text):
        name, key_id, key = text.strip().split("+", 2)
        material = decode(key)
        check(len(material) == 33 and material[0] == 1, "the key is not an Ed25519 key")
        digest = sha256(name.encode() + b"\n" + material)
        check(digest[:4].hex() == key_id, "the key's id is not that of its name and bytes")
        self.name, self.id, self.raw = name, digest[:4], material
        self.public = Ed25519PublicKey.from_public_bytes(material[1:])

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
        check(size == str(int(size)), "the checkpoint's size has another form")
        root = decode(root)
        check(len(root) == 32, "the checkpoint's root is not 32 bytes")
        return int(size), root


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
    check(index < size, f"leaf {index} is not in a tree of {size}")
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


def verify_proof_file(text, key):
    """A C2SP tlog-proof whose extra line is the leaf."""
    head, note = text.split("\n\n", 1)
    lines = head.split("\n")
    check(lines[0] == "c2sp.org/tlog-proof@v1", "not a tlog-proof")
    check(lines[1].startswith("extra ") and lines[2].startswith("index "), "the proof has no leaf and index")
    leaf, index = decode(lines[1][6:]), int(lines[2][6:])
    size, root = key.open(note)
    verify_inclusion(leaf_hash(leaf), index, size, [decode(line) for line in lines[3:]], root)
    return f"leaf {index} of {len(leaf)} bytes is in the log of {size}"


def fields(message):
    """The length-delimited fields of a protobuf message, by number; others are skipped."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
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
            found[number], at = message[at : at + value], at + value
    return found


def follow(text, key):
    """Every key from this one to the one that signs, each change signed by both."""
    keys, header = [], "c2sp.org/tlog-proof@v1\n"
    check(text.startswith(header), "the changes of key do not begin with a tlog-proof")
    for proof in text[len(header) :].split("\n" + header):
        proof = header + proof.rstrip("\n") + "\n"
        head, note = proof.split("\n\n", 1)
        leaf = fields(decode(head.split("\n")[1].removeprefix("extra ")))
        check(38 in leaf, "a change of key without its leaf")  # Leaf.key_rotated
        change = fields(leaf[38])
        old, new = Key(change[1].decode()), Key(change[2].decode())
        check(old.name == new.name == leaf[1].decode() == key.name, "a change of another log's key")
        check(not keys or keys[-1].id == old.id and keys[-1].raw == old.raw, "a change of key is missing")
        verify_proof_file(proof, old)
        new.open(note)
        keys += [new] if keys else [old, new]
    known = [at for at, one in enumerate(keys) if (one.id, one.raw) == (key.id, key.raw)]
    check(known, "no change of key leads from the one that was given")
    return keys[known[0] :]


def verify_consistency_file(text, key, old_root_at):
    head, note = text.split("\n\n", 1)
    old, *proof = head.split("\n")
    check(old.startswith("old "), "the file does not begin with the old size")
    old, (size, root) = int(old[4:]), key.open(note)
    verify_consistency(old, size, [decode(line) for line in proof], old_root_at(old), root)
    return f"the first {old} leaves of {size} are those of the tiles"


def open_by_any(keys, note):
    signed = [key for key in keys if f"— {key.name} {base64.b64encode(key.id).decode()[:5]}" in note]
    return (signed or keys)[-1].open(note)


def read(named):
    path = pathlib.Path(named)
    return path.read_text(encoding="utf-8")


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    args.add_argument("--key", required=True)
    args.add_argument("--log", required=True)
    args.add_argument("--index", type=int, action="append", default=[])
    args.add_argument("--old")
    args.add_argument("--proof", action="append", default=[])
    args.add_argument("--consistency")
    args.add_argument("--rotations")
    args = args.parse_args()
    key = Key(args.key if "+" in args.key else read(args.key))

    keys = [key]
    if args.rotations:
        keys = follow(read(args.rotations), key)
        key = keys[-1]
        print(f"keys: {len(keys) - 1} changes, each signed by both keys, lead to {key.name}+{key.id.hex()}")
    log = Log(args.log)
    size, root = key.open(log.fetch("checkpoint").decode())
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
    for name in args.proof:
        print(f"proof: {verify_proof_file(read(name), key)}")
    if args.consistency:
        print(f"consistency file: {verify_consistency_file(read(args.consistency), key, lambda old: log.root(0, old))}")
    print("all holds")


if __name__ == "__main__":
    try:
        main()
    except (Wrong, ValueError, OSError, IndexError) as error:
        print(f"verify_log.py: {error}", file=sys.stderr)
        sys.exit(1)
