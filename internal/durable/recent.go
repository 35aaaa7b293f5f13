package durable

import "sync"

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
