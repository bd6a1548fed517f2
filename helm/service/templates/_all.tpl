{{/* All objects of a service. */}}
{{- define "service.all" -}}
{{ include "service.account" . }}
---
{{ include "service.service" . }}
---
{{ include "service.deployment" . }}
---
{{ include "service.migration" (dict "context" . "phase" "pre") }}
---
{{ include "service.migration" (dict "context" . "phase" "post") }}
{{- end -}}
