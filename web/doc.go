// Package web makes pages of what a run has written down. It reads and never writes:
// Collect adds up the results of tasks, Report is what a page says, and Report.Write
// makes one HTML file of it that fetches nothing and is of bounded size whatever the
// size of the run.
package web
