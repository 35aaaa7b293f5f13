package main

import (
	_ "github.com/duckdb/duckdb-go/v2"
	_ "github.com/riverqueue/river"
	_ "github.com/riverqueue/river/riverdriver/riverpgxv5"
	_ "hayrick/aggregator"
	_ "hayrick/coordinator"
	_ "hayrick/local"
)

func main() {}
