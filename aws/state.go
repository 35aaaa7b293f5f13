package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"hayrick"
)

// The table. Every item has pk and sk; items of one pk share a partition and its
// thousand writes a second, so only what is read together shares a pk.
//
//	pk                               sk                     what
//	claim#<job>#<g>#<task>           -                      the lease of a task
//	block#<job>#<g>#<group>#<shard>  <level>#<n>#<sha256>   a progress record
//	job#<job>                        -                      what is cached of a job
//	bucket#<key>                     -                      a token bucket
//
// expires is the table's TTL: an item that nobody wrote to for so long is gone, which
// is what losing any of it is allowed to be.
const (
	attrPK      = "pk"
	attrSK      = "sk"
	attrExpires = "expires"

	keep        = 90 * 24 * time.Hour
	blockShards = 8
)

type item = map[string]types.AttributeValue

func str(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }

func num(v int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(v, 10)}
}

func key(pk, sk string) item { return item{attrPK: str(pk), attrSK: str(sk)} }

func (s *Store) expires() types.AttributeValue { return num(s.world.Clock.Now().Add(keep).Unix()) }

func text(it item, name string) string {
	v, _ := it[name].(*types.AttributeValueMemberS)
	if v == nil {
		return ""
	}
	return v.Value
}

func number(it item, name string) int64 {
	v, _ := it[name].(*types.AttributeValueMemberN)
	if v == nil {
		return 0
	}
	n, _ := strconv.ParseInt(v.Value, 10, 64)
	return n
}

// conditionFailed returns the item that stood in the way of a conditional write, nil
// when there is none or the reply does not say, and whether err is about that at all.
func conditionFailed(err error) (item, bool) {
	var failed *types.ConditionalCheckFailedException
	if !errors.As(err, &failed) {
		return nil, false
	}
	return failed.Item, true
}

// stood is the item that a failed condition came upon, nil when there is none. Emulators
// that are older than ALL_OLD for failures bring none along; then it is read.
func (s *Store) stood(ctx context.Context, old item, pk, sk string) (item, error) {
	if len(old) > 0 {
		return old, nil
	}
	old, err := s.get(ctx, pk, sk)
	if errors.Is(err, hayrick.ErrNotFound) {
		return nil, nil
	}
	return old, err
}

func (s *Store) get(ctx context.Context, pk, sk string) (item, error) {
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.name, Key: key(pk, sk), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return nil, explain(err)
	}
	if len(out.Item) == 0 {
		return nil, hayrick.ErrNotFound
	}
	return out.Item, nil
}

func claimKey(r hayrick.TaskRef) string {
	return fmt.Sprintf("claim#%s#%d#%s", r.JobID, r.Generation, r.TaskID)
}

func claimItem(c hayrick.Claim) (item, error) {
	it := key(claimKey(c.TaskRef), "-")
	it["attempt"], it["worker"], it["fence"] = str(c.Attempt), str(c.Worker), num(c.Fence)
	it["vanished"], it["idle"] = num(int64(c.Vanished)), num(int64(c.Idle))
	if !c.Until.IsZero() { // absent: released
		it["until"] = num(c.Until.UnixNano())
	}
	if len(c.Lost) > 0 {
		b, err := json.Marshal(c.Lost)
		if err != nil {
			return nil, err
		}
		it["lost"] = str(string(b))
	}
	return it, nil
}

func claimOf(r hayrick.TaskRef, it item) (hayrick.Claim, error) {
	c := hayrick.Claim{
		TaskRef: r, Attempt: text(it, "attempt"), Worker: text(it, "worker"), Fence: number(it, "fence"),
		Vanished: int(number(it, "vanished")), Idle: int(number(it, "idle")),
	}
	if until := number(it, "until"); until != 0 {
		c.Until = time.Unix(0, until).UTC()
	}
	if lost := text(it, "lost"); lost != "" {
		if err := json.Unmarshal([]byte(lost), &c.Lost); err != nil {
			return c, fmt.Errorf("losses of %s: %w", r.TaskID, err)
		}
	}
	return c, nil
}

// Claim applies hayrick.NextClaim. The first attempt of a task costs one write and no
// read: its condition is that nobody has a claim, and a failure brings along the one
// that stands. A write whose reply was lost is found as the attempt's own.
func (s *Store) Claim(ctx context.Context, ask hayrick.ClaimAsk) (hayrick.Claim, error) {
	var prev *hayrick.Claim
	for {
		next, err := hayrick.NextClaim(prev, ask, s.world.Clock.Now(), false)
		if err != nil || prev != nil && prev.Attempt == ask.Attempt {
			return next, err
		}
		stood, err := s.putClaim(ctx, prev, next)
		if err != nil {
			return hayrick.Claim{}, fmt.Errorf("claim %s: %w", ask.TaskID, err)
		}
		if stood == nil {
			return next, nil
		}
		if prev = stood; stood.Attempt == "" { // gone meanwhile
			prev = nil
		}
	}
}

// putClaim stores next if the claim still is prev, nil for none; else it returns the
// one that stands.
func (s *Store) putClaim(ctx context.Context, prev *hayrick.Claim, next hayrick.Claim) (*hayrick.Claim, error) {
	it, err := claimItem(next)
	if err != nil {
		return nil, err
	}
	it[attrExpires] = s.expires()
	in := &dynamodb.PutItemInput{
		TableName: &s.name, Item: it, ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ConditionExpression: aws.String("attribute_not_exists(pk)"),
	}
	if prev != nil { // attempt and until: a holder may have renewed or released
		in.ConditionExpression = aws.String("attempt = :a AND #until = :u")
		in.ExpressionAttributeNames = map[string]string{"#until": "until"}
		in.ExpressionAttributeValues = item{":a": str(prev.Attempt), ":u": num(prev.Until.UnixNano())}
		if prev.Until.IsZero() {
			in.ConditionExpression = aws.String("attempt = :a AND attribute_not_exists(#until)")
			delete(in.ExpressionAttributeValues, ":u")
		}
	}
	_, err = s.db.PutItem(ctx, in)
	if err == nil {
		return nil, nil
	}
	old, failed := conditionFailed(err)
	if !failed {
		return nil, unknown(err)
	}
	old, err = s.stood(ctx, old, claimKey(next.TaskRef), "-")
	if err != nil || old == nil {
		return &hayrick.Claim{}, err
	}
	stood, err := claimOf(next.TaskRef, old)
	return &stood, err
}

// UpdateClaim applies a patch to a claim that is still the attempt's.
func (s *Store) UpdateClaim(ctx context.Context, ref hayrick.TaskRef, attempt string, patch hayrick.ClaimPatch) (hayrick.Claim, error) {
	set, remove := []string{"#e = :e"}, []string(nil)
	names := map[string]string{"#until": "until", "#e": attrExpires}
	values := item{":a": str(attempt), ":e": s.expires()}
	switch {
	case patch.Until == nil:
	case patch.Until.IsZero():
		remove = append(remove, "#until")
	default:
		set = append(set, "#until = :u")
		values[":u"] = num(patch.Until.UnixNano())
	}
	if patch.Lost != nil {
		b, err := json.Marshal(patch.Lost)
		if err != nil {
			return hayrick.Claim{}, err
		}
		set = append(set, "lost = :l", "idle = :i")
		values[":l"], values[":i"] = str(string(b)), num(0)
	}
	update := "SET " + strings.Join(set, ", ")
	if len(remove) > 0 {
		update += " REMOVE " + strings.Join(remove, ", ")
	}
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.name, Key: key(claimKey(ref), "-"), UpdateExpression: &update,
		ConditionExpression:      aws.String("attempt = :a AND attribute_exists(#until)"),
		ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		ReturnValues: types.ReturnValueAllNew, ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	if err == nil {
		return claimOf(ref, out.Attributes)
	}
	old, failed := conditionFailed(err)
	if !failed {
		return hayrick.Claim{}, fmt.Errorf("update the claim of %s: %w", ref.TaskID, unknown(err))
	}
	old, err = s.stood(ctx, old, claimKey(ref), "-")
	switch {
	case err != nil:
		return hayrick.Claim{}, fmt.Errorf("update the claim of %s: %w", ref.TaskID, err)
	case patch.Until != nil && patch.Until.IsZero() && text(old, "attempt") == attempt && number(old, "until") == 0:
		return claimOf(ref, old) // released by this very call, whose reply was lost
	}
	return hayrick.Claim{}, fmt.Errorf("update the claim of %s: %w", ref.TaskID, hayrick.ErrLeaseLost)
}

// ReadClaim returns a claim as it stands and whether its lease holds.
func (s *Store) ReadClaim(ctx context.Context, ref hayrick.TaskRef) (hayrick.Claim, bool, error) {
	it, err := s.get(ctx, claimKey(ref), "-")
	if err != nil {
		return hayrick.Claim{}, false, fmt.Errorf("read the claim of %s: %w", ref.TaskID, err)
	}
	c, err := claimOf(ref, it)
	return c, s.world.Clock.Now().Before(c.Until), err
}

func blockKey(b hayrick.BlockID) (pk, sk string) {
	return blockShard(b.JobID, b.Generation, b.Group, b.N%blockShards), fmt.Sprintf("%d#%d#%s", b.Level, b.N, b.SHA256)
}

func blockShard(jobID string, generation int, group string, shard int) string {
	return fmt.Sprintf("block#%s#%d#%s#%d", jobID, generation, group, shard)
}

// position names the attribute of a member: its presence is the membership, so that
// one SET adds to the set and says the counts, and twice is once.
func position(p int) string { return "m" + strconv.Itoa(p) }

// Mark adds a position to a block's set.
func (s *Store) Mark(ctx context.Context, m hayrick.Mark) (hayrick.BlockState, error) {
	if m.Total < 1 || m.Total > hayrick.BlockSize || m.Position < 0 || m.Position >= m.Total {
		return hayrick.BlockState{}, fmt.Errorf("mark: position %d of %d is not in a block", m.Position, m.Total)
	}
	pk, sk := blockKey(m.Block)
	out, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.name, Key: key(pk, sk),
		UpdateExpression:         aws.String("SET #t = if_not_exists(#t, :t), #e = :e, #m = :m"),
		ExpressionAttributeNames: map[string]string{"#t": "total", "#e": attrExpires, "#m": position(m.Position)},
		ExpressionAttributeValues: item{
			":t": num(int64(m.Total)), ":e": s.expires(), ":m": str(counts(m.OK, m.Failed)),
		},
		ReturnValues: types.ReturnValueAllNew,
	})
	if err != nil {
		return hayrick.BlockState{}, fmt.Errorf("mark: %w", unknown(err))
	}
	return blockOf(m.Block, out.Attributes)
}

// counts is "ok", or "ok,failed": an item's size is what its writes cost.
func counts(ok, failed int64) string {
	if failed == 0 {
		return strconv.FormatInt(ok, 10)
	}
	return strconv.FormatInt(ok, 10) + "," + strconv.FormatInt(failed, 10)
}

func blockOf(id hayrick.BlockID, it item) (hayrick.BlockState, error) {
	b := hayrick.BlockState{BlockID: id, Total: int(number(it, "total"))}
	for name := range it {
		digits, ok := strings.CutPrefix(name, "m")
		if !ok {
			continue
		}
		p, err := strconv.Atoi(digits)
		if err != nil || p < 0 || p >= hayrick.BlockSize {
			return b, fmt.Errorf("block %d of %s has an attribute %q: %w", id.N, id.Group, name, hayrick.ErrCorrupt)
		}
		oks, fails, _ := strings.Cut(text(it, name), ",")
		okN, err := strconv.ParseInt(oks, 10, 64)
		failed, ferr := int64(0), error(nil)
		if fails != "" {
			failed, ferr = strconv.ParseInt(fails, 10, 64)
		}
		if err := errors.Join(err, ferr); err != nil {
			return b, fmt.Errorf("block %d of %s: %w: %w", id.N, id.Group, hayrick.ErrCorrupt, err)
		}
		b.Done.Add(p)
		b.OK += okN
		b.Fails += failed
	}
	return b, nil
}

// Blocks returns the progress records of a group.
func (s *Store) Blocks(ctx context.Context, jobID string, generation int, group string) ([]hayrick.BlockState, error) {
	found := make([][]hayrick.BlockState, blockShards)
	err := s.each(ctx, blockShards, func(ctx context.Context, shard int) error {
		pages := dynamodb.NewQueryPaginator(s.db, &dynamodb.QueryInput{
			TableName: &s.name, KeyConditionExpression: aws.String("pk = :p"), ConsistentRead: aws.Bool(true),
			ExpressionAttributeValues: item{":p": str(blockShard(jobID, generation, group, shard))},
		})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return explain(err)
			}
			for _, it := range page.Items {
				id := hayrick.BlockID{JobID: jobID, Generation: generation, Group: group}
				parts := strings.SplitN(text(it, attrSK), "#", 3)
				if len(parts) != 3 {
					return fmt.Errorf("sk %q: %w", text(it, attrSK), hayrick.ErrCorrupt)
				}
				var lerr, nerr error
				id.Level, lerr = strconv.Atoi(parts[0])
				id.N, nerr = strconv.Atoi(parts[1])
				id.SHA256 = parts[2]
				if err := errors.Join(lerr, nerr); err != nil {
					return fmt.Errorf("sk %q: %w", text(it, attrSK), hayrick.ErrCorrupt)
				}
				b, err := blockOf(id, it)
				if err != nil {
					return err
				}
				found[shard] = append(found[shard], b)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the blocks of %s: %w", group, err)
	}
	var out []hayrick.BlockState
	for _, bs := range found {
		out = append(out, bs...)
	}
	return out, nil
}

// JobState returns what is cached of a job.
func (s *Store) JobState(ctx context.Context, jobID string) (hayrick.JobState, error) {
	it, err := s.get(ctx, "job#"+jobID, "-")
	if err != nil {
		return hayrick.JobState{}, fmt.Errorf("job state of %s: %w", jobID, err)
	}
	st := hayrick.JobState{
		JobID: jobID, Generation: int(number(it, "generation")), Status: hayrick.JobStatus(text(it, "status")),
		Orders: int(number(it, "orders")), Updated: time.UnixMilli(number(it, "updated")).UTC(),
	}
	if p := text(it, "progress"); p != "" && json.Unmarshal([]byte(p), &st.Progress) != nil {
		st.Progress = hayrick.Progress{} // a guess that cannot be read is none
	}
	return st, nil
}

// PutJobState caches what the commits say of a job.
func (s *Store) PutJobState(ctx context.Context, st hayrick.JobState) error {
	if st.JobID == "" {
		return errors.New("put job state: it names no job")
	}
	it := key("job#"+st.JobID, "-")
	it["generation"], it["status"], it["orders"] = num(int64(st.Generation)), str(string(st.Status)), num(int64(st.Orders))
	it["updated"], it[attrExpires] = num(st.Updated.UnixMilli()), s.expires()
	if st.Progress != (hayrick.Progress{}) {
		b, err := json.Marshal(st.Progress)
		if err != nil {
			return fmt.Errorf("put job state: %w", err)
		}
		it["progress"] = str(string(b))
	}
	if _, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.name, Item: it}); err != nil {
		return fmt.Errorf("put job state: %w", unknown(err))
	}
	return nil
}
