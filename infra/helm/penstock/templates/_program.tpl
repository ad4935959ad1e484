{{/*
A Deployment of a program of the control plane. Called with a dict: root, name, args, env, values, port, grace, account.
*/}}
{{- define "penstock.program" -}}
{{- $root := .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "penstock.fullname" $root }}-{{ .name }}
  labels:
    {{- include "penstock.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  replicas: {{ .values.replicas }}
  selector:
    matchLabels:
      {{- include "penstock.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ .name }}
  template:
    metadata:
      labels:
        {{- include "penstock.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .name }}
      annotations:
        checksum/config: {{ include (print $root.Template.BasePath "/config.yaml") $root | sha256sum }}
    spec:
      terminationGracePeriodSeconds: {{ add .grace 15 }}
      {{- if .account }}
      serviceAccountName: {{ .account }}
      {{- else }}
      automountServiceAccountToken: false
      {{- end }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext: {{- include "penstock.podSecurity" $root | nindent 8 }}
      # On different nodes, where there are several: one of them is to outlive a node.
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "penstock.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ .name }}
      containers:
        - name: {{ .name }}
          {{- include "penstock.image" (list $root dict) | nindent 10 }}
          args: {{- toYaml .args | nindent 12 }}
          env:
            {{- include "penstock.env" $root | nindent 12 }}
            {{- toYaml .env | nindent 12 }}
          envFrom:
            {{- include "penstock.envFrom" $root | nindent 12 }}
          ports:
            - name: {{ .port.name }}
              containerPort: {{ .port.number }}
              protocol: TCP
          {{- include "penstock.probes" .port.name | nindent 10 }}
          {{- if .lingers }}
          lifecycle:
            preStop:
              # Requests still come until every node has heard that this pod leaves.
              exec:
                command: ["sleep", "5"]
          {{- end }}
          resources: {{- toYaml .values.resources | nindent 12 }}
          securityContext: {{- include "penstock.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            {{- include "penstock.mounts" $root | nindent 12 }}
      volumes:
        {{- include "penstock.volumes" $root | nindent 8 }}
{{- end -}}
