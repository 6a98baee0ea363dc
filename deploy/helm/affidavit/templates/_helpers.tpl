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
        "key_table" (printf "/var/lib/affidavit/%s/key-table" (ternary "key-table" "journal" (ne .Values.gateway.keyTable.existingClaim "")))
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

{{/* Pods of a part on machines of their own, where there are so many: dict root, part. */}}
{{- define "affidavit.apart" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "affidavit.selector" . | nindent 12 }}
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

{{/* By part: where it goes besides names and, the gateway, providers. Keys of networkPolicy, made of the parts' configurations. */}}
{{- define "affidavit.goes" -}}
{{- $np := .Values.networkPolicy }}
{{- $evidence := .Values.gateway.config.evidence | default dict }}
{{- $out := $evidence.out | default dict }}
{{- $commit := $evidence.commit }}
{{- $kafka := or $out.kafka (and (kindIs "map" $commit) (hasKey $commit "kafka")) }}
{{- $store := or $out.s3 ((($out.kafka | default dict).archive | default dict).s3) }}
{{- $taps := false }}
{{- range $tap := $evidence.tap }}
{{- if $tap.kafka }}{{ $kafka = true }}{{ end }}
{{- if $tap.syslog }}{{ $taps = true }}{{ end }}
{{- if and (or $tap.webhook $tap.loki) $np.taps.to }}{{ $taps = true }}{{ end }}
{{- end }}
{{- $gateway := list }}
{{- if $kafka }}{{ $gateway = append $gateway "kafka" }}{{ end }}
{{- /* Without addresses of its own the bucket, and who takes webhooks or is a Loki, is one of the public ones that providers have. */}}
{{- if and $store $np.store.to }}{{ $gateway = append $gateway "store" }}{{ end }}
{{- if $taps }}{{ $gateway = append $gateway "taps" }}{{ end }}
{{- if (.Values.gateway.config.telemetry | default dict).otlp }}{{ $gateway = append $gateway "collector" }}{{ end }}
{{- $goes := dict "gateway" $gateway }}
{{- if .Values.archiver.enabled }}
{{- $archiver := list "kafka" }}
{{- if (.Values.archiver.config.out | default dict).s3 }}{{ $archiver = append $archiver "store" }}{{ end }}
{{- $_ := set $goes "archiver" $archiver }}
{{- end }}
{{- if .Values.registrar.enabled }}
{{- $config := .Values.registrar.config }}
{{- $registrar := list }}
{{- if ($config.out | default dict).s3 }}{{ $registrar = append $registrar "store" }}{{ end }}
{{- if $config.kafka }}{{ $registrar = append $registrar "kafka" }}{{ end }}
{{- if or $config.witnesses $config.timestamp }}{{ $registrar = append $registrar "witnesses" }}{{ end }}
{{- $_ := set $goes "registrar" $registrar }}
{{- end }}
{{- toJson $goes }}
{{- end }}
