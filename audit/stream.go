package audit

import (
	"iter"
)

// stream is a list that is read one by one beside another. The zero stream is empty.
type stream[T any] struct {
	pull func() (T, bool)
	key  string // the object that holds it, for findings
	open bool   // it is there, empty or not
}

// streamOf starts reading seq; the function that ends it is added to stops.
func streamOf[T any](seq iter.Seq[T], stops *[]func()) stream[T] {
	pull, stop := iter.Pull(seq)
	*stops = append(*stops, stop)
	return stream[T]{pull: pull, open: true}
}

func (s *stream[T]) next() (v T, more bool) {
	if s.pull == nil {
		return v, false
	}
	return s.pull()
}

// ordered is a stream of verdicts, sorted by ordinal.
type ordered struct {
	stream[verdict]
	head verdict
	more bool
	last int64
}

func orderedOf(key string, seq iter.Seq[verdict], stops *[]func()) ordered {
	o := ordered{stream: streamOf(seq, stops), last: -1}
	o.key = key
	o.head, o.more = o.next()
	return o
}

// upTo takes the verdicts on items up to ordinal last.
func (o *ordered) upTo(l *look, last int64) (vs []verdict) {
	for o.more && o.head.line.Ordinal <= last {
		if at := o.head.line.Ordinal; at <= o.last {
			l.broken(CodeItem, o.head.list, "item %d stands behind item %d", at, o.last)
		}
		o.last = o.head.line.Ordinal
		vs = append(vs, o.head)
		o.head, o.more = o.next()
	}
	return vs
}
