package aws

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/smithy-go"

	"hayrick"
	"hayrick/infra"
)

// Stacks is infra's Stacks and ChangeSets on CloudFormation. It runs with the rights of
// who makes stores, which no role of a store has.
type Stacks struct {
	world hayrick.World
	cf    *cloudformation.Client
}

// NewStacks is CloudFormation of the account and region that cfg names; log = nil is
// silence.
func NewStacks(cfg aws.Config, world hayrick.World, log *slog.Logger) *Stacks {
	cfg = tuned(cfg, log)
	return &Stacks{world: world, cf: cloudformation.NewFromConfig(cfg, func(o *cloudformation.Options) { o.Retryer = adaptive() })}
}

// StacksReachable refuses to make or remove a store where the environment sends S3 to a
// stand-in and leaves CloudFormation out: its requests would go to AWS itself.
func StacksReachable(cfg aws.Config) error {
	if !customEndpoint(cfg, "S3") || customEndpoint(cfg, "CLOUDFORMATION") {
		return nil
	}
	return &hayrick.UserError{
		What: "S3 is a stand-in here, and no CloudFormation is named beside it: requests would go to AWS itself",
		Hint: "`go run ./localstack/mkstore s3://<name>` makes a store on such stand-ins; `. localstack/env moto` names one that has both; or set AWS_ENDPOINT_URL_CLOUDFORMATION, or unset AWS_ENDPOINT_URL_S3",
	}
}

// Look tells of a stack.
func (s *Stacks) Look(ctx context.Context, stack string) (*infra.Existing, error) {
	out, err := s.cf.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &stack})
	switch {
	case isGone(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look at stack %s: %w", stack, explain(err))
	case len(out.Stacks) != 1:
		return nil, fmt.Errorf("look at stack %s: CloudFormation tells of %d", stack, len(out.Stacks))
	}
	st := out.Stacks[0]
	e := &infra.Existing{ID: aws.ToString(st.StackId), Status: string(st.StackStatus), Reason: aws.ToString(st.StackStatusReason), Values: map[string]string{}}
	for _, p := range st.Parameters {
		e.Values[aws.ToString(p.ParameterKey)] = aws.ToString(p.ParameterValue)
	}
	for _, o := range st.Outputs {
		e.Outputs = append(e.Outputs, infra.Output{Name: aws.ToString(o.OutputKey), Description: aws.ToString(o.Description), Value: aws.ToString(o.OutputValue)})
	}
	slices.SortFunc(e.Outputs, func(a, b infra.Output) int { return strings.Compare(a.Name, b.Name) })
	return e, nil
}

// isGone says that there is no such stack. CloudFormation has no code of its own for it.
func isGone(err error) bool {
	return code(err) == "ValidationError" && strings.Contains(err.Error(), "does not exist")
}

// Delete begins to delete a stack.
func (s *Stacks) Delete(ctx context.Context, id string) error {
	_, err := s.cf.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: &id})
	if err != nil && !isGone(err) {
		return fmt.Errorf("delete stack %s: %w", id, explain(err))
	}
	return nil
}

// Events are those of the newest operation, and more of the page it began on.
func (s *Stacks) Events(ctx context.Context, id string) ([]infra.Event, error) {
	var newestFirst []infra.Event
	pages := cloudformation.NewDescribeStackEventsPaginator(s.cf, &cloudformation.DescribeStackEventsInput{StackName: &id})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if isGone(err) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the events of stack %s: %w", id, explain(err))
		}
		for _, e := range page.StackEvents {
			newestFirst = append(newestFirst, infra.Event{
				ID: aws.ToString(e.EventId), Resource: aws.ToString(e.LogicalResourceId), Type: aws.ToString(e.ResourceType),
				Status: string(e.ResourceStatus), Reason: aws.ToString(e.ResourceStatusReason),
			})
		}
		events := slices.Clone(newestFirst)
		slices.Reverse(events)
		if len(infra.Operation(events)) > 0 { // it began on this page or before
			return events, nil
		}
	}
	slices.Reverse(newestFirst)
	return newestFirst, nil
}

// Prepare makes a change set. A crash leaves one that nobody executes, and perhaps a
// stack in REVIEW_IN_PROGRESS, which has no resources.
func (s *Stacks) Prepare(ctx context.Context, stack string, create bool, template []byte, values map[string]string) (string, []infra.Change, error) {
	var b [8]byte
	for i, r := 0, s.world.Rand.Uint64(); i < len(b); i++ {
		b[i] = byte(r >> (8 * i))
	}
	name := "hayrick-" + hex.EncodeToString(b[:])
	in := &cloudformation.CreateChangeSetInput{
		StackName: &stack, ChangeSetName: &name, ClientToken: &name, ChangeSetType: types.ChangeSetTypeUpdate,
		TemplateBody: aws.String(string(template)), Capabilities: []types.Capability{types.CapabilityCapabilityNamedIam},
	}
	// An update compares with what is there, not with the last template alone: what somebody
	// changed by hand is brought back also when the template is the same.
	in.DeploymentMode = types.DeploymentModeRevertDrift
	if create {
		in.ChangeSetType, in.ImportExistingResources, in.DeploymentMode = types.ChangeSetTypeCreate, aws.Bool(true), ""
	}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		in.Parameters = append(in.Parameters, types.Parameter{ParameterKey: aws.String(k), ParameterValue: aws.String(values[k])})
	}
	out, err := s.cf.CreateChangeSet(ctx, in)
	if err != nil {
		return "", nil, refusedChange(fmt.Errorf("prepare changes of stack %s: %w", stack, explain(err)))
	}
	set := aws.ToString(out.Id)
	changes, err := s.prepared(ctx, set)
	if errors.Is(err, errNoChanges) {
		return "", nil, s.Drop(ctx, set)
	}
	return set, changes, err
}

var errNoChanges = errors.New("there is nothing to change")

// prepared waits until a change set is ready.
func (s *Stacks) prepared(ctx context.Context, set string) ([]infra.Change, error) {
	for {
		var changes []infra.Change
		pages := cloudformation.NewDescribeChangeSetPaginator(s.cf, &cloudformation.DescribeChangeSetInput{ChangeSetName: &set})
		status, reason := types.ChangeSetStatus(""), ""
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("look at change set %s: %w", set, explain(err))
			}
			status, reason = page.Status, aws.ToString(page.StatusReason)
			for _, c := range page.Changes {
				if r := c.ResourceChange; r != nil {
					changes = append(changes, infra.Change{Action: string(r.Action), ID: aws.ToString(r.LogicalResourceId), Type: aws.ToString(r.ResourceType), Replace: string(r.Replacement)})
				}
			}
		}
		switch status {
		case types.ChangeSetStatusCreateComplete:
			return changes, nil
		case types.ChangeSetStatusCreatePending, types.ChangeSetStatusCreateInProgress:
		default:
			if strings.Contains(reason, "didn't contain changes") || strings.Contains(reason, "No updates are to be performed") {
				return nil, errNoChanges
			}
			return nil, refusal(reason)
		}
		if err := s.world.Clock.Sleep(ctx, changeSetPoll); err != nil {
			return nil, err
		}
	}
}

const changeSetPoll = time.Second

// refusedChange is err as a person can mend it, where CloudFormation said why it refuses.
func refusedChange(err error) error {
	var api smithy.APIError
	if s := status(err); errors.As(err, new(*hayrick.UserError)) || !errors.As(err, &api) || s < 400 || s >= 500 || errors.Is(err, hayrick.ErrThrottled) {
		return err
	}
	return refusal(api.ErrorMessage())
}

func refusal(reason string) error {
	hint, exit := infra.Remedy(reason)
	return &hayrick.UserError{What: "CloudFormation refuses the change: " + reason, Hint: hint, Exit: exit}
}

// Execute begins to carry a change set out. A crash leaves a stack that changes by itself.
func (s *Stacks) Execute(ctx context.Context, set string) error {
	token := set[max(0, len(set)-128):]
	if i := strings.LastIndexByte(token, '/'); i >= 0 {
		token = token[i+1:]
	}
	if _, err := s.cf.ExecuteChangeSet(ctx, &cloudformation.ExecuteChangeSetInput{ChangeSetName: &set, ClientRequestToken: &token}); err != nil {
		return refusedChange(fmt.Errorf("execute change set %s: %w", set, explain(err)))
	}
	for {
		out, err := s.cf.DescribeChangeSet(ctx, &cloudformation.DescribeChangeSetInput{ChangeSetName: &set})
		switch {
		case code(err) == "ChangeSetNotFound":
			return nil
		case err != nil:
			return fmt.Errorf("look at change set %s: %w", set, explain(err))
		case out.ExecutionStatus != types.ExecutionStatusAvailable:
			return nil
		}
		if err := s.world.Clock.Sleep(ctx, changeSetPoll); err != nil {
			return err
		}
	}
}

// Drop forgets a change set.
func (s *Stacks) Drop(ctx context.Context, set string) error {
	if _, err := s.cf.DeleteChangeSet(ctx, &cloudformation.DeleteChangeSetInput{ChangeSetName: &set}); err != nil && code(err) != "ChangeSetNotFound" {
		return fmt.Errorf("drop change set %s: %w", set, explain(err))
	}
	return nil
}
