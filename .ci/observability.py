"""Checks of prometheus/, grafana/ and docs/runbooks; see .ci/observability."""

import csv
import datetime
import glob
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import yaml

SERVICES = ("syncvalue", "syncflow", "syncshield", "billing")
# promtool dislikes these names of the product's.
PRODUCT_NAMES = re.compile(r"kiki_ooaS_\w+|syncflow_circuit_breaker_state_count")
# Prometheus makes these itself.
PROMETHEUS_OWN = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
TARGET_LABELS = {"job", "instance", "le"}
WORDS = set(
    "and or unless by without on ignoring group_left group_right bool offset sum min max avg count count_values topk bottomk stddev".split()
)


def rules(kind):
    """(name, rule) of every rule with a record or an alert."""
    for path in sorted(glob.glob("prometheus/rules/*.yml")):
        for group in yaml.safe_load(open(path))["groups"]:
            yield from ((rule[kind], rule) for rule in group["rules"] if kind in rule)


def dashboards():
    return [(path, json.load(open(path))) for path in sorted(glob.glob("grafana/dashboards/*.json"))]


def panels():
    for _, dashboard in dashboards():
        yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def expressions():
    """(where, expression) of everything that is watched."""
    for name, rule in [*rules("record"), *rules("alert")]:
        yield name, rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]


def wanted():
    """Names that are excused, and matchers by the name that has no such series yet."""
    lines = [line.strip() for line in open("prometheus/wanted") if line.strip() and not line.startswith("#")]
    series = dict(re.findall(r"^(\w+)\{(.*)\}$", "\n".join(lines), re.M))
    return {line for line in lines if "{" not in line}, series


def metrics_of(expression):
    """The metrics of an expression, each with the labels that are asked of it."""
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', expression)
    found = {}
    for name, labels in re.findall(r"(?<![\w:.$\"])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\s*\()(?![\w:])", strip_lists(bare)):
        if name not in WORDS:
            found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))
    return found


def strip_lists(bare):
    """Without label lists of `by (...)` and the like, and without durations."""
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", r"\1 ", bare)
    bare = re.sub(r"\b(offset)\s+\w+", " ", bare)
    return re.sub(r"\[[^\]]*\]", "", bare)


def grouped_by(expression):
    return set(re.findall(r"\w+", " ".join(re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", expression))))


def made_labels(expression):
    """Those of label_replace, label_join and count_values, and, as they stand in the same places, of what they are made from."""
    return set(re.findall(r'[,(]\s*"(\w+)"', expression))


class Faults:
    def __init__(self):
        self.count = 0

    def __call__(self, holds, text):
        if not holds:
            self.count += 1
            print(f"FAULT: {text}")

    def end(self, said):
        if self.count:
            sys.exit(f"{self.count} faults")
        print(said)


# What files alone can show.


def check_files(typescript):
    faults = Faults()
    alerts = dict(rules("alert"))
    books = {os.path.basename(path)[:-3] for path in glob.glob("docs/runbooks/Kiki*.md")}
    for name in sorted(alerts.keys() - books):
        faults(False, f"alert {name} has no docs/runbooks/{name}.md")
    for name in sorted(books - alerts.keys()):
        faults(False, f"docs/runbooks/{name}.md is of no alert")
    for name, alert in alerts.items():
        notes = alert.get("annotations", {})
        faults(alert.get("labels", {}).get("severity") in ("critical", "warning", "info"), f"{name}: severity")
        faults(notes.get("summary") and notes.get("description"), f"{name}: summary and description")
        faults(notes.get("runbook_url") == f"docs/runbooks/{name}.md", f"{name}: runbook_url")
    check_runbooks(faults, books)
    check_tests(faults, alerts)
    for path, dashboard in dashboards():
        check_dashboard(faults, path, dashboard, alerts)
    open(typescript, "w").write(as_typescript())
    count = sum(1 for _ in panels())
    faults.end(f"files: {len(alerts)} alerts with runbooks and tests, {sum(1 for _ in rules('record'))} recording rules, {count} panels")


def check_runbooks(faults, books):
    for name in sorted(books):
        text = open(f"docs/runbooks/{name}.md").read()
        heads = re.findall(r"^## (.*)$", text, re.M)
        faults(heads == ["What it means", "What to look at", "What to do", "When it can wait"], f"runbook {name}: its parts are {heads}")
        faults(text.startswith(f"# {name}\n"), f"runbook {name}: its title")
        listed = f"({name}.md)" in open("docs/runbooks/README.md").read()
        faults(listed, f"runbook {name} is not in docs/runbooks/README.md")
        for link in re.findall(r"\]\(([^)#]+)", text):
            there = link.startswith("http") or os.path.exists(os.path.join("docs/runbooks", link))
            faults(there, f"runbook {name}: {link} is not there")


def check_tests(faults, alerts):
    """Of each alert one time at which it fires, and a later one at which it does not."""
    seen = {name: "" for name in alerts}
    for path in glob.glob("prometheus/tests/*.yml"):
        for test in yaml.safe_load(open(path))["tests"]:
            for one in test.get("alert_rule_test", []):
                faults(one["alertname"] in seen, f"{path} tests {one['alertname']}, which is not there")
                seen[one["alertname"]] = seen.get(one["alertname"], "") + ("F" if one.get("exp_alerts") else "-")
    for name, course in seen.items():
        faults("-F" in course and "F-" in course, f"{name}: no test shows it wait, fire and clear")


def check_dashboard(faults, path, dashboard, alerts):
    ids = [panel["id"] for panel in dashboard["panels"]]
    faults(len(ids) == len(set(ids)), f"{path}: two panels have one id")
    taken = {}
    for panel in dashboard["panels"]:
        at, title = panel["gridPos"], panel["title"]
        faults(at["x"] + at["w"] <= 24, f"{path}: {title} is wider than the page")
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            faults(taken.setdefault(cell, title) == title, f"{path}: {title} lies on {taken[cell]}")
        if panel["type"] == "row":
            continue
        faults(panel.get("description"), f"{path}: {title} has no description")
        faults(panel["fieldConfig"]["defaults"].get("unit"), f"{path}: {title} has no unit")
        faults(panel["targets"], f"{path}: {title} asks nothing")
        for link in panel.get("links", []):
            name = re.fullmatch(r"\$\{runbooks\}/(\w+)\.md", link["url"])
            faults(name and name[1] in alerts, f"{path}: {title} links to {link['url']}")


PANEL_TYPES = {  # the folder and file of its types, and whether fields have options of their own
    "timeseries": ("timeseries", "TimeSeries", True),
    "stat": ("stat", "Stat", False),
    "gauge": ("gauge", "Gauge", False),
    "bargauge": ("bargauge", "BarGauge", False),
    "state-timeline": ("statetimeline", "StateTimeline", True),
}


def as_typescript():
    """The dashboards as literals of the types in @grafana/schema: what they do not know, or miss, does not compile."""
    raw = "./node_modules/@grafana/schema/dist/esm/raw"
    out = [
        f"import type {{ Dashboard }} from '{raw}/dashboard/x/dashboard_types.gen';",
        f"import type {{ PrometheusDataQuery }} from '{raw}/composable/prometheus/dataquery/x/PrometheusDataQuery_types.gen';",
        # A document has an enum's value where the types have its name.
        "type Json<T> = T extends string ? `${T}` : T extends (infer E)[] ? Json<E>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;",
    ]
    for folder, name, own in PANEL_TYPES.values():
        types = f"Options as {name}Options" + (f", FieldConfig as {name}Custom" if own else "")
        out.append(f"import type {{ {types} }} from '{raw}/composable/{folder}/panelcfg/x/{name}PanelCfg_types.gen';")

    def literal(of, value):
        out.append(f"export const literal{len(out)}: Json<{of}> = {json.dumps(value)};")

    for _, dashboard in dashboards():
        literal("Dashboard", dashboard)
    for panel in panels():
        _, name, own = PANEL_TYPES[panel["type"]]
        literal(f"{name}Options", panel["options"])
        if own:
            literal(f"{name}Custom", panel["fieldConfig"]["defaults"]["custom"])
        for target in panel["targets"]:
            literal("PrometheusDataQuery", target)
    return "\n".join(out) + "\n"


# A small platform with all that can be watched: a month that was played and invoiced, and bids, purchases and limits of today.


class Platform:
    def __init__(self, kiki, folder):
        self.kiki, self.folder, self.served, self.environment = kiki, folder, [], dict(os.environ)

    def run(self, *arguments, may_fail=False):
        done = subprocess.run([self.kiki, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300)
        if done.returncode and not may_fail:
            raise SystemExit(f"kiki {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def write(self, name, text):
        open(os.path.join(self.folder, name), "w").write(text)

    def start(self, requests):
        today = datetime.datetime.now(datetime.timezone.utc).date()
        self.month = (today.replace(day=1) - datetime.timedelta(days=1)).strftime("%Y-%m")
        request = '{{"id":"r{0}","at":2,"cur":["USD"],"imp":[{{"id":"1","bidfloor":1,"secure":1,"banner":{{"w":300,"h":250}}}}],' \
            '"site":{{"domain":"news.example"}},"device":{{"geo":{{"country":"USA"}}}},"user":{{"id":"u{0}"}}}}\n'
        self.write("requests.jsonl", "".join(request.format(number) for number in range(requests)))
        self.run("replay", "--data", "data", "--requests", "requests.jsonl", "--month", self.month)
        witness = self.serve("audit", "witness", "--log", "data/log.pub", "--listen", "127.0.0.1:0")
        key, address = re.search(r"^witness +(\S+)$", witness, re.M)[1], re.search(r"^listen +(\S+)$", witness, re.M)[1]
        text = self.serve("up", "--data", "data", "--ports", "auto", "--platforms", "exchange=tradedesk", "--witness", f"{address}+{key}")
        rows = re.findall(r"^(\w+) +(\S+) +http://(\S+)$", text, re.M)
        self.http = {name: http for name, _, http in rows}
        grpc = {name: f"http://{address}" for name, address, _ in rows}
        self.environment.update(KIKI_SHIELD=grpc["syncshield"], KIKI_FLOW=grpc["syncflow"], KIKI_BILLING=grpc["billing"])

    def serve(self, *arguments):
        """Starts a command that goes on, and gives what it says until it is ready."""
        log = open(os.path.join(self.folder, f"log-{len(self.served)}"), "w+")
        served = subprocess.Popen([self.kiki, *arguments], cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT)
        self.served.append(served)
        until = time.monotonic() + 60
        while "\nready" not in (text := open(log.name).read()):
            if served.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"kiki {arguments[0]} does not start: {text}")
            time.sleep(0.1)
        return text

    def show_certificate(self):
        """Starts a SyncShield of its own that shows a certificate, as `kiki up`, which is one process, does not."""
        key, self.certificate = (os.path.join(self.folder, name) for name in ("tls.key", "tls.crt"))
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
        made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", self.certificate]
        subprocess.run(made, check=True, capture_output=True, timeout=60)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.over_tls = "127.0.0.1:%d" % free.getsockname()[1]
        arguments = ["--grpc", "127.0.0.1:0", "--http", self.over_tls, "--data", "tls", "--tls-cert", self.certificate, "--tls-key", key]
        binary = os.path.join(os.path.dirname(self.kiki), "syncshield")
        log = open(os.path.join(self.folder, "log-tls"), "w")
        self.served.append(subprocess.Popen([binary, *arguments], cwd=self.folder, stdout=log, stderr=subprocess.STDOUT))

    def scrape(self, service):
        with urllib.request.urlopen(f"http://{self.http[service]}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def prepare(self):
        """Two clients of today, one of them with a budget that is soon spent, and a platform's report that is wrong."""
        example = os.path.join(os.getcwd(), "docs/clients")
        campaign = open(f"{example}/campaign.yaml").read().replace("prior_p_conversion_ppb: 100000", "prior_p_conversion_ppb: 1000000")
        self.write("large.yaml", campaign)
        self.write("small.yaml", campaign.replace("limit_total_micros: 1000000000", "limit_total_micros: 50000"))
        for client, document in (("initech", "large.yaml"), ("hooli", "small.yaml")):
            self.run("put", "terms", "--client", client, f"{example}/terms.yaml")
            self.run("put", "campaign", "--client", client, document)
        self.write("report.csv", f"date,campaign,currency,spend\n{self.month}-03,acme-display,USD,1.00\n")
        self.run("invoice", "--month", self.month)
        arguments = ["--client", "acme", "--platform", "tradedesk", "--report", "report.csv", "--month", self.month]
        self.run("invoice", "reconcile", "platform", *arguments, may_fail=True)
        until = time.monotonic() + 30
        while "syncflow_campaigns 5\n" not in self.scrape("syncflow"):
            if time.monotonic() > until:
                raise SystemExit("SyncFlow does not hear of the campaigns")
            time.sleep(0.1)

    def load(self, seconds, turn):
        """Bids and notices for so long, and purchases of those who saw an ad."""
        url = f"http://{self.http['syncflow']}/openrtb2/exchange"
        arguments = ["--url", url, "--rate", "60", "--duration", str(seconds), "--competing", "0.1", "--customers", "40"]
        self.run("exchange", *arguments, "--tmax", "1000", "--late-by", "1", "--seed", str(turn))
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        with open(os.path.join(self.folder, "purchases.csv"), "w") as file:
            rows = csv.writer(file)
            rows.writerow(["event_id", "customer", "currency", "value", "occurred_at"])
            rows.writerows([f"o{turn}-{at}", f"customer-{at:07}", "USD", "59.90", now] for at in range(10 * turn, 10 * turn + 10))
        self.run("put", "purchases", "--client", "initech", "purchases.csv")

    def stop(self):
        for served in reversed(self.served):
            if served.poll() is None:
                served.send_signal(signal.SIGTERM)
                served.wait(20)


def exported(text):
    """Labels by the names that a scrape has."""
    found = {}
    for name, labels in re.findall(r"^([a-zA-Z_:][\w:]*)(\{.*\})? ", text, re.M):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def check_scrapes(faults, scrapes):
    for service, text in scrapes.items():
        linted = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
        for line in filter(None, (linted.stdout + linted.stderr).splitlines()):
            faults(PRODUCT_NAMES.match(line), f"{service}: promtool: {line}")


def check_names(faults, scrapes):
    """Every name and label is exported, recorded or excused."""
    have = {name: set(labels) for name, labels in PROMETHEUS_OWN.items()}
    for text in scrapes.values():
        for name, labels in exported(text).items():
            have.setdefault(name, set()).update(labels)
    excused, series = wanted()
    for name, matcher in series.items():
        faults(any(matcher in expression for _, expression in expressions()), f"{name}{{{matcher}}} in prometheus/wanted is used nowhere")
    families = {re.sub(r"_bucket$", "", name) for name in have} | have.keys()
    for name in sorted(excused & families):
        faults(False, f"{name} is exported now: take it out of prometheus/wanted")
    for name, rule in rules("record"):
        have.setdefault(name, set()).update(grouped_by(rule["expr"]), rule.get("labels", {}), made_labels(rule["expr"]))
    used = set()
    for where, expression in expressions():
        found = metrics_of(expression)
        faults(found or "time()" in expression, f"{where}: no metric was found in {expression}")
        used |= {re.sub(r"_bucket$", "", name) for name in found}
        if any(re.sub(r"_bucket$", "", name) in excused for name in found):
            continue
        for name, labels in found.items():
            faults(name in have, f"{where}: {name} is not exported")
            for label in labels - have.get(name, labels) - TARGET_LABELS:
                faults(False, f"{where}: {name} has no label {label}")
        known = set().union(*(have.get(name, set()) for name in found)) | TARGET_LABELS | made_labels(expression)
        faults(grouped_by(expression) <= known, f"{where}: groups by {grouped_by(expression) - known}")
    for name in sorted(excused - used):
        faults(False, f"{name} in prometheus/wanted is used nowhere")


def check_metrics(kiki):
    faults = Faults()
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(kiki, folder)
        try:
            platform.start(150)
            platform.prepare()
            for turn in range(4):  # who has seen an ad and then buys is chance, and on a machine that stalls few see one
                platform.load(3, turn)
                time.sleep(2.5)  # SyncShield reads its gauges every two seconds
                scrapes = {service: platform.scrape(service) for service in SERVICES}
                if "syncvalue_predicted_ltv_total{" in scrapes["syncvalue"]:
                    break
        finally:
            platform.stop()
    check_scrapes(faults, scrapes)
    check_names(faults, scrapes)
    count = sum(len(exported(text)) for text in scrapes.values())
    faults.end(f"metrics: {count} names are exported; all that is watched is among them, but for {len(wanted()[0])} in prometheus/wanted")


# A real Prometheus over that platform.


def as_always(expression):
    """An alert's expression so that it gives its truth, 0 or 1, in place of nothing; and with minutes taken for seconds, as a run is short."""
    said = re.sub(r"\babsent\(", "(", expression)
    said = re.sub(r"(<|>=|>|==)\s*(?=[\d])", r"\1 bool ", said)
    return re.sub(r"\boffset \d+m", "offset 5s", said)


class Prometheus:
    def __init__(self, platform, folder):
        self.folder = folder
        config = yaml.safe_load(open("prometheus/prometheus.yml"))
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "2s"}
        config["rule_files"] = [os.path.abspath("prometheus/rules/*.yml")]
        for job in config["scrape_configs"]:
            if job["job_name"] in platform.http:
                job["static_configs"][0]["targets"] = [platform.http[job["job_name"]]]
        config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in platform.http]
        over_tls = {"scheme": "https", "tls_config": {"ca_file": platform.certificate}, "static_configs": [{"targets": [platform.over_tls]}]}
        config["scrape_configs"].append({"job_name": "certificate", **over_tls})
        path = os.path.join(folder, "prometheus.yml")
        yaml.safe_dump(config, open(path, "w"))
        arguments = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder}/tsdb", "--web.listen-address=127.0.0.1:0"]
        log = open(os.path.join(folder, "prometheus.log"), "w+")
        self.served = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + 30
        while not (address := re.search(r"address=(127\.0\.0\.1:[1-9]\d*)", open(log.name).read())):
            if self.served.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"prometheus does not start: {open(log.name).read()}")
            time.sleep(0.1)
        self.address = address[1]

    def query(self, expression):
        body = urllib.parse.urlencode({"query": expression}).encode()
        with urllib.request.urlopen(f"http://{self.address}/api/v1/query", body, timeout=30) as answer:
            return json.load(answer)["data"]["result"]

    def stop(self):
        self.served.send_signal(signal.SIGTERM)
        self.served.wait(20)


def check_live(kiki):
    faults = Faults()
    asked = 0
    with tempfile.TemporaryDirectory() as folder:
        platform, prometheus = Platform(kiki, folder), None
        try:
            platform.start(400)
            platform.prepare()
            platform.show_certificate()
            prometheus = Prometheus(platform, folder)
            for turn in range(3):
                platform.load(12, turn)
            for where, expression in expressions():
                shown = as_always(expression) if where in dict(rules("alert")) else expression
                result = prometheus.query(shown.replace("$__rate_interval", "1m"))
                asked += 1
                faults(any(sample["value"][1] != "NaN" for sample in result), f"{where}: no result of {expression}")
            for name, rule in rules("alert"):
                firing = [alert["metric"] for alert in prometheus.query(f'ALERTS{{alertname="{name}", alertstate="firing"}}')]
                faults(not firing or rule["labels"]["severity"] == "info", f"{name} fires on a platform that is well: {firing}")
        finally:
            if prometheus:
                prometheus.stop()
            platform.stop()
    faults.end(f"live: {asked} expressions asked, all gave a result")


if __name__ == "__main__":
    {"files": check_files, "metrics": check_metrics, "live": check_live}[sys.argv[1]](sys.argv[2])
