package manifest

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"hayrick"
)

// Resolve is what a URI of a job file means for everybody: a relative path lies in
// folder, the working directory of the submission.
func Resolve(folder, uri string) string {
	if folder == "" || uri == "" || path.IsAbs(uri) || strings.Contains(uri, "://") {
		return uri
	}
	final := ""
	if strings.HasSuffix(uri, "/") {
		final = "/"
	}
	return path.Join(folder, uri) + final
}

// OutputURI is the folder that a generation of a run that was submitted in folder is
// published in. Generations above 0 have a folder of their own beside it, so that no
// folder ever holds two.
func OutputURI(def hayrick.JobDefinition, folder, job string, generation int) string {
	uri := Resolve(folder, strings.ReplaceAll(def.Output.URI, "$(run.id)", job))
	if generation == 0 {
		return uri
	}
	return fmt.Sprintf("%s.g%d/", strings.TrimSuffix(uri, "/"), generation)
}

// SuccessName is the last object that is published.
const SuccessName = "_SUCCESS"

// SchemaSuccess is the schema of Success.
const SchemaSuccess = "hayrick.success/v1"

// Success is the content of _SUCCESS.
type Success struct {
	Schema        string `json:"schema"`
	JobID         string `json:"job_id"`
	Generation    int    `json:"generation"`
	OutcomeSHA256 string `json:"outcome_sha256"`
}

// PartialName lies in the folder of a partial merge, which has no _SUCCESS.
const PartialName = "_PARTIAL"

// PartialTask stands for a task in the keys of the files of a partial merge, which are
// leftovers as soon as they are published.
const PartialTask = "partial"

// SchemaPartial is the schema of Partial.
const SchemaPartial = "hayrick.partial/v1"

// Partial is the content of _PARTIAL: what of an unfinished generation was there.
type Partial struct {
	Schema      string   `json:"schema"`
	JobID       string   `json:"job_id"`
	Generation  int      `json:"generation"`
	Folder      string   `json:"folder"`
	Parts       []string `json:"parts"`
	Items       int64    `json:"items"`
	ItemsOK     int64    `json:"items_ok"` // so far, those whose rows are there
	Tasks       int64    `json:"tasks"`    // planned so far
	TasksEnded  int64    `json:"tasks_ended"`
	Rows        int64    `json:"rows"`
	RowHash     string   `json:"row_hash"`
	DroppedRows int64    `json:"dropped_rows"`
	At          Time     `json:"at"`
}

// PublishedName is the name of a part or list in the output folder. Where runs
// append to one folder it carries the run's id, or they would overwrite each other's.
func PublishedName(def hayrick.JobDefinition, job, name string) string {
	if def.Output.IfExists != "append" {
		return name
	}
	folder, file := path.Split(name)
	return folder + job + "-" + file
}

// PartExt is the ending of a part's name: .parquet, .csv, .csv.gz, .jsonl.zst and the
// like.
func PartExt(o hayrick.Output) string {
	switch {
	case o.Format == "" || o.Format == "parquet":
		return ".parquet"
	case o.Compression == "gzip":
		return "." + o.Format + ".gz"
	case o.Compression == "zstd":
		return "." + o.Format + ".zst"
	}
	return "." + o.Format
}

// textPart is the name of a part that is no Parquet file.
var textPart = regexp.MustCompile(`(?:^|[/-])part-[0-9]{5,}\.(?:csv|jsonl)(?:\.gz|\.zst)?$`)

// IsPart says that a file of an output folder has the name of a part of any format.
func IsPart(name string) bool {
	return strings.HasSuffix(name, ".parquet") || textPart.MatchString(name)
}

// NullPartition stands for null in the name of a partition's folder.
const NullPartition = "__HIVE_DEFAULT_PARTITION__"

// PartitionFolder is column=value as the name of a folder, or an error when no folder
// can have that name. Whatever is not a letter, a digit or one of . _ - is written as
// % and two hex digits; nil is null.
func PartitionFolder(column string, value *string) (string, error) {
	v := NullPartition
	if value != nil {
		if v = escapePath(*value); v == NullPartition {
			v = "%5F" + v[1:]
		}
	}
	name := escapePath(column) + "=" + v
	if len(name) > maxPart {
		return "", fmt.Errorf("a folder name of %d bytes, the limit is %d", len(name), maxPart)
	}
	return name, nil
}

func escapePath(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.' && b.Len() > 0, c == '_', c == '-':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}
