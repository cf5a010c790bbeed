{{/* The container of Scute: one of initContainers, first of them. With `gateway`, one of containers. */}}
{{- define "scute-sidecar.container" -}}
{{- $s := include "scute-sidecar.settings" . | fromYaml -}}
{{- if ne (eq $s.seccompProfile.type "Localhost") (not (empty $s.seccompProfile.localhostProfile)) -}}
  {{- fail (printf "scute-sidecar.seccompProfile: type is %s, and localhostProfile is %q: with Localhost, and only with it, name a file in the folder seccomp of the kubelet, such as profiles/scute.json" $s.seccompProfile.type ($s.seccompProfile.localhostProfile | default "")) -}}
{{- end -}}
name: scute
image: {{ include "scute-sidecar.image" $s }}
imagePullPolicy: {{ $s.image.pullPolicy }}
{{- if not .gateway }}
restartPolicy: Always
{{- end }}
args: [run, -c, /etc/scute/config/scute.yaml]
ports:
  - { name: scute-metrics, containerPort: {{ $s.metricsPort }}, protocol: TCP }
  {{- range (include "scute-sidecar.ports" $s | fromYaml).ports }}
  - { name: {{ .name }}, containerPort: {{ .port }}, protocol: TCP }
  {{- end }}
{{- /* Each second for 5 minutes. What follows is started when it has succeeded. */}}
startupProbe:
  httpGet: { path: {{ $s.startupPath }}, port: scute-metrics, scheme: HTTP }
  periodSeconds: 1
  timeoutSeconds: 1
  failureThreshold: 300
{{- /* The process alone: without an identity, or under load, a restart would make it worse. */}}
livenessProbe:
  httpGet: { path: /livez, port: scute-metrics, scheme: HTTP }
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: scute-metrics, scheme: HTTP }
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
resources: {{- toYaml $s.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  {{- with $s.runAsUser }}
  runAsUser: {{ int64 . }}
  {{- end }}
  {{- with $s.runAsGroup }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
  seccompProfile: {{- toYaml $s.seccompProfile | nindent 4 }}
volumeMounts:
  - { name: scute-workload-api, mountPath: /spiffe-workload-api, readOnly: true }
  - { name: scute-config, mountPath: /etc/scute/config, readOnly: true }
  {{- if $s.policies }}
  - { name: scute-policy, mountPath: /etc/scute/policy, readOnly: true }
  {{- end }}
  - { name: scute-run, mountPath: /run/scute }
  {{- /* Where something is mounted already, no token of the service account is. */}}
  - { name: scute-no-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true }
  {{- with $s.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What that container mounts. */}}
{{- define "scute-sidecar.volumes" -}}
{{- $s := include "scute-sidecar.settings" . | fromYaml -}}
- name: scute-workload-api
  csi: { driver: {{ $s.csi.driver }}, readOnly: true }
- name: scute-config
  configMap: { name: {{ .name }}-scute }
{{- if $s.policies }}
- name: scute-policy
  configMap: { name: {{ .name }}-scute-policy }
{{- end }}
- name: scute-run
  emptyDir: { medium: Memory, sizeLimit: 16Mi }
- name: scute-no-token
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
{{- end -}}
