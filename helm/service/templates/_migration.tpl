{{/* One Job for each phase of the migrations: `pre` before the new pods come, `post` after the old have gone. */}}
{{- define "service.migration" -}}
{{- $context := .context -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $context.Chart.Name }}-migrate-{{ .phase }}
  labels: {{- include "service.labels" $context | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .phase }}-install,{{ .phase }}-upgrade
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  backoffLimit: 5
  activeDeadlineSeconds: 600
  template:
    metadata:
      labels: {{- include "service.labels" $context | nindent 8 | replace (printf "name: %s" $context.Chart.Name) (printf "name: %s-migrate" $context.Chart.Name) }}
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      containers:
        - name: migrate
          image: {{ include "service.image" $context }}
          args: [migrate, --phase, {{ .phase }}]
          {{- include "service.environment" $context | nindent 10 }}
          securityContext: {{- include "service.securityContext" $context | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
      volumes:
        - name: tmp
          emptyDir: {}
{{- end -}}
