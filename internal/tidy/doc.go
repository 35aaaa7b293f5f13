// Package tidy holds the shape of the tree: its test reads every Go file and
// compares what it imports with the table of who may import whom, and keeps the
// files that think (decide.go, plan.go) free of the world.
package tidy
