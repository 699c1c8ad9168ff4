"""What must be true of the chart and of each release of it. A check yields what is not."""

import base64
import functools
import hashlib
import json
import re

import jsonschema
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SERVICES = ("syncvalue", "syncflow", "syncshield", "billing")
SHORT = {"syncvalue": "VALUE", "syncflow": "FLOW", "syncshield": "SHIELD", "billing": "BILLING"}
# Addresses of databases may hold a password, whatever clap is told of them.
SECRET = {"KIKI_VALUE_STATES", "KIKI_FREQUENCY", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}

# Kinds that Kubernetes' schemas do not have.
OPERATORS = {"ServiceMonitor": "monitoring.coreos.com/v1", "PrometheusRule": "monitoring.coreos.com/v1", "Certificate": "cert-manager.io/v1"}

IMAGE = {"registry": "registry.test"}
# What the head of values-prod.yaml tells one to change.
CHANGED_FOR_PROD = {
    "image": IMAGE,
    "logId": "ads.test/log-1",
    "tls": {"trustDomain": "ads.test", "certManager": {"issuerRef": {"name": "ads"}}},
    "identities": {"spiffe://example.com/ns/bidders/sa/bidder": None, "spiffe://ads.test/ns/bidders/sa/bidder": "bidder"},
    "syncflow": {"publicUrl": "https://bid.ads.test"},
    "networkPolicy": {"postgresql": {"peers": [{"ipBlock": {"cidr": "10.20.0.0/24"}}]}, "redis": {"peers": [{"ipBlock": {"cidr": "10.20.1.0/24"}}]}},
}
# What is said of values-prod.yaml as it is.
EXAMPLES = ["image.registry: has example.com", "logId: has example.com", "syncflow.publicUrl: has example.com", "identities: has example.com",
            "tls.trustDomain: has example.com", "tls.certManager.issuerRef: has example-ca", "networkPolicy.postgresql.peers: has 192.0.2.0",
            "networkPolicy.redis.peers: has 198.51.100.0"]

REFUSED_BY_SCHEMA = [
    ({"nonsense": 1}, "additional properties 'nonsense' not allowed"),
    ({"syncflow": {"nonsense": 1}}, "at '/syncflow': additional properties 'nonsense'"),
    ({"networkPolicy": {"http": {"kiki": []}}}, "at '/networkPolicy/http'"),
    ({"syncflow": {"replicas": "3"}}, "at '/syncflow/replicas': got string, want integer"),
    ({"tls": {"enabled": "yes"}}, "at '/tls/enabled': got string, want boolean"),
    ({"tls": {"trustDomain": "Example.com"}}, "at '/tls/trustDomain'"),
    ({"tls": {"certManager": {"issuerRef": {"kind": "Issuer"}}}}, "at '/tls/certManager/issuerRef'"),
    ({"identities": {"ads.example/ada": "operator"}}, "invalid propertyName 'ads.example/ada'"),
    ({"identities": {"spiffe://ads.example/a,b": "operator"}}, "invalid propertyName"),
    ({"identities": {"spiffe://ads.example/ada": "root"}}, "at '/identities/spiffe:"),
    ({"identities": {"spiffe://ads.example/acme": "tenant"}}, "at '/identities/spiffe:"),
    ({"image": {"tag": "a:b"}}, "at '/image/tag'"),
    ({"redis": {"image": "redis"}}, "at '/redis/image'"),
    ({"syncvalue": {"store": "postgres"}}, "at '/syncvalue/store'"),
    ({"syncflow": {"settings": {"KIKI_RECEIPT_KEY": "00"}}}, "invalid propertyName 'KIKI_RECEIPT_KEY'"),
    ({"billing": {"settings": {"KIKI_API_KEY": "kiki_a_00"}}}, "invalid propertyName 'KIKI_API_KEY'"),
    ({"billing": {"settings": {"KIKI_BILLING_APROVAL": "true"}}}, "invalid propertyName 'KIKI_BILLING_APROVAL'"),
    ({"syncflow": {"settings": {"KIKI_LEASE_TTL_SECS": "30"}}}, "invalid propertyName 'KIKI_LEASE_TTL_SECS'"),
    ({"networkPolicy": {"prometheus": [{}]}}, "at '/networkPolicy/prometheus/0'"),
    ({"networkPolicy": {"dnsPorts": []}}, "at '/networkPolicy/dnsPorts'"),
]
REFUSED_BY_TEMPLATES = [
    ({"syncvalue": {"replicas": 2}}, "syncvalue.store: files are one replica's"),
    ({"syncshield": {"autoscaling": {"enabled": True}}}, "syncshield.store: files are one replica's"),
    ({"secrets": {"generate": False}}, "names no Secret, and secrets.generate is off"),
    ({"tls": {"enabled": True}}, "names no Secret, tls.certManager no issuer, and tls.enabled is on"),
    ({"identities": {"spiffe://ads.example/ada": "operator"}}, "tls.enabled: is off"),
    ({"apiKeys": {"secret": "keys"}}, "tls.enabled: is off"),
    ({"billing": {"store": "postgres"}, "networkPolicy": {"enabled": False}}, "secrets.database: names no Secret, and postgresql is not bundled"),
    ({"syncflow": {"store": "redis"}, "networkPolicy": {"enabled": False}}, "secrets.redis: names no Secret, and redis is not bundled"),
    ({"image": {"registry": ""}}, "image.registry: is empty"),
    ({"image": {"registry": "https://registry.test"}}, 'image.registry: "https://registry.test" is no HOST'),
    ({"image": {"registry": "registry.test/"}}, "image.registry: "),
    ({"image": {"registry": "REGISTRY"}}, "image.registry: "),
    ({"image": {"tag": "latest"}}, "image.tag: latest is what was pushed last"),
    ({"redis": {"image": "redis:latest"}}, "redis.image: latest"),
    ({"syncflow": {"public": {"enabled": True}}}, "networkPolicy.http.syncflow: is empty"),
    ({"monitoring": {"serviceMonitor": {"enabled": True}}}, "networkPolicy.prometheus: is empty"),
    ({"syncshield": {"store": "postgres"}, "secrets": {"database": "db"}}, "networkPolicy.postgresql.peers: is empty, and syncshield.store"),
    ({"syncvalue": {"store": "redis"}, "secrets": {"redis": "redis"}}, "networkPolicy.redis.peers: is empty, and syncvalue.store"),
    ({"billing": {"settings": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel.test:4317"}}}, "networkPolicy.traces.peers: is empty, and billing.settings"),
    ({"syncshield": {"settings": {"KIKI_WITNESSES": "http://witness.test:80+w+00+AA=="}}}, "networkPolicy.witnesses.peers: is empty"),
    # Two at once.
    ({"image": {"registry": ""}, "logId": "log.example.com"}, "nodes have them\nlogId: has example.com"),
]
TAKEN = [
    {"image": {"registry": "registry.test:5000/my_team/ads"}},
    {"image": {"registry": "", "pullPolicy": "Never"}},
    {"logId": "my-example.com/log-1"},
    {"tls": {"trustDomain": "example.com"}},  # which is off
    {"networkPolicy": {"enabled": False}, "syncflow": {"public": {"enabled": True}}, "monitoring": {"serviceMonitor": {"enabled": True}}},
]

# How the chart asks a cluster, and where the answers are instead.
CLUSTER = ('lookup "v1" .kind .root.Release.Namespace .name', 'get (.root.Values.global.cluster | default dict) (printf "%s/%s" .kind .name)')
NAMESPACE_IS_THERE = {"ServiceAccount/default": {"kind": "ServiceAccount"}}
RECEIPTS, OTHERS_TLS = {"secrets": {"receiptKey": "own"}}, {"tls": {"enabled": True, "secrets": {service: f"{service}-tls" for service in SERVICES}}}
LOG_KEY = base64.b64encode(b"kiki.local/log-1+00000000+AA==").decode()
# Values, what the cluster has, and what is said of it, if anything.
IN_A_CLUSTER = [
    (RECEIPTS, {}, None),
    (RECEIPTS, NAMESPACE_IS_THERE, "secrets.receiptKey: the namespace ads has no Secret own with the key receipt.key"),
    (RECEIPTS, NAMESPACE_IS_THERE | {"Secret/own": {"data": {"key": ""}}}, "no Secret own with the key receipt.key"),
    (RECEIPTS, NAMESPACE_IS_THERE | {"Secret/own": {"data": {"receipt.key": ""}}}, None),
    ({"secrets": {"receiptKey": "own", "mustExist": False}}, NAMESPACE_IS_THERE, None),
    (OTHERS_TLS, NAMESPACE_IS_THERE, "tls.secrets.billing: the namespace ads has no Secret billing-tls with the key ca.crt"),
    ({"logId": "ads.test/log-1"}, NAMESPACE_IS_THERE | {"Secret/kiki-log-key": {"data": {"log.pub": LOG_KEY}}},
     "logId: is ads.test/log-1, and the Secret kiki-log-key has the key of kiki.local/log-1"),
    ({}, NAMESPACE_IS_THERE | {"Secret/kiki-log-key": {"data": {"log.pub": LOG_KEY}}}, None),
]


@functools.cache
def source(root, service):
    """All of a service's Rust outside of its tests."""
    return "\n".join(path.read_text() for path in sorted((root / "services" / service / "src").rglob("*.rs")))


@functools.cache
def shared(root):
    """What all services are told alike."""
    return "".join((root / "src/runtime" / file).read_text() for file in ("program.rs", "trust.rs", "traces.rs"))


@functools.cache
def settings(root, service):
    """Its environment variables: {name: (is a secret, must be given)}."""
    found = {}
    for attributes, kind in re.findall(r"#\[arg\(([^\]]*)\)\]\s*(?:pub )?\w+: ([\w:]+)", shared(root) + source(root, service)):
        if name := re.search(r'env = "(\w+)"', attributes):
            optional = "default_value" in attributes or kind in ("Option", "Vec", "bool")
            found[name[1]] = ("hide_env_values" in attributes or name[1] in SECRET, not optional)
    return found


class Release:
    """What was rendered, with ways to find things in it."""

    def __init__(self, root, chart, set_, name, namespace, values, manifests, notes):
        self.root, self.chart, self.set, self.values, self.manifests, self.notes = root, chart, set_, values, manifests, notes
        self.name, self.namespace = name, namespace

    def of(self, *kinds):
        return [one for one in self.manifests if one["kind"] in kinds]

    def named(self, kind, name):
        return next((one for one in self.of(kind) if one["metadata"]["name"] == name), None)

    def pods(self):
        """(owner's name, labels, pod spec) of each workload, and of the test."""
        for one in self.of("Deployment", "StatefulSet"):
            template = one["spec"]["template"]
            yield one["metadata"]["name"], template["metadata"]["labels"], template["spec"]
        for one in self.of("Pod"):
            yield one["metadata"]["name"], one["metadata"]["labels"], one["spec"]

    def services(self):
        """(component, pod spec, container) of the four services."""
        for _, labels, spec in self.pods():
            if component(labels) in SERVICES:
                yield component(labels), spec, spec["containers"][0]


def component(labels):
    return labels.get("app.kubernetes.io/component")


def matches(selector, labels):
    chosen = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return chosen and all(one["operator"] == "In" and labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))


def operators_kind(manifest):
    """Kinds of the Prometheus operator's and cert-manager's, as strictly as their CRDs are, in what the chart uses of them."""
    text = {"type": "string"}
    texts = {"type": "array", "items": text}
    duration = {"type": "string", "pattern": r"^(0|([0-9]+(ms|s|m|h|d|w|y))+)$"}
    labels = {"type": "object", "additionalProperties": text}

    def strict(required, **properties):
        return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}

    metadata = strict(["name", "labels"], name=text, labels=labels)
    expressions = {"type": "array", "items": strict(["key", "operator"], key=text, operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                                                    values={"type": "array", "items": text})}
    specs = {
        "ServiceMonitor": strict(
            ["selector", "endpoints"], jobLabel=text,
            selector=strict([], matchLabels=labels, matchExpressions=expressions),
            endpoints={"type": "array", "minItems": 1, "items": strict(["port"], port=text, path=text, interval=duration)}),
        "PrometheusRule": strict(["groups"], groups={"type": "array", "items": strict(
            ["name", "rules"], name=text, interval=duration, limit={"type": "integer"}, rules={"type": "array", "items": {
                **strict(["expr"], record=text, alert=text, expr={"type": ["string", "integer"]}, labels=labels, annotations=labels,
                         **{"for": duration, "keep_firing_for": duration}),
                "oneOf": [{"required": ["record"]}, {"required": ["alert"]}]}})}),
        "Certificate": strict(
            ["secretName", "issuerRef", "dnsNames", "uris"], secretName=text, dnsNames=texts, uris=texts,
            issuerRef=strict(["name"], name=text, kind=text, group=text),
            usages={"type": "array", "items": {"enum": ["digital signature", "server auth", "client auth"]}},
            privateKey=strict([], algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]}, size={"type": "integer"}, rotationPolicy={"enum": ["Never", "Always"]})),
    }
    spec = specs[manifest["kind"]]
    version = {"const": OPERATORS[manifest["kind"]]}
    kind = strict(["apiVersion", "kind", "metadata", "spec"], apiVersion=version, kind=text, metadata=metadata, spec=spec)
    for error in jsonschema.Draft202012Validator(kind).iter_errors(manifest):
        yield f"{'/'.join(map(str, error.path))}: {error.message[:200]}"


# Of the chart as it lies there.


def ports_and_health_are_the_services(root, chart):
    text = (chart / "templates/_names.tpl").read_text()
    for service in SERVICES:
        line = re.search(rf"^{service}: (.*)$", text, re.M)
        is_ = yaml.load(line[1], yaml.CSafeLoader)
        for kind in ("grpc", "http"):
            default = re.search(rf'env = "KIKI_{SHORT[service]}_{kind.upper()}", default_value = "127.0.0.1:(\d+)"', source(root, service))
            if int(default[1]) != is_[kind]:
                yield f"{service}: {kind} is {is_[kind]}, and the service's is {default[1]}"
        if f'SERVICE: &str = "{is_["health"]}"' not in source(root, service):
            yield f"{service}: its health is not {is_['health']}"
        if is_["settings"] != SHORT[service]:
            yield f"{service}: settings are not KIKI_{is_['settings']}_..."


def versions_are_cargos(root, chart):
    cargo = re.search(r'^version = "(.*)"', (root / "Cargo.toml").read_text(), re.M)[1]
    about = yaml.load((chart / "Chart.yaml").read_text(), yaml.CSafeLoader)
    if about["appVersion"] != cargo:
        yield f"appVersion {about['appVersion']} is not Cargo.toml's {cargo}"
    for file in (root / "README.md", chart / "values-dev.yaml", chart / "values-prod.yaml"):
        tags = set(re.findall(r"kiki/(?:\$i|\w+):([\w.-]+)", file.read_text()))
        if tags != {about["appVersion"]}:
            yield f"{file.name} has images of the version {', '.join(sorted(tags)) or 'none'}"


def rules_are_prometheus(root, chart):
    """The chart has to carry the rules: a package has nothing outside of its folder, and Helm follows no links."""
    ours = {path.name: path.read_text() for path in (chart / "files/rules").glob("*.yml")}
    theirs = {path.name: path.read_text() for path in (root / "prometheus/rules").glob("*.yml")}
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            yield f"files/rules/{name} is not prometheus/rules/{name}: run .ci/helm copy"


def examples_set_what_exists(root, chart):
    for file in ("values.yaml", "values-dev.yaml", "values-prod.yaml"):
        values = yaml.load((chart / file).read_text(), yaml.CSafeLoader)
        for service in SERVICES:
            for name in values.get(service, {}).get("settings", {}):
                if name not in settings(root, service):
                    yield f"{file}: {service} has no setting {name}"


def schema_has_the_services_settings(root, chart):
    """Of each service those that the chart does not set, and that are no secrets, which a Secret has to hold."""
    schema = json.loads((chart / "values.schema.json").read_text())
    set_ = set(re.findall(r"KIKI_[A-Z_]+", (chart / "templates/_env.tpl").read_text()))
    for service in SERVICES:
        own = set_ | {f"KIKI_{SHORT[service]}_{kind}" for kind in ("GRPC", "HTTP")}
        wanted = {name for name, (secret, _) in settings(root, service).items() if not secret} - own
        have = set(schema["properties"][service]["properties"]["settings"]["propertyNames"]["enum"])
        yield from (f"{service}.settings may not have {name}, which the service reads" for name in sorted(wanted - have))
        yield from (f"{service}.settings may have {name}, which the chart sets, a Secret holds, or nobody reads" for name in sorted(have - wanted))


def adapter_rules_are_of_metrics_that_exist(root, chart):
    for rule in yaml.load((chart / "files/prometheus-adapter.yaml").read_text(), yaml.CSafeLoader):
        series = re.match(r"\w+", rule["seriesQuery"])[0]
        metric = re.sub(r"_bucket$", "", series)
        if f'"{metric}"' not in "".join(source(root, service) for service in SERVICES):
            yield f"no service has the metric {metric}"


OF_THE_CHART = [
    ports_and_health_are_the_services,
    versions_are_cargos,
    rules_are_prometheus,
    examples_set_what_exists,
    schema_has_the_services_settings,
    adapter_rules_are_of_metrics_that_exist,
]

# Of a release.


def images_have_tags(release):
    for name, _, spec in release.pods():
        for container in spec["containers"] + spec.get("initContainers", []):
            tag = re.search(r":([\w.-]+)$", container["image"])
            if not tag or tag[1] == "latest":
                yield f"{name}: {container['image']} has no tag of its own"


def containers_are_limited_and_probed(release):
    for name, labels, spec in release.pods():
        for container in spec["containers"] + spec.get("initContainers", []):
            for which in ("requests", "limits"):
                if missing := {"cpu", "memory"} - container.get("resources", {}).get(which, {}).keys():
                    yield f"{name}: no {which} of {', '.join(sorted(missing))}"
            if component(labels) == "test":
                continue
            wanted = ["livenessProbe", "readinessProbe"] + (["startupProbe"] if component(labels) in SERVICES else [])
            yield from (f"{name}: no {probe}" for probe in wanted if probe not in container)


def services_are_asked_for_their_health(release):
    """By the kubelet's gRPC probe; over TLS, which that has not, by the binary itself."""
    for service, _, container in release.services():
        name = re.search(r'SERVICE: &str = "(.*?)"', source(release.root, service))[1]
        port = next(port["containerPort"] for port in container["ports"] if port["name"] == "grpc")
        for probe in ("startupProbe", "readinessProbe"):
            wanted = {"exec": {"command": [f"/bin/{service}", "health"]}} if release.values["tls"]["enabled"] else {"grpc": {"port": port, "service": name}}
            if not wanted.items() <= container.get(probe, {}).items():
                yield f"{service}: {probe} does not ask for {name} at {port}"
        if "service" in container.get("livenessProbe", {}).get("grpc", {}):
            yield f"{service}: livenessProbe would end a process that is not ready"


def pods_are_confined(release):
    for name, _, spec in release.pods():
        pod = spec.get("securityContext", {})
        if not pod.get("runAsNonRoot") or not pod.get("runAsUser") or not pod.get("runAsGroup"):
            yield f"{name}: may run as root"
        if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name}: no seccomp profile"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: has a token of its ServiceAccount"
        if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")) or any("hostPath" in volume for volume in spec.get("volumes", [])):
            yield f"{name}: uses the node's own"
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container.get("securityContext", {})
            if context.get("readOnlyRootFilesystem") is not True:
                yield f"{name}: {container['name']} may write its root file system"
            if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
                yield f"{name}: {container['name']} may escalate"
            if context.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{name}: {container['name']} has capabilities"
    for account in release.of("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {account['metadata']['name']} hands out a token"


def names_lead_somewhere(release):
    """Selectors and labels, ports, claims, accounts, targets: what one object says of another is so."""
    pods = list(release.pods())
    for one in release.of("Deployment", "StatefulSet"):
        if not matches(one["spec"]["selector"], one["spec"]["template"]["metadata"]["labels"]):
            yield f"{one['metadata']['name']}: its selector does not match its pods"
        if one["kind"] == "StatefulSet" and not release.named("Service", one["spec"]["serviceName"]):
            yield f"{one['metadata']['name']}: no Service {one['spec']['serviceName']}"
    for one in release.of("Service"):
        name, chosen = one["metadata"]["name"], [spec for _, labels, spec in pods if matches({"matchLabels": one["spec"]["selector"]}, labels)]
        if len(chosen) != 1:
            yield f"Service {name} selects {len(chosen)} workloads"
            continue
        ports = {port["name"]: port["containerPort"] for container in chosen[0]["containers"] for port in container["ports"]}
        for port in one["spec"]["ports"]:
            if port["targetPort"] not in ports:
                yield f"Service {name}: no port {port['targetPort']}"
            elif one["spec"].get("clusterIP") == "None" and ports[port["targetPort"]] != port["port"]:
                yield f"Service {name} is headless, and its port {port['port']} is not the pod's {ports[port['targetPort']]}"
    for one in release.of("PodDisruptionBudget", "NetworkPolicy"):
        selector = one["spec"].get("selector") or one["spec"]["podSelector"]
        if not any(matches(selector, labels) for _, labels, _ in pods):
            yield f"{one['kind']} {one['metadata']['name']} selects no pod"
    for one in release.of("HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]
        workload = release.named(target["kind"], target["name"])
        if workload is None or "replicas" in workload["spec"]:
            yield f"HorizontalPodAutoscaler {one['metadata']['name']}: {target['name']} is not there, or says its replicas itself"
    for name, _, spec in pods:
        account = spec.get("serviceAccountName")
        if account and not release.named("ServiceAccount", account):
            yield f"{name}: no ServiceAccount {account}"
        for volume in spec.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and claim != release.values["syncvalue"]["models"]["claim"] and not release.named("PersistentVolumeClaim", claim):
                yield f"{name}: no claim {claim}"
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        workload = release.named("StatefulSet", name)
        volumes |= {claim["metadata"]["name"] for claim in (workload or {"spec": {}})["spec"].get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", [])}
        if volumes != mounted:
            yield f"{name}: volumes {sorted(volumes)}, mounted {sorted(mounted)}"


def four_services_each_with_its_parts(release):
    for service in SERVICES:
        kind = "StatefulSet" if (service, release.values[service]["store"]) == ("syncshield", "files") else "Deployment"
        own = [one for one in release.of("Deployment", "StatefulSet") if component(one["metadata"]["labels"]) == service]
        if [one["kind"] for one in own] != [kind]:
            yield f"{service} is not one {kind}"
            continue
        name, values = own[0]["metadata"]["name"], release.values[service]
        headless = release.named("Service", name)
        if not headless or headless["spec"].get("clusterIP") != "None":
            yield f"{service} has no headless Service {name}"
        several = values["autoscaling"]["enabled"] or values["replicas"] > 1
        for part, wanted in [("PodDisruptionBudget", several), ("HorizontalPodAutoscaler", values["autoscaling"]["enabled"])]:
            if bool(release.named(part, name)) != wanted:
                yield f"{service}: {part} is {'missing' if wanted else 'there'}"
        template = own[0]["spec"]["template"]
        spread = {one["topologyKey"] for one in template["spec"]["topologySpreadConstraints"] if matches(one["labelSelector"], template["metadata"]["labels"])}
        if spread != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
            yield f"{service} is spread over {sorted(spread)}"
        mesh = release.values["global"]["mtlsAnnotations"]
        if not mesh.items() <= template["metadata"].get("annotations", {}).items():
            yield f"{service} has no annotations of the mesh"
    tests = [one["spec"] for one in release.of("Pod") if one["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
    if len(tests) != 1 or [who_serves(release, at) for at in tests[0]["containers"][0]["args"]] != [None, *sorted(SERVICES)]:
        yield "no test of all four services"
    elif release.values["tls"]["enabled"]:
        told = {one["name"]: one["value"] for one in tests[0]["containers"][0]["env"]}
        shown = [item["path"] for volume in tests[0]["volumes"] for item in volume["secret"].get("items", [{"path": "a secret key"}])]
        if told != {"KIKI_TLS_CA": "/etc/kiki/tls/ca.crt"} or shown != ["ca.crt"]:
            yield f"the test is told {told}, and has {shown}"


def settings_are_the_services(release):
    for service, spec, container in release.services():
        known = settings(release.root, service)
        given = {one["name"]: one for one in container["env"]}
        if len(given) != len(container["env"]):
            yield f"{service}: a setting stands there twice"
        for name in given.keys() - known.keys() - {"RUST_LOG"}:
            yield f"{service} has no setting {name}"
        for name, (_, must) in known.items():
            if must and name not in given:
                yield f"{service} does not start without {name}"
        for kind in ("GRPC", "HTTP"):
            port = next(port["containerPort"] for port in container["ports"] if port["name"] == kind.lower())
            if given.get(f"KIKI_{SHORT[service]}_{kind}", {}).get("value") != f"0.0.0.0:{port}":
                yield f"{service} does not listen on {port} for others"
        tls = release.values["tls"]["enabled"]
        if given.get("KIKI_PLAINTEXT", {}).get("value") != ("http" if tls else "true") or tls != ("KIKI_TLS_CERT" in given):
            yield f"{service}: neither TLS nor plaintext, or both"
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        for name, one in given.items():
            path = one.get("value", "")
            inside = any(path == mount or path.startswith(mount + "/") for mount in mounts)
            if path.startswith("/") and not inside and not (name == "KIKI_VALUE_MODELS" and not release.values["syncvalue"]["models"]["claim"]):
                yield f"{service}: {name} is {path}, where nothing is mounted"
        yield from (f"{service}: {problem}" for problem in reaches_others(release, given))


def callers_are_known(release):
    """Each service by its certificate, whom the values name, and nobody else; who has an API key where a Secret of them is named."""
    values, services = release.values, list(release.services())
    roles = set(re.findall(r'^            \w+ => "(\w+)",$', (release.root / "src/roles.rs").read_text(), re.M))
    wanted = {spiffe(release, spec): service for service, spec, _ in services} | values["identities"]
    if unknown := {role.split(":")[0] for role in wanted.values()} - roles:
        yield f"no such role: {', '.join(sorted(unknown))}"
    for service, spec, container in services:
        given = {one["name"]: one.get("value", "") for one in container["env"]}
        known = dict(one.rsplit("=", 1) for one in given.get("KIKI_IDENTITIES", "").split(",") if one)
        if known != (wanted if values["tls"]["enabled"] else {}):
            yield f"{service} knows {known}"
        secrets = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
        for name, path in given.items():
            mount = next((one for one in container["volumeMounts"] if path.startswith(one["mountPath"] + "/")), {})
            if path.startswith("/etc/kiki/") and ("subPath" in mount or "items" in secrets.get(mount.get("name"), {"items": []})):
                yield f"{service}: {name} is {path}, which is in no whole Secret: a change would not reach it"
        keys = secrets.get("api-keys", {}).get("secretName", "")
        if keys != values["apiKeys"]["secret"] or bool(keys) != ("KIKI_API_KEYS" in given):
            yield f"{service} has the API keys of {keys!r}"


def spiffe(release, spec):
    return f"spiffe://{release.values['tls']['trustDomain']}/ns/{release.namespace}/sa/{spec['serviceAccountName']}"


def certificates_are_for_their_names(release):
    """Where an issuer is named: in the Secret that is mounted, for the name that others call and the id that they know."""
    tls, made = release.values["tls"], {one["spec"]["secretName"]: one["spec"] for one in release.of("Certificate")}
    if len(made) != (len(SERVICES) if tls["enabled"] and tls["certManager"]["issuerRef"] else 0):
        yield f"certificates are made for {sorted(made)}"
        return
    for service, spec, _ in release.services() if made else ():
        secret = next(volume["secret"]["secretName"] for volume in spec["volumes"] if volume["name"] == "tls")
        if tls["secrets"][service] not in ("", secret) or secret not in made:
            yield f"{service}: nobody makes the certificate in {secret}"
            continue
        if f"{spec['serviceAccountName']}.{release.namespace}.svc" not in made[secret]["dnsNames"]:
            yield f"{service}: its certificate is for {made[secret]['dnsNames']}"
        if made[secret]["uris"] != [spiffe(release, spec)]:
            yield f"{service}: its certificate is of {made[secret]['uris']}"
        if not {"server auth", "client auth"} <= set(made[secret]["usages"]) or made[secret]["issuerRef"] != tls["certManager"]["issuerRef"]:
            yield f"{service}: its certificate is for {made[secret]['usages']} by {made[secret]['issuerRef']}"


def own_settings_are_not_for_values(release):
    schema = json.loads((release.chart / "values.schema.json").read_text())
    for service, _, container in release.services():
        own = {one["name"] for one in container["env"]} - release.values[service]["settings"].keys()
        may = schema["properties"][service]["properties"]["settings"]["propertyNames"]["enum"]
        yield from (f"{service}.settings may have {name}, which the chart sets" for name in sorted(own & set(may)))


def reaches_others(release, given):
    for to, short in SHORT.items():
        if f"KIKI_{short}" in given and who_serves(release, given[f"KIKI_{short}"]["value"]) != to:
            yield f"KIKI_{short} is {given[f'KIKI_{short}']['value']}, which is no gRPC of {to}"


def who_serves(release, address):
    """The component whose gRPC is there, if any is."""
    scheme = "https" if release.values["tls"]["enabled"] else "http"
    host = re.fullmatch(rf"{scheme}://([\w-]+)\.{release.namespace}\.svc:(\d+)", address)
    service = host and release.named("Service", host[1])
    ports = [(port["name"], port["port"]) for port in service["spec"]["ports"]] if service else []
    return component(service["metadata"]["labels"]) if host and ("grpc", int(host[2])) in ports else None


def secrets_are_references(release):
    for service, _, container in release.services():
        for one in container["env"]:
            secret, _ = settings(release.root, service).get(one["name"], (one["name"] in SECRET, False))
            if secret and "secretKeyRef" not in one.get("valueFrom", {}):
                yield f"{service}: {one['name']} is no reference"
    if release.set == "prod":
        yield from (f"prod makes the Secret {one['metadata']['name']}" for one in release.of("Secret"))


def keys_are_shared(release):
    """Who shares a key takes it from one Secret; a Secret that the release makes has every key that is asked for."""
    refs = {}
    for name, _, spec in release.pods():
        for container in spec["containers"]:
            for one in container.get("env", []):
                if ref := one.get("valueFrom", {}).get("secretKeyRef"):
                    refs.setdefault(ref["key"], {}).setdefault(ref["name"], []).append(one["name"])
        for volume in spec.get("volumes", []):
            if volume["name"] == "log-key":
                refs.setdefault("log.pub", {}).setdefault(volume["secret"]["secretName"], []).append("log.key")
    for key in ("log.pub", "pseudonym.key", "receipt.key"):
        uses = refs.get(key, {})
        if len(uses) != 1 or len(*uses.values()) != (1 if key == "receipt.key" else 2):
            yield f"{key} is not one Secret's: {uses}"
    for key, uses in refs.items():
        for name in uses:
            made = release.named("Secret", name)
            if made and key not in made["data"]:
                yield f"Secret {name} has no {key}"
            named = name in release.values["secrets"].values()
            if bool(made) == named:
                yield f"Secret {name} is {'made although it is named' if named else 'nobody is to make'}"


def made_keys_are_keys(release):
    """The log's are a pair of C2SP note keys of the log's name; the others are 64 hexadecimal digits."""
    for secret in release.of("Secret"):
        data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        for key in ("pseudonym.key", "receipt.key"):
            if key in data and not re.fullmatch("[0-9a-f]{64}", data[key]):
                yield f"{key} is not 64 hexadecimal digits"
        if "log.key" in data:
            yield from log_keys(release.values["logId"], data["log.key"], data["log.pub"])
        for url in (value for key, value in data.items() if key in ("syncshield", "billing", "states", "frequency")):
            host = re.fullmatch(rf"(?:postgres://kiki|redis://):{data['password']}@([\w-]+):(\d+)/\w*", url)
            to = host and release.named("Service", host[1])
            if not to or to["spec"]["ports"][0]["port"] != int(host[2]):
                yield "a made address leads nowhere"


def log_keys(log_id, secret, public):
    seed = base64.b64decode(secret.split("+", 4)[-1])
    if len(seed) != 33 or seed[0] != 1:
        yield "log.key is no Ed25519 key"
        return
    key = Ed25519PrivateKey.from_private_bytes(seed[1:]).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    id_ = hashlib.sha256(log_id.encode() + b"\n\x01" + key).digest()[:4].hex()
    if secret != f"PRIVATE+KEY+{log_id}+{id_}+{base64.b64encode(seed).decode()}":
        yield "log.key is not its name, id and bytes"
    if public != f"{log_id}+{id_}+{base64.b64encode(bytes([1]) + key).decode()}":
        yield "log.pub is not of log.key"


def metrics_can_be_scraped(release):
    for monitor in release.of("ServiceMonitor"):
        chosen = [one for one in release.of("Service") if matches(monitor["spec"]["selector"], one["metadata"]["labels"])]
        if sorted(component(one["metadata"]["labels"]) for one in chosen) != sorted(SERVICES):
            yield f"ServiceMonitor selects {[one['metadata']['name'] for one in chosen]}"
        for one in chosen:
            ports = {port["name"] for port in one["spec"]["ports"]}
            yield from (f"{one['metadata']['name']} has no port {end['port']}" for end in monitor["spec"]["endpoints"] if end["port"] not in ports)
        if monitor["spec"].get("jobLabel") != "app.kubernetes.io/component":
            yield "jobs are not named as the rules name them"
    for which, kind in (("serviceMonitor", "ServiceMonitor"), ("prometheusRule", "PrometheusRule")):
        if len(release.of(kind)) != release.values["monitoring"][which]["enabled"]:
            yield f"{kind} does not follow monitoring.{which}.enabled"
    for rule in release.of("PrometheusRule"):
        groups = [group for path in sorted((release.root / "prometheus/rules").glob("*.yml")) for group in yaml.load(path.read_text(), yaml.CSafeLoader)["groups"]]
        if rule["spec"]["groups"] != groups:
            yield "PrometheusRule has not the groups of prometheus/rules"


def autoscalers_know_their_metrics(release):
    rules = yaml.load((release.chart / "files/prometheus-adapter.yaml").read_text(), yaml.CSafeLoader)
    known = {rule.get("name", {}).get("as") or re.match(r"\w+", rule["seriesQuery"])[0] for rule in rules}
    wanted = {"cpu"}
    for one in release.of("HorizontalPodAutoscaler"):
        metrics = {m["resource"]["name"] if m["type"] == "Resource" else m["pods"]["metric"]["name"] for m in one["spec"]["metrics"]}
        yield from (f"{one['metadata']['name']}: nobody gives the metric {metric}" for metric in metrics - known - {"cpu"})
        if "cpu" not in metrics:
            yield f"{one['metadata']['name']} does not look at the CPU"
        wanted |= metrics
    if release.set == "everything" and wanted != known | {"cpu"}:
        yield f"metrics of files/prometheus-adapter.yaml that nobody scales by: {sorted(known - wanted)}"


def expected_arrows(release):
    """Inside the release, from what each service is told of the others; and outside, from the values."""
    inside, outside = set(), set()
    ports = {service: int(re.search(rf'KIKI_{SHORT[service]}_GRPC", default_value = "127.0.0.1:(\d+)"', source(release.root, service))[1]) for service in SERVICES}
    http = {service: int(re.search(rf'KIKI_{SHORT[service]}_HTTP", default_value = "127.0.0.1:(\d+)"', source(release.root, service))[1]) for service in SERVICES}
    policy = release.values["networkPolicy"]

    def beyond(service, way, peers, port):
        outside.update((service, way, str(sorted(peer.items())), port) for peer in peers)

    for service in SERVICES:
        inside |= {(service, to, ports[to]) for to, short in SHORT.items() if f"KIKI_{short}" in settings(release.root, service)}
        inside.add(("test", service, ports[service]))
        beyond(service, "from", policy["grpc"][service], ports[service])
        beyond(service, "from", policy["http"][service] + policy["prometheus"], http[service])
        for store, database, port in (("redis", "redis", 6379), ("postgres", "postgresql", 5432)):
            if release.values[service]["store"] == store and release.values[database]["bundled"]:
                inside.add((service, database, port))
            elif release.values[service]["store"] == store:
                beyond(service, "to", policy[database]["peers"], policy[database]["port"])
        beyond(service, "to", policy["traces"]["peers"], policy["traces"]["port"])
    beyond("syncshield", "to", policy["witnesses"]["peers"], policy["witnesses"]["port"])
    for one in (*SERVICES, "test"):
        for port in policy["mesh"]["ports"]:
            beyond(one, "to", policy["mesh"]["peers"], port)
        outside |= {(one, "to", str(sorted(peer.items())), port) for peer in policy["dns"] for port in policy["dnsPorts"]}
    return inside, outside


def network_has_these_arrows_and_no_others(release):
    policies = release.of("NetworkPolicy")
    pods = {component(labels): labels for _, labels, _ in release.pods()}
    for name, labels in pods.items():
        closed = [one for one in policies if one["spec"]["policyTypes"] == ["Ingress", "Egress"] and matches(one["spec"]["podSelector"], labels)]
        if not any("ingress" not in one["spec"] and "egress" not in one["spec"] for one in closed):
            yield f"{name} is not denied what is not allowed"
    seen = {"from": set(), "to": set()}
    outside = set()
    for one in policies:
        own = [name for name, labels in pods.items() if matches(one["spec"]["podSelector"], labels)]
        for way, rules in (("from", one["spec"].get("ingress") or []), ("to", one["spec"].get("egress") or [])):
            for rule in rules:
                if not rule.get(way) or not rule.get("ports"):
                    yield f"{one['metadata']['name']}: a rule without {way} or ports allows all"
                    continue
                for peer in rule[way]:
                    others = [name for name, labels in pods.items() if peer.keys() == {"podSelector"} and matches(peer["podSelector"], labels)]
                    for port in sorted({port["port"] for port in rule["ports"]}):
                        if others:
                            seen[way] |= {(o, n, port) if way == "from" else (n, o, port) for n in own for o in others}
                        else:
                            outside |= {(n, way, str(sorted(peer.items())), port) for n in own}
    inside, beyond = expected_arrows(release)
    for way, arrows in (*seen.items(), ("outside", outside)):
        wanted = beyond if way == "outside" else inside
        yield from (f"no arrow {arrow} ({way})" for arrow in sorted(wanted - arrows, key=str))
        yield from (f"an arrow too many {arrow} ({way})" for arrow in sorted(arrows - wanted, key=str))


def notes_say_where_it_is(release):
    if release.namespace not in release.notes or release.values["logId"] not in release.notes:
        yield "the notes name neither the namespace nor the log"
    for kind, name, ports in re.findall(r"port-forward (deployment|statefulset)/(\S+) ([\d ]+)\n", release.notes):
        pod = next((spec for owner, _, spec in release.pods() if owner == name and release.named({"deployment": "Deployment", "statefulset": "StatefulSet"}[kind], name)), None)
        have = {port["containerPort"] for container in (pod or {"containers": []})["containers"] for port in container["ports"]}
        if not ports or not set(map(int, ports.split())) <= have:
            yield f"the notes forward {ports} of {kind} {name}, which has {sorted(have)}"
    if len(re.findall("port-forward ", release.notes)) != 3:
        yield "the notes do not reach SyncFlow, SyncShield and Billing"
    public = {f"http://{one['metadata']['name']}.{release.namespace}.svc:{one['spec']['ports'][0]['port']}/"
              for one in release.of("Service") if one["metadata"]["name"].endswith("-public")}
    if public != set(re.findall(r"http://[\w-]+\.[\w-]+\.svc:\d+/", release.notes)):
        yield f"the notes do not say {public or 'that nothing is public'}"
    command = next(spec["containers"][0]["image"] for _, labels, spec in release.pods() if component(labels) == "test")
    if f" {command}'" not in release.notes:
        yield f"the notes do not say that the command is in {command}"
    for line in (f"helm upgrade {release.name} helm/kiki -n {release.namespace} --reset-then-reuse-values", f"helm uninstall {release.name} -n {release.namespace}"):
        if line not in release.notes:
            yield f"the notes do not say {line}"
    left = dict(re.findall(r"(delete secret,pvc) -l ([\w./-]+=[\w-]+)", release.notes)).get("delete secret,pvc", "=").split("=")
    for one in release.of("Secret", "PersistentVolumeClaim"):
        kept = one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
        if not kept or one["metadata"]["labels"].get(left[0]) != left[1]:
            yield f"{one['metadata']['name']} does not stay until what the notes say deletes it"


def wanted_of_others(release):
    """(Secret, key) that pods ask for, and that neither the release nor cert-manager makes."""
    wanted = set()
    for _, _, spec in release.pods():
        for container in spec["containers"]:
            refs = [one["valueFrom"]["secretKeyRef"] for one in container.get("env", []) if "secretKeyRef" in one.get("valueFrom", {})]
            wanted |= {(ref["name"], ref["key"]) for ref in refs}
        for volume in spec.get("volumes", []):
            if "secret" in volume:
                whole = {"tls": ["tls.crt", "tls.key", "ca.crt"], "api-keys": ["keys"]}
                keys = [item["key"] for item in volume["secret"].get("items", [])] or whole[volume["name"]]
                wanted |= {(volume["secret"]["secretName"], key) for key in keys}
    made = {one["metadata"]["name"] for one in release.of("Secret")} | {one["spec"]["secretName"] for one in release.of("Certificate")}
    return {(name, key) for name, key in wanted if name not in made}


def head_of_prod_makes_its_secrets(release):
    if release.set == "prod":
        head = (release.chart / "values-prod.yaml").read_text().split("\nimage:")[0]
        made = {line[0]: line[1] for line in re.findall(r"kubectl -n kiki create secret generic (\S+) (.*)", head)}
        for name, key in sorted(wanted_of_others(release)):
            if f"={key}=" not in made.get(name, ""):
                yield f"the head of values-prod.yaml makes no Secret {name} with {key}"


OF_A_RELEASE = [
    notes_say_where_it_is,
    head_of_prod_makes_its_secrets,
    images_have_tags,
    containers_are_limited_and_probed,
    services_are_asked_for_their_health,
    pods_are_confined,
    names_lead_somewhere,
    four_services_each_with_its_parts,
    settings_are_the_services,
    callers_are_known,
    certificates_are_for_their_names,
    own_settings_are_not_for_values,
    secrets_are_references,
    keys_are_shared,
    made_keys_are_keys,
    metrics_can_be_scraped,
    autoscalers_know_their_metrics,
    network_has_these_arrows_and_no_others,
]
