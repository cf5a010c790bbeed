{{/*
A pod template with Scute in it: its metadata and spec. For Deployment, StatefulSet, DaemonSet, Job, and CronJob. What would not work, or
would leave a way around Scute, fails with a sentence.
*/}}
{{- define "scute-sidecar.podTemplate" -}}
{{- toYaml (include "scute-sidecar.plan" . | fromYaml).template -}}
{{- end -}}

{{/* The ConfigMaps that it mounts. */}}
{{- define "scute-sidecar.configMaps" -}}
{{- $plan := include "scute-sidecar.plan" . | fromYaml -}}
{{- $s := include "scute-sidecar.settings" . | fromYaml -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}-scute
  {{- with .labels }}
  labels: {{- toYaml . | nindent 4 }}
  {{- end }}
data:
  scute.yaml: |
    {{- toYaml $plan.config | nindent 4 }}
{{- if $s.policies }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}-scute-policy
  {{- with .labels }}
  labels: {{- toYaml . | nindent 4 }}
  {{- end }}
data:
  {{- range $file, $content := $s.policies }}
  {{- /* Without its last line, a file that was cut off would be taken for a whole one. */}}
  {{ $file }}: |
    {{- if kindIs "slice" $content }}
    {{- join "\n" $content | nindent 4 }}
    {{- else }}
    {{- toYaml $content | nindent 4 }}
    {{- end }}
    ...
  {{- end }}
{{- end }}
{{- end -}}

{{/*
Who reaches the pods with `podLabels`: peers the ports of Scute, `metricsNamespace` its metrics. Ingress alone: with Egress, DNS and the agent would
be cut. What it does not keep out is in docs/kubernetes.md.
*/}}
{{- define "scute-sidecar.networkPolicy" -}}
{{- if not .podLabels -}}
  {{- fail (printf "%s: scute-sidecar.networkPolicy needs podLabels, the labels of the pods: without, it would be for every pod of the namespace" .name) -}}
{{- end -}}
{{- $s := include "scute-sidecar.settings" . | fromYaml -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .name | quote }}
  {{- with .labels }}
  labels: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  podSelector:
    matchLabels: {{- toYaml .podLabels | nindent 6 }}
  policyTypes: [Ingress]
  {{- $ports := (include "scute-sidecar.ports" $s | fromYaml).ports }}
  {{- if or $ports .metricsNamespace }}
  ingress:
    {{- with $ports }}
    - ports:
        {{- range . }}
        - { port: {{ .port }}, protocol: TCP }
        {{- end }}
    {{- end }}
    {{- with .metricsNamespace }}
    - from:
        - namespaceSelector:
            matchLabels: { kubernetes.io/metadata.name: {{ . | quote }} }
      ports:
        - { port: {{ $s.metricsPort }}, protocol: TCP }
    {{- end }}
  {{- end }}
{{- end -}}

{{/* {template, config}: they belong together, for the probes of the one are questions of the other. */}}
{{- define "scute-sidecar.plan" -}}
{{- $s := include "scute-sidecar.settings" . | fromYaml -}}
{{- $who := .name -}}
{{- $template := deepCopy (.template | default dict) -}}
{{- $pod := get $template "spec" | default dict -}}
{{- $_ := set $template "spec" $pod -}}
{{- if not (or $pod.containers .gateway) -}}
  {{- fail (printf "%s: the template has no spec.containers: give it the pod template of the application, {metadata, spec}, as a Deployment has it" $who) -}}
{{- end -}}
{{- include "scute-sidecar.checkPod" (dict "who" $who "pod" $pod "settings" $s) -}}

{{- $sleep := int $s.preStopSleep -}}
{{- if and (gt $sleep 0) (semverCompare "<1.30.0-0" .root.Capabilities.KubeVersion.Version) -}}
  {{- fail (printf "%s: Kubernetes %s takes preStop.sleep only behind a feature gate (PodLifecycleSleepAction): set scute-sidecar.preStopSleep to 0, and let the application wait by a preStop of its own" $who .root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $longest := ternary $sleep 0 (.gateway | default false) -}}
{{- $probes := list -}}
{{- range $container := $pod.containers }}
  {{- $stop := dig "lifecycle" "preStop" (dict) $container -}}
  {{- if and (gt $sleep 0) (not $stop) (not $.gateway) -}}
    {{- $stop = dict "sleep" (dict "seconds" $sleep) -}}
    {{- $_ := set $container "lifecycle" (merge (dict "preStop" $stop) (get $container "lifecycle" | default dict)) -}}
  {{- end -}}
  {{- $longest = max $longest (int (dig "sleep" "seconds" $sleep $stop)) -}}
{{- end }}
{{- if eq $s.probesThrough "scute" -}}
  {{- /* Those of initContainers that have none are not asked for any. */}}
  {{- range $container := concat (get $pod "initContainers" | default list) ($pod.containers | default list) }}
    {{- $asked := include "scute-sidecar.throughScute" (dict "who" $who "container" $container "port" $s.metricsPort) | fromYaml -}}
    {{- range $kind, $probe := $asked.probes }}{{- $_ := set $container $kind $probe -}}{{- end }}
    {{- $probes = concat $probes $asked.questions -}}
  {{- end }}
{{- end -}}
{{- if gt (len $probes) 16 -}}
  {{- fail (printf "%s: its containers have %d probes, and Scute asks for 16 at most" $who (len $probes)) -}}
{{- end -}}

{{- $drain := int (include "scute-sidecar.seconds" (get $s.config "drainTimeout" | default "30s")) -}}
{{- $need := add $longest $drain -}}
{{- if not (hasKey $pod "terminationGracePeriodSeconds") -}}
  {{- $_ := set $pod "terminationGracePeriodSeconds" (add $need 10) -}}
{{- else if le (int64 $pod.terminationGracePeriodSeconds) $need -}}
  {{- fail (printf "%s: terminationGracePeriodSeconds is %d, and stopping takes up to %d s: preStop sleeps for %d s, and Scute then drains for %d s (drainTimeout). Make it longer than that, or leave it out" $who (int64 $pod.terminationGracePeriodSeconds) $need $longest $drain) -}}
{{- end -}}
{{- if not (hasKey $pod "automountServiceAccountToken") -}}
  {{- $_ := set $pod "automountServiceAccountToken" false -}}
{{- end -}}
{{- $container := include "scute-sidecar.container" . | fromYaml -}}
{{- if .gateway -}}
  {{- /* Nobody ends before it, whose end it could wait for. */}}
  {{- if gt $sleep 0 }}{{- $_ := set $container "lifecycle" (dict "preStop" (dict "sleep" (dict "seconds" $sleep))) }}{{- end -}}
  {{- $_ := set $pod "containers" (list $container) -}}
{{- else -}}
  {{- $_ := set $pod "initContainers" (prepend (get $pod "initContainers" | default list) $container) -}}
{{- end -}}
{{- $volumes := include "scute-sidecar.volumes" . | fromYamlArray -}}
{{- $_ := set $pod "volumes" (concat (get $pod "volumes" | default list) $volumes) -}}

{{- $config := deepCopy $s.config -}}
{{- $_ := set $config "workloadApi" (dict "endpoint" (printf "unix:///spiffe-workload-api/%s" $s.csi.socket)) -}}
{{- $metrics := dict "listen" (printf "[::]:%d" (int $s.metricsPort)) -}}
{{- if $probes }}{{- $_ := set $metrics "probes" $probes -}}{{- end }}
{{- $_ := set $config "metrics" $metrics -}}

{{- if $s.checksum -}}
  {{- $metadata := get $template "metadata" | default dict -}}
  {{- $sum := printf "%s%s" (toYaml $config) (toYaml $s.policies) | sha256sum -}}
  {{- $_ := set $metadata "annotations" (merge (dict "checksum/scute" $sum) (get $metadata "annotations" | default dict)) -}}
  {{- $_ := set $template "metadata" $metadata -}}
{{- end -}}
{{- toYaml (dict "template" $template "config" $config) -}}
{{- end -}}

{{/* What of a pod would lead around Scute, or give its identity to others. */}}
{{- define "scute-sidecar.checkPod" -}}
{{- $who := .who -}}
{{- $s := .settings -}}
{{- range $key, $why := dict
  "hostNetwork" "the loopback of the node is that of every process on it, and the application would be reached around Scute"
  "hostPID" "processes of the node could be seen and traced"
  "shareProcessNamespace" "the application could look into the process of Scute, private key and all" }}
  {{- if get $.pod $key -}}
    {{- fail (printf "%s: %s is set, and %s: leave it out" $who $key $why) -}}
  {{- end -}}
{{- end }}
{{- range $volume := .pod.volumes }}
  {{- if eq (dig "csi" "driver" "" $volume) $s.csi.driver -}}
    {{- fail (printf "%s: the volume %s is one of %s: what mounts it can ask for the identity, private key and all. Scute mounts one of its own; leave this out" $who $volume.name $s.csi.driver) -}}
  {{- end -}}
  {{- if has $volume.name (list "scute-workload-api" "scute-config" "scute-policy" "scute-run" "scute-no-token") -}}
    {{- fail (printf "%s: the volume %s has a name that Scute uses: give it another" $who $volume.name) -}}
  {{- end -}}
{{- end }}
{{- range $container := concat (get .pod "initContainers" | default list) (.pod.containers | default list) }}
  {{- if eq $container.name "scute" -}}
    {{- fail (printf "%s: a container of the application is called scute, which is the name that the identity is given to: give it another" $who) -}}
  {{- end -}}
  {{- range $mount := $container.volumeMounts }}
    {{- if has $mount.name (list "scute-workload-api" "scute-config" "scute-policy" "scute-no-token") -}}
      {{- fail (printf "%s: the container %s mounts %s, which is for Scute alone: leave it out" $who $container.name $mount.name) -}}
    {{- end -}}
  {{- end }}
  {{- $user := dig "securityContext" "runAsUser" (dig "securityContext" "runAsUser" nil $.pod) $container -}}
  {{- if and $s.runAsUser $user (eq (int64 $user) (int64 $s.runAsUser)) -}}
    {{- fail (printf "%s: the container %s runs as user %d, as Scute does, whose files and sockets it could open: set scute-sidecar.runAsUser to another" $who $container.name (int64 $user)) -}}
  {{- end -}}
{{- end }}
{{- end -}}

{{/* The probes of a container with Scute in between, and what Scute is to ask: {probes, questions}. */}}
{{- define "scute-sidecar.throughScute" -}}
{{- $c := .container -}}
{{- $probes := dict -}}
{{- $questions := list -}}
{{- range $kind := list "startupProbe" "readinessProbe" "livenessProbe" }}
  {{- $probe := get $c $kind | default dict -}}
  {{- $place := printf "%s: %s of the container %s" $.who $kind $c.name -}}
  {{- range $how := list "tcpSocket" "grpc" }}
    {{- if hasKey $probe $how -}}
      {{- fail (printf "%s is a %s, which the kubelet would send to the address of the pod, where the application does not listen: make it an httpGet, which goes through Scute, or an exec; or set scute-sidecar.probesThrough to kubelet" $place $how) -}}
    {{- end -}}
  {{- end }}
  {{- with $probe.httpGet }}
    {{- range $key := list "host" "httpHeaders" }}
      {{- if hasKey $probe.httpGet $key -}}
        {{- fail (printf "%s has %s, which Scute does not pass on: leave it out, or set scute-sidecar.probesThrough to kubelet" $place $key) -}}
      {{- end -}}
    {{- end }}
    {{- if ne (.scheme | default "HTTP") "HTTP" -}}
      {{- fail (printf "%s is %s, and Scute asks in plain HTTP: leave scheme out, or set scute-sidecar.probesThrough to kubelet" $place .scheme) -}}
    {{- end -}}
    {{- if gt (int ($probe.timeoutSeconds | default 1)) 1 -}}
      {{- fail (printf "%s has timeoutSeconds %d, and Scute waits for one second: leave it out, or set scute-sidecar.probesThrough to kubelet" $place (int $probe.timeoutSeconds)) -}}
    {{- end -}}
    {{- $port := .port -}}
    {{- if not (regexMatch "^[0-9]+$" (toString $port)) -}}
      {{- range $c.ports }}{{- if eq .name (toString $port) }}{{- $port = .containerPort -}}{{- end }}{{- end }}
      {{- if not (regexMatch "^[0-9]+$" (toString $port)) -}}
        {{- fail (printf "%s names the port %q, and the container has none of that name: give it under ports, or write its number" $place (toString $port)) -}}
      {{- end -}}
    {{- end -}}
    {{- $path := printf "/app/%s/%s" $c.name (trimSuffix "Probe" $kind) -}}
    {{- $questions = append $questions (dict "path" $path "to" (printf "127.0.0.1:%d" (int $port)) "target" (.path | default "/")) -}}
    {{- $get := dict "path" $path "port" (int $.port) "scheme" "HTTP" -}}
    {{- $_ := set $probes $kind (mergeOverwrite (deepCopy $probe) (dict "httpGet" nil)) -}}
    {{- $_ := set (get $probes $kind) "httpGet" $get -}}
    {{- /* That of Scute, and some for the way. */}}
    {{- $_ := set (get $probes $kind) "timeoutSeconds" 2 -}}
  {{- end }}
{{- end }}
{{- toYaml (dict "probes" $probes "questions" $questions) -}}
{{- end -}}
