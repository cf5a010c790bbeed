{{/*
Each template here takes a dict:
  root      $, of the chart that includes it
  name      of the workload: its ConfigMaps are NAME-scute and NAME-scute-policy
  scute     what this sidecar sets itself, over the values of scute-sidecar
  template  the pod template of the application (metadata, spec), where one is asked for
  labels    of what is made beside the pods, if any
*/}}

{{/* The values of the library with those of this sidecar over them. */}}
{{- define "scute-sidecar.settings" -}}
{{- $defaults := omit (deepCopy (index .root.Values "scute-sidecar" | default dict)) "global" "policies" "config" -}}
{{- $common := index .root.Values "scute-sidecar" | default dict -}}
{{- $own := deepCopy (.scute | default dict) -}}
{{- $settings := mergeOverwrite $defaults $own -}}
{{- range $key := list "config" "policies" }}
  {{- $_ := set $settings $key (mergeOverwrite (deepCopy (get $common $key | default dict)) (get $own $key | default dict)) -}}
{{- end }}
{{- toYaml $settings -}}
{{- end -}}

{{/* An image by its digest, or a sentence. */}}
{{- define "scute-sidecar.image" -}}
{{- $image := .image | default dict -}}
{{- if not $image.repository -}}
  {{- fail "scute-sidecar.image.repository is not set: name the registry and repository that `npm run image` pushed to, such as registry.example/scute" -}}
{{- end -}}
{{- if not (regexMatch "^sha256:[0-9a-f]{64}$" ($image.digest | default "")) -}}
  {{- fail (printf "scute-sidecar.image.digest is %q: set it to the digest of the image, sha256: and 64 hexadecimal digits, as `npm run image` says it; a tag will not do, since it can be moved" ($image.digest | default "")) -}}
{{- end -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- end -}}

{{/* A duration of the configuration, such as 1h30m, in whole seconds, upwards. */}}
{{- define "scute-sidecar.seconds" -}}
{{- $ms := 0 -}}
{{- $unit := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- range regexFindAll "[0-9]+(?:ms|s|m|h|d)" . -1 }}
  {{- $ms = add $ms (mul (regexFind "^[0-9]+" .) (get $unit (regexFind "[a-z]+$" .))) -}}
{{- end }}
{{- div (add $ms 999) 1000 -}}
{{- end -}}

{{/* The port of an address that other machines reach; empty for a Unix socket and for loopback. */}}
{{- define "scute-sidecar.port" -}}
{{- if not (or (hasPrefix "unix:" .) (hasPrefix "127." .) (hasPrefix "localhost:" .) (hasPrefix "[::1]:" .)) -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}
{{- end -}}

{{/* The ports that peers connect to, as a list of {name, port}. */}}
{{- define "scute-sidecar.ports" -}}
{{- $ports := list -}}
{{- range $index, $listener := .config.inbound }}
  {{- with include "scute-sidecar.port" $listener.listen }}
    {{- $ports = append $ports (dict "name" (printf "scute-in-%d" $index) "port" (int .)) -}}
  {{- end }}
{{- end }}
{{- with .config.bundleEndpoint }}
  {{- with include "scute-sidecar.port" .listen }}
    {{- $ports = append $ports (dict "name" "scute-bundle" "port" (int .)) -}}
  {{- end }}
{{- end }}
{{- toYaml (dict "ports" $ports) -}}
{{- end -}}
