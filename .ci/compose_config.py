"""What docker-compose.yml promises beyond its schema. Run by .ci/compose-config, whose environment has ruamel.yaml."""

import re
import sys
from pathlib import Path

from ruamel.yaml import YAML

OURS = {"syncvalue", "syncflow", "syncshield", "billing"}

text = Path("docker-compose.yml").read_text()
services = YAML(typ="safe").load(text)["services"]
dockerfile = Path("Dockerfile").read_text()
wrong = []


def names(folder):
    """The environment variables that a crate's options read."""
    return {name for path in Path(folder).rglob("*.rs") for name in re.findall(r'env = "(\w+)"', path.read_text())}


def check(holds, what):
    if not holds:
        wrong.append(what)


for name, service in services.items():
    check(service.get("read_only") is True, f"{name}: its root is not read-only")
    check(service.get("cap_drop") == ["ALL"], f"{name}: has capabilities")
    check("no-new-privileges:true" in service.get("security_opt", []), f"{name}: may gain privileges")
    check(all(service.get(limit) for limit in ("mem_limit", "cpus", "pids_limit")), f"{name}: a limit is missing")
    check("privileged" not in service and service.get("network_mode") != "host", f"{name}: is not confined")
    for port in service.get("ports", []):
        check(port.startswith("127.0.0.1:"), f"{name}: {port} is not on loopback alone")
    for other, condition in service.get("depends_on", {}).items():
        check(condition["condition"] != "service_started", f"{name}: does not wait until {other} is healthy")
        healthy = "healthcheck" in services[other] or other in OURS
        check(condition["condition"] != "service_healthy" or healthy, f"{name}: waits for {other}, which has no health check")

for name in OURS:
    stage = dockerfile.split(f"FROM common AS {name}\n")[1].split("\nFROM ")[0]
    check(re.search(r"^USER [1-9]\d*:[1-9]\d*$", stage, re.M), f"{name}: its image's user is not a number above 0")
    check(f'HEALTHCHECK' in stage and f'CMD ["/bin/{name}", "health"]' in stage, f"{name}: its image does not ask the binary for its health")
    known = names(f"services/{name}/src") | names("src")
    given = set(services[name].get("environment", {})) | set(re.findall(r"\b(KIKI_\w+)=", stage))
    check(given <= known, f"{name}: reads no {sorted(given - known)}")
    exposed = set(re.search(r"^EXPOSE (.*)$", stage, re.M)[1].split())
    published = {port.split(":")[-1] for port in services[name]["ports"]}
    check(published <= exposed, f"{name}: publishes {sorted(published - exposed)}, which its image does not expose")

for name in ("kiki", "replay"):
    unknown = set(services[name]["environment"]) - names("services/kiki-cli/src")
    check(not unknown, f"{name}: reads no {sorted(unknown)}")
check({name for name in services if "state" in services[name].get("networks", [])} == OURS | {"postgres", "redis"}, "others reach the state")

print(f"{len(services)} services, {len(wrong)} wrong")
sys.exit("\n".join(wrong) if wrong else 0)
