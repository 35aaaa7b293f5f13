package extproc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"hayrick"
	"hayrick/internal/processtree"
)

// process is a program with its pipes. It leads a process group of its own, so that an
// interrupt from the terminal does not reach it.
type process struct {
	tree                        *processtree.Tree
	stdin, stdout, stderr, rows *os.File // our ends; rows is nil without rows: arrow
}

// rowsFD is where a program finds the pipe for its Arrow rows.
const rowsFD = 3

// startProcess starts the program of s in its folder.
func startProcess(s *settings) (*process, error) {
	path, err := find(s.exec[0], s.dir, s.env)
	if err != nil {
		return nil, err
	}
	p := &process{}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	ours := []**os.File{&p.stdin, &p.stdout, &p.stderr}
	if s.arrow {
		ours = append(ours, &p.rows) // becomes rowsFD
	}
	for i, at := range ours {
		r, w, e := os.Pipe()
		if e != nil {
			err = e
			break
		}
		if i == 0 {
			r, w = w, r
		}
		*at = r
		theirs = append(theirs, w)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("make the pipes of %s: %w", s.exec[0], err)
	}
	p.tree, err = processtree.Start(processtree.Spec{
		Self: s.self, Path: path, Args: s.exec, Dir: s.dir, Env: s.env, Files: theirs, Grace: TermTime,
	})
	if err != nil {
		p.close()
		return nil, cannotStart(s, path, err)
	}
	if s.memory > 0 {
		// A program cannot allocate much between its start and this line.
		if err := limitMemory(p.tree.Pid(), int64(s.memory)); err != nil {
			p.tree.Kill()
			p.close()
			p.tree.Wait()
			return nil, &hayrick.UserError{What: fmt.Sprintf("handler.memory: %v", err), Hint: "leave handler.memory out on this machine"}
		}
	}
	return p, nil
}

// close closes our ends of the pipes.
func (p *process) close() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr, p.rows} {
		if f != nil {
			f.Close()
		}
	}
}

// find looks a program up as a shell would: a name in PATH, a path from dir.
func find(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if err := runnable(path); err != nil {
			return "", notRunnable(name, err)
		}
		return filepath.Abs(path)
	}
	var err error = fs.ErrNotExist
	for _, folder := range filepath.SplitList(variable(env, "PATH")) {
		if !filepath.IsAbs(folder) {
			continue
		}
		path := filepath.Join(folder, name)
		e := runnable(path)
		if e == nil {
			return path, nil
		}
		if !errors.Is(e, fs.ErrNotExist) {
			err = e
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		what := fmt.Sprintf("%s is not on this machine: no folder of PATH has it", name)
		hint := fmt.Sprintf("install %s where the workers run, or write its path in handler.exec", name)
		if e := runnable(filepath.Join(dir, name)); !errors.Is(e, fs.ErrNotExist) {
			what, hint = fmt.Sprintf("no folder of PATH has %s", name), fmt.Sprintf("write ./%s for the file in the job's folder", name)
		}
		return "", &hayrick.UserError{What: "handler.exec: " + what, Hint: hint, Err: errMissing}
	}
	return "", notRunnable(name, err)
}

// errMissing is a program that is not there.
var errMissing = errors.New("program not found")

func runnable(path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case st.IsDir():
		return errors.New("it is a folder")
	case st.Mode()&0o111 == 0:
		return fs.ErrPermission
	}
	return nil
}

func notRunnable(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &hayrick.UserError{What: fmt.Sprintf("handler.exec: %s is not there", name), Hint: "a path is taken from the job's folder; check it", Err: errMissing}
	case errors.Is(err, fs.ErrPermission):
		return &hayrick.UserError{What: fmt.Sprintf("handler.exec: %s is not executable", name), Hint: fmt.Sprintf("chmod +x %s, or name its interpreter: [python3, %s]", name, name)}
	}
	return &hayrick.UserError{What: fmt.Sprintf("handler.exec: %s cannot be run: %v", name, err), Hint: "write [program, argument, ...]"}
}

// cannotStart says why the system refused to start what is there.
func cannotStart(s *settings, path string, err error) error {
	name := s.exec[0]
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return &hayrick.UserError{What: fmt.Sprintf("handler.exec: %s is no program of this machine, or a script without #!", name), Hint: fmt.Sprintf("name its interpreter, such as [python3, %s]", name), Err: err}
	case errors.Is(err, fs.ErrNotExist) && !isFolder(s.dir):
		return &hayrick.UserError{What: fmt.Sprintf("handler.exec: the folder %s that %s works in is not there", s.dir, name), Hint: "whatever deletes it, perhaps the program itself, has to leave it"}
	case errors.Is(err, fs.ErrNotExist): // the file is there: its interpreter is not
		return &hayrick.UserError{What: fmt.Sprintf("handler.exec: the interpreter that %s names is not on this machine%s", name, shebang(path)), Hint: "install it where the workers run, or name another in handler.exec", Err: errMissing}
	}
	return &hayrick.UserError{What: fmt.Sprintf("handler.exec: %s cannot be started: %v", name, err), Hint: "try it by hand in the job's folder"}
}

func isFolder(dir string) bool {
	st, err := os.Stat(dir)
	return dir == "" || err == nil && st.IsDir()
}

// shebang is the first line of a script, for a message.
func shebang(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 100)
	n, _ := f.Read(b)
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	if !strings.HasPrefix(line, "#!") {
		return ""
	}
	if strings.HasSuffix(line, "\r") {
		return fmt.Sprintf(" (%q: the file has CRLF line ends)", line)
	}
	return fmt.Sprintf(" (%s)", line)
}

// scripts are the endings of files that an interpreter is given.
var scripts = []string{".py", ".sh", ".js", ".mjs", ".cjs", ".R", ".r", ".jl", ".rb", ".pl", ".lua", ".php"}

// scriptMissing says that an interpreter's script is not there: its first argument,
// where that looks like one.
func scriptMissing(argv []string, dir string) error {
	if len(argv) < 2 || !slices.Contains(scripts, filepath.Ext(argv[1])) {
		return nil
	}
	path := argv[1]
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return &hayrick.UserError{What: fmt.Sprintf("handler.exec: %s is not there", argv[1]), Hint: "a path is taken from the job's folder; check it", Err: errMissing}
	}
	return nil
}

// passed are the variables that every program gets, where the worker has them.
var passed = []string{"PATH", "HOME", "LANG", "TMPDIR"}

// environment is what a program gets to see: little of the worker's environment, so
// that credentials are only where the job file names them.
func environment(d hayrick.Handler, run string, worker []string) []string {
	at := map[string]string{}
	for _, kv := range worker {
		name, value, _ := strings.Cut(kv, "=")
		if slices.Contains(passed, name) || slices.Contains(d.PassEnv, name) || strings.HasPrefix(name, "HAYRICK_") {
			at[name] = value
		}
	}
	if run != "" {
		at["HAYRICK_RUN"] = run
	}
	for name, value := range d.Env {
		at[name] = value
	}
	out := make([]string, 0, len(at))
	for name, value := range at {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

// variable is the value of a variable, "" where it is not set.
func variable(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}
