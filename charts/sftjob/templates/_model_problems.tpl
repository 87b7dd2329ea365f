{{- /* Rules of the models that no JSON schema can say, as far as the cluster would not say them. Twin of
       sftjob/spec/profile.py and values.py. */ -}}

{{- /* Input: profile (filled). */ -}}
{{- define "sftjob.profileProblems" -}}
{{- range $name, $image := .profile.images -}}
  {{- $last := last (splitList "/" $image) -}}
  {{- if not (or (contains "@sha256:" $image) (and (contains ":" $last) (not (hasSuffix ":latest" $last)))) -}}
    {{- include "sftjob.problem" (list (printf "profile.images.%s" $name)
      "names no fixed version" "add a digest or a tag other than `latest`"
    ) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $value := .profile.env -}}
  {{- if not (regexMatch "^[A-Za-z_][A-Za-z0-9_]*$" $name) -}}
    {{- include "sftjob.problem" (list "profile.env"
      (printf "`%s` is no name of a variable" $name) "use letters, digits and `_`"
    ) -}}
  {{- else if regexMatch "(?i)TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY" $name -}}
    {{- include "sftjob.problem" (list "profile.env"
      (printf "`%s` looks like a secret, and a profile is no place for one" $name) "use a Secret"
    ) -}}
  {{- end -}}
{{- end -}}
{{- with .profile.model_cache -}}
  {{- if eq (hasKey . "claim") (hasKey . "size") -}}
    {{- include "sftjob.rule" (list "profile.model_cache"
      "name a `claim` that exists, or the `size` of one that each run brings"
    ) -}}
  {{- else if and (hasKey . "claim") (hasKey . "storage_class_name") -}}
    {{- include "sftjob.problem" (list "profile.model_cache"
      "`storage_class_name` is for a claim that is made" "this one exists"
    ) -}}
  {{- end -}}
{{- end -}}
{{- with (default dict .profile.queue).topology -}}
  {{- if eq (hasKey . "level") (eq .mode "unconstrained") -}}
    {{- include "sftjob.rule" (list "profile.queue.topology"
      "`required` and `preferred` need a `level`, `unconstrained` has none"
    ) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- /* A ConfigMap, an annotation and the release's record have limits of their own. Input: authored. */ -}}
{{- define "sftjob.lengthProblem" -}}
{{- if gt (len .authored) 131072 -}}
  {{- include "sftjob.problem" (list "spec" "larger than 128 KiB as JSON" "a spec names data, it does not hold them") -}}
{{- end -}}
{{- end -}}

{{- /* Secrets by their shape. What they are is not repeated. Input: spec, profile (both filled). */ -}}
{{- define "sftjob.secretProblems" -}}
{{- $only := "secrets only by reference: `credentials_secret` and `hub_token_secret` of the profile" -}}
{{- range $half, $written := pick . "spec" "profile" -}}
  {{- $text := toRawJson $written -}}
  {{- if regexMatch "hf_[A-Za-z0-9]{20,}" $text -}}
    {{- include "sftjob.problem" (list $half "holds what looks like a Hugging Face token" $only) -}}
  {{- end -}}
  {{- if regexMatch "(^|[^A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}($|[^A-Z0-9])" $text -}}
    {{- include "sftjob.problem" (list $half "holds what looks like an AWS access key" $only) -}}
  {{- end -}}
  {{- if regexMatch "[A-Za-z][A-Za-z0-9+.-]*://[^\\s/?#@\"]+@" $text -}}
    {{- include "sftjob.problem" (list $half
      "holds an address with a user or password in it" "delete what stands before the `@`"
    ) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- /* A line without a repair of its own. Input: list of field and reason. */ -}}
{{- define "sftjob.rule" -}}
{{- printf "\n%s: %s" (index . 0) (index . 1) -}}
{{- end -}}
