package hayrick

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// Clock is time as the roles see it. It is handed in, so that the simulator can
// run the real code on virtual time. Now is service time where the backend has
// one; it is never used to order commits, only to bound leases and waits.
type Clock interface {
	Now() time.Time
	// Sleep returns after d, or earlier with ctx.Err().
	Sleep(ctx context.Context, d time.Duration) error
}

// Rand is the randomness of attempt ids and jitter. It must be safe for
// concurrent use.
type Rand interface {
	Uint64() uint64
}

// World is what no role reaches for by itself: time, randomness, concurrency and
// the name of the process.
type World struct {
	Clock Clock
	Rand  Rand
	// Go runs f concurrently. The name is for traces only.
	Go func(name string, f func())
	// Worker names this process in claims, manifests and logs: host, pid, slot.
	Worker string
}

// RealWorld is the world of a production process called worker.
func RealWorld(worker string) World {
	return World{
		Clock:  SystemClock{},
		Rand:   SystemRand{},
		Go:     func(_ string, f func()) { go f() },
		Worker: worker,
	}
}

// NewAttemptID returns 128 random bits as 32 hex digits.
func (w World) NewAttemptID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], w.Rand.Uint64())
	binary.BigEndian.PutUint64(b[8:], w.Rand.Uint64())
	return hex.EncodeToString(b[:])
}

// SystemClock is the wall clock.
type SystemClock struct{}

// Now is time.Now in UTC.
func (SystemClock) Now() time.Time { return time.Now().UTC() }

// Sleep waits for d or for ctx.
func (SystemClock) Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SystemRand reads the operating system's generator.
type SystemRand struct{}

// Uint64 returns 64 unpredictable bits.
func (SystemRand) Uint64() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return binary.BigEndian.Uint64(b[:])
}
