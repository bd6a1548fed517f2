{{/* The service's values over the defaults of the library. */}}
{{- define "service.values" -}}
{{- mergeOverwrite (deepCopy .Values.service) (omit .Values "service" "global") | toYaml -}}
{{- end -}}

{{- define "service.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/part-of: dozen
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "service.image" -}}
{{- $values := include "service.values" . | fromYaml -}}
{{ $values.image.repository }}/{{ .Chart.Name }}:{{ $values.image.tag }}
{{- end -}}

{{/* Non-root, with nothing to write to but /tmp. */}}
{{- define "service.securityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "service.environment" -}}
{{- $values := include "service.values" . | fromYaml -}}
envFrom:
  - secretRef:
      name: {{ $values.secret | default (printf "dozen-%s" .Chart.Name) }}
env:
  - name: DOZEN_SHUTDOWN_SECONDS
    value: {{ $values.shutdownSeconds | quote }}
  {{- range $name, $value := $values.settings }}
  - name: {{ $name }}
    value: {{ $value | toString | quote }}
  {{- end }}
{{- end -}}
