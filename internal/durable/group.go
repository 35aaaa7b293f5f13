package durable

import "sync"

// group shares runs of a function: a caller gets the result of a run that started
// after its call. While one runs, all who come wait for the next one, which they
// share. With n callers linking into one folder at a time that is about two fsyncs
// for all of them instead of n.
type group struct {
	mu      sync.Mutex
	running map[string]*shared // guarded by mu
	waiting map[string]*shared // guarded by mu: not started yet, may still be joined
}

type shared struct {
	done chan struct{}
	err  error
}

// do runs f for key, or shares a run of somebody else's f for key.
func (g *group) do(key string, f func() error) error {
	g.mu.Lock()
	if g.running == nil {
		g.running, g.waiting = map[string]*shared{}, map[string]*shared{}
	}
	if s := g.waiting[key]; s != nil {
		g.mu.Unlock()
		<-s.done
		return s.err
	}
	s := &shared{done: make(chan struct{})}
	if before := g.running[key]; before != nil {
		g.waiting[key] = s
		g.mu.Unlock()
		<-before.done
		g.mu.Lock()
		delete(g.waiting, key) // it starts: who comes now needs another one
	}
	g.running[key] = s
	g.mu.Unlock()

	s.err = f()

	g.mu.Lock()
	delete(g.running, key)
	g.mu.Unlock()
	close(s.done)
	return s.err
}

// recent remembers the last few thousand names that were added.
type recent struct {
	mu         sync.Mutex
	young, old map[string]struct{} // guarded by mu
}

const recentNames = 4096

func (r *recent) has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.young[name]; ok {
		return true
	}
	_, ok := r.old[name]
	if ok {
		r.put(name) // what is used stays
	}
	return ok
}

func (r *recent) add(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(name)
}

func (r *recent) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.young, name)
	delete(r.old, name)
}

func (r *recent) put(name string) {
	if r.young == nil || len(r.young) >= recentNames {
		r.young, r.old = map[string]struct{}{}, r.young
	}
	r.young[name] = struct{}{}
}
