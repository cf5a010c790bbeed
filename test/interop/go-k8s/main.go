// What Kubernetes makes of our manifests, by its own libraries: strict decoding, Pod Security, the policies of admission, and Kustomize.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	admissionregistration "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/environment"
	security "k8s.io/pod-security-admission/api"
	securitypolicy "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var scheme = runtime.NewScheme()

func init() {
	for _, add := range []func(*runtime.Scheme) error{
		core.AddToScheme, apps.AddToScheme, batch.AddToScheme, networking.AddToScheme, rbac.AddToScheme, admissionregistration.AddToScheme, monitoring.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
}

func main() {
	var answer any
	var err error
	switch command := os.Args[1]; command {
	case "decode":
		answer, err = decodeAll(os.Stdin)
	case "admit":
		answer, err = admitAll(os.Stdin)
	case "system-calls":
		answer = tryAll()
	case "kustomize":
		err = kustomize(os.Args[2])
		if err == nil {
			return
		}
	default:
		err = fmt.Errorf("there is no command %q: decode, admit, system-calls or kustomize DIRECTORY", command)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type decoded struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Why the API server would not take it; empty if it would.
	Problem string `json:"problem"`
	// What Pod Security says of its pods at the level "restricted"; empty if it lets them in.
	Restricted string `json:"restricted"`
	// Of a kind that none of the libraries here knows.
	Unknown bool `json:"unknown"`
}

func documents(in io.Reader) ([][]byte, error) {
	reader := yaml.NewYAMLReader(bufio.NewReader(in))
	var all [][]byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(document)) > 0 {
			all = append(all, document)
		}
	}
}

func decodeAll(in io.Reader) ([]decoded, error) {
	texts, err := documents(in)
	if err != nil {
		return nil, err
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	evaluator, err := securitypolicy.NewEvaluator(securitypolicy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	all := []decoded{}
	for _, text := range texts {
		var header meta.PartialObjectMetadata
		if err := yaml.Unmarshal(text, &header); err != nil {
			return nil, err
		}
		if header.Kind == "" {
			// A comment alone.
			continue
		}
		found := decoded{Kind: header.Kind, Name: header.Name, Unknown: !scheme.Recognizes(header.GroupVersionKind())}
		if !found.Unknown {
			object, _, err := decoder.Decode(text, nil, nil)
			if err != nil {
				found.Problem = err.Error()
			} else if template := podOf(object); template != nil {
				restricted := security.LevelVersion{Level: security.LevelRestricted, Version: security.LatestVersion()}
				for _, result := range evaluator.EvaluatePod(restricted, &template.ObjectMeta, &template.Spec) {
					if !result.Allowed {
						found.Restricted += fmt.Sprintf("%s (%s); ", result.ForbiddenReason, result.ForbiddenDetail)
					}
				}
			}
		}
		all = append(all, found)
	}
	return all, nil
}

func podOf(object runtime.Object) *core.PodTemplateSpec {
	switch each := object.(type) {
	case *apps.Deployment:
		return &each.Spec.Template
	case *apps.StatefulSet:
		return &each.Spec.Template
	case *apps.DaemonSet:
		return &each.Spec.Template
	case *batch.Job:
		return &each.Spec.Template
	case *batch.CronJob:
		return &each.Spec.JobTemplate.Spec.Template
	case *core.Pod:
		return &core.PodTemplateSpec{ObjectMeta: each.ObjectMeta, Spec: each.Spec}
	}
	return nil
}

func kustomize(directory string) error {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), directory)
	if err != nil {
		return err
	}
	text, err := built.AsYaml()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

type asked struct {
	// Manifests with the policies.
	Policies string `json:"policies"`
	Cases    []struct {
		NamespaceLabels map[string]string `json:"namespaceLabels"`
		Operation       string            `json:"operation"`
		Subresource     string            `json:"subresource"`
		Pod             *core.Pod         `json:"pod"`
		OldPod          *core.Pod         `json:"oldPod"`
		// What is written instead of a pod.
		ConfigMap *core.ConfigMap `json:"configMap"`
		// The verbs that who asks has for it, beside those of the request itself.
		Verbs []string `json:"verbs"`
		// What CONNECT carries instead of a pod, which is only named then.
		Options json.RawMessage `json:"options"`
	} `json:"cases"`
}

// By subresource, what the API server makes of the query of CONNECT (New of its storage).
var optionsOf = map[string]func() runtime.Object{
	"exec":        func() runtime.Object { return &core.PodExecOptions{} },
	"attach":      func() runtime.Object { return &core.PodAttachOptions{} },
	"portforward": func() runtime.Object { return &core.PodPortForwardOptions{} },
}

type admitted struct {
	// After the mutating policies.
	Pod *core.Pod `json:"pod"`
	// What the validating policies say against it.
	Refused []string `json:"refused"`
	// An expression that does not compile or fails, which refuses, too.
	Broken string `json:"broken"`
}

func admitAll(in io.Reader) ([]admitted, error) {
	var question asked
	decoder := json.NewDecoder(in)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&question); err != nil {
		return nil, err
	}
	texts, err := documents(bytes.NewReader([]byte(question.Policies)))
	if err != nil {
		return nil, err
	}
	manifests := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	var mutating []*admissionregistration.MutatingAdmissionPolicy
	var judging []*admissionregistration.ValidatingAdmissionPolicy
	for _, text := range texts {
		object, _, err := manifests.Decode(text, nil, nil)
		if err != nil {
			return nil, err
		}
		switch policy := object.(type) {
		case *admissionregistration.MutatingAdmissionPolicy:
			mutating = append(mutating, policy)
		case *admissionregistration.ValidatingAdmissionPolicy:
			judging = append(judging, policy)
		}
	}
	all := []admitted{}
	for _, each := range question.Cases {
		var connected runtime.Object
		if admission.Operation(each.Operation) == admission.Connect {
			connected = optionsOf[each.Subresource]()
			decoder := json.NewDecoder(bytes.NewReader(each.Options))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(connected); err != nil {
				return nil, err
			}
		}
		attributes := func(pod *core.Pod) *admission.VersionedAttributes {
			if each.ConfigMap != nil {
				kind := core.SchemeGroupVersion.WithKind("ConfigMap")
				each.ConfigMap.GetObjectKind().SetGroupVersionKind(kind)
				record := admission.NewAttributesRecord(each.ConfigMap, nil, kind, pod.Namespace, each.ConfigMap.Name,
					core.SchemeGroupVersion.WithResource("configmaps"), "", admission.Operation(each.Operation), nil, false, nil)
				return &admission.VersionedAttributes{Attributes: record, VersionedKind: kind, VersionedObject: admission.NewLazyObject(each.ConfigMap),
					VersionedOldObject: admission.NewLazyObject(nil)}
			}
			kind := core.SchemeGroupVersion.WithKind("Pod")
			pod.GetObjectKind().SetGroupVersionKind(kind)
			if connected != nil {
				// As ConnectResource of k8s.io/apiserver.
				kinds, _, err := scheme.ObjectKinds(connected)
				if err != nil {
					panic(err)
				}
				record := admission.NewAttributesRecord(connected, nil, kinds[0], pod.Namespace, pod.Name, core.SchemeGroupVersion.WithResource("pods"),
					each.Subresource, admission.Connect, nil, false, nil)
				return &admission.VersionedAttributes{Attributes: record, VersionedKind: kinds[0], VersionedObject: admission.NewLazyObject(connected),
					VersionedOldObject: admission.NewLazyObject(nil)}
			}
			var old runtime.Object
			lazyOld := admission.NewLazyObject(nil)
			if each.OldPod != nil {
				each.OldPod.GetObjectKind().SetGroupVersionKind(kind)
				old = each.OldPod
				lazyOld = admission.NewLazyObject(old)
			}
			record := admission.NewAttributesRecord(pod, old, kind, pod.Namespace, pod.Name, core.SchemeGroupVersion.WithResource("pods"),
				each.Subresource, admission.Operation(each.Operation), nil, false, nil)
			return &admission.VersionedAttributes{Attributes: record, VersionedKind: kind, VersionedObject: admission.NewLazyObject(pod), VersionedOldObject: lazyOld}
		}
		namespace := &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: each.Pod.Namespace, Labels: each.NamespaceLabels}}
		result := admitted{Pod: each.Pod, Refused: []string{}}
		resource := "pods"
		if each.ConfigMap != nil {
			resource = "configmaps"
		}
		if each.Subresource != "" {
			resource += "/" + each.Subresource
		}
		for _, policy := range mutating {
			if !isFor(policy.Spec.MatchConstraints, each.NamespaceLabels, each.Operation, resource) {
				continue
			}
			next, err := mutate(policy, attributes(result.Pod), namespace)
			if err != nil {
				result.Broken = err.Error()
				break
			}
			result.Pod = next
		}
		for _, policy := range judging {
			if !isFor(policy.Spec.MatchConstraints, each.NamespaceLabels, each.Operation, resource) {
				continue
			}
			validated := validatorOf(policy).Validate(context.Background(), core.SchemeGroupVersion.WithResource("pods"), attributes(result.Pod), nil, namespace,
				celconfig.RuntimeCELCostBudget, granted{each.Verbs, each.Pod.Namespace, each.ConfigMap})
			for _, decision := range validated.Decisions {
				if decision.Evaluation == validating.EvalError {
					result.Broken = decision.Message
				}
				if decision.Action == validating.ActionDeny {
					result.Refused = append(result.Refused, decision.Message)
				}
			}
		}
		all = append(all, result)
	}
	return all, nil
}

func isFor(match *admissionregistration.MatchResources, namespace map[string]string, operation string, resource string) bool {
	selector, err := meta.LabelSelectorAsSelector(match.NamespaceSelector)
	if err != nil {
		panic(err)
	}
	return selector.Matches(labels.Set(namespace)) && slices.ContainsFunc(match.ResourceRules, func(rule admissionregistration.NamedRuleWithOperations) bool {
		return slices.Contains(rule.Operations, admissionregistration.OperationType(operation)) && slices.Contains(rule.Resources, resource)
	})
}

// As compilePolicy of k8s.io/apiserver's mutating and validating plugins, which they keep to themselves.

func compilerOf(variables []admissionregistration.Variable, options plugincel.OptionalVariableDeclarations) *plugincel.CompositedCompiler {
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		panic(err)
	}
	named := []plugincel.NamedExpressionAccessor{}
	for _, variable := range variables {
		named = append(named, &validating.Variable{Name: variable.Name, Expression: variable.Expression})
	}
	compiler.CompileAndStoreVariables(named, options, environment.StoredExpressions)
	return compiler
}

func matcherOf(compiler *plugincel.CompositedCompiler, conditions []admissionregistration.MatchCondition, options plugincel.OptionalVariableDeclarations,
	failure *admissionregistration.FailurePolicyType, name string) matchconditions.Matcher {
	accessors := []plugincel.ExpressionAccessor{}
	for index := range conditions {
		accessors = append(accessors, (*matchconditions.MatchCondition)(&conditions[index]))
	}
	return matchconditions.NewMatcher(compiler.CompileCondition(accessors, options, environment.StoredExpressions), failure, "policy", "validate", name)
}

func mutate(policy *admissionregistration.MutatingAdmissionPolicy, attributes *admission.VersionedAttributes, namespace *core.Namespace) (*core.Pod, error) {
	options := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	compiler := compilerOf(policy.Spec.Variables, options)
	ctx := compiler.CreateContext(context.Background())
	matched := matcherOf(compiler, policy.Spec.MatchConditions, options, policy.Spec.FailurePolicy, policy.Name).Match(ctx, attributes, nil, nobody{})
	if matched.Error != nil || !matched.Matches {
		pod, _ := attributes.VersionedObject.Object().(*core.Pod)
		return pod, matched.Error
	}
	options.HasPatchTypes = true
	for _, mutation := range policy.Spec.Mutations {
		patcher := patch.NewJSONPatcher(compiler.CompileMutatingEvaluator(&patch.JSONPatchCondition{Expression: mutation.JSONPatch.Expression}, options, environment.StoredExpressions))
		next, err := patcher.Patch(ctx, patch.Request{
			MatchedResource:     schema.GroupVersionResource(core.SchemeGroupVersion.WithResource("pods")),
			VersionedAttributes: attributes,
			ObjectInterfaces:    admission.NewObjectInterfacesFromScheme(scheme),
			OptionalVariables:   plugincel.OptionalVariableBindings{Authorizer: nobody{}},
			Namespace:           namespace,
		}, celconfig.RuntimeCELCostBudget)
		if err != nil {
			return nil, err
		}
		attributes.UpdateObject(next)
	}
	pod, _ := attributes.VersionedObject.Object().(*core.Pod)
	return pod, nil
}

func validatorOf(policy *admissionregistration.ValidatingAdmissionPolicy) validating.Validator {
	options := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	compiler := compilerOf(policy.Spec.Variables, options)
	conditions := []plugincel.ExpressionAccessor{}
	for _, validation := range policy.Spec.Validations {
		conditions = append(conditions, &validating.ValidationCondition{Expression: validation.Expression, Message: validation.Message, Reason: validation.Reason})
	}
	return validating.NewValidator(
		compiler.CompileCondition(conditions, options, environment.StoredExpressions),
		matcherOf(compiler, policy.Spec.MatchConditions, options, policy.Spec.FailurePolicy, policy.Name),
		compiler.CompileCondition(nil, options, environment.StoredExpressions),
		compiler.CompileCondition(make([]plugincel.ExpressionAccessor, len(conditions)), options, environment.StoredExpressions),
		policy.Spec.FailurePolicy,
		nil,
	)
}

type nobody struct{}

func (nobody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionNoOpinion, "", nil
}

// Of one ConfigMap, and nothing else.
type granted struct {
	verbs     []string
	namespace string
	configMap *core.ConfigMap
}

func (g granted) Authorize(_ context.Context, asked authorizer.Attributes) (authorizer.Decision, string, error) {
	if g.configMap != nil && asked.GetResource() == "configmaps" && asked.GetAPIGroup() == "" && asked.GetSubresource() == "" &&
		asked.GetNamespace() == g.namespace && asked.GetName() == g.configMap.Name && slices.Contains(g.verbs, asked.GetVerb()) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}
