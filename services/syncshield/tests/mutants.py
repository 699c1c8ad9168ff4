#!/usr/bin/env python3
"""Breaks SyncShield on purpose, in a copy, one way at a time, and shows that its tests notice.

    python3 services/syncshield/tests/mutants.py [NAME...]

Each mutant replaces a text that stands in a file exactly once; where it does not, the list below is out of date and
the run fails. KIKI_MUTANTS_TARGET keeps the build for the next run; no other run may use that folder. Ends with 0 when the unchanged copy passes and every mutant is caught. Takes some minutes.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
SHIELD = "services/syncshield/src"
TESTS = ["--test", "sim", "--test", "ledger", "--test", "store"]

# name: (file, text, what stands there instead)
MUTANTS = {
    "skip the fsync": (
        "store/segments.rs",
        "        self.write(&bytes)?;\n        self.file.sync()?;\n",
        "        self.write(&bytes)?;\n",
    ),
    "drop a lease's idempotency": (
        "domain/ledger.rs",
        "if let Some(lease_id) = campaign.lease_of_key(&ask.key) {",
        "if let Some(lease_id) = campaign.lease_of_key(&ask.key).filter(|_| false) {",
    ),
    "drop a batch's idempotency": (
        "domain/ledger.rs",
        "if source_seq <= last.seq && source_seq > 0 {",
        "let last = super::state::Source { seq: source_seq.max(1) - 1, ..last };\n            if source_seq <= last.seq && source_seq > 0 {",
    ),
    "free a lease on expiry": (
        "domain/budget.rs",
        "self.amount.nanos() } else { self.mark_nanos };",
        "self.amount.nanos() } else { 0 };",
    ),
    "sign a shorter log": (
        "store.rs",
        "            (tree.size(), tree.root())\n        };\n        if size < min_size {",
        "            let size = tree.size().saturating_sub(1);\n            (size, tree.root_at(size)?)\n        };\n        if tree_size(&self.inner) < min_size {",
    ),
    "start with a log that came back shorter": (
        "store.rs",
        "if checkpoint.size > tree.size() {",
        "if checkpoint.size > tree.size() {\n        return Ok(());\n    }\n    if checkpoint.size > tree.size() {",
    ),
    "reorder two records": (
        "store/segments.rs",
        "        for leaf in leaves {\n            starts.push(",
        "        let mut leaves = leaves.to_vec();\n        if leaves.len() > 1 {\n            leaves.swap(0, 1);\n        }\n        for leaf in &leaves {\n            starts.push(",
    ),
    "answer before the commit": (
        "store.rs",
        "            reply(committed.clone());",
        "            reply(Ok(()));",
    ),
    "go on after a failed fsync": (
        "store.rs",
        "        self.failed = true;\n",
        "",
    ),
    "believe what the last process left": (
        "store/segments.rs",
        "filter(|_| cut || tree.size() > signed)",
        "filter(|_| cut)",
    ),
    "leave the rest of a write that found no room": (
        "store/segments.rs",
        "            Err(error) if is_full(&error) => {\n                self.file.cut(self.len)?;",
        "            Err(error) if is_full(&error) => {",
    ),
    "keep the state of requests that found no room": (
        "store.rs",
        "            Ok(state) => self.ledger = Ledger::new(self.inner.log_id.clone(), state),",
        "            Ok(_) => {}",
    ),
}
# What a mutant needs besides, at the end of its file.
HELPERS = {"sign a shorter log": "\nfn tree_size(inner: &Inner) -> u64 {\n    inner.tree.read().size()\n}\n"}


def main():
    names = sys.argv[1:] or list(MUTANTS)
    with tempfile.TemporaryDirectory() as scratch:
        copy = pathlib.Path(scratch) / "kiki"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("target", ".git"))
        build = os.environ.get("KIKI_MUTANTS_TARGET", str(pathlib.Path(scratch) / "target"))
        passed, said = test(copy, build)
        if not passed:
            sys.exit(f"the tests fail without any mutant:\n{said}")
        missed = [name for name in names if not is_caught(copy, build, name)]
    print(f"{len(names) - len(missed)} of {len(names)} mutants caught")
    sys.exit(f"NOT CAUGHT: {', '.join(missed)}" if missed else 0)


def is_caught(copy, build, name):
    file, text, instead = MUTANTS[name]
    path = copy / SHIELD / file
    source = path.read_text()
    if source.count(text) != 1:
        sys.exit(f"{name}: its text stands {source.count(text)} times in {file}")
    path.write_text(source.replace(text, instead) + HELPERS.get(name, ""))
    passed, said = test(copy, build)
    path.write_text(source)
    if not passed and "test result: FAILED" not in said:
        sys.exit(f"{name}: does not build:\n{said}")
    by = re.findall(r"^test (\S+) \.\.\. FAILED", said, re.M)
    print(f"{'missed' if passed else 'caught'}: {name}" + (f" (by {', '.join(by)})" if by else ""), flush=True)
    return not passed


def test(copy, build):
    command = ["cargo", "test", "--locked", "-p", "syncshield", "--no-fail-fast", *TESTS]
    environment = os.environ | {"CARGO_TARGET_DIR": build, "RUST_BACKTRACE": "0", "KIKI_SIM_SEEDS": "300"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=1_200)
    return done.returncode == 0, done.stdout + done.stderr


main()
