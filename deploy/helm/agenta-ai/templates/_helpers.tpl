{{- define "agenta-ai.fullname" -}}
{{ .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "agenta-ai.selector" -}}
app.kubernetes.io/name: agenta-ai-server
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "agenta-ai.labels" -}}
{{ include "agenta-ai.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "agenta-ai.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "agenta-ai.fullname" .) }}
{{- end }}

{{- /* Kubernetes speaks plaintext only to gRPC: with TLS, its probes see whether the port is open. */}}
{{- define "agenta-ai.probe" -}}
{{- if .Values.tls.enabled -}}
tcpSocket: {port: grpc}
{{- else -}}
grpc: {port: 50051}
{{- end }}
{{- end }}
