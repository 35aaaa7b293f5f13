package atrepo

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestToJSON(t *testing.T) {
	const link = "d82a5825000171122066da6655bf8da79b69a87299cf170fed8497fa3059379dc4a8bfe1e28cab5d93"
	for _, c := range []struct{ cbor, want string }{
		{"a0", `{}`},
		{"a1617801", `{"x":1}`},
		{"a261780161793903e7", `{"x":1,"y":-1000}`},
		{"a26162016161f5", `{"b":1,"a":true}`},              // the order of the data stays
		{"a26178a161780161796178", `{"x":{"x":1},"y":"x"}`}, // the same key, in another map
		{"a361790161780162616103", `{"y":1,"x":1,"aa":3}`},
		{"80", `[]`},
		{"83f4f5f6", `[false,true,null]`},
		{"1bffffffffffffffff", `18446744073709551615`},
		{"3b7fffffffffffffff", `-9223372036854775808`},
		{"43010203", `{"$bytes":"AQID"}`},
		{"40", `{"$bytes":""}`},
		{"60", `""`},
		{"6a225c0a0d0900e29ca81f", `"\"\\\n\r\t\u0000✨\u001f"`},
		{"643c263e2f", `"<&>/"`},
		{link, `{"$link":"bafyreidg3jtflp4nu6nwtkdsthhrod7nqsl7umczg6o4jkf74hrizk25sm"}`},
		{"fb3ff8000000000000", `1.5`},
		{"fa3fc00000", `1.5`},
		{"fb7e37e43c8800759c", `1e+300`},
		{strings.Repeat("81", maxNesting) + "01", strings.Repeat("[", maxNesting) + "1" + strings.Repeat("]", maxNesting)},
	} {
		in, err := hex.DecodeString(c.cbor)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := toJSON(in)
		if err != nil || string(got) != c.want {
			t.Errorf("toJSON(%s) = %s, %v; want %s", c.cbor, got, err, c.want)
		}
		if !json.Valid(got) {
			t.Errorf("toJSON(%s) = %s is not JSON", c.cbor, got)
		}
	}
}

func TestToJSONRefuses(t *testing.T) {
	for what, cbor := range map[string]string{
		"nothing":                    "",
		"more after the value":       "0101",
		"cut text":                   "61",
		"cut head":                   "19ff",
		"text beyond the end":        "7bffffffffffffffff61",
		"array beyond the end":       "9bffffffffffffffff01",
		"indefinite text":            "7f6161ff",
		"indefinite map":             "bf6161f5ff",
		"number as key":              "a10101",
		"text that is not UTF-8":     "61ff",
		"undefined":                  "f7",
		"half float":                 "f93c00",
		"NaN":                        "fb7ff8000000000000",
		"infinity":                   "fb7ff0000000000000",
		"tag 1":                      "c101",
		"tag 42 of text":             "d82a6161",
		"tag 42 of no CID":           "d82a420001",
		"tag 42 without its zero":    "d82a4101",
		"negative beyond 64 bits":    "3bffffffffffffffff",
		"reserved information":       "1c",
		"nested too deep":            strings.Repeat("81", maxNesting+1) + "01",
		"a million arrays":           strings.Repeat("81", 1<<20),
		"the same key twice":         "a2617801617802",
		"twice, with one between":    "a3617801617901617802",
		"twice, further down":        "a16179a2617801617802",
		"createdAt twice":            "a269637265617465644174016963726561746564417402",
		"a million maps in each key": strings.Repeat("a16161", 1<<20),
	} {
		in, err := hex.DecodeString(cbor)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := toJSON(in); err == nil {
			t.Errorf("%s: %.40s, want an error", what, got)
		}
	}
}

func FuzzToJSON(f *testing.F) {
	f.Add([]byte{0xa1, 0x61, 'x', 0x01})
	f.Add(bytes.Repeat([]byte{0x81}, 100))
	f.Add([]byte{0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		if out, _, err := toJSON(in); err == nil && !json.Valid(out) {
			t.Errorf("toJSON(%x) = %s is not JSON", in, out)
		}
	})
}

func TestRowNulls(t *testing.T) {
	row := func(cborHex string) (createdAt, record any, readable bool) {
		data, err := hex.DecodeString(cborHex)
		if err != nil {
			t.Fatal(err)
		}
		r, readable := Record{Data: data}.Row("did:plc:x")
		return r[4].Value, r[5].Value, readable
	}
	created := func(s string) string { // {"createdAt": s}
		return "a169" + hex.EncodeToString([]byte("createdAt")) + hex.EncodeToString(append([]byte{0x78, byte(len(s))}, s...))
	}
	for s, want := range map[string]any{
		"2024-07-01T12:00:00.123456789+02:00": time.Date(2024, 7, 1, 10, 0, 0, 123456000, time.UTC),
		"2024-07-01T12:00:00":                 time.Date(2024, 7, 1, 12, 0, 0, 0, time.UTC), // old clients
		"yesterday":                           nil,
		"":                                    nil,
		"0000-01-01T00:00:00Z":                nil,
		"0001-01-01T00:00:00+00:01":           nil, // a minute before the year 1, in UTC
		"0001-01-01T00:00:00Z":                time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC),
		"9999-12-31T23:59:59.999999999Z":      time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
		"9999-12-31T23:59:59-00:01":           nil, // the year 10000, in UTC
	} {
		if got, record, ok := row(created(s)); got != want || record == nil || !ok {
			t.Errorf("createdAt %q: created_at %v, record %s; want %v", s, got, record, want)
		}
	}
	if got, record, ok := row("a169" + hex.EncodeToString([]byte("createdAt")) + "01"); got != nil || record == nil || !ok {
		t.Errorf("createdAt 1: %v %s %v; want a null and a record", got, record, ok)
	}
	inner := created("2024-07-01T12:00:00Z")
	if got, _, _ := row("a16178" + inner); got != nil {
		t.Errorf("createdAt within a field: %v, want null", got)
	}
	if got, record, ok := row("ff"); got != nil || record != nil || ok {
		t.Errorf("no CBOR: %v %v %v; want nulls and not readable", got, record, ok)
	}
}
