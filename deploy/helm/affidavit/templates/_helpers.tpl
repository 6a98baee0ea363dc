{{- define "affidavit.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Labels by which pods are chosen: dict root, part. They never change. */}}
{{- define "affidavit.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "affidavit.labels" -}}
{{ include "affidavit.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "affidavit.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* As the `restricted` pod security standard wants it. */}}
{{- define "affidavit.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}
{{- define "affidavit.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* The longest time besides `limits.drain` and `limits.archive` that an ending gateway takes: gateway/src/serve.rs has the bounds. */}}
{{- define "affidavit.besides" -}}60{{- end }}

{{/* gateway.yaml; the init container puts the pod's name in the place of @GATEWAY@. */}}
{{- define "affidavit.gatewayConfig" -}}
{{- $typed := deepCopy .Values.gateway.config }}
{{- $ours := dict
    "deployment" .Values.deployment
    "gateway" "@GATEWAY@"
    "admin" "0.0.0.0:9090"
    "keys" "/run/secrets/keys/keys.yaml"
    "limits" (dict
        "drain" (printf "%ds" (int .Values.gateway.drainSeconds))
        "archive" (printf "%ds" (int .Values.gateway.archiveSeconds)))
    "evidence" (dict
        "journal" "/var/lib/affidavit/journal/journal"
        "key_table" "/var/lib/affidavit/journal/key-table"
        "seal_key" "/var/lib/affidavit/journal/seal.key"
        "spool" "/var/lib/affidavit/spool/spool") }}
{{- range $key := list "deployment" "gateway" "admin" "keys" }}
{{- if hasKey $typed $key }}{{ fail (printf "gateway.config.%s is put in by the chart: leave it out" $key) }}{{ end }}
{{- end }}
{{- range $key := list "journal" "spool" "key_table" "seal_key" }}
{{- if hasKey ($typed.evidence | default dict) $key }}{{ fail (printf "gateway.config.evidence.%s is put in by the chart: leave it out" $key) }}{{ end }}
{{- end }}
{{- range $key := list "drain" "archive" }}
{{- if hasKey ($typed.limits | default dict) $key }}{{ fail (printf "gateway.config.limits.%s: set gateway.%sSeconds instead, from which the grace period is made too" $key $key) }}{{ end }}
{{- end }}
{{- toYaml (mergeOverwrite $typed $ours) }}
{{- end }}

{{/* A rule of a network policy: where (dict `to`, `ports`). */}}
{{- define "affidavit.egress" -}}
- to: {{- toYaml .to | nindent 4 }}
  ports:
    {{- range .ports }}
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
{{- end }}
{{- define "affidavit.dns" -}}
- to: {{- toYaml .Values.networkPolicy.dns.to | nindent 4 }}
  ports:
    - { protocol: UDP, port: {{ .Values.networkPolicy.dns.port }} }
    - { protocol: TCP, port: {{ .Values.networkPolicy.dns.port }} }
{{- end }}
