#!/usr/bin/env python3
"""Breaks SyncShield on purpose, in a copy, one way at a time, and shows that its tests notice.

    python3 services/syncshield/tests/mutants.py [NAME...]

Each mutant of mutants.json replaces a text that stands in a file exactly once; where it does not, the list is out of
date and the run fails. KIKI_MUTANTS_TARGET keeps the build for the next run; no other run may use that folder. Ends with 0 when the unchanged copy passes and every mutant is caught. Takes some minutes.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
SHIELD = "services/syncshield/src"
LIST = pathlib.Path(__file__).with_suffix(".json")
RUNS = [["--test", "sim"], ["--test", "it", "--", "ledger::", "store::", "outage::", "tiles::"]]

# Each: its name, the file below src, a text that stands there once, and what stands there instead; both by lines.
# tests/it/mutants.rs keeps the texts up to date.
MUTANTS = {m["name"]: (m["file"], "\n".join(m["text"]), "\n".join(m["instead"])) for m in json.loads(LIST.read_text())}


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
    path.write_text(source.replace(text, instead))
    passed, said = test(copy, build)
    path.write_text(source)
    if not passed and "test result: FAILED" not in said:
        sys.exit(f"{name}: does not build:\n{said}")
    by = re.findall(r"^test (\S+) \.\.\. FAILED", said, re.M)
    print(f"{'missed' if passed else 'caught'}: {name}" + (f" (by {', '.join(by)})" if by else ""), flush=True)
    return not passed


def test(copy, build):
    environment = os.environ | {"CARGO_TARGET_DIR": build, "RUST_BACKTRACE": "0", "KIKI_SIM_SEEDS": "300"}
    commands = [["cargo", "test", "--locked", "-p", "syncshield", *run] for run in RUNS]
    done = [subprocess.run(c, cwd=copy, env=environment, capture_output=True, text=True, timeout=1_200) for c in commands]
    return all(run.returncode == 0 for run in done), "".join(run.stdout + run.stderr for run in done)


main()
