{{/* Who calls whom, each on a port of the one called. A store is one of `outside` where it is not bundled. */}}
{{- define "kiki.arrows" -}}
{{- $v := .Values -}}
- { from: syncvalue, to: syncshield, port: 50053 }
- { from: syncflow, to: syncshield, port: 50053 }
- { from: syncflow, to: syncvalue, port: 50051 }
- { from: billing, to: syncshield, port: 50053 }
{{- range $name, $is := include "kiki.components" . | fromYaml }}
- { from: test, to: {{ $name }}, port: {{ $is.grpc }} }
{{- if and $v.redis.bundled (eq (get $v $name).store "redis") }}
- { from: {{ $name }}, to: redis, port: 6379 }
{{- end }}
{{- if and $v.postgresql.bundled (eq (get $v $name).store "postgres") }}
- { from: {{ $name }}, to: postgresql, port: 5432 }
{{- end }}
{{- end }}
{{- end -}}

{{/* What is reached outside of this release: {component: [{peers, port}]}. */}}
{{- define "kiki.outside" -}}
{{- $v := .Values -}}
{{- range $name := append (keys (include "kiki.components" . | fromYaml) | sortAlpha) "test" }}
{{- $to := list }}
{{- range $v.networkPolicy.mesh.ports }}
{{- $to = append $to (dict "peers" $v.networkPolicy.mesh.peers "port" .) }}
{{- end }}
{{- if ne $name "test" }}
{{- $to = append $to $v.networkPolicy.traces }}
{{- end }}
{{- $store := (get $v $name | default dict).store }}
{{- if and (eq $store "redis") (not $v.redis.bundled) }}
{{- $to = append $to $v.networkPolicy.redis }}
{{- end }}
{{- if and (eq $store "postgres") (not $v.postgresql.bundled) }}
{{- $to = append $to $v.networkPolicy.postgresql }}
{{- end }}
{{- if eq $name "syncshield" }}
{{- $to = append $to $v.networkPolicy.witnesses }}
{{- end }}
{{ $name }}: {{ $to | toJson }}
{{- end }}
{{- end -}}

{{/* A rule of a policy, where there are peers: way (from or to), peers and port. An empty list of peers would mean everybody. */}}
{{- define "kiki.rule" -}}
{{- if .peers -}}
- {{ .way }}:
    {{- toYaml .peers | nindent 4 }}
  ports: [{ protocol: TCP, port: {{ int .port }} }]
{{- end -}}
{{- end -}}
