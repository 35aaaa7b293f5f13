package aggregator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"hayrick"
)

// ConcatOptions say how a plan is carried out.
type ConcatOptions struct {
	// Digest reads every byte on its way: each source is compared with its SHA-256,
	// and the output gets one. Without it the kernel copies where it can,
	// and what vouches for the data is that the sources are named by their content.
	Digest bool
}

// Concat concatenates the sources into dst on this machine, and returns the plan
// it carried out and, with ConcatOptions.Digest, the output's SHA-256. The output
// is whole only when the error is nil: the footer comes last, and after an error,
// or a crash, what dst has got is to be thrown away.
func Concat(ctx context.Context, dst io.Writer, sources []Source, opts ConcatOptions) (plan ConcatPlan, sha string, err error) {
	footers := make([]SourceFooter, len(sources))
	for i, s := range sources {
		err := s.use(ctx, func(r SourceReader) (err error) {
			footers[i], err = ReadSourceFooter(r, s.Size)
			return err
		})
		if err != nil {
			return ConcatPlan{}, "", err
		}
	}
	if plan, err = PlanConcat(sources, footers); err != nil {
		return ConcatPlan{}, "", err
	}
	c := copier{dst: dst, verify: opts.Digest, buf: make([]byte, 1<<20)}
	digest := sha256.New()
	if opts.Digest {
		c.dst = io.MultiWriter(dst, digest)
	}
	for _, r := range plan.Copies {
		s := sources[r.Source]
		if err := s.use(ctx, func(f SourceReader) error { return c.copy(f, s, r) }); err != nil {
			return ConcatPlan{}, "", err
		}
	}
	if _, err := c.dst.Write(plan.Tail); err != nil {
		return ConcatPlan{}, "", fmt.Errorf("concat: write the footer: %w", err)
	}
	if opts.Digest {
		sha = hex.EncodeToString(digest.Sum(nil))
	}
	return plan, sha, nil
}

// use opens the source, calls f and closes it.
func (s Source) use(ctx context.Context, f func(SourceReader) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("concat %s: %w", s.Name, err)
	}
	r, err := s.Open()
	if err != nil {
		return fmt.Errorf("concat %s: %w", s.Name, err)
	}
	err = f(r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("concat %s: %w", s.Name, err)
	}
	return nil
}

// copier copies ranges.
type copier struct {
	dst    io.Writer
	verify bool
	buf    []byte
}

func (c copier) copy(f SourceReader, s Source, r CopyRange) error {
	if c.verify {
		return c.copyVerified(f, s, r)
	}
	var in io.Reader = io.NewSectionReader(f, r.Offset, r.Length)
	if file, ok := f.(*os.File); ok {
		if _, err := file.Seek(r.Offset, io.SeekStart); err != nil {
			return err
		}
		in = io.LimitReader(file, r.Length) // the form in which a file's ReadFrom lets the kernel copy
	}
	return c.exactly(c.dst, in, r.Length)
}

// copyVerified reads the whole source and passes the range on. When the digest
// differs the bytes are already in dst, which the error makes worthless.
func (c copier) copyVerified(f SourceReader, s Source, r CopyRange) error {
	digest := sha256.New()
	in := io.TeeReader(io.NewSectionReader(f, 0, s.Size), digest)
	for _, part := range []struct {
		to io.Writer
		n  int64
	}{{io.Discard, r.Offset}, {c.dst, r.Length}, {io.Discard, s.Size - r.Offset - r.Length}} {
		if err := c.exactly(part.to, io.LimitReader(in, part.n), part.n); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != s.SHA256 {
		return fmt.Errorf("its SHA-256 is %s, its results.done says %s: %w", got, s.SHA256, hayrick.ErrCorrupt)
	}
	return nil
}

// exactly copies n bytes; fewer mean that the source is shorter than it was.
func (c copier) exactly(dst io.Writer, src io.Reader, n int64) error {
	got, err := io.CopyBuffer(dst, src, c.buf)
	if err != nil {
		return err
	}
	if got != n {
		return fmt.Errorf("%d bytes where %d were: %w", got, n, hayrick.ErrCorrupt)
	}
	return nil
}
