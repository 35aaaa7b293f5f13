package coordinator

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"hayrick"
)

// How much is told of the keys in which two definitions differ.
const (
	toldChanges = 5
	toldValue   = 40 // characters
)

// changesOf are the first of allChanges, and how many more there are.
func changesOf(was, is hayrick.JobDefinition) []string {
	out := allChanges(was, is)
	if more := len(out) - toldChanges; more > 0 {
		out = append(out[:toldChanges], fmt.Sprintf("and %d more", more))
	}
	return out
}

// allChanges are the keys in which the two differ, by name, with what they were and are.
func allChanges(was, is hayrick.JobDefinition) []string {
	before, after := map[string]string{}, map[string]string{}
	flatten(before, "", was)
	flatten(after, "", is)
	all := maps.Clone(before)
	maps.Copy(all, after)
	var out []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		a, b := before[key], after[key]
		switch {
		case a == b:
		case a == "":
			out = append(out, fmt.Sprintf("%s is %s now", key, shortValue(b)))
		case b == "":
			out = append(out, fmt.Sprintf("%s was %s", key, shortValue(a)))
		default:
			out = append(out, fmt.Sprintf("%s was %s and is %s now", key, shortValue(a), shortValue(b)))
		}
	}
	return out
}

// flatten writes what v is as JSON to out, a path of keys each; lists are one value.
func flatten(out map[string]string, path string, v any) {
	body, err := json.Marshal(v)
	var inner map[string]json.RawMessage
	if err == nil && json.Unmarshal(body, &inner) == nil && inner != nil {
		for key, value := range inner {
			flatten(out, strings.TrimPrefix(path+"."+key, "."), value)
		}
		return
	}
	out[path] = string(body)
}

func shortValue(s string) string {
	if utf8.RuneCountInString(s) > toldValue {
		return string([]rune(s)[:toldValue]) + "..."
	}
	return s
}
