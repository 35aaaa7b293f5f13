package local

import "fmt"

// Others counts the other processes that have the store open: without one, nothing
// but this process can be working on its jobs.
func (s *Store) Others() (n int, certain bool, err error) {
	f, err := s.dir.Root().Open("procs")
	if err != nil {
		return 0, false, fmt.Errorf("look for other processes: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return 0, false, fmt.Errorf("look for other processes: %w", err)
	}
	for _, name := range names {
		if name == s.dir.Owner() || !s.dir.Alive(name) {
			continue
		}
		if said, err := s.dir.Root().ReadFile("procs/" + name); err != nil || string(said) != watching {
			n++
		}
	}
	return n, true, nil
}

// watching is what the file of a process holds that does no work.
const watching = "watching"

// Watching leaves this process out of what others count: it does no work. The word goes
// with the process's file.
func (s *Store) Watching() error {
	if err := s.dir.Root().WriteFile("procs/"+s.dir.Owner(), []byte(watching), 0o666); err != nil {
		return fmt.Errorf("say that this process only watches: %w", err)
	}
	return nil
}
