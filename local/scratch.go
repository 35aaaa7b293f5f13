package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hayrick"
)

// MinScratch is the least room that scratch must have, in bytes.
const MinScratch = 256 << 20

// ScratchDir chooses where running tasks keep their journals: /scratch where there
// is one, else the launcher's own (SLURM_TMPDIR), else scratch in the store's
// folder. One that is missing, read-only or nearly full is passed over; when none
// is left, the *hayrick.UserError says of each why.
func ScratchDir(store string, getenv func(string) string) (string, error) {
	return scratchDir(MinScratch, ScratchDirs(store, getenv)...)
}

// ScratchDirs are all that it chooses from, usable or not; "" is none.
func ScratchDirs(store string, getenv func(string) string) []string {
	return []string{"/scratch", getenv("SLURM_TMPDIR"), filepath.Join(store, "scratch")}
}

// scratchDir takes the first usable one; the last is made where it is missing.
func scratchDir(least int64, dirs ...string) (string, error) {
	var why []string
	for i, dir := range dirs {
		if dir == "" {
			continue
		}
		if i == len(dirs)-1 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				why = append(why, err.Error())
				continue
			}
		}
		if err := usable(dir, least); err != nil {
			why = append(why, fmt.Sprintf("%s: %v", dir, err))
			continue
		}
		return dir, nil
	}
	return "", &hayrick.UserError{
		What: "no scratch folder can be used: " + strings.Join(why, "; "),
		Hint: "free space or make one of them writable, or set SLURM_TMPDIR to a folder on a local disk",
	}
}

// usable tries to write and to keep room.
func usable(dir string, least int64) error {
	f, err := os.CreateTemp(dir, ".hayrick-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	if err != nil {
		return err
	}
	room, err := free(dir)
	if err == nil && room < least {
		err = fmt.Errorf("%d MiB are free, %d MiB are needed", room>>20, least>>20)
	}
	return err
}
