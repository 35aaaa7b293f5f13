package aws

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"hayrick"
	"hayrick/ratelimit"
)

// bucket is a stored bucket and the tag of its version. A tag is random, never a
// number: a table that was emptied would count through the same numbers again.
type bucket struct {
	data []byte
	tag  string
}

const bucketTries = 8

// Reserve applies ratelimit.ApplyReserve: one write where nobody else took from the
// bucket since this process did, one more a lost race.
func (s *Store) Reserve(ctx context.Context, key string, lim ratelimit.Limits, ask ratelimit.Ask, now func() time.Time) (ratelimit.Grant, error) {
	var grant ratelimit.Grant
	var at time.Time
	err := s.stepBucket(ctx, key, func(stored []byte) (next []byte) {
		at = now()
		next, grant = ratelimit.ApplyReserve(stored, lim, ask, at)
		return next
	})
	if late := now().Sub(at); err == nil && lim.ClockBound > 0 && late > lim.ClockBound {
		// The write came too late for the time it was made for; the lot is wasted.
		err = fmt.Errorf("it took %v: %w", late, hayrick.ErrUnknown)
	}
	if err != nil {
		return ratelimit.Grant{}, fmt.Errorf("reserve from %s: %w", key, err)
	}
	return grant, nil
}

// Feedback applies ratelimit.ApplyFeedback.
func (s *Store) Feedback(ctx context.Context, key string, lim ratelimit.Limits, fb ratelimit.Feedback, now func() time.Time) error {
	err := s.stepBucket(ctx, key, func(stored []byte) []byte { return ratelimit.ApplyFeedback(stored, lim, fb, now()) })
	if err != nil {
		return fmt.Errorf("feedback to %s: %w", key, err)
	}
	return nil
}

// stepBucket replaces what is stored of a bucket by what step makes of it, if nobody
// else did meanwhile; else it tries again on what they wrote. What this process saw
// last is its first guess; where the step would change nothing, the guess is read
// anew before that is believed.
func (s *Store) stepBucket(ctx context.Context, key string, step func([]byte) []byte) error {
	pk := "bucket#" + key
	s.mu.Lock()
	b, guess := s.buckets[pk]
	s.mu.Unlock()
	for try := 0; try < bucketTries; try++ {
		if !guess {
			it, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.name, Key: itemKey(pk), ConsistentRead: aws.Bool(true)})
			if err != nil {
				return explain(err)
			}
			b = bucketOf(it.Item)
		}
		data := step(b.data)
		if data == nil {
			if !guess {
				s.remember(pk, b)
				return nil
			}
			guess = false
			continue
		}
		next := bucket{data, s.world.NewAttemptID()[:16]}
		stood, lost, err := s.putBucket(ctx, pk, b, next)
		if err != nil {
			s.forget(pk)
			return err
		}
		if !lost {
			s.remember(pk, next)
			return nil
		}
		b, guess = stood, true
		if try > 0 { // many take from it at once
			if err := s.world.Clock.Sleep(ctx, s.jitter(conflictWait<<min(try, 4))); err != nil {
				return err
			}
			guess = false
		}
	}
	return hayrick.ErrConflict
}

// putBucket stores next if prev still stands; else it returns what does. A reply
// that was lost shows as next standing already: the lot is this call's.
func (s *Store) putBucket(ctx context.Context, pk string, prev, next bucket) (stood bucket, lost bool, err error) {
	it := itemKey(pk)
	it["data"], it["tag"], it[attrExpires] = &types.AttributeValueMemberB{Value: next.data}, str(next.tag), s.expires()
	in := &dynamodb.PutItemInput{
		TableName: &s.name, Item: it, ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if prev.tag != "" {
		in.ConditionExpression = aws.String("tag = :t")
		in.ExpressionAttributeValues = item{":t": str(prev.tag)}
	} else { // what is no bucket counts as none, or nobody could ever take from it again
		in.ConditionExpression = aws.String("attribute_not_exists(pk) OR NOT attribute_type(tag, :s) OR NOT attribute_type(#data, :b)")
		in.ExpressionAttributeNames = map[string]string{"#data": "data"}
		in.ExpressionAttributeValues = item{":s": str("S"), ":b": str("B")}
	}
	_, err = s.db.PutItem(ctx, in)
	if err == nil {
		return next, false, nil
	}
	old, failed := conditionFailed(err)
	if !failed {
		return bucket{}, false, unknown(err)
	}
	stood = bucketOf(old)
	return stood, stood.tag != next.tag, nil
}

func bucketOf(it item) bucket {
	data, _ := it["data"].(*types.AttributeValueMemberB)
	if data == nil {
		return bucket{}
	}
	return bucket{data.Value, text(it, "tag")}
}

func itemKey(pk string) item { return key(pk, "-") }

// maxRemembered bounds the guesses: one a host, for jobs with many.
const maxRemembered = 10_000

func (s *Store) remember(pk string, b bucket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buckets) >= maxRemembered {
		clear(s.buckets)
	}
	s.buckets[pk] = b
}

func (s *Store) forget(pk string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.buckets, pk)
}
