{{/* Short: pods' names, which are consumers' names, have 63 characters for this, the pool and Kubernetes' own. */}}
{{- define "penstock.fullname" -}}
{{- if contains "penstock" .Release.Name -}}
{{- .Release.Name | trunc 20 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-penstock" (.Release.Name | trunc 11 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "penstock.selector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* `image` of a pool over the chart's. Called with (list $ own). */}}
{{- define "penstock.image" -}}
{{- $root := index . 0 -}}
{{- $image := merge (deepCopy (index . 1)) $root.Values.image -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end -}}

{{/* A default pool with what a values file says of this one. Called with (list $ pool). */}}
{{- define "penstock.pool" -}}
{{- $defaults := dict "arguments" list "minimum" 0 "maximum" 8 "scaling" dict "graceSeconds" 600 "startSeconds" 1800 -}}
{{- $_ := set $defaults "image" dict -}}
{{- $_ := set $defaults "sharedMemory" "2Gi" -}}
{{- mergeOverwrite $defaults (deepCopy (index . 1)) | toJson -}}
{{- end -}}

{{- define "penstock.env" -}}
- name: PENSTOCK__DATA_DIR
  value: /data
{{- end -}}

{{- define "penstock.envFrom" -}}
- configMapRef:
    name: {{ include "penstock.fullname" . }}
{{- end -}}

{{- define "penstock.mounts" -}}
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
{{- if .Values.broker.secret }}
- name: broker
  mountPath: /etc/penstock/broker
  readOnly: true
{{- end }}
{{- end -}}

{{- define "penstock.volumes" -}}
- name: data
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- if .Values.broker.secret }}
- name: broker
  secret:
    secretName: {{ .Values.broker.secret }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "penstock.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "penstock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end -}}

{{- define "penstock.probes" -}}
livenessProbe:
  httpGet:
    path: /livez
    port: {{ . }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: {{ . }}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}
