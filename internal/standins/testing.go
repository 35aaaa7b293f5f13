package standins

import (
	"crypto/rand"
	"encoding/hex"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"hayrick/aws"
)

// Config is what production uses: the environment.
func Config(t testing.TB) sdk.Config {
	t.Helper()
	cfg, err := aws.LoadConfig(t.Context())
	if err != nil {
		t.Fatalf("%v (. localstack/env sets the environment)", err)
	}
	return cfg
}

// Store makes the parts of a new store and returns its name.
func Store(t testing.TB, cfg sdk.Config) string {
	t.Helper()
	var b [6]byte
	rand.Read(b[:])
	name := "hayrick-test-" + hex.EncodeToString(b[:])
	if err := Make(t.Context(), cfg, name); err != nil {
		t.Fatal(err)
	}
	return name
}

// Queues makes the queues of a store again, where a stand-in has lost them.
func Queues(t testing.TB, cfg sdk.Config, name string) {
	t.Helper()
	if err := queues(t.Context(), cfg, name); err != nil {
		t.Fatalf("make the queues of %s: %v", name, err)
	}
}
