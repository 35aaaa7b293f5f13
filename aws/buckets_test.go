//go:build standins

package aws_test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"hayrick"
	"hayrick/aws"
	"hayrick/internal/standins"
	"hayrick/ratelimit"
)

// An item that is no bucket, as somebody at a console may leave one, is replaced: else
// nothing could be taken from it ever again.
func TestReserveReplacesWhatIsNoBucketOnStandIns(t *testing.T) {
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	db := dynamodb.NewFromConfig(cfg)
	world := hayrick.RealWorld("host")
	limits := ratelimit.Limits{Rate: hayrick.PerTime{N: 100, Per: time.Second}, Burst: 50, Timing: ratelimit.ServiceTime}
	s := aws.New(cfg, name, world, nil)
	str := func(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
	for key, odd := range map[string]map[string]types.AttributeValue{
		"none":   {},
		"number": {"data": &types.AttributeValueMemberN{Value: "1"}, "tag": &types.AttributeValueMemberN{Value: "1"}},
		"text":   {"data": str("{}"), "tag": str("x")},
		"no tag": {"data": &types.AttributeValueMemberB{Value: []byte("{}")}},
		"junk":   {"data": &types.AttributeValueMemberB{Value: []byte("junk")}, "tag": str("x")},
	} {
		odd["pk"], odd["sk"] = str("bucket#"+key), str("-")
		if _, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: odd}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := s.Feedback(ctx, key, limits, ratelimit.Feedback{}, world.Clock.Now); err != nil {
			t.Errorf("%s: feedback: %v", key, err)
		}
		if _, err := s.Reserve(ctx, key, limits, ratelimit.Ask{N: 1}, world.Clock.Now); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		cancel()
	}
}
