package infra

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Params say which stack a template becomes.
type Params struct {
	Values    map[string]string // of the template's parameters; what is left out has its default
	Account   string            // 12 digits
	Region    string
	Partition string // "" means aws
}

// Resource is one thing that the stack makes.
type Resource struct {
	ID, Type   string
	Keep       bool           // it outlives the stack
	Properties map[string]any // as JSON has them, int64 for integers
	DependsOn  []string       // ids that it refers to, sorted

	ref, arn string // what Ref and GetAtt Arn say of it, where kinds knows
}

// Output is one line of what a stack says of itself when it is made.
type Output struct{ Name, Description, Value string }

// Resolve says what CloudFormation makes of the template. What is made under other
// parameters only is not in the Stack.
func Resolve(p Params) (*Stack, error) {
	doc, err := ownDocument()
	if err != nil {
		return nil, err
	}
	return resolve(doc, p)
}

func resolve(doc *document, p Params) (*Stack, error) {
	if p.Partition == "" {
		p.Partition = "aws"
	}
	if !regexp.MustCompile(`^[0-9]{12}$`).MatchString(p.Account) || p.Region == "" {
		return nil, fmt.Errorf("account %q in region %q: 12 digits and a region are needed", p.Account, p.Region)
	}
	r := &resolver{doc: doc, params: p, values: map[string]any{}, used: map[string]bool{}}
	if err := r.bind(); err != nil {
		return nil, err
	}
	s := &Stack{}
	for _, id := range doc.order {
		res, made, err := r.resource(id)
		if err != nil {
			return nil, fmt.Errorf("resource %s: %w", id, err)
		}
		if made {
			s.Resources = append(s.Resources, res)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(doc.outputs)) {
		out, made, err := r.output(name)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
		if made {
			s.Outputs = append(s.Outputs, out)
		}
	}
	return s, s.decode()
}

type resolver struct {
	doc    *document
	params Params
	values map[string]any  // of parameters
	used   map[string]bool // resources that the one at hand refers to
	depth  int
}

// bind checks the parameters and gives them their values.
func (r *resolver) bind() error {
	for name := range r.params.Values {
		if _, ok := r.doc.parameters[name]; !ok {
			return fmt.Errorf("the template has no parameter %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.doc.parameters)) {
		spec, ok := r.doc.parameters[name].(map[string]any)
		if !ok {
			return fmt.Errorf("parameter %s is no mapping", name)
		}
		text, given := r.params.Values[name]
		if !given {
			def, ok := spec["Default"]
			if !ok {
				return fmt.Errorf("parameter %s has no default: give it a value", name)
			}
			text = plain(def)
		}
		v, err := bindOne(spec, text)
		if err != nil {
			return fmt.Errorf("parameter %s = %q: %w", name, text, err)
		}
		r.values[name] = v
	}
	return nil
}

func bindOne(spec map[string]any, text string) (any, error) {
	var v any = text
	var n float64
	switch spec["Type"] {
	case "String":
	case "Number":
		var err error
		if n, err = strconv.ParseFloat(text, 64); err != nil {
			return nil, fmt.Errorf("not a number")
		}
		if v = n; n == float64(int64(n)) {
			v = int64(n)
		}
	default:
		return nil, fmt.Errorf("type %v is not understood", spec["Type"])
	}
	for rule, want := range spec {
		ok := true
		switch rule {
		case "Type", "Default", "Description", "ConstraintDescription":
		case "AllowedPattern":
			re, err := regexp.Compile("^(?:" + plain(want) + ")$")
			if err != nil {
				return nil, err
			}
			ok = re.MatchString(text)
		case "AllowedValues":
			list, _ := want.([]any)
			ok = slices.ContainsFunc(list, func(w any) bool { return plain(w) == plain(v) })
		case "MinValue", "MaxValue":
			limit, err := strconv.ParseFloat(plain(want), 64)
			if err != nil {
				return nil, err
			}
			ok = rule == "MinValue" && n >= limit || rule == "MaxValue" && n <= limit
		default:
			return nil, fmt.Errorf("the rule %s is not understood", rule)
		}
		if !ok {
			if why, has := spec["ConstraintDescription"]; has {
				want = why
			}
			return nil, fmt.Errorf("%s: %v", rule, want)
		}
	}
	return v, nil
}

// plain is a scalar as CloudFormation writes it into text.
func plain(v any) string {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

func (r *resolver) condition(name string) (bool, error) {
	expr, ok := r.doc.conditions[name]
	if !ok {
		return false, fmt.Errorf("there is no condition %s", name)
	}
	v, err := r.eval(expr)
	if err != nil {
		return false, fmt.Errorf("condition %s: %w", name, err)
	}
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("condition %s is %v, neither true nor false", name, v)
	}
	return b, nil
}

// made says whether something with a Condition is there at all.
func (r *resolver) made(of map[string]any) (bool, error) {
	c, ok := of["Condition"]
	if !ok {
		return true, nil
	}
	return r.condition(plain(c))
}

func (r *resolver) resource(id string) (Resource, bool, error) {
	spec, ok := r.doc.resources[id].(map[string]any)
	if !ok {
		return Resource{}, false, fmt.Errorf("it is no mapping")
	}
	for k := range spec {
		if !slices.Contains([]string{"Type", "Condition", "Properties", "DeletionPolicy", "UpdateReplacePolicy"}, k) {
			return Resource{}, false, fmt.Errorf("%s is not understood", k)
		}
	}
	made, err := r.made(spec)
	if err != nil || !made {
		return Resource{}, false, err
	}
	clear(r.used)
	v, err := r.eval(spec["Properties"])
	if err != nil {
		return Resource{}, false, err
	}
	props, ok := v.(map[string]any)
	if !ok {
		return Resource{}, false, fmt.Errorf("it has no properties")
	}
	out := Resource{
		ID: id, Type: plain(spec["Type"]), Keep: spec["DeletionPolicy"] == "Retain" || spec["DeletionPolicy"] == "RetainExceptOnCreate",
		Properties: props, DependsOn: slices.Sorted(maps.Keys(r.used)),
	}
	if kind, ok := kinds[out.Type]; ok {
		name := plain(props[kind.name])
		out.ref, out.arn = r.spell(kind.ref, name), r.spell(kind.arn, name)
	}
	return out, true, nil
}

func (r *resolver) output(name string) (Output, bool, error) {
	spec, ok := r.doc.outputs[name].(map[string]any)
	if !ok {
		return Output{}, false, fmt.Errorf("it is no mapping")
	}
	made, err := r.made(spec)
	if err != nil || !made {
		return Output{}, false, err
	}
	v, err := r.eval(spec["Value"])
	if err != nil {
		return Output{}, false, err
	}
	text, ok := v.(string)
	if !ok {
		return Output{}, false, fmt.Errorf("its value is no text")
	}
	return Output{name, plain(spec["Description"]), text}, true, nil
}

// noValue is what AWS::NoValue comes to: the key or element is left out.
type noValue struct{}

const maxDepth = 32

// eval replaces what is to be replaced in v.
func (r *resolver) eval(v any) (any, error) {
	if r.depth++; r.depth > maxDepth {
		return nil, fmt.Errorf("deeper than %d levels, or in a circle", maxDepth)
	}
	defer func() { r.depth-- }()
	switch v := v.(type) {
	case []any:
		return r.list(v)
	case map[string]any:
		for name, arg := range v {
			if name == "Ref" || strings.HasPrefix(name, "Fn::") {
				if len(v) != 1 {
					return nil, fmt.Errorf("%s does not stand alone", name)
				}
				out, err := r.call(name, arg)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				return out, nil
			}
		}
		out := make(map[string]any, len(v))
		for name, e := range v {
			x, err := r.eval(e)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if _, none := x.(noValue); !none {
				out[name] = x
			}
		}
		return out, nil
	}
	return v, nil
}

func (r *resolver) list(v []any) ([]any, error) {
	out := make([]any, 0, len(v))
	for _, e := range v {
		x, err := r.eval(e)
		if err != nil {
			return nil, err
		}
		if _, none := x.(noValue); !none {
			out = append(out, x)
		}
	}
	return out, nil
}

// call applies an intrinsic.
func (r *resolver) call(name string, arg any) (any, error) {
	switch name {
	case "Ref":
		return r.ref(plain(arg))
	case "Fn::GetAtt":
		if l, ok := arg.([]any); ok && len(l) == 2 {
			return r.identity(plain(l[0]), plain(l[1]))
		}
		return nil, fmt.Errorf("it takes a resource and an attribute")
	case "Fn::Sub":
		return r.sub(arg)
	case "Fn::If": // only the branch that is taken may refer to what is not made
		l, ok := arg.([]any)
		if !ok || len(l) != 3 {
			return nil, fmt.Errorf("it takes a condition and two values")
		}
		yes, err := r.condition(plain(l[0]))
		if err != nil {
			return nil, err
		}
		if yes {
			return r.eval(l[1])
		}
		return r.eval(l[2])
	}
	raw, ok := arg.([]any)
	if !ok {
		return nil, fmt.Errorf("it takes a list")
	}
	args, err := r.list(raw)
	if err != nil {
		return nil, err
	}
	switch {
	case name == "Fn::Join" && len(args) == 2:
		list, ok := args[1].([]any)
		if !ok {
			return nil, fmt.Errorf("it joins a list")
		}
		var parts []string
		for _, e := range list {
			parts = append(parts, plain(e))
		}
		return strings.Join(parts, plain(args[0])), nil
	case name == "Fn::Split" && len(args) == 2:
		var parts []any
		for _, p := range strings.Split(plain(args[1]), plain(args[0])) {
			parts = append(parts, p)
		}
		return parts, nil
	case name == "Fn::Equals" && len(args) == 2:
		return plain(args[0]) == plain(args[1]), nil
	case name == "Fn::Not" && len(args) == 1:
		b, ok := args[0].(bool)
		if !ok {
			return nil, fmt.Errorf("%v is neither true nor false", args[0])
		}
		return !b, nil
	case name == "Fn::FindInMap" && len(args) == 3:
		m, _ := r.doc.mappings[plain(args[0])].(map[string]any)
		row, _ := m[plain(args[1])].(map[string]any)
		v, ok := row[plain(args[2])]
		if !ok {
			return nil, fmt.Errorf("there is no %v", args)
		}
		return v, nil
	}
	return nil, fmt.Errorf("with %d arguments it is not understood", len(args))
}

var subVar = regexp.MustCompile(`\$\{[^}]*\}`)

func (r *resolver) sub(arg any) (any, error) {
	text, own := arg, map[string]any{}
	if l, ok := arg.([]any); ok && len(l) == 2 {
		text = l[0]
		if own, ok = l[1].(map[string]any); !ok {
			return nil, fmt.Errorf("its second argument is no mapping")
		}
	}
	s, ok := text.(string)
	if !ok {
		return nil, fmt.Errorf("it takes a text")
	}
	var failed error
	out := subVar.ReplaceAllStringFunc(s, func(m string) string {
		name := m[2 : len(m)-1]
		var v any
		var err error
		switch resource, attribute, dot := strings.Cut(name, "."); {
		case own[name] != nil:
			v, err = r.eval(own[name])
		case dot:
			v, err = r.identity(resource, attribute)
		default:
			v, err = r.ref(name)
		}
		switch v.(type) {
		case string, int64, float64:
		default:
			if err == nil {
				err = fmt.Errorf("%s is no text", m)
			}
		}
		if err != nil && failed == nil {
			failed = err
		}
		return plain(v)
	})
	return out, failed
}

func (r *resolver) ref(name string) (any, error) {
	switch name {
	case "AWS::AccountId":
		return r.params.Account, nil
	case "AWS::Region":
		return r.params.Region, nil
	case "AWS::Partition":
		return r.params.Partition, nil
	case "AWS::URLSuffix":
		return r.urlSuffix(), nil
	case "AWS::NoValue":
		return noValue{}, nil
	}
	if v, ok := r.values[name]; ok {
		return v, nil
	}
	return r.identity(name, "")
}

func (r *resolver) urlSuffix() string {
	if r.params.Partition == "aws-cn" {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}

// kinds say what Ref and GetAtt answer for a resource: which of its properties is its
// name, what Ref is made of that, and its ARN. %N is the name, %P partition, %R region,
// %A account, %U the URL suffix.
var kinds = map[string]struct{ name, ref, arn string }{
	"AWS::S3::Bucket":         {"BucketName", "%N", "arn:%P:s3:::%N"},
	"AWS::DynamoDB::Table":    {"TableName", "%N", "arn:%P:dynamodb:%R:%A:table/%N"},
	"AWS::SQS::Queue":         {"QueueName", "https://sqs.%R.%U/%A/%N", "arn:%P:sqs:%R:%A:%N"},
	"AWS::IAM::ManagedPolicy": {"ManagedPolicyName", "arn:%P:iam::%A:policy/%N", "arn:%P:iam::%A:policy/%N"},
	"AWS::IAM::Role":          {"RoleName", "%N", "arn:%P:iam::%A:role/%N"},
	"AWS::Lambda::Function":   {"FunctionName", "%N", "arn:%P:lambda:%R:%A:function:%N"},
	"AWS::Logs::LogGroup":     {"LogGroupName", "%N", "arn:%P:logs:%R:%A:log-group:%N:*"},
	"AWS::SNS::Topic":         {"TopicName", "arn:%P:sns:%R:%A:%N", "arn:%P:sns:%R:%A:%N"},
}

// identity is what Ref (attribute "") and GetAtt say of a resource.
func (r *resolver) identity(id, attribute string) (any, error) {
	spec, ok := r.doc.resources[id].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("there is no parameter or resource %s", id)
	}
	made, err := r.made(spec)
	if err != nil {
		return nil, err
	}
	if !made {
		return nil, fmt.Errorf("%s is not made under these parameters", id)
	}
	r.used[id] = true
	kind, ok := kinds[plain(spec["Type"])]
	if !ok {
		return nil, fmt.Errorf("what names a %v is not known", spec["Type"])
	}
	form := ""
	switch attribute {
	case "":
		form = kind.ref
	case "Arn":
		form = kind.arn
	case kind.name:
		form = "%N"
	default:
		return nil, fmt.Errorf("%s.%s is not known", id, attribute)
	}
	props, _ := spec["Properties"].(map[string]any)
	name, err := r.eval(props[kind.name])
	if err != nil {
		return nil, err
	}
	if name == nil {
		return nil, fmt.Errorf("%s has no %s, and AWS would make one up", id, kind.name)
	}
	return r.spell(form, plain(name)), nil
}

func (r *resolver) spell(form, name string) string {
	return strings.NewReplacer("%N", name, "%P", r.params.Partition, "%R", r.params.Region, "%A", r.params.Account, "%U", r.urlSuffix()).Replace(form)
}
