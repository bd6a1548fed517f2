{{- define "service.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .Chart.Name }}
  labels: {{- include "service.labels" . | nindent 4 }}
spec:
  selector:
    app.kubernetes.io/name: {{ .Chart.Name }}
  ports:
    - {name: http, port: 8080, targetPort: http}
    - {name: grpc, port: 9090, targetPort: grpc}
{{- end -}}

{{- define "service.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .Chart.Name }}
  labels: {{- include "service.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- end -}}
