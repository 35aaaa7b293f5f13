package extproc

import (
	"strings"
	"testing"

	"hayrick/jobs"
)

// Each value that was passed is hidden wherever it stands, whole or line by line, and
// nothing else is.
func TestSecretsAreHidden(t *testing.T) {
	environ := []string{"API_TOKEN=tok-12345678", "LONGER=tok-12345678-and-more", "SHORT=abc", "EMPTY=", "OTHER=not-passed-on", "PEM=-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nxy\n-----END KEY-----\n", "PADDED= s3cr3t-value \n"}
	s := secretsOf([]string{"API_TOKEN", "LONGER", "SHORT", "EMPTY", "PEM", "PADDED", "NOT_SET"}, environ)
	for in, want := range map[string]string{
		"":                                  "",
		"nothing of it":                     "nothing of it",
		"401 for tok-12345678":              "401 for [$API_TOKEN]",
		"tok-12345678tok-12345678":          "[$API_TOKEN][$API_TOKEN]",
		"a tok-12345678-and-more b":         "a [$LONGER] b",
		"abc not-passed-on":                 "abc not-passed-on",
		"line: MIIEvQIBADANBgkq, xy":        "line: [$PEM], xy",
		"Authorization: s3cr3t-value":       "Authorization: [$PADDED]",
		"tok-1234567":                       "tok-1234567",
		`{"token":"tok-12345678","at":"x"}`: `{"token":"[$API_TOKEN]","at":"x"}`,
	} {
		if got := s.hide(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if s.longest() < len("tok-12345678-and-more") || secrets(nil).longest() != 0 || secrets(nil).hide("x") != "x" {
		t.Error(s.longest())
	}
}

// The last words of a program begin where they are cut, and nowhere is half a secret left.
func TestLastWordsAreCutBehindASecret(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	hides := secretsOf([]string{"S"}, []string{"S=" + secret})
	for shift := range 2 * len(secret) {
		for _, between := range []string{"", "\n", " x\n"} {
			said := strings.Repeat(secret+between, 400)[shift:]
			keep := jobs.MaxDetail + hides.longest()
			c := &child{secrets: hides, tail: []byte(said[len(said)-keep:])}
			words := c.words()
			if left := strings.ReplaceAll(words, "[$S]", ""); strings.ContainsAny(left, "0123456789abcdef") || len(words) > jobs.MaxDetail {
				t.Fatalf("cut at %d: %q of %d bytes", shift, left, len(words))
			}
		}
	}
}
