package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/flate"
	"github.com/spf13/cobra"

	"hayrick"
)

// The zip of the functions is this binary under the name that Lambda starts, with
// nothing beside it, so that what works here is what works there.

// bootstrap is what the runtime provided.al2023 starts.
const bootstrap = "bootstrap"

func infraZipCommand(c *cli) *cobra.Command {
	var out, binary string
	cmd := &cobra.Command{
		Use: "zip", Short: "Write the zip of the functions", Args: arguments(0, 0),
		Long: `Write the zip that the functions of a store run: this binary, as Lambda wants it.
Put it under code/ in the store's bucket and update the stack with its key
(CodeKey) and its Architecture.`,
		Example: `  hayrick infra zip -o hayrick.zip
  GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go build -o hayrick-arm64 ./cmd/hayrick
  hayrick infra zip --binary hayrick-arm64`,
		Annotations: map[string]string{exitsNote: "0 1 2 4 5 75"},
		RunE:        func(*cobra.Command, []string) error { return runInfraZip(c, out, binary) },
	}
	cmd.Flags().StringVarP(&out, "output", "o", "hayrick-lambda.zip", "file to write")
	cmd.Flags().StringVar(&binary, "binary", "", "a hayrick built for Linux, when this one is not")
	return cmd
}

// zipped is the result of infra zip.
type zipped struct {
	Schema       string `json:"schema"`
	File         string `json:"file"`
	SHA256       string `json:"sha256"`
	Bytes        int64  `json:"bytes"`
	Architecture string `json:"architecture"` // as the template's parameter wants it
}

// runInfraZip writes the zip beside its place and moves it there whole: a crash
// leaves what was there before, and a temporary file.
func runInfraZip(c *cli, out, binary string) error {
	if binary == "" {
		var err error
		if binary, err = thisBinary(); err != nil {
			return err
		}
	}
	arch, err := lambdaArchitecture(binary)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(out), filepath.Base(out)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	defer os.Remove(f.Name())
	sum, n, err := lambdaZip(f, binary)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), out)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	c.tell("%s for %s; put it into the bucket as code/hayrick-%s.zip", size(n), arch, short(sum))
	if c.json {
		return c.printJSON(zipped{"hayrick.zip/v1", out, sum, n, arch})
	}
	c.print("%s", out)
	return nil
}

const procSelf = "/proc/self/exe"

// thisBinary is the file that this process runs, also when it has been replaced since.
func thisBinary() (string, error) {
	if runtime.GOOS == "linux" {
		return procSelf, nil
	}
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this binary: %w", err)
	}
	return path, nil
}

// lambdaZip writes the zip of the functions for a hayrick binary and returns its
// SHA-256 and size. The same binary always gives the same bytes. A *hayrick.UserError
// says why a binary cannot run on Lambda.
func lambdaZip(w io.Writer, binary string) (sha string, size int64, err error) {
	loaded, _, err := loadable(binary)
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	n := &counter{}
	z := zip.NewWriter(io.MultiWriter(w, h, n))
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.DefaultCompression) })
	entry := &zip.FileHeader{Name: bootstrap, Method: zip.Deflate} // without a time, which would change the bytes
	entry.SetMode(0o755)
	f, err := z.CreateHeader(entry)
	if err == nil {
		_, err = f.Write(loaded)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return "", 0, fmt.Errorf("write the zip: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), n.n, nil
}

// lambdaArchitecture is what the functions of a binary run on, as the template's
// parameter Architecture says it.
func lambdaArchitecture(binary string) (string, error) {
	_, arch, err := loadable(binary)
	return arch, err
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// loadable is what the system loads of a binary: its segments. What follows them are
// tables for debuggers and linkers, nearly half of the file; stack traces and the build's
// own record do not need them.
func loadable(path string) (b []byte, arch string, err error) {
	b, err = os.ReadFile(path)
	if err != nil {
		return nil, "", fmt.Errorf("read the binary: %w", err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, "", notForLambda(path, "is not for Linux")
	}
	switch f.Machine {
	case elf.EM_AARCH64:
		arch = "arm64"
	case elf.EM_X86_64:
		arch = "x86_64"
	default:
		return nil, "", notForLambda(path, "is for "+f.Machine.String())
	}
	var end uint64
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, "", notForLambda(path, "is linked against the C library of the machine that built it")
		}
		if p.Filesz > 0 {
			end = max(end, p.Off+p.Filesz)
		}
	}
	if end == 0 || end > uint64(len(b)) {
		return nil, "", notForLambda(path, "is not whole")
	}
	b = b[:end]
	// The header no longer points to the tables.
	var h elf.Header64
	if _, err := binary.Decode(b, f.ByteOrder, &h); err != nil {
		return nil, "", notForLambda(path, "is not whole")
	}
	h.Shoff, h.Shnum, h.Shstrndx = 0, 0, 0
	if _, err := binary.Encode(b, f.ByteOrder, &h); err != nil {
		return nil, "", fmt.Errorf("write the header of %s: %w", path, err)
	}
	return b, arch, nil
}

func notForLambda(path, why string) error {
	if path == procSelf {
		path = "this hayrick"
	}
	return &hayrick.UserError{
		What: fmt.Sprintf("%s cannot run on Lambda: it %s", path, why),
		Hint: "build one with `GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go build -trimpath -o hayrick-arm64 ./cmd/hayrick` and name it with --binary",
	}
}
