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

// childDuckDB is `child duckdb same <store> <files> <out>`: whether out has the rows of
// the first files of the corpus.
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
	return nil, duckDBSame(db, c.pathsOf(n), args[3])
}

// childDuckCopy is `child duckcopy <dir> <out>`: DuckDB merges the files of an ended job,
// in their order.
func childDuckCopy(args []string) (any, error) {
	return duckCopy(args[0], args[1], "")
}

// duckCopy has DuckDB write what it makes of the files of an ended job to out.
func duckCopy(dir, out, how string) (any, error) {
	files, err := endedFiles(dir)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	start, cpu := time.Now(), cpuSeconds()
	_, err = db.Exec(fmt.Sprintf("COPY (FROM read_parquet(%s)%s) TO %s (FORMAT parquet, COMPRESSION zstd)", sqlList(files), how, sqlText(out)))
	return aggregated{Seconds: time.Since(start).Seconds(), CPU: cpuSeconds() - cpu}, err
}

// scanned is what childDuckScan answers.
type scanned struct {
	Seconds float64 `json:"seconds"` // of the fastest scan
	Sums    string  `json:"sums"`
}

// childDuckScan is `child duckscan <file>`: DuckDB reads every value of every column.
func childDuckScan(args []string) (any, error) {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	q := "SELECT concat_ws(' ', count(*), sum(strlen(uri)), sum(epoch_us(\"at\")), sum(seq), sum(strlen(record)), sum(strlen(\"lang\")), sum(score)) FROM read_parquet(" + sqlText(args[0]) + ")"
	var res scanned
	for range 5 {
		start := time.Now()
		if err := db.QueryRow(q).Scan(&res.Sums); err != nil {
			return nil, err
		}
		if took := time.Since(start).Seconds(); res.Seconds == 0 || took < res.Seconds {
			res.Seconds = took
		}
	}
	return res, nil
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
