package worker

import (
	"errors"
	"strings"
	"testing"

	"hayrick/jobs"
)

// The rows of one item are bounded; the one that passes the bound ends it.
func TestRowsOfAnItemAreBounded(t *testing.T) {
	row := jobs.Row{{Name: "text", Value: strings.Repeat("x", 100)}}
	full := &tried{body: make([]byte, MaxItemRows-100, MaxItemRows+1000)} // its pages are never touched
	if err := full.emit(row); !errors.Is(err, errRows) {
		t.Errorf("%v, want %v", err, errRows)
	}
	if err := full.emit(jobs.Row{{Name: "text", Value: "y"}}); !errors.Is(err, errRows) {
		t.Errorf("the next one: %v", err)
	}
	if full.body != nil || full.count != 0 {
		t.Errorf("%d bytes and %d rows are kept", len(full.body), full.count)
	}
	fits := &tried{body: make([]byte, MaxItemRows-200, MaxItemRows+1000)}
	if err := fits.emit(row); err != nil || fits.count != 1 {
		t.Errorf("%v, %d rows", err, fits.count)
	}
	fits.close()
	if err := fits.emit(row); !errors.Is(err, errOver) || fits.count != 1 {
		t.Errorf("after its end: %v, %d rows", err, fits.count)
	}
}
