package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/jobfile"
	"hayrick/manifest"
)

// How much is looked at to name what is near an input that is not there, and how much of
// it is named.
const (
	nearLooked = 1000
	nearNamed  = 3
)

// inputGone is the error about an input of which there is nothing, with what is there
// instead: the nearest folder above it that exists, and what lies in that.
func inputGone(ctx context.Context, sources coordinator.Sources, uri string) error {
	what, hint := fmt.Sprintf("the input %s is not there", uri), "a path is relative to the working directory, and the name of a folder ends in a slash"
	if manifest.IsFolder(uri) || coordinator.IsGlob(uri) {
		what, hint = fmt.Sprintf("there is nothing below the input %s", uri), "names that begin with . or _ do not count"
	}
	if near := nearby(ctx, sources, uri); near != "" {
		hint = near + "; " + hint
	}
	return &hayrick.UserError{What: what, Hint: "check input.uri; " + hint, Exit: exitNotFound}
}

// nearby says what lies where an input was looked for; "" when that cannot be found out.
func nearby(ctx context.Context, sources coordinator.Sources, uri string) string {
	folder, wanted := parentOf(strings.TrimSuffix(uri, "/"))
	if coordinator.IsGlob(uri) {
		folder = coordinator.GlobRoot(uri)
		wanted = strings.TrimPrefix(strings.TrimPrefix(uri, "./"), strings.TrimPrefix(folder, "./"))
	}
	for {
		names, all, err := lyingIn(ctx, sources, folder)
		var above, missing string
		if err == nil && len(names) > 0 {
			return nearWords(folder, wanted, names, all)
		}
		if above, missing = parentOf(strings.TrimSuffix(folder, "/")); missing == "" || missing == ".." || missing == "." {
			return ""
		}
		if err == nil && !strings.Contains(folder, "://") { // an empty folder; in S3 there are none
			return folder + " holds nothing"
		}
		if err != nil && !errors.Is(err, hayrick.ErrNotFound) {
			return ""
		}
		folder, wanted = above, missing+"/"
	}
}

// parentOf splits a path or URI at its last slash: the folder, with the slash, and the name.
func parentOf(uri string) (folder, name string) {
	scheme := strings.Index(uri, "://")
	i := strings.LastIndexByte(uri, '/')
	switch {
	case scheme >= 0 && i <= scheme+2: // a bucket
		return uri, ""
	case i < 0:
		return "./", uri
	}
	return uri[:i+1], uri[i+1:]
}

// lyingIn are the files below a folder, by their names from there, in order; all is false
// when there are more than are looked at.
func lyingIn(ctx context.Context, sources coordinator.Sources, folder string) (names []string, all bool, err error) {
	err = sources.ListSources(ctx, folder, func(object string, _ manifest.Pin) error {
		names = append(names, strings.TrimPrefix(strings.TrimPrefix(object, "./"), strings.TrimPrefix(folder, "./")))
		if len(names) == nearLooked {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return names, false, nil
	}
	return names, true, err
}

// nearWords says which name may be meant, or what a folder holds: first what ends as a
// pattern does, else what begins as the name does.
func nearWords(folder, wanted string, names []string, all bool) string {
	here := topNames(names)
	begins := wanted
	if coordinator.IsGlob(wanted) {
		begins = wanted[:strings.IndexAny(wanted, "*?[{")]
		if fit := endingAs(wanted, names); len(fit) > 0 {
			here = fit
		}
	} else if meant := jobfile.Nearest(wanted, here); meant != "" {
		return fmt.Sprintf("did you mean %s?", folder+meant)
	}
	slices.SortStableFunc(here, func(a, b string) int { return sameStart(b, begins) - sameStart(a, begins) })
	more := ""
	if n := len(here) - nearNamed; n > 0 {
		if more = fmt.Sprintf(" and %d more", n); !all {
			more = " and many more"
		}
		here = here[:nearNamed]
	}
	return fmt.Sprintf("%s holds %s%s", folder, strings.Join(here, ", "), more)
}

// topNames are files and folders of one folder, by the files below it.
func topNames(names []string) (out []string) {
	for _, name := range names {
		if i := strings.IndexByte(name, '/'); i >= 0 {
			name = name[:i+1]
		}
		if len(out) == 0 || out[len(out)-1] != name { // they come in order
			out = append(out, name)
		}
	}
	return out
}

// endingAs are the names that end as a pattern does, also with something behind it: packed,
// or in another folder.
func endingAs(pattern string, names []string) []string {
	ending := path.Ext(pattern)
	if ending == "" || coordinator.IsGlob(ending) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !strings.Contains(path.Base(name), ending) })
}

func sameStart(a, b string) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
