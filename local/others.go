package local

import "fmt"

// Others counts the other processes that have the store open: without one, nothing
// but this process can be working on its jobs.
func (s *Store) Others() (int, error) {
	f, err := s.dir.Root().Open("procs")
	if err != nil {
		return 0, fmt.Errorf("look for other processes: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return 0, fmt.Errorf("look for other processes: %w", err)
	}
	n := 0
	for _, name := range names {
		if name != s.dir.Owner() && s.dir.Alive(name) {
			n++
		}
	}
	return n, nil
}
