package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	_ "github.com/duckdb/duckdb-go/v2"
)

// childDuckDB is `child duckdb <copy|same> <store> <files> <out>`: copy merges the
// first files of the corpus into out, same says whether out has their rows.
func childDuckDB(args []string) (any, error) {
	c, err := openCorpus(args[1])
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if args[0] == "same" {
		return nil, duckDBSame(db, c.pathsOf(n), args[3])
	}
	var res merged
	start := time.Now()
	_, err = db.Exec(fmt.Sprintf("COPY (FROM read_parquet(%s)) TO %s (FORMAT parquet, COMPRESSION zstd)", sqlList(c.pathsOf(n)), sqlText(args[3])))
	res.Seconds = time.Since(start).Seconds()
	return res, err
}

// sameRows lets DuckDB read a Parquet file and compares it with the first n of the
// corpus.
func sameRows(ctx context.Context, path string, c corpus, n int) error {
	_, err := ask(ctx, nil, "duckdb", "same", c.dir, strconv.Itoa(n), path)
	return err
}

// duckDBSame compares the number of rows, the sum of seq, and two hashes of each
// column: one over its values, and one over its values at their places.
func duckDBSame(db *sql.DB, sources []string, result string) error {
	var columns []string
	for _, f := range corpusSchema.Fields {
		columns = append(columns,
			fmt.Sprintf("sum(hash(%q)::HUGEINT)::VARCHAR", f.Name),
			fmt.Sprintf("sum(hash(%q, place)::HUGEINT)::VARCHAR", f.Name))
	}
	digest := func(files []string) (string, error) {
		// seq counts from 0 in the order of the files: the place of a row is known without
		// asking for an order, and a wrong one shows.
		q := fmt.Sprintf("SELECT count(*)::VARCHAR, sum(seq)::VARCHAR, %s FROM (SELECT *, row_number() OVER () AS place FROM read_parquet(%s))",
			strings.Join(columns, ", "), sqlList(files))
		cells := make([]sql.NullString, 2+len(columns))
		to := make([]any, len(cells))
		for i := range cells {
			to[i] = &cells[i]
		}
		if err := db.QueryRow(q).Scan(to...); err != nil {
			return "", err
		}
		var s []string
		for _, c := range cells {
			s = append(s, c.String)
		}
		return strings.Join(s, " "), nil
	}
	want, err := digest(sources)
	if err != nil {
		return fmt.Errorf("DuckDB reads the sources: %w", err)
	}
	got, err := digest([]string{result})
	if err != nil {
		return fmt.Errorf("DuckDB reads %s: %w", result, err)
	}
	if got != want {
		return errors.Join(fmt.Errorf("DuckDB reads other rows in %s", result), fmt.Errorf("sources: %s", want), fmt.Errorf("result:  %s", got))
	}
	return nil
}

func sqlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func sqlList(all []string) string {
	var quoted []string
	for _, s := range all {
		quoted = append(quoted, sqlText(s))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
