"""Holds the chart helm/kiki against Helm, Kubernetes and the services' sources.

Usage: helm.py [CHART]. Every check yields what is wrong. That each of them can fail is shown every time: the chart is broken
in one place after the other (helm_broken.py), and the check that is to notice has to.
"""

import functools
import json
import pathlib
import re
import sys
import tempfile

import helm_python as helm
import kubernetes_validate as kubernetes
import yaml

import helm_broken
import helm_checks as checks

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMESPACE = "ads"
# The names of releases: one that the chart's name is a part of, and one that it is not. Then what one has to say oneself.
SETS = {
    "everything": (ROOT / ".ci/helm.everything.yaml", "bids", {}),
    "default": (None, "kiki", {"image": checks.IMAGE}),
    "dev": ("values-dev.yaml", "kiki", {}),
    "prod": ("values-prod.yaml", "kiki", checks.CHANGED_FOR_PROD),
}


def versions(chart):
    """The oldest and the newest Kubernetes of kubeVersion, which names the first that it no longer supports."""
    oldest, beyond = re.fullmatch(r">=1\.(\d+)\.0-0 <1\.(\d+)\.0-0", chart.metadata["kubeVersion"]).groups()
    return f"1.{oldest}", f"1.{int(beyond) - 1}"


def rendered(chart, values, name):
    """All manifests, and NOTES.txt."""
    texts = chart.render(values, name=name, namespace=NAMESPACE)
    notes = texts.pop("kiki/templates/NOTES.txt", "")
    manifests = (document(one) for path, text in texts.items() if not pathlib.Path(path).name.startswith("_") for one in text.split("\n---\n"))
    return [one for one in manifests if one], notes


@functools.cache
def document(text):
    return yaml.load(text, yaml.CSafeLoader)


# A megabyte of definitions, which validate reads anew for each manifest.
kubernetes.utils.schema_contents = functools.cache(kubernetes.utils.schema_contents)


@functools.cache
def strictly(text, version):
    """What Kubernetes' schema says of a manifest, if anything; for operators' kinds our own does."""
    manifest = json.loads(text)
    if manifest["kind"] in checks.OPERATORS:
        return next(checks.operators_kind(manifest), None)
    try:
        used = kubernetes.validate(manifest, version, strict=True)
        return None if used == version else f"validated for {used}, as there is no schema of {version}"
    except kubernetes.ValidationError as e:
        return f"{'/'.join(map(str, e.path))}: {e.message[:200]}"
    except kubernetes.SchemaNotFoundError as e:
        return e.message


def releases(path, chart):
    """What each set of values makes of a chart, or why it makes nothing."""
    for name, (file, release, own) in SETS.items():
        values = over(yaml.load((path / file).read_text(), yaml.CSafeLoader) if file else {}, own)
        try:
            manifests, notes = rendered(chart, values, release)
            yield values, checks.Release(ROOT, path, name, release, NAMESPACE, chart.merge_values(values), manifests, notes)
        except (helm.HelmError, yaml.YAMLError) as e:
            yield values, f"{name}: {e}"


def over(values, own):
    """Values with others over them, as Helm lays them: None takes one away."""
    both = {key: over(values[key], one) if isinstance(one, dict) and isinstance(values.get(key), dict) else one for key, one in own.items()}
    return {key: one for key, one in {**values, **both}.items() if one is not None}


def held(check, release):
    try:
        yield from check(release)
    except (KeyError, RuntimeError) as e:  # Kubernetes' schema says better where it should stand
        yield f"something has no {e}"


def linted(path, values, version):
    report = helm.lint(path, values, strict=True, namespace=NAMESPACE, kube_version=f"v{version}.0")
    yield from (f"lint for {version}: {one['path']}: {one['error']}" for one in report["messages"] if one["severity"] >= 2)
    yield from (f"lint for {version}: {error}" for error in report["errors"])


def of_chart(path):
    """What is wrong with a chart, over all sets of values; what is found quickly comes first."""
    for check in checks.OF_THE_CHART:
        yield from (f"{check.__name__}: {problem}" for problem in check(ROOT, path))
    made = []
    with helm.Chart.load(path) as chart:
        supported = versions(chart)
        yield from (f"kubeVersion: no schema of {version}" for version in supported if f"{version}.0" not in kubernetes.utils.all_versions())
        for values, release in releases(path, chart):
            if isinstance(release, str):
                yield release
                continue
            made.append((values, release))
            for check in checks.OF_A_RELEASE:
                yield from (f"{release.set}: {check.__name__}: {problem}" for problem in held(check, release))
        for values, at in checks.REFUSED_BY_SCHEMA:
            yield from (f"schema: {problem}" for problem in refused(chart, values, at))
        for values, says in checks.REFUSED_BY_TEMPLATES:
            yield from (f"refusals: {problem}" for problem in refused(chart, values, says))
        for values in checks.TAKEN:
            yield from (f"refusals: {problem}" for problem in taken(chart, values))
        unchanged = yaml.load((path / "values-prod.yaml").read_text(), yaml.CSafeLoader)
        for says in checks.EXAMPLES:
            yield from (f"refusals: {problem}" for problem in refused(chart, unchanged, f"{says}, which is an example's"))
    yield from (f"in a cluster: {problem}" for problem in of_cluster(path, [release for _, release in made]))
    for version in supported:
        for values, release in made:
            for one in release.manifests:
                if problem := strictly(json.dumps(one, sort_keys=True), version):
                    yield f"{release.set}: Kubernetes {version}: {one['kind']} {one['metadata']['name']}: {problem}"
            yield from linted(path, values, version)


def of_cluster(path, made):
    """What is wrong with what a chart says of a cluster, which is stood in for by global.cluster: {kind/name: object}."""
    with tempfile.TemporaryDirectory() as scratch:
        helm_broken.Breakage("templates/_refusals.tpl", *checks.CLUSTER, "").apply(path, pathlib.Path(scratch) / "kiki")
        with helm.Chart.load(pathlib.Path(scratch) / "kiki") as chart:
            for values, found, says in checks.IN_A_CLUSTER:
                values = {**values, "global": {"cluster": found}}
                yield from refused(chart, values, says) if says else taken(chart, values)
            for release in made:
                values = over(release.values, {"global": {"cluster": checks.NAMESPACE_IS_THERE}})
                for name, key in sorted(checks.wanted_of_others(release)):
                    yield from refused(chart, values, f"has no Secret {name} with the key {key}")


def taken(chart, values):
    try:
        chart.render(over({"image": checks.IMAGE}, values), name="kiki", namespace=NAMESPACE)
    except helm.HelmError as e:
        yield f"{json.dumps(values)} was refused: {e}"


def refused(chart, values, says):
    """A chart has to refuse these values, and to say why."""
    try:
        chart.render(over({"image": checks.IMAGE}, values), name="kiki", namespace=NAMESPACE)
        yield f"{json.dumps(values)} was taken"
    except helm.HelmError as e:
        if says not in str(e):
            yield f"{json.dumps(values)} was refused, but not for {says!r}: {e}"


def unnoticed(path):
    """Breakages of the chart that no check notices, or another than is to."""
    for breakage in helm_broken.ALL:
        with tempfile.TemporaryDirectory() as scratch:
            broken = pathlib.Path(scratch) / "kiki"
            breakage.apply(path, broken)
            said = []
            for problem in of_chart(broken):
                said.append(problem)
                if breakage.noticed in problem:
                    break
            else:
                yield f"{breakage}: nobody says that, but: {said[:3]}"


def main():
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "helm/kiki"
    problems = list(of_chart(path)) or list(unnoticed(path))
    for problem in problems:
        print(problem)
    with helm.Chart.load(path) as chart:
        oldest, newest = versions(chart)
    print(f"helm {helm.helm_sdk_version()}, Kubernetes {oldest} and {newest}, values {', '.join(SETS)}: "
          f"{len(helm_broken.ALL)} breakages tried, {len(problems)} problems")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
