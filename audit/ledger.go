package audit

// end is how an item ended.
type end uint64

const (
	endOpen end = iota // it has not, or not yet
	endOK
	endPermanent
	endExhausted
)

var endNames = [...]string{endOpen: "open", endOK: "ok", endPermanent: "permanent", endExhausted: "exhausted"}

func (e end) String() string { return endNames[e] }

// ledger holds the end of every item in two bits. An item ends once: the second end
// is refused.
type ledger struct {
	words []uint64
	items int64
}

const perWord = 32

// grow adds n open items.
func (l *ledger) grow(n int64) {
	l.items += n
	for need := (l.items + perWord - 1) / perWord; int64(len(l.words)) < need; {
		l.words = append(l.words, 0)
	}
}

// at is the end of an item; known is false for an ordinal that no batch has.
func (l *ledger) at(ordinal int64) (e end, known bool) {
	if ordinal < 0 || ordinal >= l.items {
		return endOpen, false
	}
	return end(l.words[ordinal/perWord] >> (2 * (ordinal % perWord)) & 3), true
}

// close ends an open item. done is false, and nothing changes, for an item that has
// ended before, or is none; was says which.
func (l *ledger) close(ordinal int64, e end) (was end, done bool) {
	was, known := l.at(ordinal)
	if !known || was != endOpen {
		return was, false
	}
	l.words[ordinal/perWord] |= uint64(e) << (2 * (ordinal % perWord))
	return was, true
}

// reopen takes the end of an item back; false, and nothing changes, where it has another.
func (l *ledger) reopen(ordinal int64, e end) bool {
	if was, known := l.at(ordinal); !known || was != e {
		return false
	}
	l.words[ordinal/perWord] &^= 3 << (2 * (ordinal % perWord))
	return true
}

// count counts the items one by one. first is the first item that is still open.
func (l *ledger) count() (n [4]int64, first int64) {
	first = -1
	for i := range l.items {
		e, _ := l.at(i)
		if e == endOpen && first < 0 {
			first = i
		}
		n[e]++
	}
	return n, first
}
