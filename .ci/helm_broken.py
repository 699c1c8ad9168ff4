"""Places in which the chart is broken on purpose, and what has to be said of each."""

import dataclasses
import pathlib
import shutil


@dataclasses.dataclass(frozen=True)
class Breakage:
    """In `file`, `old` becomes `new`; some problem then contains `noticed`."""

    file: str
    old: str
    new: str
    noticed: str

    def apply(self, chart, broken):
        shutil.copytree(chart, broken)
        path = pathlib.Path(broken) / self.file
        text = path.read_text() if path.exists() else ""
        if self.old not in text:
            raise ValueError(f"{self.file} has no {self.old!r}: mend the breakage")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace(self.old, self.new))


POD, WORKLOADS, NAMES, ENV = "templates/_pod.tpl", "templates/workloads.yaml", "templates/_names.tpl", "templates/_env.tpl"
SCHEMA, NETWORK, ARROWS, KEYS = "values.schema.json", "templates/networkpolicies.yaml", "templates/_arrows.tpl", "templates/_keys.tpl"
MONITORING, HEALTH, DATABASES, VALUES = "templates/monitoring.yaml", "templates/tests/health.yaml", "templates/databases.yaml", "values.yaml"
CERTIFICATES, REFUSALS, NOTES = "templates/certificates.yaml", "templates/_refusals.tpl", "templates/NOTES.txt"

ALL = [
    # Helm and Kubernetes.
    Breakage(HEALTH, 'name: {{ include "kiki.name" $at }}', 'name: {{ include "kiki.name" $at }}_', "lint for 1.31: templates/"),
    Breakage("Chart.yaml", "<1.38.0-0", "<1.40.0-0", "no schema of 1.39"),
    Breakage("Chart.yaml", 'appVersion: "0.1.0"', 'appVersion: "0.0.9"', "versions_are_cargos"),
    Breakage(WORKLOADS, "maxUnavailable: 1", "maxUnavailble: 1", "Kubernetes 1.37: PodDisruptionBudget"),
    Breakage(WORKLOADS, "clusterIP: None", "clusterIP: 5", "Kubernetes 1.31: Service"),
    Breakage(MONITORING, "{ port: http, path: /metrics,", "{ prot: http, path: /metrics,", "Kubernetes 1.31: ServiceMonitor"),
    Breakage(MONITORING, "groups:\n", "grops:\n", "PrometheusRule"),
    Breakage(VALUES, "replicas: 1", "replicas: one", "got string, want integer"),
    # What the schema and the templates refuse.
    Breakage(SCHEMA, '"additionalProperties": false', '"additionalProperties": true', "schema: "),
    Breakage(SCHEMA, '"type": "boolean"', '"type": ["boolean", "string"]', "schema: "),
    Breakage(SCHEMA, '"KIKI_VALUE_CACHE_MIB",', '"KIKI_VALUE_DATA",', "syncvalue.settings may have KIKI_VALUE_DATA, which the chart sets"),
    Breakage(SCHEMA, '"KIKI_BILLING_APPROVAL_REQUIRED",', "", "billing.settings may not have KIKI_BILLING_APPROVAL_REQUIRED"),
    Breakage(SCHEMA, '"propertyNames": {"pattern"', '"x-propertyNames": {"pattern"', "schema: "),
    Breakage(NAMES, "(gt (int $own.replicas) 1)", "(gt (int $own.replicas) 9)", "refusals: "),
    Breakage(NAMES, "if not (or $named .root.Values.secrets.generate)", "if false", "refusals: "),
    Breakage(NAMES, "if and $database (not $named)", "if false", "refusals: "),
    Breakage(NAMES, "if not (or $named .root.Values.tls.certManager.issuerRef)", "if false", "refusals: "),
    Breakage(ENV, "else if or .Values.identities .Values.apiKeys.secret", "else if false", "refusals: "),
    Breakage(SCHEMA, '"KIKI_CLOCK"', '"KIKI_API_KEY"', "may have KIKI_API_KEY, which the chart sets, a Secret holds"),
    Breakage(SCHEMA, '"dnsPorts": {"type": "array", "minItems": 1,', '"dnsPorts": {"type": "array",', "schema: "),
    Breakage(WORKLOADS, '{{- include "kiki.refusals" . }}\n', "", "refusals: "),
    Breakage(REFUSALS, "and (not .registry)", "and false (not .registry)", "was taken"),
    Breakage(REFUSALS, '(ne .pullPolicy "Never")', "true", 'refusals: {"image": {"registry": "", "pullPolicy": "Never"}} was refused'),
    Breakage(REFUSALS, "(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$", "(/[a-z0-9-]+)*$", "my_team/ads\"}} was refused"),
    Breakage(REFUSALS, "(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$", "(/.*)*$", '{"image": {"registry": "registry.test/"}} was taken'),
    Breakage(REFUSALS, 'if eq .tag "latest"', "if false", '{"image": {"tag": "latest"}} was taken'),
    Breakage(REFUSALS, 'if hasSuffix ":latest"', 'if hasSuffix ":newest"', '{"redis": {"image": "redis:latest"}} was taken'),
    Breakage(REFUSALS, '"logId" $v.logId', "", 'but not for "logId: has example.com'),
    Breakage(REFUSALS, "|example-ca|", "|", 'but not for "tls.certManager.issuerRef: has example-ca'),
    Breakage(REFUSALS, '(^|[./\\"])(example', '(example', "my-example.com/log-1\"} was refused"),
    Breakage(REFUSALS, "range $name := list \"postgresql\" \"redis\" \"witnesses\"", "range $name := list \"redis\" \"witnesses\"", "networkPolicy.postgresql.peers: has 192.0.2.0"),
    Breakage(REFUSALS, "{{- if $v.tls.enabled -}}", "{{- if true -}}", '{"tls": {"trustDomain": "example.com"}} was refused'),
    Breakage("values-prod.yaml", "logId: example.com/log-1", "logId: kiki.local/log-1", 'but not for "logId: has example.com'),
    Breakage(REFUSALS, "{{- if $policy.enabled }}", "{{- if true }}", '"networkPolicy": {"enabled": false}'),
    Breakage(REFUSALS, "(not $policy.http.syncflow)", "false", '{"syncflow": {"public": {"enabled": true}}} was taken'),
    Breakage(REFUSALS, "(not $policy.prometheus)", "false", '{"monitoring": {"serviceMonitor": {"enabled": true}}} was taken'),
    Breakage(REFUSALS, "(not $policy.postgresql.peers)", "false", '"secrets": {"database": "db"}} was taken'),
    Breakage(REFUSALS, "(not $policy.redis.peers)", "false", '"secrets": {"redis": "redis"}} was taken'),
    Breakage(REFUSALS, "(not $policy.traces.peers)", "false", '{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel.test:4317"}}} was taken'),
    Breakage(REFUSALS, "(not $policy.witnesses.peers)", "false", '"KIKI_WITNESSES": "http://witness.test:80+w+00+AA=="}}} was taken'),
    # What a cluster has.
    Breakage(REFUSALS, '"kind" "ServiceAccount" "name" "default"', '"kind" "Secret" "name" "own"', "in a cluster: "),
    Breakage(REFUSALS, "if .Values.secrets.mustExist", "if true", '"mustExist": false}, "global": '),
    Breakage(REFUSALS, "if not (hasKey $data $key)", "if not $data", '{"data": {"key": ""}}}}} was taken'),
    Breakage(REFUSALS, "secrets.pseudonymKey: [{{ .pseudonymKey }}, pseudonym.key]", "secrets.pseudonymKey: [{{ .pseudonymKey }}]", "in a cluster: "),
    Breakage(REFUSALS, '{{ range list "syncshield" "billing" }}', '{{ range list "billing" }}', "no Secret prod-database with the key syncshield"),
    Breakage(REFUSALS, "{{- if $v.apiKeys.secret }}", "{{- if false }}", "no Secret keys with the key keys"),
    Breakage(REFUSALS, "tls.secrets.{{ $name }}: [{{ $secret }}, tls.crt, tls.key, ca.crt]", "tls.secrets.{{ $name }}: [{{ $secret }}, tls.crt, tls.key]", "with the key ca.crt"),
    Breakage(REFUSALS, "if and $public (not (hasPrefix", "if and false (not (hasPrefix", '{"logId": "ads.test/log-1"'),
    Breakage(SCHEMA, "^spiffe://[a-z0-9._-]+", "^[a-z0-9.:/_-]+", "schema: "),
    # Against the sources.
    Breakage(NAMES, "grpc: 50053", "grpc: 50059", "ports_and_health_are_the_services: syncshield: grpc"),
    Breakage(NAMES, "kiki.billing.v1.BillingService", "kiki.billing.v1.Billing", "ports_and_health_are_the_services: billing: its health"),
    Breakage("files/rules/added.yml", "", "groups: []\n", "rules_are_prometheus: files/rules/added.yml"),
    Breakage("values-prod.yaml", "KIKI_BILLING_APPROVAL_REQUIRED", "KIKI_BILLING_APPROVED", "billing has no setting KIKI_BILLING_APPROVED"),
    Breakage("files/prometheus-adapter.yaml", "syncflow_bids_under_way", "syncflow_bids_in_flight", "no service has the metric"),
    Breakage(ENV, "name: KIKI_VALUE_DATA", "name: KIKI_VALUE_DIR", "syncvalue has no setting KIKI_VALUE_DIR"),
    Breakage(ENV, '"env" "KIKI_RECEIPT_KEY"', '"env" "KIKI_HOLDER"', "syncflow does not start without KIKI_RECEIPT_KEY"),
    Breakage(ENV, "name: KIKI_LOG_ID", "name: KIKI_SHIELD_DATA", "a setting stands there twice"),
    Breakage(ENV, '_HTTP, value: "0.0.0.0:', '_HTTP, value: "127.0.0.1:', "does not listen on"),
    Breakage(ENV, "KIKI_VALUE_DATA, value: /var/lib/kiki", "KIKI_VALUE_DATA, value: /data", "where nothing is mounted"),
    Breakage(ENV, 'KIKI_PLAINTEXT, value: "true"', 'KIKI_PLAINTEXT, value: "false"', "neither TLS nor plaintext"),
    Breakage(ENV, "KIKI_PLAINTEXT, value: http", 'KIKI_PLAINTEXT, value: "true"', "neither TLS nor plaintext"),
    Breakage(ENV, 'KIKI_VALUE, value: {{ include "kiki.address" (dict "root" .root "name" "syncvalue")',
             'KIKI_VALUE, value: {{ include "kiki.address" (dict "root" .root "name" "syncshield")', "which is no gRPC of syncvalue"),
    Breakage(NAMES, '.svc:{{ $port }}', '.svc:{{ add $port 1 }}', "which is no gRPC of syncshield"),
    Breakage(NOTES, "{{ .Values.logId }}", "", "the notes name neither"),
    Breakage(NOTES, "50054\n", "50053\n", "the notes forward 50053 of deployment"),
    Breakage(NOTES, ".svc:{{ .Values.syncflow.public.port }}", ".svc:8080", "the notes do not say {'http://"),
    Breakage(NOTES, '"name" "kiki")', '"name" "syncflow")', "the notes do not say that the command is in"),
    Breakage(NOTES, " --reset-then-reuse-values", "", "the notes do not say helm upgrade"),
    Breakage(NOTES, "helm uninstall {{ .Release.Name }}", "helm uninstall kiki", "the notes do not say helm uninstall bids"),
    Breakage(NOTES, "-l app.kubernetes.io/instance={{ .Release.Name }}", "-l app.kubernetes.io/instance=kiki", "does not stay until"),
    Breakage(KEYS, "helm.sh/resource-policy: keep", "helm.sh/hook-weight: '1'", "does not stay until"),
    Breakage("values-prod.yaml", "receipt.key=$(openssl", "key=$(openssl", "makes no Secret prod-receipt-key with receipt.key"),
    Breakage("values-prod.yaml", "kiki/kiki:0.1.0", "kiki/kiki:0.0.9", "values-prod.yaml has images of the version"),
    # Containers and pods.
    Breakage(NAMES, ":{{ .tag | default $.root.Chart.AppVersion }}", "", "images_have_tags"),
    Breakage(DATABASES, "image: {{ .Values.redis.image }}", "image: redis:latest", "redis:latest has no tag of its own"),
    Breakage(HEALTH, "limits: { cpu: 100m, memory: 64Mi }", "limits: { cpu: 100m }", "no limits of memory"),
    Breakage(POD, "startupProbe:", "x-startupProbe:", "no startupProbe"),
    Breakage(DATABASES, "livenessProbe:", "x-livenessProbe:", "no livenessProbe"),
    Breakage(POD, "service: {{ $is.health }}", "service: kiki", "readinessProbe does not ask for"),
    Breakage(POD, "[/bin/{{ .name }}, health]", "[/bin/{{ .name }}]", "startupProbe does not ask for"),
    Breakage(POD, "grpc: { port: {{ $is.grpc }} }", "grpc: { port: {{ $is.grpc }}, service: {{ $is.health }} }", "would end a process"),
    Breakage(NAMES, "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
    Breakage(NAMES, "seccompProfile: { type: RuntimeDefault }", "seccompProfile: { type: Unconfined }", "no seccomp profile"),
    Breakage(NAMES, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "may write its root file system"),
    Breakage(NAMES, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "may escalate"),
    Breakage(NAMES, "drop: [ALL]", "drop: [NET_RAW]", "has capabilities"),
    Breakage(HEALTH, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "has a token of its ServiceAccount"),
    Breakage(WORKLOADS, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "hands out a token"),
    Breakage(POD, "enableServiceLinks: false", "hostNetwork: true", "uses the node's own"),
    # What one object says of another.
    Breakage(POD, '{{- include "kiki.selector" . | nindent 4 }}', "app: kiki", "its selector does not match its pods"),
    Breakage(WORKLOADS, "serviceName: {{ include", "serviceName: x{{ include", "no Service xkiki-syncshield"),
    Breakage(WORKLOADS, "targetPort: http,", "targetPort: web,", "no port web"),
    Breakage(WORKLOADS, "- { name: http, port: {{ $is.http }},", "- { name: http, port: 80,", "is headless, and its port 80"),
    Breakage("templates/_database.tpl", '  selector:\n    {{- include "kiki.selector" . | nindent 4 }}', "  selector: { app: redis }", "selects 0 workloads"),
    Breakage(WORKLOADS, "kind: Deployment, name: {{ include", "kind: Deployment, name: x{{ include", "xbids-kiki-billing is not there"),
    Breakage(WORKLOADS, "if not $own.autoscaling.enabled", "if true", "says its replicas itself"),
    Breakage(WORKLOADS, "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: {{",
             "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: x{{", "PodDisruptionBudget is missing"),
    Breakage(POD, "serviceAccountName: {{ include", "serviceAccountName: x{{ include", "no ServiceAccount xkiki"),
    Breakage(POD, "volumeClaimTemplate:", "volumeClaim:", "Kubernetes 1.31: Deployment"),
    Breakage(POD, "claimName: {{ include", "claimName: x{{ include", "no claim xkiki"),
    Breakage(POD, "- { name: tmp, mountPath: /tmp }", "", "mounted"),
    Breakage(WORKLOADS, '$volume (eq $name "syncshield")', "$volume false", "syncshield is not one StatefulSet"),
    Breakage(WORKLOADS, "clusterIP: None", "clusterIP: 10.0.0.1", "has no headless Service"),
    Breakage(WORKLOADS, "kind: HorizontalPodAutoscaler\n", "kind: PodDisruptionBudget\n", "HorizontalPodAutoscaler is missing"),
    Breakage(POD, 'list "topology.kubernetes.io/zone" "kubernetes.io/hostname"', 'list "kubernetes.io/hostname"', "is spread over"),
    Breakage(POD, "with .root.Values.global.mtlsAnnotations", "with dict", "has no annotations of the mesh"),
    Breakage(HEALTH, "helm.sh/hook: test", "helm.sh/hook: post-install", "no test of all four services"),
    Breakage(HEALTH, '(dict "root" $ "name" $name)', '(dict "root" $ "name" "syncflow")', "no test of all four services"),
    # Who calls.
    Breakage(ENV, '(dict "root" $ "name" $name)) $name) -}}', '(dict "root" $ "name" $name)) "syncflow") -}}', "callers_are_known: syncvalue knows"),
    Breakage(ENV, "range $id, $role := .Values.identities", "range $id, $role := dict", "callers_are_known: syncvalue knows"),
    Breakage(NAMES, "/ns/{{ .root.Release.Namespace }}/sa/", "/ns/kiki/sa/", "callers_are_known: syncvalue knows"),
    Breakage(SCHEMA, "operator|finance|bidder", "operator|root|finance|bidder", "schema: "),
    Breakage(POD, "mountPath: /etc/kiki/tls, readOnly", "mountPath: /etc/kiki/tls/tls.crt, subPath: tls.crt, readOnly", "would not reach it"),
    Breakage(POD, "mountPath: /etc/kiki/api-keys, readOnly", "mountPath: /etc/kiki/api-keys, subPath: keys, readOnly", "would not reach it"),
    Breakage(ENV, "{{- if .Values.apiKeys.secret }}", "{{- if false }}", "has the API keys of 'keys'"),
    Breakage(HEALTH, "        items: [{ key: ca.crt, path: ca.crt }]\n", "", "and has ['a secret key']"),
    Breakage(CERTIFICATES, "if and .enabled .certManager.issuerRef", "if false", "certificates are made for []"),
    Breakage(CERTIFICATES, "secretName: {{ include", "secretName: x{{ include", "nobody makes the certificate in"),
    Breakage(CERTIFICATES, "$.Release.Namespace }}.svc, localhost]", "$.Release.Namespace }}, localhost]", "its certificate is for"),
    Breakage(CERTIFICATES, 'include "kiki.spiffe" $at', 'include "kiki.spiffe" (dict "root" $ "name" "billing")', "its certificate is of"),
    Breakage(CERTIFICATES, "server auth, client auth", "server auth", "its certificate is for"),
    Breakage(CERTIFICATES, "dnsNames:", "dnsName:", "Certificate"),
    # Secrets.
    Breakage(ENV, '{{ include "kiki.env.secret" (dict "root" .root "env" "KIKI_RECEIPT_KEY" "which" "receiptKey" "key" "receipt.key") }}',
             '- { name: KIKI_RECEIPT_KEY, value: "00" }', "KIKI_RECEIPT_KEY is no reference"),
    Breakage("values-prod.yaml", "generate: false\n  logKey: prod-log-key", "generate: true", "prod makes the Secret kiki-log-key"),
    Breakage(ENV, '"KIKI_LOG_KEY" "which" "logKey"', '"KIKI_LOG_KEY" "which" "pseudonymKey"', "log.pub is not one Secret's"),
    Breakage("templates/secrets.yaml", '(dict "receipt.key"', '(dict "key"', "has no receipt.key"),
    Breakage("templates/secrets.yaml", "if not .receiptKey", "if true", "made although it is named"),
    Breakage("templates/secrets.yaml", "if not .pseudonymKey", "if false", "nobody is to make"),
    Breakage("templates/secrets.yaml", "randBytes 32", "randBytes 31", "is not 64 hexadecimal digits"),
    Breakage(KEYS, "substr 16 48", "substr 15 47", "log.key is not its name, id and bytes"),
    Breakage(KEYS, '"public" $public "key" $public', '"public" $public "key" $seed', "log.pub is not of log.key"),
    Breakage("templates/secrets.yaml", "@%s:5432/kiki", "@%s:5433/kiki", "a made address leads nowhere"),
    # Metrics.
    Breakage(MONITORING, "- key: app.kubernetes.io/component\n        operator: In", "- key: app.kubernetes.io/component\n        operator: NotIn", "ServiceMonitor selects []"),
    Breakage(MONITORING, "values: [{{ keys", "values: [redis, {{ keys", "ServiceMonitor selects"),
    Breakage(MONITORING, "{ port: http, path", "{ port: metrics, path", "has no port metrics"),
    Breakage(MONITORING, "jobLabel: app.kubernetes.io/component", "jobLabel: app.kubernetes.io/name", "jobs are not named"),
    Breakage(MONITORING, "with .Values.monitoring.serviceMonitor", "with dict", "ServiceMonitor does not follow"),
    Breakage(WORKLOADS, "syncflow_bids_under_way", "syncflow_bids", "nobody gives the metric syncflow_bids"),
    Breakage(WORKLOADS, "name: cpu, target", "name: memory, target", "does not look at the CPU"),
    Breakage(WORKLOADS, "{{- with .inferenceP95 }}", "{{- with false }}", "that nobody scales by"),
    # The network.
    Breakage(NETWORK, "policyTypes: [Ingress, Egress]\n{{-", "policyTypes: [Ingress]\n{{-", "is not denied what is not allowed"),
    Breakage(ARROWS, "- { from: billing, to: syncshield, port: 50053 }\n", "", "no arrow ('billing', 'syncshield', 50053)"),
    Breakage(ARROWS, "- { from: billing,", "- { from: billing, to: syncflow, port: 50052 }\n- { from: billing,", "an arrow too many ('billing', 'syncflow', 50052)"),
    Breakage(ARROWS, "to: redis, port: 6379", "to: redis, port: 6380", "an arrow too many"),
    Breakage(ARROWS, "{{- if .peers -}}", "{{- if true -}}", "allows all"),
    Breakage(NETWORK, "get $.Values.networkPolicy.http $name) $is.http", "get $.Values.networkPolicy.http $name) $is.grpc", "(outside)"),
    Breakage(NETWORK, "range get $outside $name | default list", "range list", "no arrow ('syncshield', 'to'"),
    Breakage(ARROWS, "range $v.networkPolicy.mesh.ports", "range list", "no arrow ('test', 'to', \"[('namespaceSelector', {'matchLabels': {'role': 'mesh'}})]\", 8086)"),
    Breakage(ARROWS, "{{- $to = append $to $v.networkPolicy.traces }}", "", "no arrow ('billing', 'to', \"[('namespaceSelector', {'matchLabels': {'role': 'collector'}})]\", 4318)"),
    Breakage(NETWORK, "range $.Values.networkPolicy.dnsPorts", "range list", "allows all"),
    Breakage(NETWORK, "range $.Values.networkPolicy.dnsPorts", "range list 53", "5353) (outside)"),
]
