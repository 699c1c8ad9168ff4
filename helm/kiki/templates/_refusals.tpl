{{/* What could not run, or not as the values say. All of it is said at once, each with the value and what to do. */}}
{{- define "kiki.refusals" -}}
{{- $said := list -}}
{{- range list "image" "examples" "network" "secrets" -}}
{{- $said = append $said (include (printf "kiki.refusals.%s" .) $) -}}
{{- end -}}
{{- with regexSplit "\\s*\n\\s*" (join "\n" $said) -1 | compact -}}
{{- fail (printf "\n%s" (join "\n" .)) -}}
{{- end -}}
{{- end -}}

{{- define "kiki.refusals.image" -}}
{{- with .Values.image }}
{{- if and (not .registry) (ne .pullPolicy "Never") }}
image.registry: is empty: say where the images are, as --set image.registry=HOST/PATH, or image.pullPolicy=Never where the nodes have them
{{- end }}
{{- if and .registry (not (regexMatch "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$" .registry)) }}
image.registry: {{ .registry | quote }} is no HOST, HOST:PORT or HOST/PATH: in lower case, without https:// and without a / at the end
{{- end }}
{{- if eq .tag "latest" }}
image.tag: latest is what was pushed last, so that pods of one release could differ: give another tag, or none for {{ $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- range $name := list "postgresql" "redis" }}
{{- if hasSuffix ":latest" (get $.Values $name).image }}
{{ $name }}.image: latest is what was pushed last, and another version may not read the data: give another tag
{{- end }}
{{- end }}
{{- end -}}

{{/* Names and addresses that are nobody's (RFC 2606, RFC 5737) are left over from values-prod.yaml. */}}
{{- define "kiki.refusals.examples" -}}
{{- $v := .Values -}}
{{- $at := dict "image.registry" $v.image.registry "logId" $v.logId "syncflow.publicUrl" $v.syncflow.publicUrl "identities" (keys $v.identities) -}}
{{- if $v.tls.enabled -}}
{{- $at = merge $at (dict "tls.trustDomain" $v.tls.trustDomain "tls.certManager.issuerRef" $v.tls.certManager.issuerRef) -}}
{{- end -}}
{{- range $name := list "postgresql" "redis" "witnesses" "traces" "mesh" -}}
{{- $_ := set $at (printf "networkPolicy.%s.peers" $name) (get $v.networkPolicy $name).peers -}}
{{- end -}}
{{- range $path, $value := $at }}
{{- with regexFind "(^|[./\"])(example\\.(com|net|org)|example-ca|192\\.0\\.2\\.[0-9]+|198\\.51\\.100\\.[0-9]+|203\\.0\\.113\\.[0-9]+)\\b" (toJson $value) }}
{{ $path }}: has {{ trimAll "./\"" . }}, which is an example's: give your own
{{- end }}
{{- end }}
{{- end -}}

{{/* What a value opens and the NetworkPolicies would keep shut. */}}
{{- define "kiki.refusals.network" -}}
{{- $v := .Values -}}
{{- $policy := $v.networkPolicy -}}
{{- if $policy.enabled }}
{{- if and $v.syncflow.public.enabled (not $policy.http.syncflow) }}
networkPolicy.http.syncflow: is empty, and syncflow.public.enabled is for exchanges: say who may call, as [{ ipBlock: { cidr: 0.0.0.0/0 } }] for anybody
{{- end }}
{{- if and $v.monitoring.serviceMonitor.enabled (not $policy.prometheus) }}
networkPolicy.prometheus: is empty, and monitoring.serviceMonitor.enabled is on: say where Prometheus is, as [{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: monitoring } } }]
{{- end }}
{{- range $name, $_ := include "kiki.components" $ | fromYaml }}
{{- $own := get $v $name }}
{{- if and (eq $own.store "postgres") (not $v.postgresql.bundled) (not $policy.postgresql.peers) }}
networkPolicy.postgresql.peers: is empty, and {{ $name }}.store is postgres, which is not bundled: say where it is, as [{ ipBlock: { cidr: ADDRESS/32 } }]
{{- end }}
{{- if and (eq $own.store "redis") (not $v.redis.bundled) (not $policy.redis.peers) }}
networkPolicy.redis.peers: is empty, and {{ $name }}.store is redis, which is not bundled: say where it is, as [{ ipBlock: { cidr: ADDRESS/32 } }]
{{- end }}
{{- if and $own.settings.OTEL_EXPORTER_OTLP_ENDPOINT (not $policy.traces.peers) }}
networkPolicy.traces.peers: is empty, and {{ $name }}.settings has OTEL_EXPORTER_OTLP_ENDPOINT: say where the collector is
{{- end }}
{{- end }}
{{- if and $v.syncshield.settings.KIKI_WITNESSES (not $policy.witnesses.peers) }}
networkPolicy.witnesses.peers: is empty, and syncshield.settings has KIKI_WITNESSES: say where they are
{{- end }}
{{- end }}
{{- end -}}

{{/* Secrets that are named have to be there, with their keys. Only a cluster can say: `helm template` sees none, and a namespace that
is there has the ServiceAccount `default`, which whoever installs the chart may read. */}}
{{- define "kiki.refusals.secrets" -}}
{{- if include "kiki.found" (dict "root" . "kind" "ServiceAccount" "name" "default") | fromJson }}
{{- if .Values.secrets.mustExist }}
{{- range $path, $keys := include "kiki.namedSecrets" . | fromYaml }}
{{- $name := index $keys 0 }}
{{- $data := (include "kiki.found" (dict "root" $ "kind" "Secret" "name" $name) | fromJson).data | default dict }}
{{- range $key := rest $keys }}
{{- if not (hasKey $data $key) }}
{{ $path }}: the namespace {{ $.Release.Namespace }} has no Secret {{ $name }} with the key {{ $key }}: {{ if hasPrefix "tls." $path }}values.yaml says at `tls` which names its certificate has; or let cert-manager make it (tls.certManager.issuerRef){{ else }}the head of values-prod.yaml says how it is made{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $name := include "kiki.secret" (dict "root" . "which" "logKey") }}
{{- $public := get ((include "kiki.found" (dict "root" . "kind" "Secret" "name" $name) | fromJson).data | default dict) "log.pub" | b64dec }}
{{- if and $public (not (hasPrefix (printf "%s+" .Values.logId) $public)) }}
logId: is {{ .Values.logId }}, and the Secret {{ $name }} has the key of {{ splitList "+" $public | first }}: say that one, or name another Secret in secrets.logKey
{{- end }}
{{- end }}
{{- end -}}

{{/* {value: [the Secret that it names, the keys that are asked of it]} */}}
{{- define "kiki.namedSecrets" -}}
{{- $v := .Values -}}
{{- with $v.secrets -}}
{{- if .logKey }}
secrets.logKey: [{{ .logKey }}, log.key, log.pub]
{{- end }}
{{- if .pseudonymKey }}
secrets.pseudonymKey: [{{ .pseudonymKey }}, pseudonym.key]
{{- end }}
{{- if .receiptKey }}
secrets.receiptKey: [{{ .receiptKey }}, receipt.key]
{{- end }}
{{- if .database }}
secrets.database: [{{ .database }}{{ if $v.postgresql.bundled }}, password{{ end }}{{ range list "syncshield" "billing" }}{{ if eq (get $v .).store "postgres" }}, {{ . }}{{ end }}{{ end }}]
{{- end }}
{{- if .redis }}
secrets.redis: [{{ .redis }}{{ if $v.redis.bundled }}, password{{ end }}{{ if eq $v.syncvalue.store "redis" }}, states{{ end }}{{ if eq $v.syncflow.store "redis" }}, frequency{{ end }}]
{{- end }}
{{- end }}
{{- if $v.apiKeys.secret }}
apiKeys.secret: [{{ $v.apiKeys.secret }}, keys]
{{- end }}
{{- if and $v.tls.enabled (not $v.tls.certManager.issuerRef) }}
{{- range $name, $secret := $v.tls.secrets }}
{{- if $secret }}
tls.secrets.{{ $name }}: [{{ $secret }}, tls.crt, tls.key, ca.crt]
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* An object of the release's namespace, as the cluster has it now, or {}: root, kind and name. */}}
{{- define "kiki.found" -}}
{{ lookup "v1" .kind .root.Release.Namespace .name | default dict | toJson }}
{{- end -}}
