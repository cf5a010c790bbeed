{{/* A value as a literal of CEL, whose maps and lists hold values of one type, unless each is dyn. */}}
{{- define "scute.cel" -}}
{{- if kindIs "map" . -}}
  {{- $parts := list -}}
  {{- range $key, $value := . }}{{- $parts = append $parts (printf "%s: dyn(%s)" (toJson $key) (include "scute.cel" $value)) -}}{{- end -}}
  {{- printf "{%s}" (join ", " $parts) -}}
{{- else if kindIs "slice" . -}}
  {{- $parts := list -}}
  {{- range . }}{{- $parts = append $parts (printf "dyn(%s)" (include "scute.cel" .)) -}}{{- end -}}
  {{- printf "[%s]" (join ", " $parts) -}}
{{- else if kindIs "float64" . -}}
  {{- int64 . -}}
{{- else -}}
  {{- toJson . -}}
{{- end -}}
{{- end -}}
