package sim

import "slices"

// Shrink makes a schedule that fails as short as it gets while it fails: it leaves out
// what can be left out, and moves what is left to earlier calls.
func Shrink(s Schedule, fails func(Schedule) bool) Schedule {
	for again := true; again; {
		again = false
		for i := range s {
			if shorter := slices.Delete(slices.Clone(s), i, i+1); fails(shorter) {
				s, again = shorter, true
				break
			}
		}
	}
	for i := range s {
		for _, n := range []int{1, s[i].N / 4, s[i].N / 2, s[i].N - 1} {
			if n < 1 || n >= s[i].N {
				continue
			}
			earlier := slices.Clone(s)
			earlier[i].N = n
			if fails(earlier) {
				s = earlier
				break
			}
		}
	}
	return s
}
