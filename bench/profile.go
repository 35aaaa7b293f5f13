package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// profileEnv names the folder that a profiling binary writes its profiles to.
const profileEnv = "HAYRICK_BENCH_PROFILES"

// profilingMain is added to the command when profiles are wanted.
const profilingMain = `package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
)

func profiled(realMain func() int) int {
	name := "none"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	f, err := os.Create(filepath.Join(os.Getenv("` + profileEnv + `"), fmt.Sprintf("%s-%d.cpu", name, os.Getpid())))
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := realMain()
	pprof.StopCPUProfile()
	if f.Close() != nil {
		return 1
	}
	return code
}
`

// profilingOverlay describes, for the go command, the sources with a main that is
// profiled, so that it is the whole program that is seen and not a copy of its
// wiring.
func profilingOverlay(source, dir string) (path string, err error) {
	const was, is = "os.Exit(realMain())", "os.Exit(profiled(realMain))"
	name := filepath.Join(source, "cmd", "hayrick", "main.go")
	main, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	if strings.Count(string(main), was) != 1 {
		return "", fmt.Errorf("%s does not have %q once", name, was)
	}
	replace := map[string]string{}
	for _, f := range []struct{ at, body string }{
		{name, strings.Replace(string(main), was, is, 1)},
		{filepath.Join(filepath.Dir(name), "profiled.go"), profilingMain},
	} {
		to := filepath.Join(dir, "profiling-"+filepath.Base(f.at))
		if err := os.WriteFile(to, []byte(f.body), 0o644); err != nil {
			return "", err
		}
		replace[f.at] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "profiling-overlay.json")
	return path, os.WriteFile(path, b, 0o644)
}
