package aws

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"hayrick"
	"hayrick/infra"
	"hayrick/manifest"
)

// failed is an error of a request with what the request was about, of which AWS's own
// words say nothing, or not all.
type failed struct {
	input any // the parameters, such as *s3.GetObjectInput
	err   error
}

func (f *failed) Error() string { return f.err.Error() }
func (f *failed) Unwrap() error { return f.err }

// about keeps the parameters of every request that fails with its error.
func about(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("HayrickAbout", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		out, meta, err := next.HandleInitialize(ctx, in)
		if err != nil {
			err = &failed{in.Parameters, err}
		}
		return out, meta, err
	}), middleware.After)
}

// right is one permission in the words of IAM, and what it is wanted for in the words of
// a person: s3:GetObject on s3://lab/in/users.jsonl.
type right struct {
	action, on string
	bucket     string // of S3, else ""
}

func (r right) String() string {
	if r.on == "" {
		return r.action
	}
	return r.action + " on " + r.on
}

// rightsOf says which permissions a request that failed asked for: a copy for two, of
// which AWS does not say which one it refuses. None: it was no request of the SDK.
func rightsOf(err error) (rights []right) {
	var op *smithy.OperationError
	if !errors.As(err, &op) {
		return nil
	}
	var input reflect.Value
	if f := (*failed)(nil); errors.As(err, &f) {
		input = reflect.Indirect(reflect.ValueOf(f.input))
	}
	has := func(name string) bool { return input.Kind() == reflect.Struct && input.FieldByName(name).IsValid() }
	text := func(name string) string {
		if has(name) {
			if s, ok := input.FieldByName(name).Interface().(*string); ok && s != nil {
				return *s
			}
		}
		return ""
	}
	service, operation := strings.ToLower(op.Service()), op.Operation()
	if operation == "GetObject" && text("VersionId") != "" {
		operation = "GetObjectVersion"
	}
	actions, ok := infra.ActionsOf(service, operation)
	if !ok {
		actions = []string{operation} // of who makes stores: IAM may call it otherwise
	}
	for i, action := range actions {
		r := right{action: action}
		switch bucket, key := text("Bucket"), text("Key"); {
		case len(actions) == 2 && i == 0: // what is copied from
			from, err := url.PathUnescape(text("CopySource"))
			if err != nil {
				from = text("CopySource")
			}
			r.bucket, _, _ = strings.Cut(from, "/")
			r.on = Scheme + from
		case bucket != "" && !has("Key"):
			r.bucket, r.on = bucket, Scheme+bucket+"/"+text("Prefix")
		case bucket != "":
			r.bucket, r.on = bucket, object{bucket, key}.String()
		case text("TableName") != "":
			r.on = "the table " + text("TableName")
		case text("QueueName") != "":
			r.on = "the queue " + text("QueueName")
		case text("QueueUrl") != "":
			at := text("QueueUrl")
			r.on = "the queue " + at[strings.LastIndex(at, "/")+1:]
		}
		rights = append(rights, r)
	}
	return rights
}

// denied is a request that AWS does not allow to these credentials. Of an object, or of
// a folder of them, others may be allowed: that is hayrick.ErrDenied. A table or a queue
// is the store as a whole.
func denied(err error) *hayrick.UserError {
	u := &hayrick.UserError{What: "AWS refuses the request", Hint: attachPolicy, Exit: exitCredentials, Err: err}
	rights := rightsOf(err)
	if len(rights) == 0 {
		return u
	}
	if !strings.Contains(rights[0].action, ":") {
		u.Hint = makesStores
	}
	words := make([]string, len(rights))
	for i, r := range rights {
		words[i] = r.String()
	}
	u.What = "AWS refuses " + strings.Join(words, ", or ")
	if rights[0].bucket != "" {
		u.Err = fmt.Errorf("%w: %w", hayrick.ErrDenied, err)
	}
	return u
}

const attachPolicy = "attach the policy of the store that allows it (docs/aws.md: who needs which), or use other credentials; `hayrick doctor` says what else is refused"

const makesStores = "who makes a store or looks it over needs rights that none of its policies has: docs/aws.md"

// refused is err, of a request about an input or output: where that was not allowed, the
// next step is the one for it.
func (s *Store) refused(err error, o object, purpose string) error {
	var u *hayrick.UserError
	if !errors.Is(err, hayrick.ErrDenied) || !errors.As(err, &u) {
		return err
	}
	ofStore := func(r right) bool { return strings.HasPrefix(r.on, object{s.name, manifest.Jobs}.String()) }
	if rights := rightsOf(err); len(rights) > 0 && !slices.ContainsFunc(rights, func(r right) bool { return !ofStore(r) }) {
		return err // a look at what is to be published
	}
	return &hayrick.UserError{What: u.What, Hint: nextStep(o, purpose, s.name), Exit: u.Exit, Err: u.Err}
}

// nextStep is what a person does who is not allowed an input or output. store is the name
// of a store on AWS, "" of one on this machine.
func nextStep(o object, purpose, store string) string {
	own := object{store, folderOf[purpose]}.String()
	switch {
	case o.bucket == store && strings.HasPrefix(o.String(), own):
		return attachPolicy
	case o.bucket == store:
		return fmt.Sprintf("the policies of the store are for %ss below %s: move it there, and write %s.uri so", purpose, own, purpose)
	case purpose == forOutput:
		return fmt.Sprintf("write another output.uri, or allow it to the workers with a policy of yours; the policy of a bucket of another account has to allow it too (s3://%s)", o.bucket)
	case store == "":
		return "check input.uri: what is not there is refused too where s3:ListBucket is not allowed. Then allow it to these credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID); the policy of a bucket of another account has to allow it too"
	}
	return fmt.Sprintf("check input.uri: what is not there is refused too where s3:ListBucket is not allowed. Then allow it to who submits and to the workers: "+
		"`hayrick infra up --set InputBuckets=%s` (with those that are there), or a policy of yours; the policy of a bucket of another account has to allow it too", o.bucket)
}

// folderOf is where the policies of infra's template expect inputs and outputs in the
// store's own bucket.
var folderOf = map[string]string{forInput: "in/", forOutput: "out/"}
