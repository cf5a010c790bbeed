{{- define "scute.labels" -}}
app.kubernetes.io/name: {{ .name | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- end -}}

{{/* One workload of any kind, with all that belongs to it. */}}
{{- define "scute.workload" -}}
{{- $root := .root -}}
{{- $w := .workload -}}
{{- $kind := $w.kind | default "Deployment" -}}
{{- $labels := include "scute.labels" . | fromYaml -}}
{{- $template := deepCopy ($w.template | default dict) -}}
{{- $_ := set $template "spec" (get $template "spec" | default dict) -}}
{{- range $container := concat ($template.spec.initContainers | default list) ($template.spec.containers | default list) }}
  {{- if not (regexMatch "@sha256:[0-9a-f]{64}$" ($container.image | default "")) -}}
    {{- fail (printf "workloads.%s.template: the image of the container %s is %q: name it by its digest, NAME@sha256:… (a tag can be moved to other content)" $.name $container.name ($container.image | default "")) -}}
  {{- end -}}
{{- end }}
{{- $metadata := get $template "metadata" | default dict -}}
{{- $_ := set $metadata "labels" (merge $labels (get $metadata "labels" | default dict)) -}}
{{- $_ := set $template "metadata" $metadata -}}
{{- if not $template.spec.serviceAccountName }}{{- $_ := set $template.spec "serviceAccountName" .name }}{{- end -}}
{{- if has $kind (list "Job" "CronJob") -}}
  {{- if not $template.spec.restartPolicy }}{{- $_ := set $template.spec "restartPolicy" "OnFailure" }}{{- end -}}
{{- end -}}
{{- $in := dict "root" $root "name" .name "scute" $w.scute "template" $template "gateway" .gateway "labels" $labels -}}
{{- $pod := include "scute-sidecar.podTemplate" $in -}}
{{- $settings := include "scute-sidecar.settings" $in | fromYaml -}}
{{- $ports := (include "scute-sidecar.ports" $settings | fromYaml).ports -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name | quote }}
  labels: {{- toYaml $labels | nindent 4 }}
automountServiceAccountToken: false
---
{{ include "scute-sidecar.configMaps" $in }}
---
apiVersion: {{ has $kind (list "Job" "CronJob") | ternary "batch/v1" "apps/v1" }}
kind: {{ $kind }}
metadata:
  name: {{ .name | quote }}
  labels: {{- toYaml $labels | nindent 4 }}
spec:
  {{- if eq $kind "CronJob" }}
  schedule: {{ required (printf "workloads.%s.schedule is not set: a CronJob needs one, such as \"0 3 * * *\"" .name) $w.schedule | quote }}
  jobTemplate:
    spec:
      template: {{- $pod | nindent 8 }}
  {{- else if eq $kind "Job" }}
  template: {{- $pod | nindent 4 }}
  {{- else }}
  {{- if ne $kind "DaemonSet" }}
  replicas: {{ int (hasKey $w "replicas" | ternary $w.replicas 1) }}
  {{- end }}
  {{- if eq $kind "StatefulSet" }}
  serviceName: {{ .name | quote }}
  {{- end }}
  selector:
    matchLabels: {{- toYaml $labels | nindent 6 }}
  template: {{- $pod | nindent 4 }}
  {{- end }}
{{- if or $ports (eq $kind "StatefulSet") }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .name | quote }}
  labels: {{- toYaml $labels | nindent 4 }}
spec:
  {{- if eq $kind "StatefulSet" }}
  clusterIP: None
  {{- end }}
  selector: {{- toYaml $labels | nindent 4 }}
  {{- with $ports }}
  ports:
    {{- range . }}
    {{- /* By number: not every Kubernetes looks for names among the ports of sidecars. */}}
    - { name: {{ .name }}, port: {{ .port }}, targetPort: {{ .port }}, protocol: TCP }
    {{- end }}
  {{- end }}
{{- end }}
{{- if $root.Values.networkPolicy.enabled }}
---
{{ include "scute-sidecar.networkPolicy" (merge (dict "podLabels" $labels "metricsNamespace" $root.Values.networkPolicy.metricsNamespace) $in) }}
{{- end }}
{{- if $root.Values.clusterSpiffeId.enabled }}
---
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata:
  {{- /* It is of the whole cluster: with a dot, which no namespace and no workload has, and in full, no two are alike. */}}
  name: {{ printf "%s.%s.%s" $root.Release.Namespace $root.Release.Name .name | quote }}
  labels: {{- toYaml $labels | nindent 4 }}
spec:
  {{- with $root.Values.clusterSpiffeId.className }}
  className: {{ . }}
  {{- end }}
  spiffeIDTemplate: {{ $root.Values.clusterSpiffeId.template | quote }}
  namespaceSelector:
    matchLabels: { kubernetes.io/metadata.name: {{ $root.Release.Namespace | quote }} }
  podSelector:
    matchLabels: {{- toYaml $labels | nindent 6 }}
  {{- /* Without the last, every container of the pod could ask for the key. */}}
  workloadSelectorTemplates:
    - {{ "k8s:ns:{{ .PodMeta.Namespace }}" | quote }}
    - {{ "k8s:sa:{{ .PodSpec.ServiceAccountName }}" | quote }}
    - k8s:container-name:scute
{{- end }}
{{- end -}}
