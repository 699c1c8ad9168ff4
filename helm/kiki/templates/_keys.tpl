{{/* The log's key pair as C2SP writes it, of a new Ed25519 key: `secret` and `public`, as YAML. The private key's DER ends with its
32 bytes; the public one's stand in the certificate's DER behind the algorithm's id, in a bit string of 33. */}}
{{- define "kiki.logKeyPair" -}}
{{- $pem := genPrivateKey "ed25519" -}}
{{- $certificate := genSelfSignedCertWithKey "log" nil nil 1 $pem -}}
{{- $seed := include "kiki.der" $pem | b64dec | substr 16 48 -}}
{{- $public := index (splitList "\x2b\x65\x70\x03\x21\x00" (include "kiki.der" $certificate.Cert | b64dec)) 1 | substr 0 32 -}}
secret: {{ printf "PRIVATE+KEY+%s" (include "kiki.noteKey" (dict "name" .Values.logId "public" $public "key" $seed)) }}
public: {{ include "kiki.noteKey" (dict "name" .Values.logId "public" $public "key" $public) }}
{{- end -}}

{{/* PEM without its armour. */}}
{{- define "kiki.der" -}}
{{- regexReplaceAll "-----[A-Z ]+-----|\\s" . "" -}}
{{- end -}}

{{/* name+id+key: the id is of the public key, the first four bytes of a digest (C2SP signed-note); 1 is Ed25519. */}}
{{- define "kiki.noteKey" -}}
{{ .name }}+{{ printf "%s\n\x01%s" .name .public | sha256sum | substr 0 8 }}+{{ printf "\x01%s" .key | b64enc }}
{{- end -}}

{{/* Our own Secret, with what it already holds where it is there: root, which, and data (unencoded, for where it is not). */}}
{{- define "kiki.ownSecret" -}}
{{- $name := include "kiki.secret" . -}}
{{- $kept := (include "kiki.found" (dict "root" .root "kind" "Secret" "name" $name) | fromJson).data -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ $name }}
  labels:
    {{- include "kiki.labels" (dict "root" .root "name" (kebabcase .which)) | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
type: Opaque
data:
  {{- range $key, $value := .data }}
  {{ $key }}: {{ get ($kept | default dict) $key | default ($value | b64enc) }}
  {{- end }}
{{- end -}}
