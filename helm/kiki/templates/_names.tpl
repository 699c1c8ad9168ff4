{{/* The four services, with their ports and the names of their health and of their settings. */}}
{{- define "kiki.components" -}}
syncvalue: { grpc: 50051, http: 9091, health: kiki.syncvalue.v1.SyncValueService, settings: VALUE }
syncflow: { grpc: 50052, http: 8080, health: kiki.syncflow.v1.SyncFlowService, settings: FLOW }
syncshield: { grpc: 50053, http: 8081, health: kiki.syncshield.v1.SyncShieldService, settings: SHIELD }
billing: { grpc: 50054, http: 8082, health: kiki.billing.v1.BillingService, settings: BILLING }
{{- end -}}

{{/* Short enough for a component's name and a pod's suffix behind it: 63 characters, which is what a holder's id may have too. */}}
{{- define "kiki.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- trunc 32 $name | trimSuffix "-" -}}
{{- end -}}

{{/* The arguments of the templates below are a dict of root (the top) and name (a component). */}}
{{- define "kiki.name" -}}
{{ include "kiki.fullname" .root }}-{{ .name }}
{{- end -}}

{{- define "kiki.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{- define "kiki.labels" -}}
{{ include "kiki.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "kiki.image" -}}
{{- with .root.Values.image -}}
{{ with .registry }}{{ . }}/{{ end }}{{ .repository }}/{{ $.name }}:{{ .tag | default $.root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Where a component's gRPC is: a headless Service, whose every address the clients balance over. */}}
{{- define "kiki.address" -}}
{{- $port := (get (include "kiki.components" .root | fromYaml) .name).grpc -}}
{{ ternary "https" "http" .root.Values.tls.enabled }}://{{ include "kiki.name" . }}.{{ .root.Release.Namespace }}.svc:{{ $port }}
{{- end -}}

{{/* Who a component is to the others (SPIFFE's form for a ServiceAccount). */}}
{{- define "kiki.spiffe" -}}
spiffe://{{ .root.Values.tls.trustDomain }}/ns/{{ .root.Release.Namespace }}/sa/{{ include "kiki.name" . }}
{{- end -}}

{{/* The Secret of a component's certificate: the one that is named, or the one that cert-manager makes. */}}
{{- define "kiki.tlsSecret" -}}
{{- $named := get .root.Values.tls.secrets .name -}}
{{- if not (or $named .root.Values.tls.certManager.issuerRef) -}}
{{- fail (printf "tls.secrets.%s: names no Secret, tls.certManager no issuer, and tls.enabled is on" .name) -}}
{{- end -}}
{{ $named | default (printf "%s-tls" (include "kiki.name" .)) }}
{{- end -}}

{{/* The name of a Secret (`which` of .Values.secrets): the one that is named, or our own. A database that is not bundled has none
of ours. */}}
{{- define "kiki.secret" -}}
{{- $named := get .root.Values.secrets .which -}}
{{- $database := get (dict "database" "postgresql" "redis" "redis") .which -}}
{{- if and $database (not $named) -}}
{{- if not (get .root.Values $database).bundled -}}
{{- fail (printf "secrets.%s: names no Secret, and %s is not bundled" .which $database) -}}
{{- end -}}
{{- end -}}
{{- if not (or $named .root.Values.secrets.generate) -}}
{{- fail (printf "secrets.%s: names no Secret, and secrets.generate is off" .which) -}}
{{- end -}}
{{ $named | default (printf "%s-%s" (include "kiki.fullname" .root) (kebabcase .which)) }}
{{- end -}}

{{/* One replica has the volume. */}}
{{- define "kiki.replicas" -}}
{{- $own := get .root.Values .name -}}
{{- if and (eq $own.store "files") (or (gt (int $own.replicas) 1) $own.autoscaling.enabled) -}}
{{- fail (printf "%s.store: files are one replica's; several need another store" .name) -}}
{{- end -}}
{{ $own.replicas }}
{{- end -}}

{{- define "kiki.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "kiki.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}
