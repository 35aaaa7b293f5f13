// Package records turns inputs of other forms into JSON lines, the one form that is
// indexed, cut into batches and read by workers:
//
//	csv, tsv   {"<column>": "<text>", ...}    a record each; the first names the columns
//	lines      {"line": "<text>"}             a line each, without its end
//	parquet    {"<column>": value, ...}       a row each
//	jsonl      as it is                       where only the compression goes
//
// It streams: memory holds one record, and of Parquet the pages in hand, whatever
// the input. A record that is none is named with its place, or becomes a line that
// Bad tells from all others, which a worker lists with that very message.
package records
