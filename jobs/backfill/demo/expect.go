package demo

// Expected is how a run over the whole demo must end, when no host is asked more
// often than it allows.
type Expected struct {
	Items     int64
	OK        int64
	Rows      int64
	Permanent map[State]int64 // accounts that are gone
	Groups    []int64         // accounts whose last try is in initial_batch, retry_batch_1, ...
	Requests  int64           // tries, each one getRepo
	Faults    int64           // tries that meet a fault
}

// Expect counts, for inTask tries in one task.
func (s Settings) Expect(inTask int) Expected {
	e := Expected{Items: int64(s.Accounts), Permanent: map[State]int64{}}
	for _, a := range s.List() {
		failures := s.Failures(a.DID)
		e.Faults += int64(failures)
		e.Requests += int64(failures) + 1
		for len(e.Groups) <= failures/inTask {
			e.Groups = append(e.Groups, 0)
		}
		e.Groups[failures/inTask]++
		if state := s.State(a.DID); state != Active {
			e.Permanent[state]++
			continue
		}
		e.OK++
		e.Rows += int64(s.Count(a.DID))
	}
	return e
}
