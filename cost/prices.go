package cost

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"

	"hayrick"
)

// SchemaPrices is the schema of Prices.
const SchemaPrices = "hayrick.prices/v1"

// Prices is a small table of list prices.
type Prices struct {
	Schema string         `json:"schema"`
	Region string         `json:"region"`
	AsOf   string         `json:"as_of"`  // a day
	Source string         `json:"source"` // where they were read
	USD    map[Op]float64 `json:"usd_per_million"`
}

//go:embed prices.json
var listPrices []byte

// ListPrices are those of us-east-1, as they were when this was built.
func ListPrices() Prices {
	p, err := ReadPrices(listPrices)
	if err != nil {
		panic(fmt.Sprintf("the built-in prices: %v", err))
	}
	return p
}

// ReadPrices reads a table. What is wrong with it is a *hayrick.UserError.
func ReadPrices(b []byte) (Prices, error) {
	wrong := func(format string, args ...any) error {
		return &hayrick.UserError{What: fmt.Sprintf(format, args...), Hint: "write it as `hayrick plan --print-prices` does"}
	}
	var p Prices
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return p, wrong("this is no table of prices: %v", err)
	}
	if p.Schema != SchemaPrices {
		return p, wrong("the schema of the prices is %q, not %s", p.Schema, SchemaPrices)
	}
	var missing []string
	for _, op := range Ops {
		switch usd, ok := p.USD[op]; {
		case !ok:
			missing = append(missing, string(op))
		case usd < 0:
			return p, wrong("the price of %s is %g", op, usd)
		}
	}
	if len(missing) > 0 {
		return p, wrong("the table has no price of %s", strings.Join(missing, ", "))
	}
	for op := range p.USD {
		if !op.known() {
			return p, wrong("%s has a price, and nothing of that name is counted", op)
		}
	}
	return p, nil
}

func (op Op) known() bool {
	for _, o := range Ops {
		if o == op {
			return true
		}
	}
	return false
}

// JSON is the table as a file.
func (p Prices) JSON() []byte {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("encode prices: %v", err)) // numbers and words
	}
	return append(b, '\n')
}
