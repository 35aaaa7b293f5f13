// Package rows turns rows into Parquet and back, with one schema algebra, one
// canonical row hash and one writer setting, so that a worker that encodes and an
// aggregator that decodes agree on what a row is.
//
//	Row      names and values as a handler emits them
//	Schema   names and kinds; grows by observing rows, unifies over files
//	Batch    a run of rows held by column
//	Hash     of a multiset of rows: adding is commutative, so the order in which
//	         rows are written, merged or read does not matter
//	Writer   rows or batches -> a Parquet file, with counts and digests
//	Copier   Parquet files -> one, by their pages where these are sound
//	File     a Parquet file -> batches, in the columns of any wider schema
//	Compact  one level of a Parquet footer, for those who edit without decoding
//
// A worker appends each row to its journal (AppendRow), learns the schema from
// them (Observer), and writes them in one go (Writer). An aggregator unifies the
// schemas of many files (Unify), reads each in the unified columns (File.Scan)
// and writes again. Null is the absence of a value: a column that is only null
// has no kind, is in no schema, and clashes with nothing.
//
// Bytes from outside are not believed. Every length is held against what is left
// of the input before anything of that length is allocated, and what the Parquet
// library panics with on damaged input comes back as hayrick.ErrCorrupt.
package rows
