package manifest

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// Shuffle says that the items of a run stand in another order than the records of its
// input: record r, from 0, is the item with ordinal PlaceOf(r). All records of a run and
// all roles go by that ordinal, and need not know of this. What leaves a run goes by the
// number in the input: what handlers and people are told and may say, published lists,
// and "first" and "last" of output.keep.
type Shuffle struct {
	Seed string `json:"seed"` // what the order is made of, beside the number of items
}

// ShuffleOf is the shuffle of a run. It follows from the run's id, so that a submission
// that comes back after a crash, or races another, makes the same batches, and each run
// has an order of its own.
func ShuffleOf(jobID string) *Shuffle { return &Shuffle{Seed: Short(SHA256([]byte(jobID)))} }

// InputOrdinal is which record of the input an item is, from 0: the ordinal itself,
// unless the run is shuffled.
func (p Plan) InputOrdinal(ordinal int64) int64 {
	if p.Shuffle == nil || ordinal < 0 || ordinal >= p.Items {
		return ordinal
	}
	return p.Shuffle.Order(p.Items).RecordAt(ordinal)
}

// PlaceOf is the ordinal of the item that a record of the input is: InputOrdinal backwards.
func (p Plan) PlaceOf(record int64) int64 {
	if p.Shuffle == nil || record < 0 || record >= p.Items {
		return record
	}
	return p.Shuffle.Order(p.Items).PlaceOf(record)
}

// Label is the key of an item of this run: of one without, its number in the input.
func (p Plan) Label(it BatchItem, field string) string {
	it.Ordinal = p.InputOrdinal(it.Ordinal)
	return it.Label(field)
}

// shuffleRounds is twice of what is enough for a Feistel network to look random.
const shuffleRounds = 8

// Order is a permutation of 0 to n-1 that follows from a seed. It takes no memory: a
// Feistel network permutes the numbers of an even count of bits, and who lands at n or
// above goes on through it until that is below n, which it is after less than four
// steps on average.
type Order struct {
	n    uint64
	half uint // bits of a half
	keys [shuffleRounds]uint64
}

// Order is that of so many items.
func (s Shuffle) Order(items int64) Order {
	o := Order{n: uint64(items), half: max(1, uint(bits.Len64(uint64(max(items, 1)-1))+1)/2)}
	sum := sha256.Sum256([]byte(s.Seed))
	for i := range o.keys {
		k := binary.BigEndian.Uint64(sum[8*(i%4):])
		o.keys[i] = mix(k + uint64(i)*0x9e3779b97f4a7c15)
	}
	return o
}

// PlaceOf is the ordinal of the item that a record of the input is.
func (o Order) PlaceOf(record int64) int64 {
	x := uint64(record)
	for {
		left, right := x>>o.half, x&(1<<o.half-1)
		for _, k := range o.keys {
			left, right = right, left^o.round(right, k)
		}
		if x = left<<o.half | right; x < o.n {
			return int64(x)
		}
	}
}

// RecordAt is the record of the input that an item is: PlaceOf backwards.
func (o Order) RecordAt(ordinal int64) int64 {
	x := uint64(ordinal)
	for {
		left, right := x>>o.half, x&(1<<o.half-1)
		for i := shuffleRounds - 1; i >= 0; i-- {
			left, right = right^o.round(left, o.keys[i]), left
		}
		if x = left<<o.half | right; x < o.n {
			return int64(x)
		}
	}
}

func (o Order) round(x, key uint64) uint64 { return mix(x^key) >> (64 - o.half) }

// mix spreads every bit over all: the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
