{{/* A bundled database up to its containers: root, name and port. Both images have the user 999. */}}
{{- define "kiki.database" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "kiki.name" . }}
  labels:
    {{- include "kiki.labels" . | nindent 4 }}
spec:
  selector:
    {{- include "kiki.selector" . | nindent 4 }}
  ports:
    - { name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }} }
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ include "kiki.name" . }}
  labels:
    {{- include "kiki.labels" . | nindent 4 }}
spec:
  replicas: 1
  serviceName: {{ include "kiki.name" . }}
  selector:
    matchLabels:
      {{- include "kiki.selector" . | nindent 6 }}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: data
      spec:
        {{- include "kiki.claim" (get .root.Values .name).storage | nindent 8 }}
  template:
    metadata:
      labels:
        {{- include "kiki.selector" . | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        {{- include "kiki.podSecurity" 999 | nindent 8 }}
{{- end -}}
