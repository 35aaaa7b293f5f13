package demo

// Fault is what goes wrong with one request.
type Fault string

// The faults.
const (
	None        Fault = ""
	Throttle    Fault = "throttle"    // 429 with Retry-After
	Unavailable Fault = "unavailable" // 503 with Retry-After
	ServerError Fault = "5xx"         // 500 or 502
	Stall       Fault = "stall"       // half the body, then silence
	Cut         Fault = "cut"         // half the body, then the connection closes
	Damage      Fault = "damage"      // one flipped bit
	Directory   Fault = "directory"   // the repository is fine, the directory answers 500
)

// faultWeights are shares of 100.
var faultWeights = []struct {
	fault  Fault
	weight uint64
}{
	{Throttle, 2}, {Unavailable, 1}, {ServerError, 32}, {Stall, 15}, {Cut, 22}, {Damage, 18}, {Directory, 10},
}

// Failures is how many tries of the account fail before one gets through: tries
// 1 to Failures meet a fault. With two tries a task, 0 and 1 end in the initial
// batch, 2 and 3 need the first retry group, and 4 the second; none needs more.
func (s Settings) Failures(did string) int {
	switch n := s.draw(did, "failures", 0) % 10_000; {
	case n < 35:
		return 4
	case n < 85:
		return 3
	case n < 200:
		return 2
	case n < 2100:
		return 1
	}
	return 0
}

// Fault is what the account's request meets in try (1, 2, ...). A request that
// does not say which try it is meets none.
func (s Settings) Fault(did string, try int) Fault {
	if try < 1 || try > s.Failures(did) {
		return None
	}
	n := s.draw(did, "fault", try) % 100
	fault := None
	for _, w := range faultWeights {
		if fault = w.fault; n < w.weight {
			break
		}
		n -= w.weight
	}
	if s.State(did) != Active && fault != Throttle && fault != Unavailable {
		return ServerError // there is no body to spoil, and nobody asks for the key
	}
	return fault
}
