package hayrick

import "strings"

var (
	packings = []string{".gz", ".gzip", ".zst", ".zstd"}
	formats  = map[string][]string{
		"jsonl": {".jsonl", ".ndjson", ".json"}, "csv": {".csv"}, "tsv": {".tsv", ".tab"},
		"lines": {".txt", ".lst"}, "parquet": {".parquet", ".pq"},
	}
)

// FormatOf is the input.format that a name tells by its suffix, before that of its
// compression; "" = it tells none.
func FormatOf(name string) string {
	name = strings.ToLower(name)
	for _, s := range packings {
		name = strings.TrimSuffix(name, s)
	}
	for format, suffixes := range formats {
		for _, s := range suffixes {
			if strings.HasSuffix(name, s) {
				return format
			}
		}
	}
	return ""
}

// IsPattern says whether an input.uri is a pattern of names: * and ? within a folder,
// ** over folders, [a-z], {a,b}. A backslash before one of them means it as it stands.
func IsPattern(uri string) bool { return strings.ContainsAny(uri, "*?[{") }
