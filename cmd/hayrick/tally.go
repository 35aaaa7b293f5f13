package main

import (
	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
)

// tally is how far a run has come, as commits and progress records say. It is what
// status prints and what progress is drawn from.
type tally struct {
	Items     int64 `json:"items"`
	OK        int64 `json:"ok"`
	Failed    int64 `json:"failed"` // in the open group: the retry planner has not judged them yet
	Permanent int64 `json:"permanent"`
	Exhausted int64 `json:"exhausted"`
	Left      int64 `json:"left"` // not ended, or not begun

	Groups []groupTally `json:"groups"`
}

// groupTally is one task group.
type groupTally struct {
	Group  string `json:"group"`
	Phase  string `json:"phase"`
	Tasks  int64  `json:"tasks"`
	Done   int64  `json:"done"`
	Items  int64  `json:"items"`
	OK     int64  `json:"ok"`
	Failed int64  `json:"failed"`
	Open   bool   `json:"open"`
}

func tallyOf(k *coordinator.Known) tally {
	t := tally{Items: k.Plan.Items, Groups: []groupTally{}}
	pending := k.Plan.Items // of the group that is open
	if k.Opening == nil {
		t.Groups = append(t.Groups, newGroup(k.Plan.Group))
	} else if len(k.Retries) == 0 { // nothing has moved since the generation before
		t.OK, t.Permanent, t.Exhausted, t.Left = k.Before.OK, k.Before.Permanent, k.Before.Exhausted, k.Before.Unfinished
		return t
	}
	for i, r := range k.Retries {
		if i > 0 || k.Opening == nil {
			closed := &t.Groups[len(t.Groups)-1]
			closed.Done = closed.Tasks
			closed.Failed = r.Items + r.Permanent + r.Exhausted
			closed.OK = closed.Items - closed.Failed
		}
		t.Permanent += r.Permanent
		t.Exhausted += r.Exhausted
		pending = r.Items
		if r.Group != nil {
			t.Groups = append(t.Groups, newGroup(*r.Group))
		}
	}
	if k.Aggregation != nil && k.Aggregation.Group != nil {
		t.Groups = append(t.Groups, newGroup(*k.Aggregation.Group))
	}
	if k.Open != nil && len(t.Groups) > 0 {
		g := &t.Groups[len(t.Groups)-1]
		if g.Group == k.Open.Name {
			g.Open = true
			for _, b := range k.Open.Records {
				if b.Level == 0 {
					g.Done += int64(b.Done.Count())
					g.OK += b.OK
					g.Failed += b.Fails
				}
			}
			if g.Group != hayrick.GroupAggregation {
				t.Failed = g.Failed
				t.OK = g.OK
			}
		}
	}
	if o := k.Outcome; o != nil {
		t.OK, t.Failed, t.Permanent, t.Exhausted, t.Left = o.OK, 0, o.Permanent, o.Exhausted, o.Unfinished
		if len(t.Groups) == 0 {
			return t
		}
		if o.Status == string(hayrick.JobSucceeded) {
			last := &t.Groups[len(t.Groups)-1]
			last.Done = last.Tasks
		} else if last := &t.Groups[len(t.Groups)-1]; openWork(k) != nil {
			last.OK = o.OK // the rest of it ended ok in the groups before
			if n := len(k.Retries); n > 0 {
				last.OK -= k.Plan.Items - k.Retries[n-1].Items - o.Permanent - o.Exhausted
			}
		}
		return t
	}
	t.OK += t.Items - pending - t.Permanent - t.Exhausted
	t.Left = t.Items - t.OK - t.Failed - t.Permanent - t.Exhausted
	return t
}

func newGroup(g manifest.Group) groupTally {
	return groupTally{Group: g.Name, Phase: g.Phase, Tasks: g.Tasks, Items: g.Items}
}

// ended is how many items have an end.
func (t tally) ended() int64 { return t.Items - t.Left }
