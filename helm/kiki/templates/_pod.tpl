{{/* The pod of a component. */}}
{{- define "kiki.pod" -}}
{{- $own := get .root.Values .name -}}
{{- $is := get (include "kiki.components" .root | fromYaml) .name -}}
metadata:
  labels:
    {{- include "kiki.selector" . | nindent 4 }}
  {{- with .root.Values.global.mtlsAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "kiki.name" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Five seconds until nobody new is sent here, five for open calls, ten for the last decisions and leases to reach the log.
  terminationGracePeriodSeconds: 30
  securityContext:
    {{- include "kiki.podSecurity" 65532 | nindent 4 }}
  {{- include "kiki.placement" . | nindent 2 }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "kiki.image" . }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      env:
        {{- include "kiki.env" . | nindent 8 }}
      ports:
        - { name: grpc, containerPort: {{ $is.grpc }} }
        - { name: http, containerPort: {{ $is.http }} }
      # A long log is read before anything is served: ten minutes are 300 million leaves.
      startupProbe:
        {{- include "kiki.probe" . | nindent 8 }}
        periodSeconds: 5
        failureThreshold: 120
      readinessProbe:
        {{- include "kiki.probe" . | nindent 8 }}
        periodSeconds: 5
        failureThreshold: 2
      # Of the process alone: one that is not ready, say while another service is away, gains nothing by another start.
      livenessProbe:
        {{- if .root.Values.tls.enabled }}
        tcpSocket: { port: grpc }
        {{- else }}
        grpc: { port: {{ $is.grpc }} }
        {{- end }}
        timeoutSeconds: 5
        periodSeconds: 10
        failureThreshold: 6
      lifecycle:
        preStop: { sleep: { seconds: 5 } }
      resources:
        {{- toYaml $own.resources | nindent 8 }}
      securityContext:
        {{- include "kiki.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "kiki.mounts" . | nindent 8 }}
  volumes:
    {{- include "kiki.volumes" . | nindent 4 }}
{{- end -}}

{{/* The kubelet's own gRPC probe speaks no TLS; the binary asks itself. */}}
{{- define "kiki.probe" -}}
{{- $is := get (include "kiki.components" .root | fromYaml) .name -}}
{{- if .root.Values.tls.enabled -}}
exec: { command: [/bin/{{ .name }}, health] }
{{- else -}}
grpc: { port: {{ $is.grpc }}, service: {{ $is.health }} }
{{- end }}
timeoutSeconds: 5
{{- end -}}

{{- define "kiki.placement" -}}
{{- $own := get .root.Values .name -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "kiki.selector" $ | nindent 8 }}
  {{- end }}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "kiki.mounts" -}}
{{- $own := get .root.Values .name -}}
- { name: tmp, mountPath: /tmp }
{{- if ne .name "syncflow" }}
- { name: data, mountPath: /var/lib/kiki }
{{- end }}
{{- if .root.Values.tls.enabled }}
# As folders: what is mounted by subPath stays as it was at the start.
- { name: tls, mountPath: /etc/kiki/tls, readOnly: true }
{{- if .root.Values.apiKeys.secret }}
- { name: api-keys, mountPath: /etc/kiki/api-keys, readOnly: true }
{{- end }}
{{- end }}
{{- if and (eq .name "syncvalue") $own.models.claim }}
- { name: models, mountPath: /var/lib/kiki-models, readOnly: true }
{{- end }}
{{- if eq .name "syncshield" }}
{{- if eq $own.store "files" }}
# Customers' keys are beside the log's. That the log's stands in the next one's place too refuses `kiki audit rotate-key` at its
# first step: the Secret would not have the new key, and the log would not start again.
- { name: data, mountPath: /var/lib/kiki/keys, subPath: keys }
- { name: log-key, mountPath: /var/lib/kiki/keys/log.key, subPath: log.key, readOnly: true }
- { name: log-key, mountPath: /var/lib/kiki/keys/log.key.next, subPath: log.key, readOnly: true }
{{- else }}
- { name: log-key, mountPath: /var/lib/kiki/keys, readOnly: true }
{{- end }}
{{- end }}
{{- end -}}

{{- define "kiki.volumes" -}}
{{- $own := get .root.Values .name -}}
- { name: tmp, emptyDir: { sizeLimit: 1Gi } }
{{- if eq .name "syncflow" }}
{{- else if and (eq .name "syncshield") (ne $own.store "files") }}
# The log's tiles are here, which are as large as the log, and made again by each new pod.
- name: data
  ephemeral:
    volumeClaimTemplate:
      spec:
        {{- include "kiki.claim" $own.storage | nindent 8 }}
{{- else if ne $own.store "files" }}
# What is here can be made again from the database, Redis and the log.
- { name: data, emptyDir: {} }
{{- else if ne .name "syncshield" }}
- name: data
  persistentVolumeClaim: { claimName: {{ include "kiki.name" . }} }
{{- end }}
{{- if .root.Values.tls.enabled }}
- name: tls
  secret: { secretName: {{ include "kiki.tlsSecret" . }}, defaultMode: 0440 }
{{- with .root.Values.apiKeys.secret }}
- name: api-keys
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- end }}
{{- if and (eq .name "syncvalue") $own.models.claim }}
- name: models
  persistentVolumeClaim: { claimName: {{ $own.models.claim }}, readOnly: true }
{{- end }}
{{- if eq .name "syncshield" }}
- name: log-key
  secret:
    secretName: {{ include "kiki.secret" (dict "root" .root "which" "logKey") }}
    defaultMode: 0440
    items: [{ key: log.key, path: log.key }]
{{- end }}
{{- end -}}
