{{/* What a service is told at its start. */}}
{{- define "kiki.env" -}}
{{- $own := get .root.Values .name -}}
{{- $is := get (include "kiki.components" .root | fromYaml) .name -}}
- { name: RUST_LOG, value: {{ .root.Values.logLevel | quote }} }
- { name: KIKI_{{ $is.settings }}_GRPC, value: "0.0.0.0:{{ $is.grpc }}" }
- { name: KIKI_{{ $is.settings }}_HTTP, value: "0.0.0.0:{{ $is.http }}" }
{{ include "kiki.env.tls" .root }}
{{ include (printf "kiki.env.%s" .name) . }}
{{- range $name, $value := $own.settings }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end -}}

{{- define "kiki.env.tls" -}}
{{- if .Values.tls.enabled -}}
- { name: KIKI_TLS_CERT, value: /etc/kiki/tls/tls.crt }
- { name: KIKI_TLS_KEY, value: /etc/kiki/tls/tls.key }
- { name: KIKI_TLS_CA, value: /etc/kiki/tls/ca.crt }
- { name: KIKI_PLAINTEXT, value: http }
- { name: KIKI_IDENTITIES, value: {{ include "kiki.identities" . | quote }} }
{{- if .Values.apiKeys.secret }}
- { name: KIKI_API_KEYS, value: /etc/kiki/api-keys/keys }
{{- end }}
{{- else if or .Values.identities .Values.apiKeys.secret -}}
{{- fail "tls.enabled: is off, and identities and apiKeys want it: services know each other by their certificates" -}}
{{- else -}}
- { name: KIKI_PLAINTEXT, value: "true" }
{{- end -}}
{{- end -}}

{{/* Who a caller is, by its certificate: the services, and whom the values name. */}}
{{- define "kiki.identities" -}}
{{- $known := list -}}
{{- range $name, $_ := include "kiki.components" . | fromYaml -}}
{{- $known = append $known (printf "%s=%s" (include "kiki.spiffe" (dict "root" $ "name" $name)) $name) -}}
{{- end -}}
{{- range $id, $role := .Values.identities -}}
{{- $known = append $known (printf "%s=%s" $id $role) -}}
{{- end -}}
{{ join "," $known }}
{{- end -}}

{{/* env, which and key: a variable of a Secret's value. */}}
{{- define "kiki.env.secret" -}}
- name: {{ .env }}
  valueFrom:
    secretKeyRef: { name: {{ include "kiki.secret" . }}, key: {{ .key }} }
{{- end -}}

{{- define "kiki.env.syncvalue" -}}
- { name: KIKI_VALUE_DATA, value: /var/lib/kiki }
- { name: KIKI_VALUE_MODELS, value: /var/lib/kiki-models }
- { name: KIKI_SHIELD, value: {{ include "kiki.address" (dict "root" .root "name" "syncshield") | quote }} }
{{- with .root.Values.syncvalue.models.model }}
- { name: KIKI_VALUE_MODEL, value: {{ . | quote }} }
{{- end }}
{{ include "kiki.env.secret" (dict "root" .root "env" "KIKI_PSEUDONYM_KEY" "which" "pseudonymKey" "key" "pseudonym.key") }}
{{- if eq .root.Values.syncvalue.store "redis" }}
{{ include "kiki.env.secret" (dict "root" .root "env" "KIKI_VALUE_STATES" "which" "redis" "key" "states") }}
{{- end }}
{{- end -}}

{{- define "kiki.env.syncflow" -}}
- { name: KIKI_SHIELD, value: {{ include "kiki.address" (dict "root" .root "name" "syncshield") | quote }} }
- { name: KIKI_VALUE, value: {{ include "kiki.address" (dict "root" .root "name" "syncvalue") | quote }} }
- { name: KIKI_PUBLIC_URL, value: {{ .root.Values.syncflow.publicUrl | quote }} }
# A container that starts again in its pod goes on with the leases that it held.
- name: KIKI_HOLDER
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
{{ include "kiki.env.secret" (dict "root" .root "env" "KIKI_PSEUDONYM_KEY" "which" "pseudonymKey" "key" "pseudonym.key") }}
{{ include "kiki.env.secret" (dict "root" .root "env" "KIKI_RECEIPT_KEY" "which" "receiptKey" "key" "receipt.key") }}
{{- if eq .root.Values.syncflow.store "redis" }}
{{ include "kiki.env.secret" (dict "root" .root "env" "KIKI_FREQUENCY" "which" "redis" "key" "frequency") }}
{{- end }}
{{- end -}}

{{- define "kiki.env.syncshield" -}}
- { name: KIKI_SHIELD_DATA, value: /var/lib/kiki }
- { name: KIKI_LOG_ID, value: {{ .root.Values.logId | quote }} }
{{- if eq .root.Values.syncshield.store "postgres" }}
{{ include "kiki.env.secret" (dict "root" .root "env" "KIKI_SHIELD_STORE" "which" "database" "key" "syncshield") }}
{{- end }}
{{- end -}}

{{- define "kiki.env.billing" -}}
- { name: KIKI_BILLING_DATA, value: /var/lib/kiki }
- { name: KIKI_SHIELD, value: {{ include "kiki.address" (dict "root" .root "name" "syncshield") | quote }} }
{{ include "kiki.env.secret" (dict "root" .root "env" "KIKI_LOG_KEY" "which" "logKey" "key" "log.pub") }}
{{- if eq .root.Values.billing.store "postgres" }}
{{ include "kiki.env.secret" (dict "root" .root "env" "KIKI_BILLING_STORE" "which" "database" "key" "billing") }}
{{- end }}
{{- end -}}
